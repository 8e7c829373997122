"""Single flight: equal requests that are asked at once are sent once, and end when nobody waits any more.

Owns the claims of waiters and what each has been told of the text so far.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import structlog

from rlmd.errors import Draining

OnDelta = Callable[[int, str], None]
T = TypeVar("T")

log = structlog.get_logger(__name__)


class Flight(Generic[T]):
    """One piece of work that several wait for. The last claim gone cancels it."""

    def __init__(self) -> None:
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._listeners: dict[int, OnDelta] = {}
        self._claims = 0
        self._next = 0
        #: Whose requests it serves, those that gave up included; ``private`` once one of them turned out to be.
        self.runs: set[str] = set()
        self.private = False
        self._said: list[str] = []
        self._chars = 0

    def start(
        self,
        work: Callable[[], Awaitable[T]],
        group: asyncio.TaskGroup,
        name: str,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """``ended`` is called however it ends. Whoever waits when the group ends the work gets ``Draining``: nobody
        cancelled *them*."""
        self._task = group.create_task(self._run(work), name=name)

        # a task that is cancelled before its first step runs no line of its own
        def landed(_: asyncio.Task[None]) -> None:
            if not self._future.done():
                self._future.set_exception(Draining("The pool is stopping."))
                self._future.exception()  # seen: there may be nobody who waits
            ended()

        self._task.add_done_callback(landed)

    @property
    def landed(self) -> bool:
        return self._future.done()

    async def wait(self, on_delta: OnDelta | None) -> T:
        number = self._next = self._next + 1
        self._claims += 1
        if on_delta is not None:
            self._listeners[number] = on_delta
            if self._chars:
                self._tell(number, 0, "".join(self._said))
        try:
            return await asyncio.shield(self._future)
        finally:
            self._claims -= 1
            self._listeners.pop(number, None)
            if not self._claims and self._task is not None and not self._future.done():
                self._future.cancel()
                self._task.cancel()

    def hear(self, offset: int, text: str) -> None:
        """Deltas of the work: kept for those who join later, passed on to those who listen."""
        if offset == 0:
            self._said.clear()
            self._chars = 0
        self._said.append(text)
        self._chars += len(text)
        for number in list(self._listeners):
            self._tell(number, offset, text)

    def _tell(self, number: int, offset: int, text: str) -> None:
        """A listener that fails is not told any more; the others and the work go on."""
        try:
            self._listeners[number](offset, text)
        except Exception as error:  # noqa: BLE001  a listener's fault is its own
            log.warning("listener_failed", error=type(error).__name__)
            self._listeners.pop(number, None)

    async def _run(self, work: Callable[[], Awaitable[T]]) -> None:
        try:
            result = await work()
        except Exception as error:  # noqa: BLE001  whatever it is belongs to those who wait
            if not self._future.done():
                self._future.set_exception(error)
                self._future.exception()  # seen: they may all have gone
        else:
            if not self._future.done():
                self._future.set_result(result)
