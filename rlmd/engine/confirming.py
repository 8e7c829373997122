"""Before anything long: what it would take is told, and above what the settings allow somebody is asked first.

One ``Confirming`` a tree of runs; their time stands still while it waits for the answer. One ``Forecast`` a cell: it
tells from the first sub-queries of a batch how many of the rest the cache will not answer. Knows no client.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from rlmd.config import ConfirmSettings
from rlmd.engine.limits import Purse
from rlmd.engine.past import Past
from rlmd.engine.recorder import Recorder
from rlmd.errors import Conflict, InvalidParams, LimitReached
from rlmd.events import Confirm, Confirmed, Estimate, Estimated, Strategy
from rlmd.pool import Expected

What = Literal["direct", "map", "sub_queries", "turns"]

#: Sub-queries that are looked up in the cache before it is said what the others will take; fewer where prompts are so
#: long that a cell may not have so many under way.
_SAMPLE, _LEAST_SAMPLE, _SAMPLE_CHARS = 64, 8, 8_000_000


class Redirected(Exception):
    """Somebody chose another strategy instead of what would have taken long."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__(strategy)
        self.strategy = strategy


def estimate_of(found: Expected, requests: int, chars: int) -> Estimate:
    """What so many requests with so many characters together would take, as the pool expects it."""
    return Estimate(
        requests=requests,
        chars=chars,
        seconds=found.seconds,
        money=found.money,
        energy=found.energy,
        energy_cost=found.energy_cost,
    )


class Timed(Protocol):
    """A run whose time stands still while the tree waits."""

    def hold_time(self) -> None: ...
    def goes_on(self) -> None: ...


class Confirming:
    """Args:
    recorder: Of the run that was asked for, where questions and answers are facts.
    purse: Its purse: what the tree has used.
    settings: Above what somebody is asked.
    past: Answers that the journal holds.
    how: Who says, as the request has it.
    """

    def __init__(self, recorder: Recorder, purse: Purse, settings: ConfirmSettings, past: Past, how: Confirm) -> None:
        self._recorder, self._purse, self._settings, self._past, self._how = recorder, purse, settings, past, how
        self._open = how == "accept"
        self._refused: LimitReached | None = None
        self._redirected: Redirected | None = None
        self._question = asyncio.Lock()
        self._answered = asyncio.Event()
        self._answer: Confirmed | None = None
        self._timed: set[Timed] = set()
        #: Strategies that may be chosen instead, as things stand.
        self.alternatives: tuple[Strategy, ...] = ()

    @property
    def open(self) -> bool:
        """Whether nobody will be asked any more."""
        return self._open

    @property
    def asking(self) -> bool:
        return self._recorder.record.state == "asking"

    def follow(self, run: Timed) -> None:
        self._timed.add(run)

    def forget(self, run: Timed) -> None:
        self._timed.discard(run)

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────────

    def over(self, estimate: Estimate) -> str:
        """Why somebody is to be asked, in words; empty where nobody is."""
        if self._open or self._purse.seconds_left <= 0:  # then its limit ends it
            return ""
        seconds = self._purse.seconds_used + (estimate.seconds or 0.0)
        asked = self._purse.sub_queries_sent + estimate.requests
        money = self._recorder.tally.money + estimate.money
        reached = [
            f"more than {limit}"
            for passed, limit in (
                (seconds > self._settings.seconds, in_words(self._settings.seconds)),
                (asked > self._settings.sub_queries, f"{self._settings.sub_queries:,} sub-queries"),
                (money > self._settings.money, f"${self._settings.money:,.2f}"),
            )
            if passed
        ]
        return f"{described(estimate)}: {' and '.join(reached)} in all" if reached else ""

    def tell(self, what: What, estimate: Estimate) -> None:
        """What lies ahead, if the cache holds nothing of it; nobody is asked yet."""
        self._recorder.add(Estimated, what=what, estimate=estimate, asks=False)

    async def look(self, what: What, estimate: Estimate, *, cell: int = 0) -> None:
        """Goes on at once where it is not long, else once somebody has said yes.

        Raises:
            LimitReached: Somebody said no, or there is nobody to ask.
            Redirected: Somebody chose another strategy.
        """
        self._check()
        why = self.over(estimate)
        if not why:
            return
        async with self._question:  # whoever else comes here waits for the same answer
            self._check()
            if not self._open:
                await self._ask(what, estimate, why, cell)

    async def time_passed(self) -> None:
        """Before another turn: a run that has taken long already is not to go on for ever unasked."""
        if self._open or self._purse.seconds_used <= self._settings.seconds:
            return
        left = Estimate(requests=0, chars=0, seconds=max(0.0, self._purse.seconds_left))
        await self.look("turns", left)

    def redirect_taken(self) -> None:
        """The other strategy is followed from here."""
        self._redirected = None

    def as_it_was(self, error: str | None) -> Exception | None:
        """What ended a cell of the past, by the kind that its fact names; None if that was nobody's answer."""
        answer = self._past.confirmation() if error in (LimitReached.__name__, Redirected.__name__) else None
        if answer is not None and answer.strategy is not None:
            self._redirected = Redirected(answer.strategy)
            return self._redirected
        if error == LimitReached.__name__:
            self._refused = _not_done("it would have taken long", "it was refused")
            return self._refused
        return None

    def _check(self) -> None:
        if self._refused is not None:
            raise self._refused
        if self._redirected is not None:
            raise self._redirected

    async def _ask(self, what: What, estimate: Estimate, why: str, cell: int) -> None:
        answer = self._past.confirmation()
        if answer is None:
            if self._how == "refuse":
                self._recorder.add(Estimated, what=what, estimate=estimate, asks=False, why=why, cell=cell)
                self._refuse(why, "the request says that nobody is to be asked")
            answer = await self._answer_to(what, estimate, why, cell)
        if not answer.accepted:
            self._refuse(why, "it was refused")
        if answer.strategy is not None:
            self._redirected = Redirected(answer.strategy)
            raise self._redirected
        self._open = True

    async def _answer_to(self, what: What, estimate: Estimate, why: str, cell: int) -> Confirmed:
        self._answered.clear()
        self._purse.pause()
        for run in self._timed:
            run.hold_time()
        alternatives = self.alternatives
        try:
            self._recorder.add(
                Estimated, what=what, estimate=estimate, asks=True, why=why, alternatives=alternatives, cell=cell
            )
            await self._answered.wait()
        finally:
            self._purse.go_on()
            for run in self._timed:
                run.goes_on()
        assert self._answer is not None
        return self._answer

    def _refuse(self, why: str, because: str) -> None:
        self._refused = _not_done(why, because)
        raise self._refused

    # ── answering ───────────────────────────────────────────────────────────────────────────────────────────

    def decide(self, *, accepted: bool, strategy: Strategy | None, why: str) -> None:
        """Somebody's answer; in the journal when this returns.

        Raises:
            Conflict: Nothing is asked.
            InvalidParams: That strategy is none of the alternatives.
        """
        question = self._recorder.record.asks
        if question is None:
            raise Conflict("The run does not ask anything.", hint="run/show says how it stands.")
        if strategy is not None and (not accepted or strategy not in question.alternatives):
            offered = ", ".join(question.alternatives)
            raise InvalidParams(
                f"The strategy {strategy} cannot be chosen now.",
                hint=f"Accept, refuse{f', or choose one of: {offered}' if offered else ''}.",
            )
        self._answer = self._recorder.add(Confirmed, accepted=accepted, strategy=strategy, why=why)
        self._answered.set()


