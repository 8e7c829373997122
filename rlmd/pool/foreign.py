"""What others ask of a host meanwhile, where its server tells: their requests take slots that are then not ours.

A server is asked only while it has work of ours, or while somebody looks at the hosts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rlmd.errors import RlmdError
from rlmd.pool.host import Host
from rlmd.pool.scheduler import Scheduler

#: Seconds between looks; for how long after somebody looked at the hosts they go on.
LOOK_SECONDS, WATCHED_SECONDS = 3.0, 15.0


class Foreign:
    """``tell`` tells the scheduler that a host differs."""

    def __init__(self, scheduler: Scheduler, tell: Callable[[Host], None]) -> None:
        self._scheduler = scheduler
        self._tell = tell
        self._watched_until = 0.0
        self._looking: dict[str, asyncio.Task[None]] = {}

    def watched(self, now: float) -> None:
        """Somebody looks at the hosts."""
        self._watched_until = now + WATCHED_SECONDS

    def look_at(self, host: Host, group: asyncio.TaskGroup) -> None:
        if host.name not in self._looking:
            self._looking[host.name] = group.create_task(self._keep_looking(host), name=f"load of {host.name}")

    def forget(self, name: str) -> None:
        if (task := self._looking.pop(name, None)) is not None:
            task.cancel()

    async def _keep_looking(self, host: Host) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not host.ready or not self._wanted(host):
                continue
            before = self._ours(host)
            try:
                busy = await host.provider.busy()
            except RlmdError:
                continue  # whether it is up is not for this to say
            if busy is None:
                return  # it does not tell
            # what began or ended meanwhile may be in the count or not
            foreign = max(0, busy - max(before, self._ours(host)))
            if foreign != host.foreign:
                host.foreign = foreign
                self._tell(host)

    def _wanted(self, host: Host) -> bool:
        if asyncio.get_running_loop().time() < self._watched_until or host.foreign or self._ours(host):
            return True
        return bool(self._scheduler.statistics().queued_for.get(host.name))

    def _ours(self, host: Host) -> int:
        slots = self._scheduler.hosts().get(host.name)
        return len(slots.in_flight) if slots is not None else 0
