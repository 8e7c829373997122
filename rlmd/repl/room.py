"""How many workers may be in use, by depth: those of runs that wait for their children never keep the children out.

Pure counting; who waits is woken in the order of coming, the deepest first.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """Args:
    most: Workers in use at once.
    depth: Levels of child runs below a run. For each level one place is kept that those above it do not take, so that
        the deepest level can always run: a run holds its worker while it waits for its children.
    """

    def __init__(self, most: int, depth: int = 0) -> None:
        self._most, self._depth = most, depth
        self._used: dict[int, int] = {}
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}

    def deepen(self, depth: int) -> None:
        """From now on places are kept for so many levels, if it were fewer."""
        self._depth = max(self._depth, depth)

    def full(self, level: int = 0) -> bool:
        """Whether one of this level would wait now."""
        return not self._fits(level)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    async def take(self, level: int = 0) -> None:
        """A place, once there is one."""
        queue = self._waiting.setdefault(level, deque())
        if not queue and self._fits(level):
            self._used[level] = self._used.get(level, 0) + 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(level)  # its turn had come: another's it is
            elif turn in queue:
                queue.remove(turn)
            raise

    def give_back(self, level: int = 0) -> None:
        self._used[level] -= 1
        for waiting in sorted(self._waiting, reverse=True):
            queue = self._waiting[waiting]
            while queue and self._fits(waiting):
                turn = queue.popleft()
                if not turn.done():
                    self._used[waiting] = self._used.get(waiting, 0) + 1
                    turn.set_result(None)

    def _fits(self, level: int) -> bool:
        """Whether one more of this level leaves what is kept for each level below it.

        Of each level one may run whatever else does: where places are fewer than levels, or a deeper run came when
        all were taken, going beyond the number by one is better than waiting for ever.
        """
        if not self._used.get(level):
            return True
        return all(self._up_to(one) < self._most - max(0, self._depth - one) for one in range(level, self._lowest + 1))

    @property
    def _lowest(self) -> int:
        return max(self._depth, *self._used, 0)

    def _up_to(self, level: int) -> int:
        return sum(used for one, used in self._used.items() if one <= level)
