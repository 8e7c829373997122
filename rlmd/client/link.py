"""One connection: requests go out, replies meet their futures, notifications go to one callback in order.

Knows JSON-RPC and ids, not what methods mean. It does not mend itself: when the connection ends, every call
that is still open fails with ``NotConnected``, and ``Client`` makes another link.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlmd.client.failures import error_from, lost
from rlmd.client.framing import MAX_MESSAGE, Framing, encode, read_message
from rlmd.errors import InvalidParams, NotConnected

Notified = Callable[[str, dict[str, Any]], None]
Ended = Callable[[], None]


class Link:
    """Made by ``Link.open``; ended by ``close`` or by the daemon."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        framing: Framing,
        notified: Notified,
        ended: Ended,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._framing: Framing = framing
        self._notified = notified
        self._ended = ended
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._why: NotConnected | None = None
        self._task = asyncio.create_task(self._read(), name="rlmd-client-reader")

    @classmethod
    async def open(cls, path: Path, *, framing: Framing, notified: Notified, ended: Ended) -> Link:
        """Connects. Raises ``OSError`` as connect(2) does, ``NotConnected`` when the listener is another user's.

        Args:
            notified: Called on the loop with method and params of each notification; must return at once.
            ended: Called once when the connection has ended, whoever ended it.
        """
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_MESSAGE)
        owner = _peer_uid(writer)
        if owner not in (os.getuid(), 0):
            writer.close()
            raise NotConnected(
                f"The socket {path} belongs to user {owner}, not to you ({os.getuid()}).",
                hint="Nothing was sent. Remove the socket, or set XDG_RUNTIME_DIR to a folder of your own.",
            )
        return cls(reader, writer, framing=framing, notified=notified, ended=ended)

    @property
    def alive(self) -> bool:
        return self._why is None

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """Sends one request and waits for its result.

        Raises:
            RlmdError: The daemon's error, or ``NotConnected`` when the connection ends first. In that case the
                daemon may or may not have done what was asked.
        """
        if self._why is not None:
            raise NotConnected(self._why.message, hint=self._why.hint)
        number = next(self._ids)
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        try:
            data = encode(message, self._framing)
        except ValueError:
            raise InvalidParams(
                f"The parameters of {method} hold something that JSON cannot carry (a lone surrogate, NaN).",
                hint="A file name that is not UTF-8 goes by spool.",
            ) from None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        try:
            self._writer.write(data)
            with contextlib.suppress(ConnectionError):  # the reader task sees the end, and tells every open call
                await self._writer.drain()
            return await future
        except asyncio.CancelledError:
            self._withdraw(number)
            raise
        finally:
            del self._open[number]
            if future.done() and not future.cancelled():
                future.exception()  # cancelled just as it failed: the error has been seen

    async def close(self) -> None:
        self._end(lost("The connection was closed by this client.", hint=" "))
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _withdraw(self, number: int) -> None:
        """Tells the daemon that nobody waits for this answer any more."""
        if self._why is None:
            note = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": number}}
            self._writer.write(encode(note, self._framing))

    async def _read(self) -> None:
        why = lost("The daemon ended the connection.")
        try:
            while (message := await read_message(self._reader, self._framing)) is not None:
                self._take(message)
        except NotConnected as error:
            why = error
        finally:
            self._end(why)
            self._writer.close()

    def _take(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if isinstance(method, str):
            params = message.get("params")
            self._notified(method, params if isinstance(params, dict) else {})
            return
        number = message.get("id")
        future = self._open.get(number) if isinstance(number, int) else None
        if future is None or future.done():
            if number is None and "error" in message:
                raise lost(f"The daemon could not read a message of ours: {error_from(message['error']).message}")
            return
        if "error" in message:
            future.set_exception(error_from(message["error"]))
        else:
            future.set_result(message.get("result"))

    def _end(self, why: NotConnected) -> None:
        if self._why is not None:
            return
        self._why = why
        for future in self._open.values():
            if not future.done():
                future.set_exception(NotConnected(why.message, hint=why.hint))
        self._ended()


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    peer: socket.socket = writer.get_extra_info("socket")
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)
