"""A cell's output, read from the worker's pipe: head and tail kept, all of it counted and digested (parent side).

The pipe is read by the daemon, not by a thread in the worker: output written by a C extension, or just before a
crash, arrives all the same, and no cell can tamper with the count.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import os
from collections.abc import Callable

#: Bytes read at once: what a pipe holds. 64 KiB are digested and decoded in about 0.1 ms.
_READ = 1 << 16
#: A cell that printed this much is read slowly from then on, so that a flood costs the daemon under 2 % of its time.
_FLOOD, _PAUSE = 4 << 20, 0.02
#: Characters handed on as they come; the rest of a long output is for the report alone.
_LIVE = 200_000


class Output:
    """Reads one worker's output pipe for one cell after the other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._closed = False
        os.set_blocking(descriptor, False)
        self._reset(0, None)
        self._loop.add_reader(descriptor, self._readable)

    def begin(self, limit: int, listener: Callable[[str], None]) -> None:
        """Starts a cell: what was there before it is thrown away, at most ``limit`` characters will be kept."""
        self._drain()
        self._reset(limit, listener)

    def end(self) -> tuple[str, int, str]:
        """Ends a cell whose last byte is in the pipe: what is kept, the number of characters cut, the digest."""
        self._drain()
        self._take(b"", final=True)
        kept, cut, digest = self._kept(), self._chars - len(self._head) - len(self._tail), self._digest.hexdigest()
        self._reset(0, None)
        return kept, cut, digest

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._descriptor)
            if self._resume is not None:
                self._resume.cancel()
            os.close(self._descriptor)

    def _reset(self, limit: int, listener: Callable[[str], None] | None) -> None:
        self._listener = listener
        self._head_limit, self._tail_limit = limit - limit // 2, limit // 2
        self._head = self._tail = ""
        self._chars = self._bytes = 0
        self._digest = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def _readable(self) -> None:
        data = self._read()
        if data:
            self._take(data)
            if self._bytes > _FLOOD:
                self._loop.remove_reader(self._descriptor)
                self._resume = self._loop.call_later(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        if not self._closed:
            self._loop.add_reader(self._descriptor, self._readable)

    def _read(self) -> bytes:
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data and not self._closed:
            self._loop.remove_reader(self._descriptor)
        return data

    def _drain(self) -> None:
        """Takes what the pipe holds now; bounded, since threads left behind may go on writing."""
        for _ in range(16):
            data = b"" if self._closed else self._read()
            if not data:
                return
            self._take(data)

    def _take(self, data: bytes, *, final: bool = False) -> None:
        self._bytes += len(data)
        self._digest.update(data)
        text = self._decoder.decode(data, final)
        if not text:
            return
        self._chars += len(text)
        if self._listener is not None and self._chars <= _LIVE:
            self._listener(text)
        room = self._head_limit - len(self._head)
        self._head += text[:room]
        if self._tail_limit and len(text) > room:
            self._tail = (self._tail + text[max(room, 0) :])[-self._tail_limit :]

    def _kept(self) -> str:
        cut = self._chars - len(self._head) - len(self._tail)
        return f"{self._head}\n[… {cut:,} characters cut …]\n{self._tail}" if cut > 0 else self._head + self._tail
