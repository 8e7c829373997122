"""Frames between the daemon and one worker, the daemon's end: never blocks, trusts nothing (parent side).

What comes in is cut into whole frames under a cap; a frame that is too long, not JSON, or of no known form is a
``Breach``, which ends the session and nothing else. Works on any asyncio loop (``add_reader`` on the bare socket).
"""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rlmd.repl.link import MOST_FRAME, MOST_HEADER

Header = dict[str, Any]

#: Bytes read at once, and frames handled before the loop gets its turn: a prompt is the beginning of a sub-query, which
#: takes some 0.3 ms.
_READ = 1 << 18
_FRAMES = 8
#: Bytes that wait for the worker to read them; one that asks and does not read would fill the daemon's memory.
_MOST_UNREAD = 64 << 20
#: What a waiting frame takes beside its bytes.
_OVERHEAD = 400
_LENGTHS = struct.Struct(">II")


class Breach(Exception):
    """The worker sent what no honest worker sends. The message names the rule, never the content."""


class Channel:
    """One end of a socketpair.

    Args:
        end: A connected stream socket; owned by the channel from now on.
        on_frame: Called on the loop with each frame. A ``Breach`` that it raises ends the channel.
        on_end: Called once with the breach, or None when the worker hung up.
    """

    def __init__(
        self,
        end: socket.socket,
        on_frame: Callable[[Header, bytes], None],
        on_end: Callable[[Breach | None], None],
    ) -> None:
        self._socket = end
        self._on_frame, self._on_end = on_frame, on_end
        self._loop = asyncio.get_running_loop()
        self._incoming = bytearray()
        self._outgoing: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._unread = 0
        self._more: asyncio.Handle | None = None
        self._writing = self._closed = False
        end.setblocking(False)
        self._loop.add_reader(end.fileno(), self._readable)

    def send(self, header: Header, body: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Queues one frame; ``descriptors`` are duplicated into the worker and closed here.

        Raises:
            ValueError: The frame is longer than the worker takes.
        """
        head = marshal.dumps(header)
        if len(head) + len(body) > MOST_FRAME:
            raise ValueError(f"a frame of {len(head) + len(body):,} bytes; at most {MOST_FRAME:,} fit")
        if self._closed:
            _close_all(descriptors)
            return
        data = memoryview(_LENGTHS.pack(len(head), len(body)) + head + body)
        self._outgoing.append((data, descriptors))
        self._unread += len(data) + _OVERHEAD
        if self._unread > _MOST_UNREAD:
            self._loop.call_soon(self._end, Breach(f"more than {_MOST_UNREAD >> 20} MiB asked for and not read"))
        if not self._writing:
            self._writable()

    def close(self) -> None:
        """Hangs up. ``on_end`` is not called any more."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._stop_writing()
        if self._more is not None:
            self._more.cancel()
        for _, descriptors in self._outgoing:
            _close_all(descriptors)
        self._outgoing.clear()
        self._incoming.clear()
        self._socket.close()

    # Out.

    def _writable(self) -> None:
        try:
            while self._outgoing:
                data, descriptors = self._outgoing[0]
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
                sent = self._socket.sendmsg([data], rights if descriptors else [])
                self._unread -= sent
                _close_all(descriptors)
                if sent < len(data):
                    self._outgoing[0] = (data[sent:], ())
                else:
                    self._outgoing.popleft()
                    self._unread -= _OVERHEAD
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket.fileno(), self._writable)
            return
        except OSError:  # the worker is gone; reading will say so
            for _, descriptors in self._outgoing:
                _close_all(descriptors)
            self._outgoing.clear()
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())

    # In.

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ)  # no room for ancillary data: descriptors sent to us are closed
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(None)
            return
        self._incoming += data
        self._cut_frames()

    def _cut_frames(self) -> None:
        self._more = None
        try:
            for _ in range(_FRAMES):
                if self._closed or not self._cut_frame():
                    return
        except Breach as breach:
            self._end(breach)
            return
        # The rest in a moment; until then nothing more is read.
        self._loop.remove_reader(self._socket.fileno())
        self._more = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket.fileno(), self._readable)
            self._cut_frames()

    def _cut_frame(self) -> bool:
        if len(self._incoming) < _LENGTHS.size:
            return False
        head, body = _LENGTHS.unpack_from(self._incoming)
        if head > MOST_HEADER:
            raise Breach(f"a header of {head:,} bytes; at most {MOST_HEADER:,} are taken")
        if head + body > MOST_FRAME:
            raise Breach(f"a frame of {head + body:,} bytes; at most {MOST_FRAME:,} are taken")
        end = _LENGTHS.size + head + body
        if len(self._incoming) < end:
            return False
        with memoryview(self._incoming) as view:
            header = bytes(view[_LENGTHS.size : _LENGTHS.size + head])
            content = bytes(view[_LENGTHS.size + head : end])
        del self._incoming[:end]
        self._on_frame(_parse(header), content)
        return True

    def _end(self, breach: Breach | None) -> None:
        if not self._closed:
            self.close()
            self._on_end(breach)


def _parse(header: bytes) -> Header:
    try:
        value = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise Breach("a frame's header is not JSON") from error
    if not isinstance(value, dict) or not isinstance(value.get("t"), str):
        raise Breach("a frame's header has no type")
    return value


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


# --- taking headers apart ----------------------------------------------------------------------------------------


def integer(header: Header, key: str, least: int, most: int) -> int:
    value = header.get(key)
    if type(value) is not int or not least <= value <= most:
        raise Breach(f"{header['t']}.{key} is not an integer from {least} to {most}")
    return value


def text(header: Header, key: str, most: int) -> str:
    value = header.get(key)
    if not isinstance(value, str) or len(value) > most or not encodable(value):
        raise Breach(f"{header['t']}.{key} is not a text of at most {most} characters")
    return value


def optional_text(header: Header, key: str, most: int) -> str | None:
    return None if header.get(key) is None else text(header, key, most)


def flag(header: Header, key: str) -> bool:
    value = header.get(key)
    if not isinstance(value, bool):
        raise Breach(f"{header['t']}.{key} is not true or false")
    return value


def items(header: Header, key: str, most: int) -> list[Any]:
    value = header.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise Breach(f"{header['t']}.{key} is not a list of at most {most}")
    return value


def body_text(header: Header, body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Breach(f"the body of {header['t']} is not UTF-8") from error


def encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
