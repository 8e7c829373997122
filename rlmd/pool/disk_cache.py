"""Finished completions on disk: diskcache on one thread of its own.

**Why there is a ``Disk`` subclass.** diskcache 5.6.3 unpickles what it reads (CVE-2025-69872), with its ``JSONDisk``
too: whoever can write a row into the database runs code in the daemon. There is no fixed version. ``BytesDisk`` stores
and returns bytes only, refuses rows of any other kind, and follows no file name that it did not make itself. diskcache
also translates line ends in long ``str`` values and returns cut files without an error; so values are bytes of our
own, led by their digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import diskcache
import structlog
from diskcache.core import MODE_BINARY, MODE_RAW, UNKNOWN

from rlmd.pool.cache import VERSION, CachedCompletion
from rlmd.pool.pending import INLINE_BYTES, Pending, SeenKeys
from rlmd.providers.base import Completion, Usage

T = TypeVar("T")

#: How long a reader waits for another process's lock; beyond it, a miss. (diskcache's own default is 60 s.)
LOCK_SECONDS = 1.0
#: How long what is in a file already waits for company before it is stored in the database.
GATHER_SECONDS = 0.1
#: How often the entries are counted while values are stored; a count costs as much as a store.
COUNT_SECONDS = 0.25
_FILE_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val")

log = structlog.get_logger(__name__)


class BytesDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Stores bytes and cannot unpickle; see the module's docstring."""

    def put(self, key: str) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError("keys are str")
        return key, True

    def get(self, key: object, raw: bool) -> object:
        if not raw or not isinstance(key, str):
            raise ValueError("a key that was not written by us")
        return key

    def store(self, value: bytes, read: bool, key: object = UNKNOWN) -> tuple[int, int, str | None, bytes | None]:
        if not isinstance(value, bytes) or read:
            raise TypeError("values are bytes")
        size, mode, filename, stored = super().store(value, False, key=key)
        return size, mode, filename, stored

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:
        if mode == MODE_RAW and isinstance(value, bytes) and not read:
            return value
        if mode == MODE_BINARY and filename is not None and not read:
            name = filename.replace(os.sep, "/")
            if not _FILE_NAME.fullmatch(name):
                raise ValueError("a file name that was not made by us")
            with open(os.path.join(self._directory, filename), "rb") as file:
                return file.read()
        raise ValueError("a row of a kind that we do not write")


