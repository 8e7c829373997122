"""The listening socket: who may connect, how many, and how they are seen off at the end.

Knows connections, not methods.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from typing import Any

import structlog

from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Dispatcher, incident

#: One desktop's Emacs, shells and MCP servers are a dozen; a connection costs about 50 KB.
MAX_CONNECTIONS = 500

log = structlog.get_logger(__name__)

#: From Python 3.13 on the loop removes a socket's file with its server. It is not ours to remove: systemd, which
#: listens on, would wait for connections at a path that is no more; what we bound, ``Claim`` removes.
_KEEPING: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class Server:
    """Args:
    listener: Bound and listening; the server closes it.
    dispatcher: Answers requests.
    """

    def __init__(self, listener: socket.socket, dispatcher: Dispatcher[Connection]) -> None:
        self._listener = listener
        self._dispatcher = dispatcher
        self._accepted = 0
        self._serving: dict[asyncio.Task[None], Connection] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(
            self._accept, sock=self._listener, backlog=MAX_CONNECTIONS, **_KEEPING
        )

    def refuse_new(self) -> None:
        """Takes no more connections: under socket activation the next daemon gets them."""
        if self._server is not None:
            self._server.close()

    async def stop(self, seconds: float) -> None:
        """Reads no more requests, gives those at work so long, then ends them."""
        self.refuse_new()
        for connection in self._serving.values():
            connection.stop_reading()
        if self._serving:
            _, late = await asyncio.wait(list(self._serving), timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def connections(self) -> int:
        return len(self._serving)

    @property
    def answering(self) -> bool:
        """Whether a request of any client's is at work."""
        return any(connection.answering for connection in self._serving.values())

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, uid = peer_of(writer.get_extra_info("socket"))
        if uid != os.getuid() or len(self._serving) >= MAX_CONNECTIONS:
            log.warning("connection refused", peer_pid=pid, peer_uid=uid, connections=len(self._serving))
            writer.close()
            return
        self._accepted += 1
        connection = Connection(reader, writer, self._dispatcher, self._accepted)
        task = asyncio.create_task(self._serve(connection, pid), name=f"client-{connection.number}")
        self._serving[task] = connection
        task.add_done_callback(self._serving.pop)

    async def _serve(self, connection: Connection, pid: int) -> None:
        with structlog.contextvars.bound_contextvars(client=connection.number):
            log.debug("client connected", peer_pid=pid)
            try:
                await connection.serve()
            except Exception as error:  # noqa: BLE001  one client's trouble must not reach the others
                incident(error, method="connection")
            log.debug("client gone")


def peer_of(connected: socket.socket) -> tuple[int, int]:
    """The peer's process and user id, from the kernel."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid
