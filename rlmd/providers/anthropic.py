"""Anthropic's Messages API: ``/v1/messages`` streamed, and the list of models.

An answer is whole when ``message_stop`` came and the ``stop_reason`` is one that ends a reply. In a conversation the
system prompt and the last message are marked for the provider's cache, which makes the next turn cheaper; a lone
prompt is not, as writing to the cache costs more than reading once. Models differ in how little they can be told to
think, and some take no temperature: what one refuses is not sent to it again.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from rlmd.errors import CompletionCut, HostFailed, HostRefused
from rlmd.providers.base import Completion, Finish, Message, Sampling, ServedModel, ServerFacts, Usage
from rlmd.providers.events import Streamed, data_of, guessed_usage
from rlmd.providers.http import Response
from rlmd.providers.reading import ReplyText, check_read, integer, parsed, record, records
from rlmd.providers.server import Server

#: The version of the API that this file speaks: https://docs.anthropic.com/en/api/versioning
VERSION = "2023-06-01"
#: What the smallest of the models that it lists takes, where the list does not tell.
WINDOW = 200_000
#: The least thinking first: off; none before tools are used (Sonnet 5.5); little (Opus 5.5 and Fable, which always
#: think); whatever the model does by itself. https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
_THINKING: tuple[dict[str, Any], ...] = (
    {"thinking": {"type": "disabled"}},
    {"thinking": {"type": "between_tools"}},
    {"output_config": {"effort": "low"}},
    {},
)
_UNSUPPORTED = r"not support|unsupported|deprecated|not permitted|not allowed|extra inputs|unknown|expected"
_CACHED = {"cache_control": {"type": "ephemeral"}}
_STOP = {"end_turn", "stop_sequence"}


@dataclass(slots=True)
class _Taste:
    """What a model takes: which of ``_THINKING``, and whether a temperature."""

    thinking: int = 0
    temperature: bool = True


class Anthropic(Server):
    """One server. A URL that does not end with a version gets ``/v1``, as the official clients have it."""

    kind = "anthropic"

    def __init__(self, url: str, *, api_key: SecretStr | None = None, connections: int = 66) -> None:
        super().__init__(
            url if re.search(r"/v\d+/*$", url) else url.rstrip("/") + "/v1",
            api_key=api_key,
            connections=connections,
            key_header="x-api-key",
            headers={"anthropic-version": VERSION},
        )
        self._tastes: defaultdict[str, _Taste] = defaultdict(_Taste)

    async def probe(self) -> ServerFacts:
        status, answer = await self._http.get("/models?limit=1000")
        if status != 200:
            raise self._refused(status, answer)
        listed = parsed(self._name, answer)
        if not isinstance(listed.get("data"), list) or "has_more" not in listed:
            raise HostFailed(f"{self._name} does not answer as Anthropic's API.")
        served = tuple(
            ServedModel(name=str(model["id"]), window=integer(model, "max_input_tokens") or WINDOW, resident=True)
            for model in records(listed, "data")
            if isinstance(model.get("id"), str)
        )
        return ServerFacts("anthropic", VERSION, served)

    # ── completing ──────────────────────────────────────────────────────────────────────────────────────────

    async def complete(
        self,
        model: str,
        window: int,
        messages: tuple[Message, ...],
        sampling: Sampling,
        on_delta: Callable[[str], None],
    ) -> Completion:
        for _ in range(len(_THINKING) + 1):
            body = _body(model, messages, sampling, self._tastes[model])
            if (stream := await self._try(body, messages, ReplyText(on_delta))) is not None:
                return self._whole(stream, window, messages)
        raise HostRefused(f"{self._name} refuses every form of the request.", status=400)

    async def _try(self, body: dict[str, Any], messages: tuple[Message, ...], reply: ReplyText) -> Streamed | None:
        """One request; None when something was refused that the next try leaves out."""
        stream = Streamed(reply)
        async with self._http.stream("/messages", body) as response:
            if response.status != 200:
                answer = await response.body()
                if response.status in (400, 422) and self._adapt(body, answer):
                    return None
                raise self._refusal(response.status, answer, messages, response)
            if response.content_type == "application/json":  # a gateway that does not stream
                _take_whole(parsed(self._name, await response.body()), stream)
            else:
                await self._read(response, stream, messages)
        return stream

    def _adapt(self, body: dict[str, Any], answer: bytes) -> bool:
        said = answer[:4000].decode("utf-8", "replace").lower()
        taste = self._tastes[body["model"]]
        if not re.search(_UNSUPPORTED, said):
            return False
        if "temperature" in body and re.search(r"\btemperature\b", said):
            taste.temperature = False
            return True
        sent = next(n for n, one in enumerate(_THINKING) if one.keys() <= body.keys() and body | one == body)
        if sent < len(_THINKING) - 1 and re.search(r"\b(thinking|output_config|effort)\b", said):
            taste.thinking = max(taste.thinking, sent + 1)
            return True
        return False

    def _whole(self, stream: Streamed, window: int, messages: tuple[Message, ...]) -> Completion:
        if not stream.done:
            raise CompletionCut(f"{self._name} ended the stream without its last event.")
        finish = self._finish(stream, window)
        text, thinking = stream.reply.close()
        usage = _usage(stream.usage, messages, text + thinking)
        if not usage.estimated:  # Anthropic cuts no prompt; others that speak its protocol do
            check_read(self._name, messages, window, usage.prompt_tokens)
        return Completion(text, thinking, finish, usage)

    async def _read(self, response: Response, stream: Streamed, messages: tuple[Message, ...]) -> None:
        """Server-sent events; each says its type in its data too."""
        async with contextlib.aclosing(response.lines()) as lines:
            async for line in lines:
                if data := data_of(line):
                    event = parsed(self._name, data)
                    if event.get("type") == "error" or "error" in event:
                        raise self._refusal(200, data, messages, response)
                    _take(event, stream)
                if stream.done:
                    await response.drain()
                    return

    def _finish(self, stream: Streamed, window: int) -> Finish:
        server = self._name
        match stream.reason:
            case reason if reason in _STOP:
                return "stop"
            case "max_tokens":
                return "length"
            case "model_context_window_exceeded":
                raise CompletionCut(
                    f"{server} ran out of its window of {window} tokens.", hint="Send a smaller piece.", window=window
                )
            case "refusal":
                raise HostRefused(f"{server} withheld the reply (refusal).")
            case _:
                raise CompletionCut(f"{server} ended the reply for a reason that is neither stop nor length.")


def _body(model: str, messages: tuple[Message, ...], sampling: Sampling, taste: _Taste) -> dict[str, Any]:
    system = [message.content for message in messages if message.role == "system"]
    turns: list[dict[str, Any]] = [
        {"role": one.role, "content": one.content} for one in messages if one.role != "system"
    ]
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": sampling.max_tokens,
        "stream": True,
        **_THINKING[taste.thinking],
    }
    if taste.temperature:
        body["temperature"] = min(1.0, sampling.temperature)
    if system:
        body["system"] = [{"type": "text", "text": "\n\n".join(system), **_CACHED}]
    if len(turns) > 1:
        last = turns[-1]
        turns[-1] = {"role": last["role"], "content": [{"type": "text", "text": last["content"], **_CACHED}]}
    if sampling.stop:
        body["stop_sequences"] = list(sampling.stop)
    return body | {"messages": turns}


def _take(event: dict[str, Any], stream: Streamed) -> None:
    match event.get("type"):
        case "message_start":
            stream.usage |= record(record(event, "message"), "usage")
        case "content_block_delta":
            _take_block(record(event, "delta"), stream)
        case "message_delta":
            reason = record(event, "delta").get("stop_reason")
            stream.reason = reason if isinstance(reason, str) else stream.reason
            stream.usage |= {name: value for name, value in record(event, "usage").items() if value is not None}
        case "message_stop":
            stream.done = True


def _take_block(block: dict[str, Any], stream: Streamed) -> None:
    if isinstance(text := block.get("text"), str) and text:
        stream.reply.add_text(text)
    if isinstance(thinking := block.get("thinking"), str) and thinking:
        stream.reply.add_thinking(thinking)


def _take_whole(message: dict[str, Any], stream: Streamed) -> None:
    """A reply that came as one JSON body."""
    for block in records(message, "content"):
        _take_block(block, stream)
    reason = message.get("stop_reason")
    stream.reason = reason if isinstance(reason, str) else None
    stream.usage = record(message, "usage")
    stream.done = stream.reason is not None


def _usage(usage: dict[str, Any], messages: tuple[Message, ...], written: str) -> Usage:
    """``input_tokens`` leaves out what was read from the cache or put into it."""
    cached, put = integer(usage, "cache_read_input_tokens"), integer(usage, "cache_creation_input_tokens")
    read = integer(usage, "input_tokens") + cached + put
    if not read or not integer(usage, "output_tokens"):
        return guessed_usage(messages, written)
    return Usage(read, integer(usage, "output_tokens"), cached_tokens=cached, written_tokens=put)
