"""A fake chat model that calls tools: an OpenAI-compatible server for clients such as OpenCode.

``ToolCaller(calls, answer)``: each request whose tools hold the next call's tool is answered with that call, whatever
prefix the client gave its name; when all were made, with ``answer``. Requests without tools (titles, summaries) get a
short text. What the tools gave is in ``results``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, Self

from tests.fakes.httpd import HttpServer, Reply, Request

Call = tuple[str, dict[str, Any]]


class ToolCaller:
    def __init__(self, calls: Sequence[Call], answer: str) -> None:
        self._calls = calls
        self._answer = answer
        self._ids = itertools.count(1)
        self.results: list[str] = []
        self.tools: set[str] = set()
        self.http = HttpServer(self._route)

    async def __aenter__(self) -> Self:
        await self.http.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.stop()

    @property
    def url(self) -> str:
        return self.http.url

    async def _route(self, request: Request, reply: Reply) -> None:
        if request.path != "/v1/chat/completions":
            await reply.send_json(404, {"error": {"message": f"no {request.path}"}})
            return
        body = request.json()
        offered = [tool["function"]["name"] for tool in body.get("tools", ())]
        self.tools.update(offered)
        delta, finish = self._next(body["messages"], offered)
        await reply.start("text/event-stream")
        for part, reason in ((delta, None), ({}, finish)):
            choice = {"index": 0, "delta": part, "finish_reason": reason}
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
            chunk |= {"choices": [choice], "usage": usage}
            await reply.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await reply.write(b"data: [DONE]\n\n")
        await reply.end()

    def _next(self, messages: list[dict[str, Any]], offered: list[str]) -> tuple[dict[str, Any], str]:
        if not offered:
            return {"role": "assistant", "content": "a title"}, "stop"
        self.results = [str(one["content"]) for one in messages if one["role"] == "tool"]
        if len(self.results) >= len(self._calls):
            return {"role": "assistant", "content": self._answer}, "stop"
        name, arguments = self._calls[len(self.results)]
        known = next((one for one in offered if one.endswith(name)), name)
        function = {"name": known, "arguments": json.dumps(arguments)}
        call = {"index": 0, "id": f"call_{next(self._ids)}", "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}, "tool_calls"
