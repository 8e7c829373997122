"""Garbage that holds itself is collected in quiet moments, and what is in flight is not looked through for it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Iterator

import pytest

from rlmd import garbage
from rlmd.garbage import Garbage


class Knot:
    """Reference counts do not free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of this process it is afterwards as it was."""
    monkeypatch.setattr(garbage, "PAUSE", 0.01)
    monkeypatch.setattr(garbage, "REST", 0.01)
    monkeypatch.setattr(garbage, "_LITTLE", 1.0)  # of so short a pause a look at the clock is more
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Desk:
    """The collector at work; ``busy`` while something is asked of a host."""

    def __init__(self) -> None:
        self.busy = True
        self._garbage = Garbage(lambda: not self.busy)

    async def __aenter__(self) -> Desk:
        self._garbage.start()
        self._task = asyncio.create_task(self._garbage.collect())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._garbage.close()


def old_knot() -> weakref.ref[Knot]:
    """One that has been looked at when it was young, and let go since."""
    knot = Knot()
    work(1)
    return weakref.ref(knot)


def work(looks: int) -> None:
    """Makes so many new objects that the youngest are looked through so many times at least."""
    kept = [[n] for n in range((looks + 1) * garbage.YOUNG)]
    del kept


async def gone(knot: weakref.ref[Knot]) -> None:
    async with asyncio.timeout(30):
        while knot() is not None:
            await asyncio.sleep(0.01)


async def test_what_is_old_is_collected_when_nobody_waits_and_not_before() -> None:
    async with Desk() as desk:
        knot = old_knot()
        work(2 * garbage.FEW)
        await asyncio.sleep(0.1)
        assert knot() is not None, "what is in flight was looked through"
        desk.busy = False
        await gone(knot)


async def test_a_loop_that_computes_is_not_held_up_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_LITTLE", 0.0)
    async with Desk() as desk:
        desk.busy = False
        knot = old_knot()
        work(2 * garbage.FEW)
        await asyncio.sleep(0.1)
        assert knot() is not None
        monkeypatch.setattr(garbage, "_LITTLE", 1.0)
        await gone(knot)


async def test_without_any_quiet_moment_it_is_collected_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "MOST", 50)
    async with Desk():
        knot = old_knot()
        work(60)
        await gone(knot)


async def test_what_lived_on_is_looked_through_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_WHOLE", 3)
    async with Desk() as desk:
        desk.busy = False
        knots = [Knot()]
        knot = weakref.ref(knots[0])
        work(2 * garbage.FEW)
        other = old_knot()
        await gone(other)  # it lived on
        knots.clear()
        for _ in range(3):
            other = old_knot()
            work(2 * garbage.FEW)
            await gone(other)
        assert knot() is None


async def test_what_is_young_is_collected_at_any_time() -> None:
    async with Desk():
        knot = weakref.ref(Knot())
        work(1)
        assert knot() is None


async def test_where_little_was_made_nothing_is_looked_through() -> None:
    async with Desk() as desk:
        desk.busy = False
        knot = old_knot()
        await asyncio.sleep(0.1)
        assert knot() is not None


async def test_what_was_made_before_the_start_is_never_looked_through() -> None:
    async with Desk():
        assert gc.get_freeze_count() > 10_000


async def test_closed_it_leaves_nothing_behind() -> None:
    before = list(gc.callbacks)
    async with Desk():
        assert len(gc.callbacks) == len(before) + 1
    assert gc.callbacks == before
