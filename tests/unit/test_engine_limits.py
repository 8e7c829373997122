"""The purse: claims before use, refunds, time and errors observed."""

from __future__ import annotations

import asyncio

import pytest

from rlmd.engine.limits import Purse, spent_by
from rlmd.errors import LimitReached
from rlmd.events import Limits, ModelUse, Receipt


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def purse(clock: Clock | None = None, **limits: float) -> Purse:
    given = {"turns": 3, "sub_queries": 2, "seconds": 10.0, "consecutive_errors": 2} | limits
    return Purse(Limits(**given), clock or Clock())


async def test_a_claim_beyond_the_limit_is_refused_and_takes_nothing() -> None:
    """The error names the limit and both numbers; one that cost nothing opens one place, not two."""
    p = purse()
    for claim in [await p.claim_completion("sub_queries", 5), await p.claim_completion("sub_queries", 5)]:
        claim.settle(spent=True)
        claim.settle(spent=False)
    for _ in range(2):
        with pytest.raises(LimitReached) as caught:
            await p.claim_completion("sub_queries", 5)
    assert caught.value.details == {"limit": "sub_queries", "allowed": 2, "used": 2}
    assert p.used("sub_queries") == 2


async def test_what_the_cache_answers_is_never_refused() -> None:
    """More at once than the limit allows: those that find none left wait for those that may be given back."""
    p = purse()
    done: list[int] = []

    async def ask(number: int, *, spent: bool) -> None:
        claim = await p.claim_completion("sub_queries", 5)
        await asyncio.sleep(0)
        claim.settle(spent=spent)
        done.append(number)

    await asyncio.gather(*(ask(number, spent=False) for number in range(20)))
    assert sorted(done) == list(range(20))
    results = await asyncio.gather(*(ask(number, spent=True) for number in range(5)), return_exceptions=True)
    assert sum(isinstance(result, LimitReached) for result in results) == 3
    assert p.left("sub_queries") == 0


def test_limits_do_not_mix() -> None:
    """Sub-queries used up leave the turns."""
    p = purse(sub_queries=0)
    with pytest.raises(LimitReached):
        p.claim("sub_queries")
    p.claim("turns")
    assert (p.left("turns"), p.used("turns")) == (2, 1)


def test_what_a_last_word_takes_is_set_aside_and_given_back() -> None:
    """A turn in every purse above too, unless it is the only one; tokens where they are limited and many."""
    above = purse(turns=5, tokens=7000)
    below = Purse(above.limits.model_copy(update={"turns": 3}), Clock(), above)
    below.set_aside()
    below.set_aside()
    assert (below.left("turns"), above.left("turns"), above.left("tokens")) == (2, 4, 7000 - 3072)
    above.set_aside()
    assert (above.left("turns"), above.left("tokens")) == (3, 7000 - 3072)  # of tokens too few were left
    below.give_back()
    below.give_back()
    assert (below.left("turns"), above.left("turns"), above.left("tokens")) == (3, 4, 7000)
    one = purse(turns=1)
    one.set_aside()
    assert one.left("turns") == 1
    free = purse(turns=2)
    free.set_aside()
    assert (free.left("turns"), free.used("tokens")) == (1, 0)


def test_what_a_run_spent_is_told_by_its_receipt() -> None:
    """Without what the cache answered, and what was refused and so never sent."""
    use = ModelUse(role="sub", host="h", model="m", calls=5, prompt_tokens=70, completion_tokens=7)
    receipt = Receipt(
        chars_total=0,
        chars_searched=0,
        chars_read=0,
        pieces=0,
        pieces_failed=0,
        sub_queries=12,
        sub_queries_cached=4,
        sub_queries_refused=3,
        turns=6,
        models=(use, use),
        wall_seconds=1.0,
        summary="",
    )
    assert spent_by(receipt) == {"turns": 6, "sub_queries": 5, "tokens": 154}


def test_time_is_observed() -> None:
    """The time counts from the purse's beginning and ends exactly at the limit."""
    clock = Clock()
    p = purse(clock)
    clock.now += 9.5
    p.check_time()
    assert p.seconds_left == 0.5
    clock.now += 0.5
    with pytest.raises(LimitReached) as caught:
        p.check_time()
    assert caught.value.details["limit"] == "seconds"


def test_errors_count_in_a_row() -> None:
    """One success in between sets the count back."""
    p = purse()
    p.went_wrong()
    p.went_well()
    p.went_wrong()
    with pytest.raises(LimitReached) as caught:
        p.went_wrong()
    assert caught.value.details == {"limit": "consecutive_errors", "allowed": 2, "used": 2}


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_tokens_are_claimed_at_their_worst_and_settled_by_the_count() -> None:
    """A request that may take more than is left waits for what may be given back, and is refused when nothing is."""
    p = purse(tokens=100, sub_queries=9)
    first = await p.claim_completion("sub_queries", 80)
    second = asyncio.create_task(p.claim_completion(None, 60))
    await asyncio.sleep(0)
    assert not second.done(), "80 of 100 are taken"
    first.settle(spent=True, tokens=40)
    await second
    assert (p.used("tokens"), p.left("tokens")) == (100, 0)
    second.result().settle(spent=True)
    with pytest.raises(LimitReached, match="100 tokens"):
        await p.claim_completion(None, 1)


async def test_without_a_limit_tokens_are_counted_alone() -> None:
    p = purse()
    (await p.claim_completion(None, 10**9)).settle(spent=True, tokens=7)
    assert p.used("tokens") == 7


# ── a tree of runs ──────────────────────────────────────────────────────────────────────────────────────────


async def test_children_claim_from_the_one_purse() -> None:
    """Whole or not at all: what a child may not take, none of the purses loses."""
    first = purse(turns=9, sub_queries=3, depth=2)
    child, other = first.below(), first.below()
    grandchild = child.below()
    for one in (child, other, grandchild):
        (await one.claim_completion("sub_queries", 10)).settle(spent=True, tokens=4)
    for one in (first, child, other, grandchild):
        with pytest.raises(LimitReached):
            await one.claim_completion("sub_queries", 10)
    assert [one.used("sub_queries") for one in (first, child, other, grandchild)] == [3, 2, 1, 1]
    assert [one.used("tokens") for one in (first, child, other, grandchild)] == [12, 8, 4, 4]
    assert [one.limits.depth for one in (first, child, grandchild)] == [2, 1, 0]


async def test_a_child_waits_for_what_another_may_give_back() -> None:
    first = purse(sub_queries=1)
    one, other = first.below(), first.below()
    claim = await one.claim_completion("sub_queries", 1)
    waiting = asyncio.create_task(other.claim_completion("sub_queries", 1))
    await asyncio.sleep(0)
    claim.settle(spent=False)
    (await waiting).settle(spent=True)
    assert (first.used("sub_queries"), one.used("sub_queries"), other.used("sub_queries")) == (1, 0, 1)


def test_a_child_may_take_half_the_turns_that_are_left() -> None:
    """One that runs away leaves its parent enough to answer; there is always one."""
    first = purse(turns=9)
    first.claim("turns")
    child = first.below()
    assert (child.left("turns"), child.below().left("turns")) == (4, 2)
    for _ in range(4):
        child.claim("turns")
    with pytest.raises(LimitReached):
        child.claim("turns")
    assert first.left("turns") == 4
    assert purse(turns=1).below().left("turns") == 1


def test_a_child_has_no_more_time_than_its_parent() -> None:
    clock = Clock()
    first = purse(clock)
    clock.now += 4
    child = first.below()
    child.begin()
    assert child.seconds_left == 6
