"""One purse for a run and all its children: claimed before use, so that a batch cannot overrun it.

Turns and sub-queries are claimed before dispatch (a sub-query that cost nothing is given back); seconds and
consecutive errors are observed. Everything happens on the loop, so a claim is whole or refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from rlmd.errors import LimitReached
from rlmd.events import Limits

Claimed = Literal["turns", "sub_queries"]

_WORDS = {"turns": "turns", "sub_queries": "sub-queries", "seconds": "seconds", "consecutive_errors": "errors in a row"}


class Purse:
    """Args:
    limits: What is allowed.
    clock: Monotonic seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self._clock = clock
        self._started = clock()
        self._used: dict[Claimed, int] = {"turns": 0, "sub_queries": 0}
        self._errors = 0
        self._open = 0
        self._settled = asyncio.Event()

    def begin(self, spent: float = 0.0) -> None:
        """The run's time counts from now, it may have waited for its session; ``spent`` seconds are gone already."""
        self._started = self._clock() - spent

    def claim(self, what: Claimed) -> None:
        """Takes one. Raises ``LimitReached`` when none is left, and takes nothing then."""
        allowed = getattr(self.limits, what)
        if self._used[what] >= allowed:
            raise _reached(what, allowed, self._used[what])
        self._used[what] += 1

    async def claim_sub_query(self) -> None:
        """Takes a sub-query, to be settled by ``settle_sub_query``.

        While those that are open may yet be given back, it waits: of a batch that the cache can answer none is
        refused. Raises ``LimitReached`` once all that is allowed has been spent.
        """
        while self.left("sub_queries") <= 0 and self._open:
            await self._settled.wait()
        self.claim("sub_queries")
        self._open += 1

    def settle_sub_query(self, *, spent: bool) -> None:
        """Says whether an open sub-query cost anything: a reply from the cache did not."""
        assert self._open > 0
        self._open -= 1
        if not spent:
            self._used["sub_queries"] -= 1
        self._settled.set()
        self._settled = asyncio.Event()

    def used(self, what: Claimed) -> int:
        return self._used[what]

    def left(self, what: Claimed) -> int:
        return int(getattr(self.limits, what)) - self._used[what]

    @property
    def seconds_used(self) -> float:
        return self._clock() - self._started

    @property
    def seconds_left(self) -> float:
        return self.limits.seconds - self.seconds_used

    def went_well(self) -> None:
        self._errors = 0

    def went_wrong(self) -> None:
        """Counts a failed cell or root call. Raises ``LimitReached`` at the allowed number in a row."""
        self._errors += 1
        if self._errors >= self.limits.consecutive_errors:
            raise _reached("consecutive_errors", self.limits.consecutive_errors, self._errors)

    def check_time(self) -> None:
        """Raises ``LimitReached`` when the time is over."""
        if self.seconds_left <= 0:
            raise _reached("seconds", self.limits.seconds, round(self.seconds_used, 1))


def time_is_over(limits: Limits) -> LimitReached:
    """The error of a run whose time ran out in the middle of a step."""
    return _reached("seconds", limits.seconds, limits.seconds)


def _reached(limit: str, allowed: float, used: float) -> LimitReached:
    if limit == "consecutive_errors":
        message = f"{used:g} errors in a row; the limit is {allowed:g}."
    else:
        message = f"The limit of {allowed:g} {_WORDS[limit]} is used up."
    return LimitReached(
        message, hint=f"Ask again with a higher limit of {limit}.", limit=limit, allowed=allowed, used=used
    )
