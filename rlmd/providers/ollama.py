"""Ollama's native API: ``/api/chat`` streamed, and what the server says of itself.

The native API and not ``/v1``, because only it takes ``num_ctx`` and ``truncate`` and names why a reply ended.
One fixed ``num_ctx`` a model: another value makes the server reload it. ``truncate: false``, because the server
otherwise cuts an over-long prompt to half of the window and answers 200.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from rlmd.errors import CompletionCut, HostFailed, PromptTruncated, RlmdError
from rlmd.providers.base import DEFAULT_WINDOW, Completion, Finish, Message, Sampling, ServedModel, ServerFacts, Usage
from rlmd.providers.http import Response
from rlmd.providers.reading import (
    SUSPICIOUS_SHARE,
    ReplyText,
    byte_count,
    estimated_tokens,
    integer,
    parsed,
    read_too_little,
    record,
    records,
)
from rlmd.providers.server import Server

#: Long enough that a run's pauses (cells, people) do not unload the model; each load costs 3 to 40 s.
KEEP_ALIVE = "30m"
#: The server cuts to ``num_ctx - (num_ctx - keep) / 2`` with 4 tokens kept; the tokenizer may add one or two.
CUT_SLACK = 2
_PADDING = " Padding." * 24
_PADDING_TOKENS = 24


class Ollama(Server):
    """One Ollama server."""

    kind = "ollama"

    def __init__(self, url: str, *, api_key: SecretStr | None = None, connections: int = 66) -> None:
        super().__init__(url, api_key=api_key, connections=connections)
        self._keep_alive = KEEP_ALIVE

    def keep_loaded(self, seconds: float) -> None:
        self._keep_alive = f"{seconds:g}s"

    # ── what it is ──────────────────────────────────────────────────────────────────────────────────────────

    async def probe(self) -> ServerFacts:
        version = (await self._ask("/api/version")).get("version")
        if not isinstance(version, str):
            raise HostFailed(f"{self._name} does not answer as Ollama.")
        tags, resident = await asyncio.gather(self._ask("/api/tags"), self._resident())
        gate = asyncio.Semaphore(4)
        listed = [tag for tag in records(tags, "models") if isinstance(tag.get("name"), str)]
        models = await asyncio.gather(*(self._served(tag, resident, gate) for tag in listed))
        return ServerFacts("ollama", version, tuple(models), software="ollama")

    async def _ask(self, path: str, body: Any = None) -> dict[str, Any]:
        status, answer = await (self._http.get(path) if body is None else self._http.post(path, body))
        if status != 200:
            raise self._refused(status, answer)
        return parsed(self._name, answer)

    async def _resident(self) -> dict[str, int]:
        """Windows of the models that are loaded now."""
        try:
            loaded = (await self._ask("/api/ps")).get("models") or ()
        except RlmdError:
            return {}
        return {
            model["name"]: integer(model, "context_length")
            for model in loaded
            if isinstance(model, dict) and "name" in model
        }

    async def _served(self, tag: dict[str, Any], resident: dict[str, int], gate: asyncio.Semaphore) -> ServedModel:
        name = tag["name"]
        async with gate:
            try:
                shown = await self._ask("/api/show", {"model": name})
            except RlmdError:
                shown = {}  # one broken model must not hide the others
        info = record(shown, "model_info")
        trained = next((integer(info, key) for key in info if key.endswith(".context_length")), 0)
        declared = re.search(r"^num_ctx\s+(\d{1,9})\s*$", str(shown.get("parameters") or ""), re.MULTILINE)
        window = resident.get(name) or (int(declared[1]) if declared else DEFAULT_WINDOW)
        capabilities = shown.get("capabilities")
        details = record(tag, "details")
        return ServedModel(
            name=name,
            window=min(window, trained) if trained else window,
            digest=str(tag["digest"]) if tag.get("digest") else None,
            parameters=str(details.get("parameter_size") or "") or None,
            bytes=integer(tag, "size") or None,
            chat="completion" in capabilities if isinstance(capabilities, list) else _looks_like_chat(name, details),
            vision=isinstance(capabilities, list) and "vision" in capabilities,
            resident=name in resident,
            remote=bool(tag.get("remote_host") or shown.get("remote_host")) or name.endswith(("-cloud", ":cloud")),
        )

    # ── completing ──────────────────────────────────────────────────────────────────────────────────────────

    async def complete(
        self,
        model: str,
        window: int,
        messages: tuple[Message, ...],
        sampling: Sampling,
        on_delta: Callable[[str], None],
    ) -> Completion:
        reply = ReplyText(on_delta)
        async with self._http.stream(
            "/api/chat", _body(model, window, messages, sampling, self._keep_alive)
        ) as response:
            if response.status != 200:
                raise self._refusal(response.status, await response.body(), messages, response)
            last = await self._read(response, reply, messages)
            await response.drain()
        text, thinking = reply.close()
        finish = _finish(last, self._name, window, sampling)
        read = await self._tokens_read(model, window, messages, last)
        return Completion(text, thinking, finish, Usage(read, integer(last, "eval_count")))

    async def _read(self, response: Response, reply: ReplyText, messages: tuple[Message, ...]) -> dict[str, Any]:
        """Feeds ``reply`` and returns the record with ``done: true``, without which there is no answer."""
        async with contextlib.aclosing(response.lines()) as lines:
            async for line in lines:
                if not line.strip():
                    continue
                chunk = parsed(self._name, line)
                if "error" in chunk:
                    raise self._refusal(200, line, messages, response)
                message = record(chunk, "message")
                if thinking := message.get("thinking"):
                    reply.add_thinking(str(thinking))
                if content := message.get("content"):
                    reply.add_text(str(content))
                if chunk.get("done") is True:
                    return chunk
        raise CompletionCut(
            f"{self._name} ended the stream without its last record.", hint="The server's log says why."
        )

    async def _tokens_read(self, model: str, window: int, messages: tuple[Message, ...], last: dict[str, Any]) -> int:
        """How many tokens of the prompt the server read. Raises ``PromptTruncated`` when they were not all."""
        read = integer(last, "prompt_eval_count")
        estimate = estimated_tokens(byte_count(messages), len(messages))
        if not read:
            if estimate > SUSPICIOUS_SHARE * window:
                raise _truncated(self._name, "does not say how much of the prompt it read", estimate, window)
            return estimate
        if read_too_little(messages, window, read):
            raise _truncated(self._name, f"read {read} tokens of the prompt", estimate, window)
        half = window // 2 + 2
        if abs(read - half) <= CUT_SLACK and byte_count(messages) > window:
            await self._confirm_whole(model, window, messages, read, estimate)
        return read

    async def _confirm_whole(
        self, model: str, window: int, messages: tuple[Message, ...], read: int, estimate: int
    ) -> None:
        """``read`` is what a cut prompt would show, or chance (one prompt in 1600). A longer prompt tells: one that
        is cut again shows the same count. Costs one token, as the prefix is still cached."""
        longer = (*messages[:-1], Message(messages[-1].role, messages[-1].content + _PADDING))
        body = _body(model, window, longer, Sampling(max_tokens=1), self._keep_alive) | {"stream": False}
        status, answer = await self._http.post("/api/chat", body, seconds=120.0)
        again = integer(parsed(self._name, answer), "prompt_eval_count") if status == 200 else 0
        if again < read + _PADDING_TOKENS // 2:
            raise _truncated(self._name, f"read {read} tokens of the prompt", estimate, window)


def _body(
    model: str, window: int, messages: tuple[Message, ...], sampling: Sampling, keep_alive: str
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_ctx": window,
        "num_predict": sampling.max_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.seed is not None:
        options["seed"] = sampling.seed
    if sampling.stop:
        options["stop"] = list(sampling.stop)
    return {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "stream": True,
        "truncate": False,
        "think": False,
        "keep_alive": keep_alive,
        "options": options,
    }


def _finish(last: dict[str, Any], server: str, window: int, sampling: Sampling) -> Finish:
    written = integer(last, "eval_count")
    match last.get("done_reason"):
        case "stop":
            return "stop"
        case "length" if 0 < written < sampling.max_tokens:
            raise CompletionCut(
                f"{server} ran out of its window of {window} tokens after {written} of up to {sampling.max_tokens}.",
                hint="Send a smaller piece.",
                window=window,
            )
        case "length":
            return "length"
        case None:  # versions before 0.1.38 do not tell
            return "length" if written >= sampling.max_tokens else "stop"
        case _:
            raise CompletionCut(f"{server} ended the reply for a reason that is neither stop nor length.")


def _truncated(server: str, what: str, tokens: int, window: int) -> PromptTruncated:
    return PromptTruncated(
        f"{server} {what}, which has about {tokens}; its window is {window}.",
        hint="Update the server, or send smaller pieces.",
        tokens=tokens,
        window=window,
    )


def _looks_like_chat(name: str, details: dict[str, Any]) -> bool:
    """For servers before 0.6.4, which do not list capabilities."""
    return "bert" not in str(details.get("family") or "") and "embed" not in name
