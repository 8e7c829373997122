"""A small HTTP/1.1 server for the fake model servers: streams, notices a client that hangs up, can misbehave.

Owns sockets and HTTP framing; knows nothing of models. A handler is a coroutine ``handler(request, reply)``; it is
cancelled when its client goes away, as a real server cancels its generation. ``HttpServer.die`` refuses new
connections and resets the open ones; ``revive`` listens again on the same port.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


class Reply:
    """What a handler writes to: one JSON body, or a chunked stream."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.started = False
        self.ended = False
        #: Which reply on its connection, from 1.
        self.number = connection.served

    async def send_json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        await self.send(status, json.dumps(body).encode(), "application/json", headers)

    async def send(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.started = self.ended = True
        self._head(status, {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})})
        await self._connection.write(body)

    async def start(self, content_type: str, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        self.started = True
        self._head(status, {"Content-Type": content_type, "Transfer-Encoding": "chunked", **(headers or {})})
        await self._connection.write(b"")

    async def write(self, data: bytes) -> None:
        """One chunk."""
        if data:
            await self._connection.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        self.ended = True
        await self._connection.write(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        """Bytes past the framing, for replies that break it."""
        await self._connection.write(data)

    def reset(self) -> None:
        """Cuts the connection with an RST in the middle of whatever was sent."""
        self.ended = True
        self._connection.reset()

    def close_after(self) -> None:
        """Closes the connection once this reply is out, without having said so (a stale keep-alive)."""
        self._connection.close_after = True

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{k}: {v}" for k, v in headers.items())]
        self._connection.transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())


Handler = Callable[[Request, Reply], Awaitable[None]]


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.close_after = False
        self.served = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.connections.add(self)
        self._server.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    async def write(self, data: bytes) -> None:
        if self.transport.is_closing():
            raise ConnectionResetError("the client went away")
        self.transport.write(data)
        await self._writable.wait()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _next(self) -> None:
        if self._task is None and (request := self._parse()) is not None:
            self._task = asyncio.get_running_loop().create_task(self._serve(request), name=f"fake {request.path}")
            self._server.tasks.add(self._task)
            self._task.add_done_callback(self._server.tasks.discard)

    def _parse(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body, used = self._body(end + 4, headers)
        if used < 0:
            return None
        del self._buffer[:used]
        method, path, _ = first.split(" ", 2)
        return Request(method, path.partition("?")[0], headers, body)

    def _body(self, start: int, headers: Mapping[str, str]) -> tuple[bytes, int]:
        """The body and where the next request begins, or -1 while bytes are missing."""
        if headers.get("transfer-encoding") != "chunked":
            length = int(headers.get("content-length", "0"))
            complete = len(self._buffer) >= start + length
            return bytes(self._buffer[start : start + length]), start + length if complete else -1
        body = bytearray()
        while (line := self._buffer.find(b"\r\n", start)) >= 0:
            size = int(self._buffer[start:line], 16)
            if len(self._buffer) < line + 4 + size:
                break
            body += self._buffer[line + 2 : line + 2 + size]
            start = line + 4 + size
            if size == 0:
                return bytes(body), start
        return b"", -1

    async def _serve(self, request: Request) -> None:
        self.served += 1
        reply = Reply(self)
        try:
            await self._server.handler(request, reply)
        except ConnectionResetError:
            pass
        finally:
            self._task = None
        if not reply.ended:
            self.transport.close()  # the handler broke off: a stream without its last chunk
        elif self.close_after:
            self.transport.close()
        elif not self.transport.is_closing():
            self._next()


class HttpServer:
    """Listens on 127.0.0.1; ``port`` 0 picks a free one, which a later ``revive`` keeps."""

    def __init__(self, handler: Handler, port: int = 0) -> None:
        self.handler = handler
        self.port = port
        self.connections: set[_Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses new connections, resets the open ones, ends the handlers."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.reset()
        tasks = [task for task in self.tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    die = stop
    revive = start
