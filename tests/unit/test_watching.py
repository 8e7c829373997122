"""Who watches the hosts is told each difference once, when it reads, and nothing after it has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from rlmd.wire import methods as m
from rlmd.wire.connection import Connection
from rlmd.wire.handlers.watching import Watching

PATIENCE = 30.0


def hosts(state: str = "ok", retry_in: float | None = None) -> m.HostListResult:
    box = {"name": "box", "url": "http://box", "provider": "ollama", "trust": "mine", "state": state}
    counts = {"slots": 1, "slots_used": 0, "queued": 0, "completed": 0, "failed": 0}
    more = {"retry_in": retry_in, "models": (), "roles": (), "last_error": None}
    return m.HostListResult(hosts=(m.HostInfo.model_validate({**box, **counts, **more}),))


class Client:
    """As much of a connection as a watch needs; ``reads`` is set while it reads what it is sent."""

    def __init__(self) -> None:
        self.number, self.protocol = 1, m.PROTOCOL
        self.on_gone: dict[str, Callable[[], None]] = {}
        self.outbox = self
        self.told: list[Any] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def wait_idle(self) -> None:
        await self.reads.wait()

    def offer(self, message: Any) -> None:
        self.told.append(message)


class Desk:
    """Hosts that a test changes, and those who watch them."""

    def __init__(self) -> None:
        self.now = hosts()
        self.looks = 0
        self.client = Client()
        self.watching = Watching(self._look, self._changed)

    def _look(self) -> m.HostListResult:
        self.looks += 1
        return self.now

    async def _changed(self, at_most: float) -> None:
        await asyncio.sleep(0)

    def start(self) -> None:
        self.watching.start(cast("Connection", self.client), 0.0)

    async def looked(self, times: int = 5) -> None:
        """Waits until the hosts were looked at so many times more."""
        wanted = self.looks + times
        async with asyncio.timeout(PATIENCE):
            while self.looks < wanted:
                await asyncio.sleep(0)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    made.start()
    yield made
    made.watching.stop(cast("Connection", made.client))


async def test_a_difference_is_told_once(desk: Desk) -> None:
    await desk.looked()
    assert desk.client.told == []
    desk.now = hosts("paused")
    await desk.looked()
    assert len(desk.client.told) == 1


async def test_what_counts_down_by_itself_is_not_told(desk: Desk) -> None:
    desk.now = hosts("down", 8.0)
    await desk.looked()
    for seconds in (7.0, 6.0, 5.0):
        desk.now = hosts("down", seconds)
        await desk.looked()
    assert len(desk.client.told) == 1


async def test_a_second_watch_takes_the_place_of_the_first(desk: Desk) -> None:
    desk.start()
    desk.now = hosts("paused")
    await desk.looked()
    assert len(desk.client.told) == 1


async def test_who_does_not_read_is_told_how_things_stand_when_it_does(desk: Desk) -> None:
    await desk.looked()
    desk.client.reads.clear()
    for state in ("paused", "down", "paused"):
        desk.now = hosts(state)
        for _ in range(20):
            await asyncio.sleep(0)
    assert len(desk.client.told) == 0
    desk.client.reads.set()
    await desk.looked()
    assert len(desk.client.told) == 1


async def test_who_has_gone_is_told_nothing(desk: Desk) -> None:
    desk.client.on_gone["hosts"]()
    desk.now = hosts("paused")
    for _ in range(20):
        await asyncio.sleep(0)
    assert desk.client.told == []
