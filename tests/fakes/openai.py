"""A fake OpenAI-compatible server in the dialects met in the wild, with scripted answers and faults on demand.

In a test::

    async with FakeOpenAI(dialect="llama.cpp", slots=2) as fake:
        fake.script("root", ["first reply", Scripted("second", finish="length")])
        ... HostSettings(url=fake.url, provider="openai") ...

As a process: ``python -m tests.fakes.openai --port 0 --slots 2 --dialect vllm --model sub --script FILE``; FILE as for
the fake Ollama. Dialects differ in where usage comes, whether ``[DONE]`` does, in the shape of errors and of the list
of models; see ``DIALECTS``. ``Scripted`` and ``Seen`` are those of all fakes. Every stream is sent in pieces of
``split`` bytes, so that characters and lines are cut anywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tests.fakes.httpd import Reply, Request
from tests.fakes.serving import FakeServer, Scripted, Seen


def _usual_error(status: int, text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "error", "code": status}}


def _code_as_text(status: int, text: str) -> dict[str, Any]:
    return {"error": {"message": text, "code": str(status)}}


def _litellm_error(status: int, text: str) -> dict[str, Any]:
    said = f"litellm.APIError: {text}. Received Model Group=sub\nAvailable Model Group Fallbacks=None"
    return {"error": {"message": said, "type": None, "param": None, "code": str(status)}}


@dataclass(frozen=True, slots=True)
class Dialect:
    """``usage``: asked (only with include_usage, a chunk of its own), always (on the last chunk) or never.

    ``stale``: the connection is closed after each stream though it was promised to be kept.
    """

    usage: Literal["asked", "always", "never"]
    done: bool = True
    owner: str = "someone"
    window_field: str | None = None
    comments: bool = False
    stale: bool = False
    bare_delta: bool = False
    json_only: bool = False
    refuses: tuple[str, ...] = ()
    #: Thinks before it answers unless the request has this, the way that is said there.
    thinks_unless: tuple[str, Any] | None = None
    #: What the list tells of each model besides.
    listed: tuple[tuple[str, Any], ...] = ()
    error: Callable[[int, str], Any] = lambda status, text: {
        "error": {"message": text, "type": "error", "code": status}
    }


def _overflow(tokens: int, window: int) -> dict[str, Any]:
    message = f"request ({tokens} tokens) exceeds the available context size ({window} tokens), try increasing it"
    error = {"code": 400, "message": message, "type": "exceed_context_size_error"}
    return {"error": error | {"n_prompt_tokens": tokens, "n_ctx": window}}


def _vllm_overflow(tokens: int, window: int) -> dict[str, Any]:
    message = (
        f"This model's maximum context length is {window} tokens. However, your request has {tokens} input tokens."
    )
    return {"error": {"message": message, "type": "BadRequestError", "param": "input_tokens", "code": 400}}


def _vllm_too_much(tokens: int, window: int, asked: int) -> dict[str, Any]:
    message = (
        f"'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context length is "
        f"{window} tokens and your request has {tokens} input tokens ({asked} > {window} - {tokens})."
    )
    return {"error": {"message": message, "type": "BadRequestError", "param": "max_tokens", "code": 400}}


DIALECTS: dict[str, Dialect] = {
    "openai": Dialect("asked", refuses=("max_tokens",)),
    "llama.cpp": Dialect("asked", owner="llamacpp", window_field="meta", bare_delta=True, stale=True),
    "vllm": Dialect("asked", owner="vllm", window_field="max_model_len"),
    "transformers": Dialect("always", done=False, error=lambda status, text: {"detail": text}),
    "llama-cpp-python": Dialect("never"),
    "lm-studio": Dialect("asked", owner="organization_owner", error=lambda status, text: {"error": text}),
    "litellm": Dialect("asked", owner="openai", error=_litellm_error),
    "deepseek": Dialect(
        "always", owner="deepseek", comments=True, thinks_unless=("thinking", {"type": "disabled"}), error=_usual_error
    ),
    "openrouter": Dialect(
        "always",
        comments=True,
        window_field="context_length",
        thinks_unless=("reasoning", {"enabled": False}),
        listed=(("pricing", {"prompt": "0.0000002", "completion": "0.0000008"}), ("top_provider", {})),
        error=lambda s, t: {"error": {"message": t, "code": str(s)}},
    ),
    "glm": Dialect(
        "always",
        owner="z-ai",
        refuses=("stream_options", "seed"),
        thinks_unless=("thinking", {"type": "disabled"}),
        error=_code_as_text,
    ),
    "ollama-v1": Dialect("asked", owner="library"),
    "flat": Dialect("never", json_only=True, error=lambda status, text: {"object": "error", "message": text}),
}


class FakeOpenAI(FakeServer):
    """See the module's docstring."""

    def __init__(
        self,
        models: Iterable[str] = ("sub",),
        *,
        dialect: str = "openai",
        slots: int = 1,
        latency: float = 0.0,
        window: int = 8192,
        api_key: str | None = None,
        split: int = 7,
        port: int = 0,
    ) -> None:
        super().__init__(slots=slots, port=port)
        self.models = list(models)
        self.dialect = DIALECTS[dialect]
        self.name = dialect
        self.latency = latency
        self.window = window
        self.api_key = api_key
        self.split = split
        self.refused: list[str] = []

    # ── HTTP ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _route(self, request: Request, reply: Reply) -> None:
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            await self._error(reply, 401, f"Incorrect API key provided: {request.headers.get('authorization')}")
            return
        match request.method, request.path:
            case "GET", "/v1/models":
                data = [self._listed(model) for model in self.models]
                await reply.send_json(200, {"object": "list", "data": data})
            case "GET", "/props" if self.dialect.owner == "llamacpp":
                settings = {"n_ctx": self.window}
                await reply.send_json(200, {"total_slots": self.slots, "default_generation_settings": settings})
            case "GET", "/api/v0/models" if self.dialect.owner == "organization_owner":
                more = {"type": "llm", "state": "loaded", "loaded_context_length": self.window}
                data = [{"id": model, **more, "max_context_length": 4 * self.window} for model in self.models]
                await reply.send_json(200, {"object": "list", "data": data})
            case "GET", "/slots" if self.dialect.owner == "llamacpp":
                busy = min(self.slots, self.held)
                await reply.send_json(200, [{"id": n, "is_processing": n < busy} for n in range(self.slots)])
            case "GET", "/metrics" if self.dialect.owner == "vllm":
                gauges = {"running": min(self.slots, self.held), "waiting": max(0, self.held - self.slots)}
                lines = [f'vllm:num_requests_{name}{{engine="0"}} {float(n)}' for name, n in gauges.items()]
                await reply.send(200, "\n".join(["# TYPE vllm:x gauge", *lines, ""]).encode(), "text/plain")
            case "GET", "/health/backlog" if self.name == "litellm":
                await reply.send_json(200, {"in_flight_requests": self.held + 1})
            case "POST", "/v1/chat/completions":
                await self._chat(request, reply)
            case "GET", "/fake/seen":
                seen = [{"model": one.model, "prompt": one.prompt, "outcome": one.outcome} for one in self.seen]
                await reply.send_json(200, {"requests": len(seen), "max_held": self.max_held, "seen": seen})
            case _:
                await self._error(reply, 404, "Not Found")

    async def _error(self, reply: Reply, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        await reply.send_json(status, self.dialect.error(status, text), headers)

    def _listed(self, model: str) -> dict[str, Any]:
        listed: dict[str, Any] = {"id": model, "object": "model", "created": 0, "owned_by": self.dialect.owner}
        listed |= dict(self.dialect.listed)
        match self.dialect.window_field:
            case None:
                pass
            case "meta":
                listed["meta"] = {"n_ctx": self.window, "n_ctx_train": 4 * self.window}
            case name:
                listed[name] = self.window
        return listed

    async def _chat(self, request: Request, reply: Reply) -> None:
        body = request.json()
        if refused := next((name for name in self.dialect.refuses if name in body), None):
            self.refused.append(refused)
            await self._error(reply, 400, f"Unsupported parameter: '{refused}' is not supported with this model.")
            return
        seen = Seen(str(body.get("model")), body.get("messages") or [], body)
        if seen.model not in self.models and self.dialect.owner != "llamacpp":
            await self._error(reply, 404, f"The model `{seen.model}` does not exist.")
            return
        async with self._recorded(seen), self._free:
            await self._complete(seen, reply)

    # ── what is answered ────────────────────────────────────────────────────────────────────────────────────

    def tokens(self, seen: Seen) -> int:
        return sum(len(str(message["content"]).encode("utf-8", "replace")) // 4 + 4 for message in seen.messages)

    async def _complete(self, seen: Seen, reply: Reply) -> None:
        entry = self._entry(seen)
        await asyncio.sleep(self.latency if entry.latency is None else entry.latency)
        tokens = self.tokens(seen)
        if tokens > self.window:
            overflow = _vllm_overflow if self.dialect.owner == "vllm" else _overflow
            await reply.send_json(400, overflow(tokens, self.window))
        elif self.dialect.owner == "vllm" and tokens + seen.body.get("max_tokens", 0) > self.window:
            self.refused.append("max_tokens")
            await reply.send_json(400, _vllm_too_much(tokens, self.window, seen.body["max_tokens"]))
        elif entry.status != 200:
            await self._error(reply, entry.status, entry.text, dict(entry.headers))
        elif self.dialect.json_only or not seen.body.get("stream"):
            await reply.send_json(200, self._whole(seen, entry))
            seen.outcome = "answered"
        else:
            if self.dialect.stale:
                reply.close_after()
            await reply.start("text/event-stream", {"Keep-Alive": "timeout=5, max=100"})
            if await self._stream(seen, entry, reply):
                seen.outcome = "answered"

    def _thinks(self, seen: Seen) -> bool:
        unless = self.dialect.thinks_unless
        return unless is not None and seen.body.get(unless[0]) != unless[1]

    def _usage(self, seen: Seen, entry: Scripted) -> dict[str, int]:
        read = self.tokens(seen) if entry.prompt_eval_count is None else entry.prompt_eval_count
        written = max(1, len(entry.text.encode("utf-8", "replace")) // 4)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def _whole(self, seen: Seen, entry: Scripted) -> dict[str, Any]:
        message = {"role": "assistant", "content": entry.text}
        choice = {"index": 0, "message": message, "finish_reason": entry.finish}
        head = {"id": "x", "object": "chat.completion", "created": 0, "model": seen.model, "choices": [choice]}
        return head if self.dialect.usage == "never" else head | {"usage": self._usage(seen, entry)}

    async def _stream(self, seen: Seen, entry: Scripted, reply: Reply) -> bool:
        """Sends the events; False when a fault ended them."""
        first = {"role": "assistant", "content": None if self.dialect.bare_delta else ""}
        await self._send(reply, self._chunk(seen, first))
        if self.dialect.comments:
            await self._raw(reply, b": OPENROUTER PROCESSING\n\n: keep-alive\r\n\r\n")
        thinking = entry.thinking or ("Let me think. " * 50 if self._thinks(seen) else "")
        if thinking:
            await self._send(reply, self._chunk(seen, {"reasoning_content": thinking}))
        text = entry.text[: entry.after] if entry.fault else entry.text
        for start in range(0, len(text), entry.chunk):
            if start and entry.pause:
                await asyncio.sleep(entry.pause)
            await self._send(reply, self._chunk(seen, {"content": text[start : start + entry.chunk]}))
        if entry.fault:
            await self._break(entry.fault, reply)
            return False
        last = self._chunk(seen, {}, finish=entry.finish)
        if self.dialect.usage == "always":
            last["usage"] = self._usage(seen, entry)
        await self._send(reply, last)
        if self.dialect.usage == "asked" and (seen.body.get("stream_options") or {}).get("include_usage"):
            await self._send(reply, self._chunk(seen, None) | {"usage": self._usage(seen, entry)})
        if self.dialect.done:
            await self._raw(reply, b"data: [DONE]\n\n")
        await reply.end()
        return True

    async def _break(self, fault: str, reply: Reply) -> None:
        match fault:
            case "cut":  # with [DONE] and without a finish reason, as Ollama's /v1 does after an error
                await self._raw(reply, b"data: [DONE]\n\n")
                await reply.end()
            case "reset":
                await asyncio.sleep(0.01)
                reply.reset()
            case "hang":
                await asyncio.Event().wait()
            case "error_line":
                await self._send(reply, self.dialect.error(500, "upstream worker died"))
                await reply.end()
            case "garbage":
                await self._raw(reply, b'data: {"id": "x", "choices": [{"del\n\n')
                await reply.end()

    def _chunk(self, seen: Seen, delta: dict[str, Any] | None, finish: str | None = None) -> dict[str, Any]:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        return {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": seen.model, "choices": choices}

    async def _send(self, reply: Reply, event: Any) -> None:
        await self._raw(reply, b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")

    async def _raw(self, reply: Reply, data: bytes) -> None:
        for start in range(0, len(data), self.split):
            await reply.write(data[start : start + self.split])


async def _main(options: argparse.Namespace) -> None:
    models = options.model or ["root", "sub"]
    fake = FakeOpenAI(
        models, dialect=options.dialect, slots=options.slots, latency=options.latency, port=options.port,
        api_key=options.api_key,
    )  # fmt: skip
    if options.script:
        with open(options.script, encoding="utf-8") as file:
            for model, entries in json.load(file).get("scripts", {}).items():
                fake.script(model, [one if isinstance(one, str) else Scripted(**one) for one in entries])
    await fake.serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before a reply's first piece")
    parser.add_argument("--dialect", choices=sorted(DIALECTS), default="openai")
    parser.add_argument("--model", action="append", help="a model's name; again for more (default: root, sub)")
    parser.add_argument("--api-key", help="refuse requests that do not bring it")
    parser.add_argument("--script", help="JSON file with scripts")
    asyncio.run(_main(parser.parse_args()))
