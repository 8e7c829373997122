"""A fake Ollama: the native API as the real server speaks it, with scripted answers and faults on demand.

In a test::

    async with FakeOllama(models=[FakeModel("root"), FakeModel("sub")], slots=2, latency=0.01) as fake:
        fake.script("root", ["```repl\\nprint(len(context))\\n```", "FINAL(42)"])   # in order, one a request
        fake.answer = lambda prompt: "reply to " + prompt[:20]                      # all models without a script
        ... HostSettings(url=fake.url, provider="ollama", slots=2) ...
        assert fake.max_held <= 2 and fake.prompts("sub")

Without a script or ``answer`` a model echoes the digest of the last message (``echo``), so that equal prompts get
equal replies. A scripted entry is a text, a ``Scripted`` (thinking, faults, own latency), or a callable that takes
the ``Seen`` request. A script that is used up answers 400, so that a run that asks too much is noticed.

As a process, for Emacs and end-to-end tests::

    python -m tests.fakes.ollama --port 0 --slots 2 --latency 0.05 --model root:8192 --model sub --script FILE

It prints ``listening on http://127.0.0.1:PORT`` as its first line. FILE is JSON:
``{"scripts": {"root": ["first reply", {"text": "second", "latency": 1}]}, "rules": [{"match": "regex", "reply": "…"}],
"models": [{"name": "root", "window": 8192}]}``; a rule's reply may use ``\\1`` or ``\\g<name>``; the first that matches
the last message counts, for models without a script. ``GET /fake/seen`` answers what the server saw: requests,
``max_held``, ``aborted``, prompts. ``POST /fake/script`` with the same JSON replaces scripts and rules.

As the real one it queues without bound (FIFO) for its slots, cuts an over-long prompt to half of ``num_ctx`` with a
200 unless ``truncate`` is false, reloads when ``num_ctx`` changes, and frees the slot when the client hangs up.
Tokens are counted as ``bytes_per_token`` bytes of UTF-8.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.fakes.httpd import Reply, Request
from tests.fakes.serving import FakeServer, Scripted, Seen, echo


@dataclass(frozen=True, slots=True)
class FakeModel:
    """``window`` is the trained one, as ``/api/show`` tells it; ``num_ctx`` a value in the model's parameters."""

    name: str
    window: int = 131_072
    digest: str = ""
    capabilities: tuple[str, ...] = ("completion",)
    num_ctx: int | None = None
    remote_host: str | None = None
    size: int = 20_000_000_000
    parameters: str = "32.8B"

    def tag(self) -> dict[str, Any]:
        digest = self.digest or hashlib.sha256(self.name.encode()).hexdigest()
        details = {"format": "gguf", "family": "qwen2", "quantization_level": "Q4_K_M"}
        details["parameter_size"] = self.parameters
        name = self.name if ":" in self.name else self.name + ":latest"
        tag = {"name": name, "model": name, "size": self.size, "digest": digest, "details": details}
        tag["modified_at"] = "2026-01-01T00:00:00Z"
        if self.remote_host:
            tag |= {"remote_host": self.remote_host, "remote_model": self.name}
        return tag


