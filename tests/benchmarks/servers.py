"""The model servers of the benchmarks, in a process of their own: several hosts that speak Ollama's API and OpenAI's.

    python -m tests.benchmarks.servers --hosts 4 --slots 8 --latency 0.05

prints one JSON line: ``{"urls": [...]}``. Scripts and what was seen go by ``/fake/script`` and ``/fake/seen`` as with
``tests.fakes.ollama``. OpenAI's ``/v1/chat/completions`` is answered whole or streamed, from the same scripts: that
is what the peers speak, so that all are measured on the same server. ``POST /fake/fault`` with ``{"fault": "slow"}``
strikes what is in flight too: ``slow`` is ten times as slow, ``cut`` ends every reply without its last record,
``broken`` resets its connection, ``ok`` mends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import random
import signal
from typing import Any

from tests.fakes.httpd import Reply, Request
from tests.fakes.ollama import FakeModel, FakeOllama, Scripted, Seen
from tests.simulation import SLOWER, Fault


class BothApis(FakeOllama):
    """A ``FakeOllama`` that answers OpenAI's chat completions too, and that can fail as a whole."""

    fault: Fault = "ok"

    async def _route(self, request: Request, reply: Reply) -> None:
        match request.method, request.path:
            case "POST", "/fake/fault":
                self.fault = request.json()["fault"]
                await self._tell()
                await reply.send_json(200, {})
            case "POST", "/v1/chat/completions":
                await self._chat_openai(request.json(), reply)
            case _:
                await super()._route(request, reply)

    async def _work(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        while seconds > 0:
            fault, began = self.fault, loop.time()
            pace = SLOWER if fault == "slow" else random.random() if fault in ("cut", "broken") else 1.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds * pace):
                    await self.until(lambda fault=fault: self.fault != fault)
                    seconds -= (loop.time() - began) / pace
                    continue
            return

    async def _stream(self, record: dict[str, Any], entry: Scripted, reply: Reply) -> bool:
        if self.fault in ("cut", "broken"):
            entry = dataclasses.replace(entry, fault="cut" if self.fault == "cut" else "reset", after=3)
        return await super()._stream(record, entry, reply)

    async def _chat_openai(self, body: dict[str, Any], reply: Reply) -> None:
        seen = Seen(self._full(body["model"]), body["messages"], body)
        async with self._recorded(seen), self._free:
            entry = self._entry(seen)
            await self._work(self._wait(seen, entry))
            if self.fault in ("cut", "broken"):
                reply.reset()
                return
            await self._complete_openai(body, entry, reply)
            seen.outcome = "answered"

    async def _complete_openai(self, body: dict[str, Any], entry: Scripted, reply: Reply) -> None:
        shared = {"id": "chatcmpl-1", "created": 1_767_225_600, "model": body["model"]}
        usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
        if not body.get("stream"):
            message = {"role": "assistant", "content": entry.text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {**shared, "object": "chat.completion", "choices": [choice], "usage": usage}
            await reply.send_json(200, whole)
            return
        await reply.start("text/event-stream")
        chunk = {**shared, "object": "chat.completion.chunk"}
        first = {"index": 0, "delta": {"role": "assistant", "content": entry.text}, "finish_reason": None}
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        for record in ({**chunk, "choices": [first]}, {**chunk, "choices": [last], "usage": usage}):
            await reply.write(b"data: " + json.dumps(record).encode() + b"\n\n")
        await reply.write(b"data: [DONE]\n\n")
        await reply.end()


async def serve(hosts: int, slots: int, latency: float, chars: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def latency_of(seen: Seen) -> float:
        """Only sub-queries take their time; a root's turns are free, so that what is measured is ours."""
        if seen.model.startswith("root"):
            return 0.0
        return latency * len(seen.prompt) / chars if chars else latency

    async with contextlib.AsyncExitStack() as stack:
        models = [FakeModel("root", window=32_768), FakeModel("sub", window=8192)]
        servers = [
            await stack.enter_async_context(BothApis(models, slots=slots, latency=latency_of)) for _ in range(hosts)
        ]
        print(json.dumps({"urls": [server.url for server in servers]}), flush=True)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--chars", type=int, default=0, help="a prompt of so many takes the latency; 0: any prompt")
    options = parser.parse_args()
    asyncio.run(serve(options.hosts, options.slots, options.latency, options.chars))
