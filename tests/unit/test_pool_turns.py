"""Many that come at one moment are spread over turns of the loop, in their order; those who gave up cost none."""

from __future__ import annotations

import asyncio

from rlmd.pool.turns import Turns


class Loop:
    """Counts its own turns; ``now`` is moved by what the test does."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turn = 0
        self._counting = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._counting.cancel()


async def test_a_turn_holds_no_more_than_its_share() -> None:
    loop = Loop()
    turns = Turns(0.002, lambda: loop.now)
    passed: list[tuple[int, int]] = []

    async def work(number: int) -> None:
        await turns.take()
        passed.append((loop.turn, number))
        loop.now += 0.001

    await asyncio.gather(*(work(number) for number in range(50)))
    loop.stop()
    assert [number for _, number in passed] == list(range(50))
    by_turn = [sum(turn == one for turn, _ in passed) for one in {turn for turn, _ in passed}]
    assert max(by_turn) <= 2


async def test_what_comes_alone_passes_at_once() -> None:
    turns = Turns(0.002, lambda: 0.0)
    for _ in range(3):
        taking = turns.take()
        try:
            taking.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("it waited")


async def test_those_who_gave_up_are_passed_over() -> None:
    loop = Loop()
    turns = Turns(0.002, lambda: loop.now)
    await turns.take()
    loop.now += 1
    waiting = [asyncio.create_task(turns.take()) for _ in range(40)]
    await asyncio.sleep(0)
    for task in waiting[:-1]:
        task.cancel()
    began = loop.turn
    await waiting[-1]
    loop.stop()
    assert loop.turn - began < 5
