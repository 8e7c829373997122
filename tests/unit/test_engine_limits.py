"""The purse: claims before use, refunds, time and errors observed."""

from __future__ import annotations

import asyncio

import pytest

from rlmd.engine.limits import Purse
from rlmd.errors import LimitReached
from rlmd.events import Limits


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
    await p.claim_sub_query()
    await p.claim_sub_query()
    p.settle_sub_query(spent=True)
    p.settle_sub_query(spent=True)
    for _ in range(2):
        with pytest.raises(LimitReached) as caught:
            await p.claim_sub_query()
    assert caught.value.details == {"limit": "sub_queries", "allowed": 2, "used": 2}
    assert p.used("sub_queries") == 2


async def test_what_the_cache_answers_is_never_refused() -> None:
    """More at once than the limit allows: those that find none left wait for those that may be given back."""
    p = purse()
    done: list[int] = []

    async def ask(number: int, *, spent: bool) -> None:
        await p.claim_sub_query()
        await asyncio.sleep(0)
        p.settle_sub_query(spent=spent)
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
