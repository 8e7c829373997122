"""Places for workers by depth: the number holds, the deepest level can always run, nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from rlmd.repl.room import Room


def taken(room: Room, level: int) -> bool:
    """Whether a place is there at once; then it is taken."""
    if room.full(level):
        return False
    task = room.take(level)
    with pytest.raises(StopIteration):
        task.send(None)
    return True


def test_each_level_keeps_places_for_those_below() -> None:
    room = Room(16, depth=3)
    counts = [sum(taken(room, level) for _ in range(20)) for level in range(4)]
    assert counts == [13, 1, 1, 1]


def test_the_deepest_level_may_use_what_is_free() -> None:
    room = Room(16, depth=3)
    assert taken(room, 0)
    assert sum(taken(room, 3) for _ in range(20)) == 15
    assert room.full(0)


def test_one_of_each_level_runs_whatever_else_does() -> None:
    """Fewer places than levels, or a deeper run that comes late: one more is better than waiting for ever."""
    room = Room(1, depth=0)
    assert taken(room, 0)
    assert not taken(room, 0)
    room.deepen(3)
    assert [taken(room, level) for level in (1, 2, 3, 3)] == [True, True, True, False]


async def test_who_waits_is_woken_the_deepest_first() -> None:
    room = Room(2, depth=1)
    await room.take(0)
    await room.take(1)
    order: list[int] = []

    async def use(level: int) -> None:
        await room.take(level)
        order.append(level)

    tasks = [asyncio.create_task(use(level)) for level in (0, 1)]
    await asyncio.sleep(0)
    assert room.waiting == 2
    room.give_back(1)
    await asyncio.sleep(0)
    assert order == [1]
    room.give_back(0)
    await asyncio.gather(*tasks)
    assert order == [1, 0]


async def test_a_place_that_came_too_late_goes_on_to_the_next() -> None:
    """Cancelled in the moment of its turn, a waiter keeps nothing."""
    room = Room(1)
    await room.take()
    first, second = asyncio.create_task(room.take()), asyncio.create_task(room.take())
    await asyncio.sleep(0)
    room.give_back()
    first.cancel()
    await second
    assert first.cancelled() or first.done()
    assert room.waiting == 0
    assert room.full()


@pytest.mark.parametrize(("most", "depth"), [(16, 3), (4, 3), (2, 3), (1, 2)])
async def test_a_tree_of_waiting_parents_comes_to_its_end(most: int, depth: int) -> None:
    """Every node holds its place while it waits for its children: 1 + 8 + 16 + 16 of them, however few places."""
    room = Room(most, depth)
    in_use, peak, done = 0, 0, 0

    async def node(level: int) -> None:
        nonlocal in_use, peak, done
        await room.take(level)
        in_use += 1
        peak = max(peak, in_use)
        try:
            await asyncio.sleep(0)
            if level < depth:
                await asyncio.gather(*(node(level + 1) for _ in range((8, 2, 1)[level])))
        finally:
            in_use -= 1
            room.give_back(level)
        done += 1

    async with asyncio.timeout(60):
        await node(0)
    assert done == 1 + 8 + (16 if depth > 1 else 0) + (16 if depth > 2 else 0)
    assert peak <= max(most, depth + 1)