class DiskCache:
    """diskcache on one thread: no two operations at once, none on the event loop.

    What is put is appended to a file at once (``pending``), found in memory, and stored in the database with what
    comes in the next moment; what is too long for that is awaited until it is stored.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rlmd-cache")
        self._cache: Any = None
        self._statistics = (0, 0)
        self._uncounted, self._counted = False, 0.0
        self._warned = False
        self._pending, self._seen = Pending(folder), SeenKeys()
        self._gathered: dict[str, CachedCompletion] = {}
        self._gathering: asyncio.TimerHandle | None = None
        #: Those who wait until what is gathered is stored; how many lots the thread has.
        self._waiting: list[asyncio.Future[None]] = []
        self._storing = 0

    async def open(self) -> None:
        await self._call(self._open)
        self._thread.submit(self._guarded, self._see_all)

    async def get(self, keys: Sequence[str]) -> CachedCompletion | None:
        for key in keys:
            if key in self._gathered:
                return self._gathered[key]
        seen = [key for key in keys if self._seen.may_hold(key)]
        return await self._call(lambda: self._get(seen)) if seen else None

    def put(self, key: str, value: CachedCompletion) -> Awaitable[None]:
        loop = asyncio.get_running_loop()
        self._gathered[key] = value
        self._seen.add(key)
        data = _to_bytes(value)
        told: asyncio.Future[None] = loop.create_future()
        if len(data) <= INLINE_BYTES and self._cache is not None and self._pending.append(key, data):
            told.set_result(None)
        else:
            self._waiting.append(told)
        if not self._storing:
            self._store_in(0 if self._waiting else GATHER_SECONDS)
        return told

    def _store_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._gathering is not None and self._gathering.when() <= loop.time() + seconds:
            return
        self._forget_gathering()
        self._gathering = loop.call_later(seconds, self._store_gathered)

    def _forget_gathering(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def _store_gathered(self) -> None:
        """Hands what was gathered to the thread, which finds it there before any ``get`` that comes later."""
        self._forget_gathering()
        lot, self._gathered = self._gathered, {}
        waiting, self._waiting = self._waiting, []
        if lot:
            self._storing += 1
            file = self._pending.sealed()
            done = asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, lambda: self._put(lot, file))
            done.add_done_callback(lambda _: self._lot_stored(waiting))

    def _lot_stored(self, waiting: list[asyncio.Future[None]]) -> None:
        self._storing -= 1
        for told in waiting:
            if not told.done():  # its waiter may have been cancelled
                told.set_result(None)
        if self._gathered and not self._storing:
            self._store_in(0 if self._waiting else GATHER_SECONDS)

    async def forget(self, context: str) -> None:
        self._store_gathered()
        await self._call(lambda: self._forget(context))

    def statistics(self) -> tuple[int, int]:
        """As counted last; counting again, for the next who asks, if something was stored since."""
        if self._uncounted:
            self._thread.submit(self._guarded, self._count)
        return self._statistics

    async def clear(self) -> None:
        self._store_gathered()
        await self._call(self._clear)

    async def close(self) -> None:
        self._store_gathered()
        await self._call(self._close)
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[], T]) -> T | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    # ── on the thread ───────────────────────────────────────────────────────────────────────────────────────

    def _guarded(self, work: Callable[[], T]) -> T | None:
        """A fault of the cache is a miss, said once."""
        try:
            return work()
        except (diskcache.Timeout, sqlite3.Error, OSError, ValueError, TypeError, KeyError) as error:
            if not self._warned:
                self._warned = True
                log.warning("cache_fault", error=type(error).__name__, folder=str(self._folder))
            return None

    def _open(self) -> None:
        try:
            self._cache = self._make()
        except sqlite3.DatabaseError:
            aside = self._folder.with_name(f"{self._folder.name}.damaged-{int(time.time())}")
            self._folder.rename(aside)
            log.warning("cache_set_aside", folder=str(aside))
            self._cache = self._make()
        self._take_over_pending()
        self._count()

    def _take_over_pending(self) -> None:
        """What a killed daemon told and did not store."""
        for file, records in self._pending.left():
            self._put({key: value for key, data in records if (value := _from_bytes(data)) is not None}, file)

    def _see_all(self) -> None:
        for key in self._cache if self._cache is not None else ():
            self._seen.add(key)
        self._seen.complete = self._cache is not None

    def _make(self) -> Any:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        return diskcache.Cache(
            str(self._folder),
            timeout=LOCK_SECONDS,
            disk=BytesDisk,
            size_limit=self._limit,
            eviction_policy="least-recently-stored",
            sqlite_secure_delete=1,  # what was dropped is not left in free pages
            cull_limit=0,  # not within a transaction: the room that it frees counts only after, and all would go
        )

    def _get(self, keys: Sequence[str]) -> CachedCompletion | None:
        if self._cache is None:
            return None
        for key in keys:
            data = self._cache.get(key)
            if data is None:
                continue
            if (value := _from_bytes(data)) is not None:
                return value
            self._cache.delete(key)
        return None

    def _put(self, lot: Mapping[str, CachedCompletion], file: Path | None = None) -> None:
        if self._cache is not None:
            with self._cache.transact():
                for key, value in lot.items():
                    self._cache.set(key, _to_bytes(value), tag=json.dumps(value.contexts))
            self._pending.empty(file)
            if self._cache.volume() > self._limit:
                self._cache.cull()
            self._uncounted = True
            if time.monotonic() - self._counted > COUNT_SECONDS:
                self._count()

    def _forget(self, context: str) -> None:
        if self._cache is None:
            return
        # The one thing that diskcache does not tell: which tags there are.
        tags = self._cache._sql("SELECT DISTINCT tag FROM Cache WHERE tag IS NOT NULL").fetchall()
        for (tag,) in tags:
            if context in json.loads(tag):
                self._cache.evict(tag)
        self._bring_to_file()
        self._count()

    def _bring_to_file(self) -> None:
        """What was deleted is overwritten in the log first; the file holds it until that is brought over."""
        self._cache._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _count(self) -> None:
        if self._cache is not None:
            self._uncounted, self._counted = False, time.monotonic()
            self._statistics = (len(self._cache), self._cache.volume())

    def _clear(self) -> None:
        if self._cache is not None:
            self._cache.clear()
            self._bring_to_file()
            self._count()

    def _close(self) -> None:
        self._pending.close()
        if self._cache is not None:
            self._cache.close()
            self._cache = None


def _to_bytes(value: CachedCompletion) -> bytes:
    completion = value.completion
    record = {
        "version": VERSION,
        "host": value.host,
        "model": value.model,
        "contexts": value.contexts,
        "text": completion.text,
        "thinking": completion.thinking,
        "usage": [completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.estimated],
    }
    data = json.dumps(record).encode()
    return hashlib.sha256(data).digest() + data


def _from_bytes(data: bytes) -> CachedCompletion | None:
    """None for anything that is not exactly what was stored."""
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    record = json.loads(data[32:])
    if record["version"] != VERSION:
        return None
    prompt, written, estimated = record["usage"]
    usage = Usage(prompt, written, estimated)
    completion = Completion(record["text"], record["thinking"], "stop", usage)
    return CachedCompletion(completion, record["host"], record["model"], tuple(record.get("contexts", ())))
