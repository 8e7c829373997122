"""Single flight: claims, late joiners, failures, and a listener that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rlmd.errors import Draining, HostFailed
from rlmd.pool.flight import Flight


@pytest.fixture
async def group() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as owner:
        yield owner


async def test_the_last_claim_gone_cancels_the_work(group: asyncio.TaskGroup) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    flight: Flight[str] = Flight()
    flight.start(work, group, "flight")
    first, second = (asyncio.create_task(flight.wait(None)) for _ in range(2))
    await begun.wait()
    first.cancel()
    await asyncio.wait([first])
    assert not cancelled.is_set()
    second.cancel()
    await cancelled.wait()
    assert flight.landed


async def test_all_get_the_result_and_late_joiners_the_text_so_far(group: asyncio.TaskGroup) -> None:
    go = asyncio.Event()

    async def work() -> str:
        flight.hear(0, "one ")
        await go.wait()
        flight.hear(4, "two")
        return "one two"

    flight: Flight[str] = Flight()
    flight.start(work, group, "flight")
    early: list[tuple[int, str]] = []
    late: list[tuple[int, str]] = []
    first = asyncio.create_task(flight.wait(lambda *heard: early.append(heard)))
    while not early:
        await asyncio.sleep(0)
    second = asyncio.create_task(flight.wait(lambda *heard: late.append(heard)))
    while not late:
        await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(first, second) == ["one two", "one two"]
    assert early == late == [(0, "one "), (4, "two")]


async def test_a_failure_reaches_everybody_and_not_the_group(group: asyncio.TaskGroup) -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        raise HostFailed("broken")

    flight: Flight[str] = Flight()
    flight.start(work, group, "flight")
    results = await asyncio.gather(flight.wait(None), flight.wait(None), return_exceptions=True)
    assert [type(result) for result in results] == [HostFailed, HostFailed]


async def test_a_listener_that_fails_is_left_out(group: asyncio.TaskGroup) -> None:
    async def work() -> str:
        await both.wait()
        for offset in range(3):
            flight.hear(offset, "x")
        return "xxx"

    both = asyncio.Event()

    def bad(offset: int, text: str) -> None:
        raise ZeroDivisionError

    flight: Flight[str] = Flight()
    flight.start(work, group, "flight")
    heard: list[int] = []
    waiting = [flight.wait(bad), flight.wait(lambda offset, _: heard.append(offset))]
    asyncio.get_running_loop().call_later(0.01, both.set)
    results = await asyncio.gather(*waiting)
    assert results == ["xxx", "xxx"]
    assert heard == [0, 1, 2]


async def test_a_flight_cancelled_before_its_first_step_tells_those_who_wait(group: asyncio.TaskGroup) -> None:
    async def work() -> str:
        return "never"

    flight: Flight[str] = Flight()
    flight.start(work, group, "flight")
    assert flight._task is not None
    flight._task.cancel()
    with pytest.raises(Draining):
        await flight.wait(None)
