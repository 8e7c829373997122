"""What a real server answered, kept so that CI can ask it again: a proxy that writes down, and a server that repeats.

A recording is a JSON file: a list of exchanges with method, path, request body, status, headers, and the pieces of the
reply's body as they came. A request that no exchange has is answered by 599, which says which one: the recordings must
then be made anew (``tests/run --full --record -k conformance``).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.httpd import HttpServer, Reply, Request
from tests.peers.built import folder

#: Headers that change nothing for a client, or speak of one connection.
KEPT_HEADERS = ("content-type", "keep-alive", "retry-after")


@contextlib.asynccontextmanager
async def recorded(upstream: str, file: Path) -> AsyncIterator[str]:
    """A proxy to ``upstream``; at its end, ``file`` has all that passed."""
    exchanges: list[dict[str, Any]] = []

    async def handle(request: Request, reply: Reply) -> None:
        headers = {name: request.headers[name] for name in ("authorization", "x-api-key") if name in request.headers}
        headers |= {"content-type": "application/json", "accept-encoding": "identity"}
        headers |= {name: value for name, value in request.headers.items() if name.startswith("anthropic-")}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, upstream + request.path, data=request.body, headers=headers) as answer,
        ):
            shown = {name: value for name, value in answer.headers.items() if name.lower() in KEPT_HEADERS}
            pieces: list[str] = []
            exchange = {**_asked(request), "status": answer.status, "headers": shown, "pieces": pieces}
            exchanges.append(exchange)
            await _begin(reply, exchange)
            async for piece in answer.content.iter_any():
                pieces.append(piece.decode("latin-1"))
                await reply.write(piece)
            await reply.end()

    async with _serving(handle) as url:
        yield url
    # Servers name a model by its file: where that lies is this machine's matter.
    told = json.dumps(exchanges, indent=1).replace(str(folder()), "/peers")
    file.write_text(told + "\n", encoding="utf-8")


@contextlib.asynccontextmanager
async def repeated(file: Path) -> AsyncIterator[str]:
    """A server that answers as the one that was recorded did; equal requests in the order of then."""
    left = json.loads(file.read_text(encoding="utf-8"))

    async def handle(request: Request, reply: Reply) -> None:
        asked = _asked(request)
        exchange = next((one for one in left if {key: one[key] for key in asked} == asked), None)
        if exchange is None:
            await reply.send(599, f"{file.name} has no {json.dumps(asked)[:300]}".encode(), "text/plain")
            return
        left.remove(exchange)
        await _begin(reply, exchange)
        for piece in exchange["pieces"]:
            await reply.write(piece.encode("latin-1"))
        await reply.end()

    async with _serving(handle) as url:
        yield url


def _asked(request: Request) -> dict[str, Any]:
    return {"method": request.method, "path": request.path, "body": request.json() if request.body else None}


async def _begin(reply: Reply, exchange: dict[str, Any]) -> None:
    headers = {name.lower(): value for name, value in exchange["headers"].items()}
    await reply.start(headers.pop("content-type", "text/plain"), headers, exchange["status"])


@contextlib.asynccontextmanager
async def _serving(handle: Any) -> AsyncIterator[str]:
    server = HttpServer(handle)
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()
