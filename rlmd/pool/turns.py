"""A share of each turn of the event loop, so that many requests and replies at one moment do not hold it.

Where 32 slots answer together, 32 tasks read, store, report and send again within one turn of the loop: none of them
holds it for long, all together held it for 20 ms.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Args:
    seconds: How long a turn of the loop may have lasted for one more to pass; what each does comes on top.
    clock: Monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds, self._clock = seconds, clock
        self._began = 0.0
        self._running = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Returns at once while this turn has room and nobody waits, else in one of the next, one in each."""
        self._begin()
        if self._waiting or self._clock() - self._began >= self._seconds:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def _begin(self) -> None:
        if not self._running:
            self._running, self._began = True, self._clock()
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._running = False
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # whoever waited may have been cancelled
                turn.set_result(None)
                self._begin()
                return
