"""The model servers of the benchmarks, in a process of their own: several hosts that speak Ollama's API and OpenAI's.

    python -m tests.benchmarks.servers --hosts 4 --slots 8 --latency 0.05

prints one JSON line: ``{"urls": [...]}``. Scripts and what was seen go by ``/fake/script`` and ``/fake/seen`` as with
``tests.fakes.ollama``. OpenAI's ``/v1/chat/completions`` is answered whole or streamed, from the same scripts: that
is what the peers speak, so that all are measured on the same server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from typing import Any

from tests.fakes.httpd import Reply, Request
from tests.fakes.ollama import FakeModel, FakeOllama, Scripted, Seen


class BothApis(FakeOllama):
    """A ``FakeOllama`` that answers OpenAI's chat completions too."""

    async def _route(self, request: Request, reply: Reply) -> None:
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            await super()._route(request, reply)
            return
        body = request.json()
        seen = Seen(self._full(body["model"]), body["messages"], body)
        async with self._recorded(seen), self._free:
            entry = self._entry(seen)
            await asyncio.sleep(self._wait(seen, entry))
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
