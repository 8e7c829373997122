"""What waits to be written to one connection: bounded, in order, and the only place that writes.

Three kinds go in. A *reply* waits for room: the client asked for it. A *fact* that finds no room is refused, and
its sender tells of the gap when there is room again. A *delta* that finds no room is dropped; neighbours of one
stream are merged while they wait. So a reader that stalls holds up nobody, and costs ``ROOM`` bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel

from rlmd.events import Delta
from rlmd.wire.framing import Message
from rlmd.wire.strictjson import dumps, encoded

#: Bytes that may wait before replies are held and notifications refused. A burst of 5,000 facts of sub-queries
#: (600 bytes each) fits; Emacs reads a message of this size in about 0.2 s.
ROOM = 4 << 20
#: A text that is still being written waits as one item of at most this many characters.
MERGED_CHARS = 64 << 10


@dataclass(slots=True)
class _Pending:
    """A delta that may still grow; encoded when its turn comes."""

    delta: Delta
    pieces: list[str]
    chars: int


def notification(method: str, params: object) -> bytes:
    return dumps({"jsonrpc": "2.0", "method": method, "params": params})


def notification_of(method: str, params: BaseModel, context: object = None) -> bytes:
    return b'{"jsonrpc":"2.0","method":"%b","params":%b}' % (method.encode(), encoded(params, context))


class Outbox:
    """One connection's queue.

    Args:
        send: Writes one message and waits while the transport is full; raises ``OSError`` when the peer is gone.
        room: Bytes that may wait.
    """

    def __init__(self, send: Callable[[Message], Awaitable[None]], *, room: int = ROOM) -> None:
        self._send = send
        self._room = room
        self._items: deque[Message | _Pending] = deque()
        self._waiting_bytes = 0
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._on_room: list[Callable[[], None]] = []
        self._closed = False

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    @property
    def full(self) -> bool:
        return self._waiting_bytes >= self._room

    async def reply(self, message: Message) -> None:
        """Queues a reply once there is room; throws it away when the peer is gone."""
        await self._has_room.wait()
        self._put(message, sum(map(len, message)))

    async def wait_room(self) -> None:
        await self._has_room.wait()

    async def wait_idle(self) -> None:
        """Until all that was queued is written, or the peer is gone."""
        await self._idle.wait()

    def offer(self, message: bytes) -> bool:
        """Queues a notification if there is room; False if not."""
        if self.full and not self._closed:
            return False
        self._put((message,), len(message))
        return True

    def offer_delta(self, delta: Delta) -> bool:
        """Queues a piece of a stream, merged into the last one waiting where they touch; False if dropped."""
        last = self._items[-1] if self._items else None
        if isinstance(last, _Pending) and self._touches(last, delta):
            last.pieces.append(delta.text)
            last.chars += len(delta.text)
            self._count(len(delta.text))
            return True
        if self.full and not self._closed:
            return False
        self._put(_Pending(delta, [delta.text], len(delta.text)), _size(delta.text))
        return True

    @staticmethod
    def _touches(last: _Pending, delta: Delta) -> bool:
        same = last.delta.run_id == delta.run_id and last.delta.stream == delta.stream
        return same and last.delta.offset + last.chars == delta.offset and last.chars + len(delta.text) <= MERGED_CHARS

    def when_room(self, call: Callable[[], None]) -> None:
        """Calls once, when half of the room is free again."""
        self._on_room.append(call)

    def close(self) -> None:
        """The peer is gone: nothing waits any more, and what is queued from now on is thrown away."""
        self._closed = True
        self._items.clear()
        self._waiting_bytes = 0
        self._on_room.clear()
        for event in (self._has_room, self._idle, self._filled):
            event.set()

    async def run(self) -> None:
        """Writes in order until closed or cancelled. Raises ``OSError`` when the peer is gone."""
        while True:
            await self._filled.wait()
            if self._closed:
                return
            item = self._items.popleft()
            message, size = self._encoded(item)
            if not self._items:
                self._filled.clear()
            await self._send(message)
            self._written(size)

    @staticmethod
    def _encoded(item: Message | _Pending) -> tuple[Message, int]:
        if isinstance(item, tuple):
            return item, sum(map(len, item))
        text = "".join(item.pieces)
        whole = item.delta.model_copy(update={"text": text})
        size = _size(item.delta.text) + len(text) - len(item.delta.text)
        return (notification("run/delta", whole.model_dump(mode="json")),), size

    def _put(self, item: Message | _Pending, size: int) -> None:
        if self._closed:
            return
        self._items.append(item)
        self._count(size)
        self._filled.set()
        self._idle.clear()

    def _count(self, size: int) -> None:
        self._waiting_bytes += size
        if self.full:
            self._has_room.clear()

    def _written(self, size: int) -> None:
        if self._closed:
            return
        self._waiting_bytes -= size
        if not self.full:
            self._has_room.set()
        if self._on_room and self._waiting_bytes <= self._room // 2:
            calls, self._on_room = self._on_room, []
            for call in calls:
                call()
        if not self._items:
            self._idle.set()


def _size(text: str) -> int:
    """Roughly what a delta costs while it waits: its text and 200 bytes around it."""
    return len(text) + 200
