"""When Python looks for garbage: the young often, all of it only while nothing is at work.

The loop stands still while Python looks, in whatever thread it does so: 100,000 pinned documents take 200 ms. Nearly
all that a daemon lets go of is freed at once, by reference counts; what is left are cycles, of which runs and clients
make few.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

#: New objects after which the youngest are looked through: 5,000 take some 0.2 ms, and a sub-query makes a hundred.
_YOUNG_OBJECTS = 5000
#: How often before those that lived through it are, too: 20,000 take some 2 ms.
_YOUNG_LOOKS = 4
#: Never by itself: a whole look is ours to begin.
_NEVER = 1 << 30
#: How often it is considered, seconds; and after how many looks at the young there is enough to look for: some
#: 400,000 objects that came. With ten times as many it is done at work too, for the sake of memory.
_CONSIDER_SECONDS, _ENOUGH, _PRESSING = 60.0, 20, 200


def settle() -> None:
    """When all long-lived parts are made: they stay for good, and are no longer looked through."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_LOOKS, _NEVER)
    gc.enable()


async def collect_when_idle(idle: Callable[[], bool], *, every: float = _CONSIDER_SECONDS) -> None:
    """Looks through everything from time to time; runs until it is cancelled.

    Args:
        idle: Whether nobody waits for anything now.
        every: Seconds between two considerations.
    """
    while True:
        await asyncio.sleep(every)
        looks = gc.get_count()[2]
        if looks >= _PRESSING or (looks >= _ENOUGH and idle()):
            gc.collect()
