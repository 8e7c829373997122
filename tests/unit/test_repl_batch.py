"""The order in which the prompts of a batch are pulled: each once, the longest first, and little sorted at a time."""

from __future__ import annotations

import random

from rlmd.repl.cell import _STRETCH, _Batch


def pulled(batch: _Batch, most: int) -> list[int]:
    slots: list[int] = []
    while batch.unpulled:
        slots += batch.pull(most, 1 << 40)
    return slots


def test_the_longest_first_and_equal_ones_in_order() -> None:
    assert pulled(_Batch(1, [5, 9, 5, 9, 1], None), 2) == [1, 3, 0, 2, 4]


def test_each_slot_once_however_many() -> None:
    rng = random.Random(7)
    sizes = [rng.randrange(5000) for _ in range(2 * _STRETCH + 17)]
    batch = _Batch(1, sizes, None)
    slots = pulled(batch, 128)
    assert sorted(slots) == list(range(len(sizes)))
    assert batch.pulled == set(slots)
    for first in range(0, len(sizes), _STRETCH):
        stretch = slots[first : first + _STRETCH]
        assert [sizes[slot] for slot in stretch] == sorted((sizes[slot] for slot in stretch), reverse=True)


def test_a_batch_is_not_sorted_as_a_whole() -> None:
    """Sorting 100,000 slots holds the loop for 40 ms."""
    looked: list[int] = []

    class Sizes(list[int]):
        def __getitem__(self, slot: int) -> int:  # type: ignore[override]
            looked.append(slot)
            return 1

    batch = _Batch(1, Sizes([1] * 100_000), None)
    assert looked == []
    assert batch.pull(128, 1 << 40) == list(range(128))
    assert len(looked) == _STRETCH + 128


def test_prompts_are_pulled_as_far_as_there_is_room_for_them() -> None:
    batch = _Batch(1, [30, 50, 10, 50], None)
    assert batch.pull(128, 120) == [1, 3]
    assert batch.pull(128, 29) == []
    assert batch.pull(128, 30) == [0]
    assert batch.pull(128, 10) == [2]
    assert batch.unpulled == 0
    assert batch.chars_of([1, 2]) == 60
