"""Where the room's blocking work is done: one thread for the catalogue, a few for files.

Owns the rule of cancellation: work that has begun is never torn. A caller that is cancelled waits until the work has
let go of what it holds, or has been done wholly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, TypeVar

T = TypeVar("T")

#: Objects that are freed at once, unless there are more: 1,000 documents take some 0.3 ms.
_FREED_AT_ONCE = 1000


class Threads:
    def __init__(self) -> None:
        self._catalogue = ThreadPoolExecutor(1, thread_name_prefix="catalogue")
        self._files = ThreadPoolExecutor(2, thread_name_prefix="contexts")
        self._tasks: set[asyncio.Task[Any]] = set()

    async def in_catalogue(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs work on the one thread that the catalogue belongs to."""
        return await _run(self._catalogue, lambda: work(*arguments))

    async def in_files(self, work: Callable[[], T]) -> T:
        return await _run(self._files, work)

    async def until_let_go(self, work: Callable[[], T], cancelled: Event) -> T:
        """Runs work that looks at ``cancelled``; when this task is cancelled, waits until it has let go."""
        future = asyncio.get_running_loop().run_in_executor(self._files, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            cancelled.set()
            await _until_done(future)
            raise

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs work that a cancellation must not tear: it is finished first."""
        task = asyncio.get_running_loop().create_task(work, name="contexts: commit")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _until_done(task)
            raise

    async def emptied(self, *collections: list[Any] | dict[Any, Any]) -> None:
        """Empties what held many objects, one by one: freed at once, 100,000 documents hold the interpreter for 35 ms,
        in whatever thread."""
        if sum(map(len, collections)) > _FREED_AT_ONCE:
            await self.in_files(lambda: _empty(*collections))

    def free_soon(self, objects: Collection[Any]) -> None:
        """The same for what nobody holds any more; from whatever thread."""
        if len(objects) > _FREED_AT_ONCE:
            held = list(objects)
            with contextlib.suppress(RuntimeError):  # the threads have ended: it is freed at once
                self._files.submit(_empty, held)

    async def settle(self) -> None:
        """Waits for what is being committed."""
        for task in list(self._tasks):
            with contextlib.suppress(Exception):
                await asyncio.shield(task)

    def close(self) -> None:
        self._catalogue.shutdown()
        self._files.shutdown()


def _empty(*collections: list[Any] | dict[Any, Any]) -> None:
    for one in collections:
        take = one.popitem if isinstance(one, dict) else one.pop
        while one:
            take()


async def _run(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, work)


async def _until_done(future: asyncio.Future[Any]) -> None:
    """Waits, however often the waiting task is cancelled meanwhile: what the future uses must not be taken away."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # it was looked at
