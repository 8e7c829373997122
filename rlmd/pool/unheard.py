"""Runs for which no model is known, while a configured host has not said yet which it has: they wait until one does.

Such a host is no candidate, so that nothing of the run can wait in the scheduler's queue for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rlmd.pool import patience
from rlmd.pool.hosts import Hosts
from rlmd.pool.pulse import Pulse
from rlmd.pool.roles import Role
from rlmd.pool.stalls import Stalls


class Unheard:
    def __init__(self, hosts: Hosts, stalls: Stalls, pulse: Pulse) -> None:
        self._hosts, self._stalls, self._pulse = hosts, stalls, pulse

    async def wait(self, tree: str, role: Role, lacking: Callable[[], bool], *, private: bool, seconds: float) -> None:
        """Until nothing is lacking, no host is left that could bring it, or so many seconds are over. The listeners of
        the tree are told as of any wait for a host; machines that sleep are woken, once."""
        clock = asyncio.get_running_loop().time
        since = clock()
        grace, until = since + patience.GRACE, since + seconds
        woken: set[str] = set()
        told = False
        try:
            while lacking() and (now := clock()) < until:
                names = self._hosts.roles.unheard(role, private=private)
                if not names:
                    return
                for name in names:
                    if name not in woken:
                        woken.add(name)
                        self._hosts.wake_sleeping(name)
                if now >= grace and not told:
                    told = True
                    self._stalls.stalled(tree, until, names)
                await self._pulse.wait((until if told else min(until, grace)) - now)
        finally:
            if told:
                self._stalls.moving(tree)