class FakeOllama(FakeServer):
    """See the module's docstring. ``latency`` is seconds a reply, or a function of the request."""

    def __init__(
        self,
        models: Iterable[FakeModel | str] = ("sub",),
        *,
        slots: int = 1,
        latency: float | Callable[[Seen], float] = 0.0,
        seconds_per_char: float = 0.0,
        load_seconds: float = 0.0,
        default_num_ctx: int = 4096,
        bytes_per_token: float = 4.0,
        honours_truncate: bool = True,
        most_loaded: int | None = None,
        port: int = 0,
    ) -> None:
        named = (FakeModel(model) if isinstance(model, str) else model for model in models)
        self.models = {model.tag()["name"]: model for model in named}
        super().__init__(slots=slots, port=port)
        self.latency = latency
        self.seconds_per_char = seconds_per_char
        self.load_seconds = load_seconds
        self.default_num_ctx = default_num_ctx
        self.bytes_per_token = bytes_per_token
        self.honours_truncate = honours_truncate
        #: Models that fit its memory at once; the one that was loaded first goes for another.
        self.most_loaded = most_loaded
        self.serving = 0
        self.max_serving = 0
        self.loads: list[tuple[str, int]] = []
        self.loaded: dict[str, int] = {}
        self.hanging = False

    # ── HTTP ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _route(self, request: Request, reply: Reply) -> None:
        if self.hanging:
            await asyncio.Event().wait()
        match request.method, request.path:
            case "GET" | "HEAD", "/":
                await reply.send(200, b"Ollama is running", "text/plain")
            case "GET", "/api/version":
                await reply.send_json(200, {"version": "0.12.6"})
            case "GET", "/api/tags":
                await reply.send_json(200, {"models": [model.tag() for model in self.models.values()]})
            case "GET", "/api/ps":
                await reply.send_json(200, {"models": [self._resident(name) for name in self.loaded]})
            case "POST", "/api/show":
                await self._show(request, reply)
            case "POST", "/api/chat":
                await self._chat(request, reply)
            case "GET", "/fake/seen":
                await reply.send_json(200, self._report())
            case "POST", "/fake/script":
                self.read_script(request.json())
                await reply.send_json(200, {})
            case _:
                await reply.send(404, b"404 page not found", "text/plain")

    def _full(self, name: str) -> str:
        return name if ":" in name else name + ":latest"

    def _resident(self, name: str) -> dict[str, Any]:
        tag = self.models[name].tag()
        tag.pop("modified_at")
        return tag | {
            "size_vram": tag["size"],
            "expires_at": "2099-01-01T00:00:00Z",
            "context_length": self.loaded[name],
        }

    async def _show(self, request: Request, reply: Reply) -> None:
        name = request.json().get("model") or request.json().get("name") or ""
        model = self.models.get(self._full(name))
        if model is None:
            await reply.send_json(404, {"error": f"model '{name}' not found"})
            return
        shown: dict[str, Any] = {
            "modelfile": "",
            "template": "{{ .Prompt }}",
            "details": model.tag()["details"],
            "model_info": {"general.architecture": "qwen2", "qwen2.context_length": model.window},
            "capabilities": list(model.capabilities),
            "modified_at": "2026-01-01T00:00:00Z",
        }
        if model.num_ctx:
            shown["parameters"] = (
                f'num_ctx                        {model.num_ctx}\nstop                           "<|im_end|>"'
            )
        if model.remote_host:
            shown |= {"remote_host": model.remote_host, "remote_model": model.name}
        await reply.send_json(200, shown)

    async def _chat(self, request: Request, reply: Reply) -> None:
        body = request.json()
        name = body.get("model") or ""
        if not name:
            await reply.send_json(400, {"error": "model is required"})
        elif self._full(name) not in self.models:
            await reply.send_json(404, {"error": f"model '{name}' not found"})
        elif not body.get("messages"):
            await reply.send_json(200, self._record(name) | {"done": True, "done_reason": "load"})
        else:
            async with self._recorded(Seen(self._full(name), body["messages"], body)) as seen:
                await self._complete(seen, reply)

    async def _complete(self, seen: Seen, reply: Reply) -> None:
        async with self._free:
            self.serving += 1
            self.max_serving = max(self.max_serving, self.serving)
            await self._tell()
            try:
                await self._load(seen)
                entry = self._entry(seen)
                if await self._fits(seen, reply):
                    await self._answer(seen, entry, reply)
            finally:
                self.serving -= 1

    async def _load(self, seen: Seen) -> None:
        num_ctx = int(seen.options.get("num_ctx") or self.default_num_ctx)
        if self.loaded.get(seen.model) != num_ctx:
            self.loads.append((seen.model, num_ctx))
            self.loaded[seen.model] = num_ctx
            if self.most_loaded is not None and len(self.loaded) > self.most_loaded:
                del self.loaded[next(iter(self.loaded))]
            await asyncio.sleep(self.load_seconds)

    # ── what is answered ────────────────────────────────────────────────────────────────────────────────────

    def tokens(self, seen: Seen) -> int:
        size = sum(len(str(message["content"]).encode("utf-8", "replace")) for message in seen.messages)
        return max(1, round(size / self.bytes_per_token)) + 4 * len(seen.messages)

    async def _fits(self, seen: Seen, reply: Reply) -> bool:
        tokens, window = self.tokens(seen), self.loaded[seen.model]
        if tokens <= window or not self.honours_truncate or seen.body.get("truncate", True):
            return True
        sentence = f"request ({tokens} tokens) exceeds the available context size ({window} tokens), try increasing it"
        await reply.send_json(400, {"error": sentence})
        return False

    def _wait(self, seen: Seen, entry: Scripted) -> float:
        if entry.latency is not None:
            return entry.latency
        fixed = self.latency(seen) if callable(self.latency) else self.latency
        return fixed + self.seconds_per_char * sum(len(str(message["content"])) for message in seen.messages)

    async def _work(self, seconds: float) -> None:
        """Takes the time that a reply takes."""
        await asyncio.sleep(seconds)

    async def _answer(self, seen: Seen, entry: Scripted, reply: Reply) -> None:
        await self._work(self._wait(seen, entry))
        if entry.until is not None:
            await entry.until.wait()
        if entry.status != 200:
            await reply.send_json(entry.status, {"error": entry.text}, dict(entry.headers))
            return
        record = self._record(seen.body["model"])
        if seen.body.get("stream", True):
            await reply.start("application/x-ndjson", dict(entry.headers))
            if not await self._stream(record, entry, reply):
                return
            await _line(reply, record | {"message": {"role": "assistant", "content": ""}} | self._end(seen, entry))
            await reply.end()
        elif entry.fault == "hang":
            await asyncio.Event().wait()
        elif entry.fault:
            reply.reset()
            return
        else:
            message = {"role": "assistant", "content": entry.text}
            if entry.thinking:
                message["thinking"] = entry.thinking
            await reply.send_json(200, record | {"message": message} | self._end(seen, entry))
        seen.outcome = "answered"

    async def _stream(self, record: dict[str, Any], entry: Scripted, reply: Reply) -> bool:
        """The pieces; False when a fault ended the stream."""
        if entry.thinking:
            message = {"role": "assistant", "content": "", "thinking": entry.thinking}
            await _line(reply, record | {"message": message, "done": False})
        text = entry.text[: entry.after] if entry.fault else entry.text
        for start in range(0, len(text), entry.chunk):
            if start and entry.pause:
                await asyncio.sleep(entry.pause)
            message = {"role": "assistant", "content": text[start : start + entry.chunk]}
            await _line(reply, record | {"message": message, "done": False})
        match entry.fault:
            case None:
                return True
            case "cut":
                await reply.end()
            case "reset":
                await asyncio.sleep(0.01)  # lets the pieces out: an RST discards what is still unsent
                reply.reset()
            case "hang":
                await asyncio.Event().wait()
            case "error_line":
                await _line(reply, {"error": "an error was encountered while running the model: CUDA error"})
                await reply.end()
            case "garbage":
                await reply.write(b'{"model": "x", "mess\n')
                await reply.end()
        return False

    def _record(self, model: str) -> dict[str, Any]:
        return {
            "model": model,
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": ""},
            "done": False,
        }

    def _end(self, seen: Seen, entry: Scripted) -> dict[str, Any]:
        tokens, window = self.tokens(seen), self.loaded[seen.model]
        read = tokens if tokens <= window else window // 2 + 2
        written = max(1, round(len(entry.text.encode("utf-8", "replace")) / self.bytes_per_token))
        return {
            "done": True,
            "done_reason": entry.finish,
            "total_duration": 5_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": entry.prompt_eval_count if entry.prompt_eval_count is not None else read,
            "prompt_eval_duration": 2_000_000,
            "eval_count": written,
            "eval_duration": 2_000_000,
        }

    # ── from outside ────────────────────────────────────────────────────────────────────────────────────────

    def read_script(self, script: dict[str, Any]) -> None:
        """See the module's docstring for the form."""
        for model in script.get("models", ()):
            made = FakeModel(**{**model, "capabilities": tuple(model.get("capabilities", ("completion",)))})
            self.models[made.tag()["name"]] = made
        for model, entries in script.get("scripts", {}).items():
            self.script(model, [entry if isinstance(entry, str) else Scripted(**entry) for entry in entries])
        rules = [(re.compile(rule["match"], re.DOTALL), rule["reply"]) for rule in script.get("rules", ())]
        if rules:
            self.answer = lambda prompt: next(
                (found.expand(reply) for pattern, reply in rules if (found := pattern.search(prompt))), echo(prompt)
            )

    def _report(self) -> dict[str, Any]:
        return {
            "requests": len(self.seen),
            "held": self.held,
            "max_held": self.max_held,
            "aborted": self.aborted,
            "answered": self.outcomes("answered"),
            "loads": self.loads,
            "chars": {
                model: sum(seen.chars for seen in self.seen if seen.model == model)
                for model in {seen.model for seen in self.seen}
            },
            "seen": [
                {"model": seen.model, "prompt": seen.prompt, "messages": len(seen.messages), "outcome": seen.outcome}
                for seen in self.seen
            ],
        }


async def _line(reply: Reply, record: dict[str, Any]) -> None:
    await reply.write(json.dumps(record).encode() + b"\n")


def _model(text: str) -> FakeModel:
    """``name`` or ``name:window`` (a last part of digits only is the window)."""
    name, _, window = text.rpartition(":")
    return FakeModel(name, window=int(window)) if name and window.isdigit() else FakeModel(text)


async def _main(options: argparse.Namespace) -> None:
    fake = FakeOllama(
        [_model(text) for text in options.model or ["root", "sub"]],
        slots=options.slots,
        latency=options.latency,
        default_num_ctx=options.num_ctx,
        port=options.port,
    )
    if options.script:
        with open(options.script, encoding="utf-8") as file:
            fake.read_script(json.load(file))
    await fake.serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A fake Ollama server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before a reply's first piece")
    parser.add_argument("--num-ctx", type=int, default=4096, help="the window without num_ctx in a request")
    parser.add_argument("--model", action="append", help="name or name:window; again for more (default: root, sub)")
    parser.add_argument("--script", help="JSON file with scripts and rules")
    asyncio.run(_main(parser.parse_args()))
