"""A fake of Anthropic's Messages API, with scripted answers and faults on demand.

In a test::

    async with FakeAnthropic(["claude-haiku-5-5"], api_key="key") as fake:
        fake.script("claude-haiku-5-5", ["first reply", Scripted("no", status=529)])
        ... HostSettings(url=fake.url, provider="anthropic", api_key_file=…) ...

``Scripted`` and ``Seen`` are those of all fakes (``serving``). Prompt tokens that stand under a ``cache_control`` mark
and were sent before are told as read from the cache. Streams come in pieces of ``split`` bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.fakes.httpd import Reply, Request
from tests.fakes.serving import FakeServer, Scripted, Seen

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_TYPES |= {500: "api_error", 529: "overloaded_error"}


@dataclass(frozen=True, slots=True)
class Generation:
    """What models of one time take: kinds of ``thinking`` (None: none may be named), those with which they do not
    think, whether a temperature."""

    kinds: tuple[str | None, ...] = ("disabled", "enabled", None)
    quiet: tuple[str | None, ...] = ("disabled", None)
    temperature: bool = True


GENERATIONS = {
    "4.5": Generation(),
    "sonnet-5.5": Generation(("adaptive", "between_tools", None), ("between_tools",), temperature=False),
    "opus-5.5": Generation(("adaptive", None), (), temperature=False),
}


class FakeAnthropic(FakeServer):
    """See the module's docstring. ``stop_reason`` replaces the one that the script's ``finish`` means; without
    ``stops`` the last event does not come."""

    def __init__(
        self,
        models: Iterable[str] = ("sub",),
        *,
        slots: int = 4,
        latency: float = 0.0,
        window: int = 200_000,
        api_key: str | None = None,
        split: int = 7,
        port: int = 0,
    ) -> None:
        super().__init__(slots=slots, port=port)
        self.models = list(models)
        self.latency = latency
        self.window = window
        self.api_key = api_key
        self.split = split
        self.generation = GENERATIONS["4.5"]
        self.refused: list[str] = []
        self.stop_reason: str | None = None
        self.stops = True
        #: What a 429 says besides, such as ``{"error_code": "enforced_spend_limit_reached"}``.
        self.details: dict[str, Any] = {}
        self._cached: set[str] = set()

    async def _route(self, request: Request, reply: Reply) -> None:
        # either form, and any version that was ever: what the official clients of the years send
        keys = (request.headers.get("x-api-key"), request.headers.get("authorization", "").removeprefix("Bearer "))
        if self.api_key and self.api_key not in keys:
            await self._error(reply, 401, "invalid x-api-key")
        elif not request.headers.get("anthropic-version", "").startswith("20"):
            await self._error(reply, 400, "anthropic-version: header is required")
        elif (request.method, request.path) == ("GET", "/v1/models"):
            data = [
                {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
                | {"max_input_tokens": self.window, "max_tokens": 64_000}
                for name in self.models
            ]
            ends = {"first_id": self.models[0], "last_id": self.models[-1]}
            await reply.send_json(200, {"data": data, "has_more": False, **ends})
        elif (request.method, request.path) == ("POST", "/v1/messages"):
            await self._messages(request.json(), reply)
        else:
            await self._error(reply, 404, "Not found")

    async def _error(self, reply: Reply, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        error = {"type": _TYPES.get(status, "api_error"), "message": text}
        if status == 429 and self.details:
            error["details"] = self.details  # type: ignore[assignment]
        await reply.send_json(status, {"type": "error", "error": error, "request_id": "req_1"}, headers)

    async def _messages(self, body: dict[str, Any], reply: Reply) -> None:
        if not body.get("max_tokens"):
            await self._error(reply, 400, "max_tokens: Field required")
        elif any(message["role"] == "system" for message in body["messages"]):
            await self._error(reply, 400, "messages: Unexpected role system")
        elif body.get("model") not in self.models:
            await self._error(reply, 404, f"model: {body.get('model')}")
        elif refused := self._refusal(body):
            self.refused.append(refused)
            await self._error(reply, 400, refused)
        else:
            messages = [{"role": one["role"], "content": _text(one["content"])} for one in body["messages"]]
            async with self._recorded(Seen(body["model"], messages, body)) as seen, self._free:
                await self._complete(seen, reply)

    def _refusal(self, body: dict[str, Any]) -> str:
        kind = (body.get("thinking") or {}).get("type")
        if body.get("temperature", 1.0) != 1.0 and not self.generation.temperature:
            return "`temperature` is deprecated for this model."
        if kind not in self.generation.kinds:
            return f'"thinking.type.{kind}" is not supported for this model. Use "output_config.effort".'
        return ""

    def tokens(self, seen: Seen) -> int:
        size = sum(len(message["content"].encode()) for message in seen.messages)
        return (size + len(_text(seen.body.get("system") or "").encode())) // 4 + 4

    async def _complete(self, seen: Seen, reply: Reply) -> None:
        entry = self._entry(seen)
        await asyncio.sleep(self.latency if entry.latency is None else entry.latency)
        tokens = self.tokens(seen)
        if tokens > self.window:
            await self._error(reply, 400, f"prompt is too long: {tokens} tokens > {self.window} maximum")
        elif entry.status != 200:
            await self._error(reply, entry.status, entry.text, dict(entry.headers))
        elif not seen.body.get("stream"):
            content = [{"type": "text", "text": entry.text}]
            await reply.send_json(
                200, self._message(content, self._reason(entry), self._usage(seen, entry, entry.text))
            )
            seen.outcome = "answered"
        else:
            await reply.start("text/event-stream")
            if await self._stream(seen, entry, reply):
                seen.outcome = "answered"

    def _reason(self, entry: Scripted) -> str:
        return self.stop_reason or {"stop": "end_turn", "length": "max_tokens"}[entry.finish]

    def _message(self, content: list[dict[str, Any]], reason: str | None, usage: dict[str, int]) -> dict[str, Any]:
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": self.models[0], "content": content}
        return head | {"stop_reason": reason, "stop_sequence": None, "usage": usage}

    def _usage(self, seen: Seen, entry: Scripted, written: str) -> dict[str, int]:
        tokens = self.tokens(seen) if entry.prompt_eval_count is None else entry.prompt_eval_count
        marked = _marked(seen.body)
        cached = len(marked.encode()) // 4 if marked in self._cached else 0
        put = 0 if cached or not marked else len(marked.encode()) // 4
        self._cached.add(marked)
        return {
            "input_tokens": tokens - cached - put,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": put,
            "output_tokens": max(1, len(written.encode()) // 4) if written else 1,
        }

    async def _stream(self, seen: Seen, entry: Scripted, reply: Reply) -> bool:
        """Sends the events; False when a fault ended them."""
        start = self._message([], None, self._usage(seen, entry, ""))
        await self._send(reply, {"type": "message_start", "message": start})
        await self._send(reply, {"type": "ping"})
        kind = (seen.body.get("thinking") or {}).get("type")
        thinking = entry.thinking or ("" if kind in self.generation.quiet else "Let me think. ")
        blocks = [("thinking", thinking)] if thinking else []
        for index, (kind, whole) in enumerate([*blocks, ("text", entry.text)]):
            empty = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
            await self._send(reply, {"type": "content_block_start", "index": index, "content_block": empty})
            text = whole[: entry.after] if entry.fault and kind == "text" else whole
            for at in range(0, len(text), entry.chunk):
                if at and entry.pause:
                    await asyncio.sleep(entry.pause)
                delta = {"type": f"{kind}_delta", kind: text[at : at + entry.chunk]}
                await self._send(reply, {"type": "content_block_delta", "index": index, "delta": delta})
            if entry.fault and kind == "text":
                await self._break(entry.fault, reply)
                return False
            await self._send(reply, {"type": "content_block_stop", "index": index})
        usage = {"output_tokens": max(1, len(entry.text.encode()) // 4)}
        last = {"stop_reason": self._reason(entry), "stop_sequence": None}
        await self._send(reply, {"type": "message_delta", "delta": last, "usage": usage})
        if self.stops:
            await self._send(reply, {"type": "message_stop"})
        await reply.end()
        return True

    async def _break(self, fault: str, reply: Reply) -> None:
        match fault:
            case "cut":
                await reply.end()
            case "reset":
                await asyncio.sleep(0.01)  # lets the pieces out: an RST discards what is still unsent
                reply.reset()
            case "hang":
                await asyncio.Event().wait()
            case "error_line":
                error = {"type": "api_error", "message": "Internal server error"}
                await self._send(reply, {"type": "error", "error": error})
                await reply.end()
            case "garbage":
                await reply.write(b'event: content_block_delta\ndata: {"type": "content_bl\n\n')
                await reply.end()

    async def _send(self, reply: Reply, event: dict[str, Any]) -> None:
        data = f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        for start in range(0, len(data), self.split):
            await reply.write(data[start : start + self.split])


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(str(block.get("text", "")) for block in content)


def _marked(body: dict[str, Any]) -> str:
    """The text up to the last mark of a system prompt."""
    system = body.get("system") or []
    return "".join(block["text"] for block in system if "cache_control" in block) if isinstance(system, list) else ""
