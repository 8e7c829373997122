"""What no model is known for, while a configured host has not said yet which it has: it waits until one does.

Such a host is no candidate, so that nothing can wait in the scheduler's queue for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rlmd.pool import patience
from rlmd.pool.hosts import Hosts
from rlmd.pool.stalls import Stalls


class Unheard:
    def __init__(self, hosts: Hosts, stalls: Stalls) -> None:
        self._hosts, self._stalls = hosts, stalls

    async def wait(self, tree: str, awaited: Callable[[], tuple[str, ...]], seconds: float) -> None:
        """Until no host is awaited any more, or so many seconds are over. The listeners of the tree are told as of any
        wait for a host; machines that sleep are woken, once.

        Args:
            tree: The run that heads those that wait.
            awaited: The hosts of which one may bring what is lacking; none when nothing is lacking.
            seconds: At most.
        """
        clock = asyncio.get_running_loop().time
        since = clock()
        grace, until = since + patience.GRACE, since + seconds
        woken: set[str] = set()
        told: object = None
        try:
            while (names := awaited()) and (now := clock()) < until:
                for name in names:
                    if name not in woken:
                        woken.add(name)
                        self._hosts.wake_sleeping(name)
                if now >= grace and told is None:
                    told = self._stalls.unheard(tree, until, names)
                await self._hosts.roles.changes.wait((until if told is not None else min(until, grace)) - now)
        finally:
            if told is not None:
                self._stalls.heard(told)
