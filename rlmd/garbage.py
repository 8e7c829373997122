"""When garbage is collected: the youngest at any time, the rest when nobody waits.

Looking through what thousands of sub-queries in flight are made of held the loop for 10 to 23 ms, to find nothing: of
what they leave, reference counts free all but a few objects in a hundred sub-queries. So only what has just been made
is looked through while work goes on (1 to 3 ms), and what was made since the last time in a quiet moment, when little
of it is left: a run that has ended leaves some 200 objects that hold each other, more if it read much. What lives on is
looked through seldom: a hundred thousand pinned documents take 200 ms.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Callable, Mapping

#: New objects after which the youngest are looked through; a sub-query makes a hundred.
YOUNG = 1000
#: By number alone the older ones never are.
_NEVER = 1_000_000_000
#: Seconds between looks for a quiet moment when there is something to collect, and for whether there is.
PAUSE, REST = 0.25, 5.0
#: The share of its time for which a loop that has next to nothing to do computes.
_LITTLE = 0.05
#: Looks through the youngest after which the rest is worth looking through when nobody waits; and in any case: no
#: quiet moment came in five million objects.
FEW, MOST = 5, 5000
#: Each so many-th time all is looked through: what lived on the last time may be garbage by now.
_WHOLE = 50


class Garbage:
    """``start`` it when all that stays for good is made, let ``collect`` run, ``close`` it.

    Args:
        quiet: Whether nobody would notice that the loop stands still for some milliseconds.
    """

    def __init__(self, quiet: Callable[[], bool]) -> None:
        self._quiet = quiet
        self._young = 0

    def start(self) -> None:
        """What has been made by now is never looked through again (50 ms each time)."""
        gc.freeze()
        gc.set_threshold(YOUNG, _NEVER, _NEVER)
        gc.callbacks.append(self._looked)
        gc.enable()

    def close(self) -> None:
        if self._looked in gc.callbacks:  # else it never began
            gc.callbacks.remove(self._looked)

    async def collect(self) -> None:
        """Looks for quiet moments, for ever."""
        for number in itertools.count(1):
            await self._moment()
            gc.collect(2 if number % _WHOLE == 0 else 1)
            self._young = 0

    async def _moment(self) -> None:
        """Waits until nobody waits for anything and the loop has next to nothing to do, or for too long."""
        while self._young < MOST:
            if self._young < FEW:
                await asyncio.sleep(REST)
                continue
            used = time.thread_time()
            await asyncio.sleep(PAUSE)
            if self._quiet() and time.thread_time() - used < _LITTLE * PAUSE:
                return

    def _looked(self, phase: str, _: Mapping[str, int]) -> None:
        if phase == "stop":
            self._young += 1
