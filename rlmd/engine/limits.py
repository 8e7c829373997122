"""One purse for a run and all its children: claimed before use, so that nothing overruns it, no batch and no last word.

Turns, sub-queries and tokens are claimed before dispatch (what cost nothing is given back); seconds and consecutive
errors are observed. A child's purse claims from its parent's too: a claim is whole, in every purse up to the first
one, or refused. What the last word of a run takes at a limit is set aside while it explores, so that it too comes out
of the purse. Everything happens on the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Literal

from rlmd.errors import LimitReached, NoHost, RlmdError
from rlmd.events import Limits, Receipt

Claimed = Literal["turns", "sub_queries", "tokens"]

#: Tokens set aside for a last word, prompt and reply together, where tokens are limited: the least window that a root
#: may have.
_LAST_TOKENS = 3072

_WORDS = {
    "turns": "turns",
    "sub_queries": "sub-queries",
    "tokens": "tokens",
    "seconds": "seconds",
    "consecutive_errors": "errors in a row",
}


class Purse:
    """Args:
    limits: What is allowed.
    clock: Monotonic seconds.
    above: The parent's, for a child run.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float], above: Purse | None = None) -> None:
        self.limits = limits
        self._clock = clock
        self._used: dict[Claimed, int] = {"turns": 0, "sub_queries": 0, "tokens": 0}
        self._errors = 0
        self._aside: dict[Claimed, int] = {}
        self._chain: tuple[Purse, ...] = (self, *(above._chain if above is not None else ()))
        #: Since when the tree's time stands still, and how long it has stood still before; the first one's.
        self._paused: float | None = None
        self._pauses = 0
        self._idle = 0.0
        #: The whole tree's: claims that may yet be given back, in part or whole.
        self._first = self._chain[-1]
        self._started = self._time()
        self._open = 0
        self._asked = 0
        self._settled = asyncio.Event()

    def below(self) -> Purse:
        """The purse of a child run: it may take half the turns that are left, and what else is left in the tree."""
        turns = min(purse.left("turns") for purse in self._chain)
        limits = self.limits.model_copy(update={"turns": max(1, turns // 2), "depth": max(0, self.limits.depth - 1)})
        return Purse(limits, self._clock, self)

    def begin(self, spent: float = 0.0) -> None:
        """The run's time counts from now, it may have waited for its session; ``spent`` seconds are gone already."""
        self._started = self._time() - spent

    def pause(self) -> None:
        """The time of the whole tree stands still: somebody is asked, or a host is waited for; of several such pauses
        the last that ends counts."""
        first = self._first
        first._pauses += 1
        if first._paused is None:
            first._paused = first._clock()

    def go_on(self) -> None:
        """The time of the whole tree goes on."""
        first = self._first
        first._pauses -= 1
        if first._paused is not None and not first._pauses:
            first._idle += first._clock() - first._paused
            first._paused = None

    def _time(self) -> float:
        first = self._first
        return (first._clock() if first._paused is None else first._paused) - first._idle

    def restore(self, counts: Mapping[Claimed, int]) -> None:
        """Takes what was spent before the run was taken up again, and so was allowed."""
        self._take(counts)

    def claim(self, what: Claimed, count: int = 1) -> None:
        """Takes so many. Raises ``LimitReached`` when fewer are left, and takes nothing then."""
        self._check({what: count})
        self._take({what: count})

    def set_aside(self) -> None:
        """Keeps a turn for the run's last word, unless it is the only one that is left; and tokens, where they are
        limited and twice as many are left."""
        if self._aside or self._lacking({"turns": 2}):
            return
        self._aside = {"turns": 1}
        if 2 * _LAST_TOKENS <= self.left("tokens") < _UNLIMITED // 2:
            self._aside["tokens"] = _LAST_TOKENS
        self._take(self._aside)

    def give_back(self) -> None:
        """What was set aside may be taken again, by whoever in the tree comes first."""
        self._take({what: -count for what, count in self._aside.items()})
        self._aside = {}

    async def claim_completion(self, what: Literal["sub_queries"] | None, tokens: int) -> Claim:
        """Takes what one completion may cost, to be settled: a sub-query, if it is one, and tokens at their worst.

        While claims that are open may yet be given back, it waits: of a batch that the cache can answer none is
        refused. Raises ``LimitReached`` once all that is allowed has been spent.
        """
        wanted: dict[Claimed, int] = {"tokens": tokens}
        if what is not None:
            wanted[what] = 1
        while self._lacking(wanted) and self._first._open:
            await self._first._settled.wait()
        self._check(wanted)
        self._take(wanted)
        self._first._open += 1
        self._first._asked += wanted.get("sub_queries", 0)
        return Claim(self, wanted)

    def settle(self, claimed: Mapping[Claimed, int], used: Mapping[Claimed, int]) -> None:
        """Gives back what an open claim did not use."""
        assert self._first._open > 0
        self._first._open -= 1
        self._first._asked -= claimed.get("sub_queries", 0)
        changes: dict[Claimed, int] = {what: used.get(what, 0) - count for what, count in claimed.items()}
        self._take(changes)
        self._first._settled.set()
        self._first._settled = asyncio.Event()

    def used(self, what: Claimed) -> int:
        return self._used[what]

    @property
    def sub_queries_sent(self) -> int:
        """Those that a model has answered, for child runs too; what is under way may yet come out of the cache."""
        return max(0, self._used["sub_queries"] - self._first._asked)

    def left(self, what: Claimed) -> int:
        """What this run may still take, its parents' purses included; very many where nothing limits it."""
        return min(purse._own_left(what) for purse in self._chain)

    def _own_left(self, what: Claimed) -> int:
        allowed = getattr(self.limits, what)
        return _UNLIMITED if allowed is None else int(allowed) - self._used[what]

    def _lacking(self, wanted: Mapping[Claimed, int]) -> bool:
        return any(self.left(what) < count for what, count in wanted.items())

    def _check(self, wanted: Mapping[Claimed, int]) -> None:
        for purse in self._chain:
            for what, count in wanted.items():
                if purse._own_left(what) < count:
                    raise _reached(what, getattr(purse.limits, what), purse._used[what])

    def _take(self, counts: Mapping[Claimed, int]) -> None:
        for purse in self._chain:
            for what, count in counts.items():
                purse._used[what] += count

    @property
    def seconds_used(self) -> float:
        return self._time() - self._started

    @property
    def seconds_left(self) -> float:
        return min(purse.limits.seconds - purse.seconds_used for purse in self._chain)

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


#: More than anything counts up to.
_UNLIMITED = 1 << 60


class Claim:
    """What one completion may cost, until it is settled; settled twice is settled once."""

    def __init__(self, purse: Purse, wanted: Mapping[Claimed, int]) -> None:
        self._purse = purse
        self._wanted = wanted
        self._settled = False

    def settle(self, *, spent: bool, tokens: int | None = None) -> None:
        """Says what it cost.

        Args:
            spent: Whether anything: a reply from the cache did not.
            tokens: As the server counted them; None: unknown, so all that was claimed.
        """
        if self._settled:
            return
        self._settled = True
        used: dict[Claimed, int] = {}
        if spent:
            used = dict(self._wanted)
            if tokens is not None:
                used["tokens"] = tokens
        self._purse.settle(self._wanted, used)


def spent_by(receipt: Receipt) -> Mapping[Claimed, int]:
    """What a run that has ended took from the purse, its own children included."""
    return {
        "turns": receipt.turns,
        "sub_queries": receipt.sub_queries - receipt.sub_queries_cached - receipt.sub_queries_refused,
        "tokens": sum(use.prompt_tokens + use.completion_tokens for use in receipt.models),
    }


def time_is_over(limits: Limits) -> LimitReached:
    """The error of a run whose time ran out in the middle of a step."""
    return _reached("seconds", limits.seconds, limits.seconds)


def money_is_spent(error: NoHost) -> RlmdError:
    """The error of a request that only money could have served: its end is a limit of the run like any other."""
    if error.details.get("limit") != "money":
        return error
    return LimitReached(error.message, hint=error.hint, limit="money", allowed=0, used=0)


def _reached(limit: str, allowed: float, used: float) -> LimitReached:
    if limit == "consecutive_errors":
        message = f"{used:g} errors in a row; the limit is {allowed:g}."
    elif limit == "tokens":
        message = f"Of the limit of {allowed:,} tokens {used:,} are used; one more request may take more than the rest."
    else:
        message = f"The limit of {allowed:g} {_WORDS[limit]} is used up."
    return LimitReached(
        message,
        hint=f"Continue the run, or ask with a higher limit of {limit}.",
        limit=limit,
        allowed=allowed,
        used=used,
    )