class Forecast:
    """Args:
    cell: The cell whose sub-queries are looked at.
    confirming: Who asks.
    expect: What so many requests with so many characters would take.
    """

    def __init__(self, cell: int, confirming: Confirming, expect: Callable[[int, int], Estimate]) -> None:
        self._cell, self._confirming, self._expect = cell, confirming, expect
        self._total = self._seen = self._missed = self._chars = self._held = self._longest = 0
        #: At so many that the cache does not hold it is reckoned anew.
        self._next = 1
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()

    def batch(self, total: int) -> None:
        """The cell asks so many more."""
        self._total += total

    def answered(self) -> None:
        """One of them was answered out of the journal."""
        self._saw(missed=False)

    async def before(self, chars: int, held: Callable[[], Awaitable[bool]]) -> None:
        """Before a sub-query is sent; ``held`` says whether the cache has its reply. Raises as ``Confirming.look``."""
        ahead = max(1, self._total - self._seen)
        if self._confirming.open or not self._confirming.over(self._expect(ahead + self._held, ahead * chars)):
            self._saw(missed=False)
            return
        self._longest = max(self._longest, chars)
        if await held():
            self._saw(missed=False)
            return
        self._saw(missed=True, chars=chars)
        self._held += 1
        try:
            await self._enough_seen()
            async with self._turn:
                if self._missed >= self._next:
                    await self._reckon()
                    self._next = 2 * self._missed
        finally:
            self._held -= 1

    def _saw(self, *, missed: bool, chars: int = 0) -> None:
        self._seen += 1
        self._missed += missed
        self._chars += chars
        self._changed.set()

    async def _enough_seen(self) -> None:
        while self._seen < min(self._total, max(_LEAST_SAMPLE, min(_SAMPLE, _SAMPLE_CHARS // (self._longest + 1)))):
            self._changed.clear()
            await self._changed.wait()

    async def _reckon(self) -> None:
        share = self._missed / self._seen
        requests = self._held + math.ceil(share * max(0, self._total - self._seen))
        estimate = self._expect(requests, requests * self._chars // self._missed)
        await self._confirming.look("sub_queries", estimate, cell=self._cell)


def _not_done(why: str, because: str) -> LimitReached:
    return LimitReached(
        f"It was not done: {why}, and {because}.",
        hint="Continue the run to do it after all, or ask about less.",
        limit="confirmation",
        allowed=0,
        used=0,
    )


def described(estimate: Estimate) -> str:
    """What an estimate says, for a person."""
    parts = [f"{estimate.requests:,} more requests"] if estimate.requests > 1 else []
    if estimate.seconds is not None:
        parts.append(
            f"about {in_words(estimate.seconds)}" if estimate.requests else f"up to {in_words(estimate.seconds)}"
        )
    elif estimate.requests:
        parts.append("at a speed that is not known yet")
    if estimate.energy:
        kilo = estimate.energy >= 1000
        drawn = f"{estimate.energy / 1000:.1f} kWh" if kilo else f"{estimate.energy:.2g} Wh"
        cost = f" ({_dollars(estimate.energy_cost)})" if estimate.energy_cost else ""
        parts.append(drawn + cost)
    if estimate.money:
        parts.append(_dollars(estimate.money))
    return ", ".join(parts)


def _dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 0.01 else f"${amount:.4f}"


def in_words(seconds: float) -> str:
    """A time as a person says it: two figures at most."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 10 and minutes else f"{hours} h"
