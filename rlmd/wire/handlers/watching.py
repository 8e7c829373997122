"""``host/subscribe``: the hosts as they stand, told again whenever they differ, as far as the client keeps up.

A client has one subscription. Nothing is queued for one that does not read: it is told how things stand when it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rlmd.wire import methods as m
from rlmd.wire.connection import Connection
from rlmd.wire.outbox import notification_of

#: What changes by the passing of time alone, such as how long the queue will take, is looked at as often (seconds).
LOOK_SECONDS = 5.0


class Watching:
    """Args:
    look: The hosts as they stand.
    changed: Waits until something may differ, or for so many seconds.
    """

    def __init__(self, look: Callable[[], m.HostListResult], changed: Callable[[float], Awaitable[None]]) -> None:
        self._look, self._changed = look, changed
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self, client: Connection, seconds: float) -> m.HostListResult:
        """How they stand now; from now on the client is told when they differ, ``seconds`` apart at least."""
        self.stop(client)
        now = self._look()
        task = asyncio.create_task(self._tell(client, seconds, now), name=f"hosts for client {client.number}")
        self._tasks[client.number] = task
        client.on_gone["hosts"] = lambda: self.stop(client)
        return now

    def stop(self, client: Connection) -> None:
        client.on_gone.pop("hosts", None)
        if (task := self._tasks.pop(client.number, None)) is not None:
            task.cancel()

    async def _tell(self, client: Connection, seconds: float, told: m.HostListResult) -> None:
        while True:
            await asyncio.sleep(seconds)
            await client.outbox.wait_idle()
            now = self._look()
            if _lasting(now) == _lasting(told):
                await self._changed(LOOK_SECONDS)
                continue
            told = now
            client.outbox.offer(notification_of("host/changed", now, m.Spoken(client.protocol)))


def _lasting(hosts: m.HostListResult) -> m.HostListResult:
    """Without what counts down by itself: the client can do that."""
    still = tuple(host.model_copy(update={"retry_in": host.retry_in and 1.0}) for host in hosts.hosts)
    return hosts.model_copy(update={"hosts": still})
