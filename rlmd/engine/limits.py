"""One purse for a run and all its children: claimed before use, so that a batch cannot overrun it.

Turns and sub-queries are claimed before dispatch (a sub-query that cost nothing is given back); seconds and
consecutive errors are observed. Everything happens on the loop, so a claim is whole or refused.
"""

from __future__ import annotations

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

    def begin(self) -> None:
        """The run's time counts from now: it may have waited for its session."""
        self._started = self._clock()

    def claim(self, what: Claimed) -> None:
        """Takes one. Raises ``LimitReached`` when none is left, and takes nothing then."""
        allowed = getattr(self.limits, what)
        if self._used[what] >= allowed:
            raise _reached(what, allowed, self._used[what])
        self._used[what] += 1

    def refund(self, what: Claimed) -> None:
        """Gives one back: a reply from the cache cost nothing."""
        assert self._used[what] > 0
        self._used[what] -= 1

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
