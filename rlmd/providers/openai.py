"""Any server that speaks ``/v1/chat/completions``: llama.cpp, vLLM, DeepSeek, GLM, OpenRouter and their kin.

They differ, and nothing that differs is relied on: usage may be absent, in the last chunk or in one of its own;
``[DONE]`` may be missing; ``content`` may be null; a server may answer a JSON body though a stream was asked. What
makes an answer whole is its ``finish_reason``. A parameter that a server does not know is left out from then on.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from rlmd.errors import CompletionCut, HostFailed, HostRefused, MalformedReply, RlmdError
from rlmd.providers.base import Completion, Finish, Message, Sampling, ServedModel, ServerFacts, Usage
from rlmd.providers.dialects import LENGTH, STOP, dialect_of, no_reply
from rlmd.providers.events import Streamed, data_of, guessed_usage
from rlmd.providers.http import Response
from rlmd.providers.reading import (
    ReplyText,
    check_read,
    integer,
    parsed,
    record,
    records,
)
from rlmd.providers.server import Server, versioned

#: Parameters that some server refuses, and what is sent instead.
_REPLACEMENTS: dict[str, str | None] = {
    "stream_options": None,
    "max_tokens": "max_completion_tokens",
    "temperature": None,
    "seed": None,
    "chat_template_kwargs": None,
    "thinking": None,
    "reasoning": None,
}
_UNSUPPORTED = r"unsupported|not support|unknown|unrecognized|unrecognised|unexpected|extra|not permitted|invalid param"


_OLLAMA = (
    "This is Ollama, which cuts long prompts in silence when it is asked this way: leave /v1 out of the URL and rlmd "
    "speaks its own protocol."
)


class OpenAI(Server):
    """One server. A URL without a path gets ``/v1``."""

    kind = "openai"

    def __init__(self, url: str, *, api_key: SecretStr | None = None, connections: int = 66) -> None:
        super().__init__(versioned(url), api_key=api_key, connections=connections)
        self._left_out: set[str] = set()
        self._dialect = dialect_of(self._http.base)
        self._may_be_litellm = False

    # ── what it is ──────────────────────────────────────────────────────────────────────────────────────────

    async def probe(self) -> ServerFacts:
        status, answer = await self._http.get("/models")
        if status != 200:
            raise self._refused(status, answer)
        listed = parsed(self._name, answer)
        if not isinstance(listed.get("data"), list):
            raise HostFailed(f"{self._name} does not answer as an OpenAI-compatible server.")
        models = records(listed, "data")
        owners = {_owner(model) for model in models}
        self._dialect = dialect_of(self._http.base, owners)
        self._may_be_litellm = self._dialect.software is None and "openai" in owners
        more = await self._page(_PAGES[self._dialect.software]) if self._dialect.software in _PAGES else {}
        known = {str(one.get("id")): one for one in records(more, "data")}
        served = tuple(
            _served(model | known.get(str(model["id"]), {}), more)
            for model in models
            if isinstance(model.get("id"), str)
        )
        slots = integer(more, "total_slots") or self._dialect.slots
        notes = (_OLLAMA,) if owners == {"library"} else ()
        return ServerFacts("openai", _build(more), served, slots=slots, notes=notes, software=self._dialect.software)

    async def _page(self, path: str) -> dict[str, Any]:
        """A page of the server's own on which it tells more; empty when it is not there."""
        try:
            status, answer = await self._http.get(path, root=True)
            return parsed(self._name, answer) if status == 200 else {}
        except RlmdError:
            return {}

    async def busy(self) -> int | None:
        """From llama.cpp's ``/slots``, vLLM's ``/metrics``, the backlog of LiteLLM's proxy."""
        found = _LOADS.get("litellm" if self._may_be_litellm else self._dialect.software or "")
        if found is None:
            return None
        path, read = found
        status, answer = await self._http.get(path, root=True)
        return read(answer) if status == 200 else None

    # ── completing ──────────────────────────────────────────────────────────────────────────────────────────

    async def complete(
        self,
        model: str,
        window: int,
        messages: tuple[Message, ...],
        sampling: Sampling,
        on_delta: Callable[[str], None],
    ) -> Completion:
        """Adapts to a server that refuses a parameter, once for each parameter, and remembers it; and to one that
        wants the reply's tokens to fit beside the prompt's."""
        allowed = sampling
        for _ in range(len(_REPLACEMENTS) + 1):
            body = self._body(model, messages, allowed)
            got = await self._try(body, messages, ReplyText(on_delta))
            if isinstance(got, Streamed):
                return self._whole(got, window, messages, sampling)
            allowed = replace(allowed, max_tokens=got or allowed.max_tokens)
        raise HostRefused(f"{self._name} refuses every form of the request.", status=400)

    def _body(self, model: str, messages: tuple[Message, ...], sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        body |= self._dialect.also
        for name in self._dialect.never:
            body.pop(name, None)
        for name in self._left_out & body.keys():
            value = body.pop(name)
            if instead := _REPLACEMENTS[name]:
                body[instead] = value
        return body

    async def _try(
        self, body: dict[str, Any], messages: tuple[Message, ...], reply: ReplyText
    ) -> Streamed | int | None:
        """One request. None when a parameter was refused that the next try leaves out; a number when the prompt leaves
        only so many tokens for the reply."""
        async with self._http.stream("/chat/completions", body) as response:
            if response.status != 200:
                answer = await response.body()
                if response.status in (400, 422):
                    if room := _room_for_reply(answer):
                        return room
                    if self._adapt(body, answer):
                        return None
                raise self._refusal(response.status, answer, messages, response)
            stream = Streamed(reply)
            if response.content_type == "application/json":
                self._take(await response.body(), stream, messages, response)
            else:
                await self._read(response, stream, messages)
            return stream

    def _adapt(self, body: dict[str, Any], answer: bytes) -> bool:
        said = answer[:4000].decode("utf-8", "replace").lower()
        if not re.search(_UNSUPPORTED, said):
            return False
        for name in _REPLACEMENTS:
            if name in body and name not in self._left_out and re.search(rf"\b{name}\b", said):
                self._left_out.add(name)
                return True
        return False

    async def _read(self, response: Response, stream: Streamed, messages: tuple[Message, ...]) -> None:
        """Server-sent events: data lines are taken, comments (``: keep-alive``) and other fields passed over. A line
        that is not JSON ends it: what stood there would be missing from the answer."""
        try:
            async with contextlib.aclosing(response.lines()) as lines:
                async for line in lines:
                    self._take(data_of(line), stream, messages, response)
                    if stream.done:
                        await response.drain()
                        return
        except HostFailed:
            if stream.reason is None:
                raise  # else the answer is whole; only the trailer is missing

    def _take(self, data: bytes, stream: Streamed, messages: tuple[Message, ...], response: Response) -> None:
        if not data:
            return
        if data == b"[DONE]":
            stream.done = True
            return
        chunk = parsed(self._name, data)
        if chunk.get("error") or chunk.get("object") == "error" or (chunk.get("detail") and "choices" not in chunk):
            raise self._refusal(200, data, messages, response)
        stream.usage = record(chunk, "usage") or stream.usage
        for choice in records(chunk, "choices"):
            if choice.get("index", 0) != 0:
                continue
            part = record(choice, "delta") or record(choice, "message")
            thinking = part.get("reasoning_content") or part.get("reasoning")
            if isinstance(thinking, str) and thinking:
                stream.reply.add_thinking(thinking)
            content = part.get("content")
            if content is not None and not isinstance(content, str):
                raise MalformedReply(f"{self._name} sent content that is not text.")
            if content:
                stream.reply.add_text(content)
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:
                stream.reason = reason

    # ── whole or not ────────────────────────────────────────────────────────────────────────────────────────

    def _whole(self, stream: Streamed, window: int, messages: tuple[Message, ...], sampling: Sampling) -> Completion:
        finish = self._finish(stream, window, sampling)
        text, thinking = stream.reply.close()
        read, written = integer(stream.usage, "prompt_tokens"), integer(stream.usage, "completion_tokens")
        if not read:
            return Completion(text, thinking, finish, guessed_usage(messages, text + thinking))
        check_read(self._name, messages, window, read)
        cached = integer(stream.usage, "prompt_cache_hit_tokens") or integer(
            record(stream.usage, "prompt_tokens_details"), "cached_tokens"
        )
        return Completion(text, thinking, finish, Usage(read, written, cached_tokens=min(read, cached)))

    def _finish(self, stream: Streamed, window: int, sampling: Sampling) -> Finish:
        server, reason = self._name, stream.reason
        if reason is None:
            raise CompletionCut(f"{server} ended the stream without a finish reason.", hint="Its log says why.")
        if reason in STOP:
            return "stop"
        if reason not in LENGTH:
            raise no_reply(server, reason)
        read, written = integer(stream.usage, "prompt_tokens"), integer(stream.usage, "completion_tokens")
        if 0 < written < sampling.max_tokens and read + written >= window - 1:
            raise CompletionCut(
                f"{server} ran out of its window of {window} tokens after {written} of up to {sampling.max_tokens}.",
                hint="Send a smaller piece.",
                window=window,
            )
        return "length"


#: vLLM's refusals of a prompt that fits, but not with all the tokens that its reply may have: the window, the prompt.
_TOO_MUCH = (
    r"context length is (\d{1,9}) tokens and your request has (\d{1,9}) input tokens \(\d",
    r"context length is (\d{1,9}) tokens\. However, you requested \d{1,9} tokens \((\d{1,9}) in the messages, \d",
)


def _room_for_reply(answer: bytes) -> int:
    """Tokens that the prompt leaves; 0 where something else was refused, or nothing is left."""
    said = answer[:4000].decode("utf-8", "replace")
    found = next((found for pattern in _TOO_MUCH if (found := re.search(pattern, said))), None)
    return max(0, int(found[1]) - int(found[2])) if found else 0


#: Where a program tells more than in its list of models: slots and the window of one slot; windows and what is loaded.
_PAGES = {"llama.cpp": "/props", "lm-studio": "/api/v0/models"}


#: vLLM's gauges of requests that run and that wait, one for each of its engines.
_GAUGE = re.compile(rb"^vllm:num_requests_(?:running|waiting)(?:\{[^}\n]*\})? (\d{1,9}(?:\.\d{1,9})?)$", re.MULTILINE)


def _busy_slots(answer: bytes) -> int | None:
    try:
        slots = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(slots, list):
        return None
    return sum(isinstance(slot, dict) and slot.get("is_processing") is True for slot in slots)


def _counted(answer: bytes) -> int | None:
    found = _GAUGE.findall(answer)
    return round(sum(map(float, found))) if found else None


def _backlog(answer: bytes) -> int | None:
    """The question itself is counted with the others (LiteLLM's ``in_flight_requests_middleware.py``)."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    count = told.get("in_flight_requests") if isinstance(told, dict) else None
    return max(0, count - 1) if isinstance(count, int) else None


#: Where a program tells how busy it is, and how that is read. LiteLLM's proxy says nowhere that it is one; its models
#: are all owned by ``openai``, and whatever else says so has no such page.
_LOADS: dict[str, tuple[str, Callable[[bytes], int | None]]] = {
    "llama.cpp": ("/slots", _busy_slots),
    "vllm": ("/metrics", _counted),
    "litellm": ("/health/backlog", _backlog),
}


def _owner(model: dict[str, Any]) -> str:
    """OpenRouter names no owner, but what each model costs."""
    return "openrouter" if "pricing" in model and "top_provider" in model else str(model.get("owned_by"))


def _served(model: dict[str, Any], props: dict[str, Any]) -> ServedModel:
    window = (
        integer(record(props, "default_generation_settings"), "n_ctx")
        or integer(record(model, "meta"), "n_ctx")
        or integer(model, "max_model_len")
        or integer(model, "loaded_context_length")
        or integer(model, "context_length")
        or integer(model, "context_window")
        or integer(model, "max_context_length")
    )
    name = str(model["id"])
    embeds = "embed" in name.lower() or model.get("type") == "embeddings"
    resident = model.get("state") == "loaded"
    return ServedModel(name, window or None, chat=not embeds, resident=resident, price=_price(record(model, "pricing")))


def _price(pricing: dict[str, Any]) -> tuple[float, float] | None:
    """Dollars a million tokens of prompt and reply; OpenRouter tells dollars a token, as text."""
    try:
        prompt, completion = (float(pricing[name]) * 1_000_000 for name in ("prompt", "completion"))
    except (KeyError, TypeError, ValueError):
        return None
    return (prompt, completion) if prompt >= 0 and completion >= 0 else None


def _build(props: dict[str, Any]) -> str | None:
    build = props.get("build_info")
    return build if isinstance(build, str) else None
