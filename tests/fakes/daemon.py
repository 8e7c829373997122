"""A daemon that does what a test tells it to: both framings, scripted answers, and every kind of misbehaviour.

It shares no code with rlmd's own wire but the messages, whose defaults stand for what was not sent; so client and wire
do not agree on the same mistake in framing or order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from rlmd.wire.methods import METHODS

Answer = Callable[["Peer", dict[str, Any]], Awaitable[Any]]


class Refusal(Exception):
    """Raised by a scripted answer: becomes the JSON-RPC error object given."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message"))
        self.error = error


class Peer:
    """One connection, as a scripted answer sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.headers = False

    async def read(self) -> dict[str, Any] | None:
        first = await self._reader.read(1)
        if not first:
            return None
        self.headers = first not in (b"{", b"[")
        if not self.headers:
            return dict(json.loads(first + await self._reader.readuntil(b"\n")))
        head = first + await self._reader.readuntil(b"\r\n\r\n")
        return dict(json.loads(await self._reader.readexactly(int(head.split(b":")[1]))))

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        await self.raw(b"Content-Length: %d\r\n\r\n%b" % (len(body), body) if self.headers else body + b"\n")

    async def notify(self, method: str, params: dict[str, Any]) -> None:
        await self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def hang_up(self) -> None:
        self._writer.close()


class FakeDaemon:
    """Answers by ``answers[method]``; ``seen`` lists (method, params) of everything that came."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.peers: list[Peer] = []
        self.answers: dict[str, Answer] = {"initialize": self._initialize, "run/detach": self._done}
        #: Set when a notification came from the client.
        self.notified = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def methods(self) -> list[str]:
        return [method for method, _ in self.seen if method != "initialize"]

    async def _initialize(self, _peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
        spool = self.socket.parent / "spool"
        spool.mkdir(exist_ok=True)
        return {
            "protocol": 1,
            "server": "fake",
            "version": "0",
            "spool_folder": str(spool),
            "methods": ["context/update"],
        }

    async def _done(self, _peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
        return {"done": True}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while (message := await peer.read()) is not None:
                message["params"] = _whole(message["method"], message.get("params", {}))
                self.seen.append((message["method"], message["params"]))
                if "id" not in message:
                    self.notified.set()
                    continue
                task = asyncio.create_task(self._answer(peer, message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        writer.close()

    async def _answer(self, peer: Peer, message: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            answer = self.answers.get(message["method"])
            if answer is None:
                raise Refusal({"code": -32601, "message": f"no method {message['method']}", "data": {}})
            reply["result"] = await answer(peer, message["params"])
        except Refusal as refusal:
            reply["error"] = refusal.error
        with contextlib.suppress(ConnectionError):
            await peer.send(reply)

    async def aclose(self) -> None:
        for peer in self.peers:
            peer.hang_up()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _whole(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of what was not sent, as a daemon takes it."""
    if method not in METHODS:
        return params
    return METHODS[method].params.model_validate(params).model_dump(mode="json", by_alias=True, exclude_none=True)


@contextlib.asynccontextmanager
async def fake_daemon(folder: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(folder / "rlmd.sock")
    server = await asyncio.start_unix_server(daemon._serve, daemon.socket, limit=64 << 20)
    try:
        yield daemon
    finally:
        server.close()
        await daemon.aclose()
        await server.wait_closed()
