"""Machines that sleep: the user's commands wake them when work waits that is worth it, and send them to sleep again.

What is worth waking a machine for is the scheduler's to say. Owns the tasks that run the commands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import structlog

from rlmd.pool.commands import CommandFailed, output_of
from rlmd.pool.host import Host
from rlmd.pool.scheduler import Scheduler

#: While it boots; so many times before the command that wakes it is run once more: the first may come too early.
PROBE_WAKING, WAKE_PROBES = 2.0, 10
#: For the commands that wake a machine or send it to sleep.
COMMAND_SECONDS = 30.0

log = structlog.get_logger(__name__)


class Sleep:
    """``tell`` tells the scheduler that a host differs."""

    def __init__(self, scheduler: Scheduler, tell: Callable[[Host], None], environment: Mapping[str, str]) -> None:
        self._scheduler = scheduler
        self._tell = tell
        self._environment = environment
        self._resting: dict[str, asyncio.Task[None]] = {}

    def wake(self, host: Host, group: asyncio.TaskGroup) -> None:
        """Runs the command that wakes its machine, again and again until it answers or its time is over."""
        host.resting = False
        group.create_task(self._wake(host), name=f"wake {host.name}")

    def rest(self, host: Host, group: asyncio.TaskGroup) -> None:
        """From now on its machine is sent to sleep whenever it has had nothing to do for long enough."""
        if host.name not in self._resting:
            self._resting[host.name] = group.create_task(self._keep_resting(host), name=f"rest of {host.name}")

    def forget(self, name: str) -> None:
        if (task := self._resting.pop(name, None)) is not None:
            task.cancel()

    async def _wake(self, host: Host) -> None:
        log.info("host_woken", host=host.name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(host.settings.boot_seconds):
                while not host.ready and host.name in self._scheduler.hosts():
                    try:
                        await output_of(host.settings.wake, self._environment, COMMAND_SECONDS)
                        host.wake_error = None
                    except CommandFailed as failure:
                        host.wake_error = f"{host.settings.wake[0]} did not wake it: {failure}."
                    for _ in range(WAKE_PROBES):
                        host.nudged.set()
                        await asyncio.sleep(PROBE_WAKING)
                        if host.ready:
                            host.wake_error = None
                            return

    async def _keep_resting(self, host: Host) -> None:
        """Sends a machine to sleep that had nothing to do for long enough."""
        while True:
            await asyncio.sleep(max(0.01, self._rests_in(host)))
            if self._rests_in(host) <= 0:
                await self._suspend(host)

    def _rests_in(self, host: Host) -> float:
        """Seconds until it may be sent to sleep, as things stand."""
        slots = self._scheduler.hosts().get(host.name)
        patience = host.settings.idle_seconds
        if slots is None or not host.ready or slots.idle_since is None or host.measured:
            return patience
        if self._scheduler.statistics().queued_for.get(host.name):
            return patience
        return slots.idle_since + patience - asyncio.get_running_loop().time()

    async def _suspend(self, host: Host) -> None:
        host.ready, host.resting = False, True
        self._tell(host)
        log.info("host_suspended", host=host.name)
        try:
            await output_of(host.settings.suspend, self._environment, COMMAND_SECONDS)
        except CommandFailed as failure:
            host.last_error = f"{host.settings.suspend[0]} did not send it to sleep: {failure}."
            host.resting = False
            host.nudged.set()  # it answers still, and is used again; the next try is after as long a pause


async def nudge_or(host: Host, seconds: float) -> None:
    """Waits so long, or until it is to be asked at once."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await host.nudged.wait()
    host.nudged.clear()
