"""How much money may be spent, is reserved and is spent: by run tree, day and month. Pure; the ledger keeps it on disk.

What is reserved counts as spent until it is settled, so that nothing that is sent can exceed a limit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Literal

from rlmd.config import BudgetSettings
from rlmd.pool.prices import NANO

Room = Literal["now", "later", "never"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt's money, in nano. ``spent`` is None until it is settled; ``day`` is the user's, when it was sent."""

    number: int
    tree: str
    host: str
    model: str
    day: str
    at: float
    reserved: int
    spent: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def counts(self) -> int:
        return self.reserved if self.spent is None else self.spent


@dataclass(frozen=True, slots=True)
class Account:
    """Dollars of a day, a month or a run; ``limit`` is None where there is none."""

    name: str
    limit: float | None
    spent: float
    reserved: float


class Budget:
    """Args:
    settings: The limits in dollars.
    clock: Seconds since the epoch.
    zone: The user's time zone; None is the system's.
    """

    def __init__(self, settings: BudgetSettings, clock: Callable[[], float], zone: tzinfo | None = None) -> None:
        self.use(settings)
        self._clock = clock
        self._zone = zone
        self._open: dict[int, Entry] = {}
        self._next = 1
        self._spent: defaultdict[str, int] = defaultdict(int)
        self._reserved: defaultdict[str, int] = defaultdict(int)
        self._allowed: set[str] = set()
        #: Dollars that single runs may spend beyond what each may.
        self._granted: dict[str, float] = {}
        #: Dollars that single runs may spend where that is less than what each may.
        self._least: dict[str, float] = {}
        #: Dollars, where the user said so. What hosts draw is paid later and elsewhere: no limit counts it.
        self.price_per_kwh = settings.price_per_kwh
        #: Why nothing at all may be spent.
        self.blocked = ""

    def use(self, settings: BudgetSettings) -> None:
        """Other limits from now on; what is spent and reserved stays counted."""
        self._limits = {"run": settings.run, "day": settings.day, "month": settings.month}
        self._asks = settings.ask
        self.price_per_kwh = settings.price_per_kwh

    def needs_price(self, tree: str) -> bool:
        """Whether a price that nobody knows could break a limit, or be paid without anybody having been asked."""
        limited = tree in self._least or any(limit is not None for limit in self._limits.values())
        return limited or bool(self.blocked) or (self._asks and tree not in self._allowed)

    def restore(self, entries: Iterable[Entry], next_number: int) -> None:
        """What earlier daemons spent; all settled."""
        for entry in entries:
            for name in _accounts(entry.tree, entry.day):
                self._spent[name] += entry.counts
        self._next = max(self._next, next_number)

    def allow(self, tree: str) -> None:
        """The user said that this run may spend, where that is asked for."""
        self._allowed.add(tree)

    def limit(self, tree: str, dollars: float) -> None:
        """This run may not spend more than so much, whatever any run may."""
        self._least[tree] = dollars

    def grant(self, tree: str, dollars: float) -> None:
        """So much may this run spend beyond what each may; day and month hold all the same."""
        self._granted[tree] = dollars

    # ── reserving and settling ──────────────────────────────────────────────────────────────────────────────

    def room(self, tree: str, amount: int) -> Room:
        """Whether so much may be sent now; ``later``: perhaps when what is reserved is settled."""
        if self.blocked or (self._asks and tree not in self._allowed):
            return "never"
        found: Room = "now"
        for name, limit in self._limited(tree):
            left = limit - self._spent[name]
            if amount > left:
                return "never"
            if amount > left - self._reserved[name]:
                found = "later"
        return found

    def reserve(self, tree: str, host: str, model: str, amount: int) -> Entry:
        now = self._clock()
        entry = Entry(self._next, tree, host, model, self._day(now), now, amount)
        self._next += 1
        self._open[entry.number] = entry
        for name in _accounts(tree, entry.day):
            self._reserved[name] += amount
        return entry

    def entry(self, number: int) -> Entry:
        """One that is not settled yet."""
        return self._open[number]

    def settle(self, number: int, spent: int | None, prompt_tokens: int = 0, completion_tokens: int = 0) -> Entry:
        """``spent`` is None when nobody knows: then the whole reservation is."""
        entry = self._open.pop(number)
        known = entry.reserved if spent is None else spent
        settled = replace(entry, spent=known, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        for name in _accounts(entry.tree, entry.day):
            self._reserved[name] -= entry.reserved
            self._spent[name] += known
        return settled

    @property
    def reserved(self) -> int:
        """Nano of all attempts in flight."""
        return sum(entry.reserved for entry in self._open.values())

    # ── showing ─────────────────────────────────────────────────────────────────────────────────────────────

    def accounts(self, tree: str | None = None) -> list[Account]:
        day = self._day(self._clock())
        names = {"day": day, "month": day[:7]} | ({"run": f"run {tree}"} if tree else {})
        return [
            Account(kind, self._limit(kind, tree), self._spent[name] / NANO, self._reserved[name] / NANO)
            for kind, name in names.items()
        ]

    def why_not(self, tree: str) -> str:
        """For a person whose request only money could have served."""
        if self.blocked:
            return self.blocked
        if self._asks and tree not in self._allowed:
            return "budget.ask is on, and nobody has said that this run may spend"
        full = [
            f"{account.name} {account.spent + account.reserved:.2f} of {account.limit:.2f}"
            for account in self.accounts(tree)
            if account.limit is not None
        ]
        return "the budget does not allow it (" + ", ".join(full) + ")"

    def _limited(self, tree: str) -> Iterable[tuple[str, int]]:
        day = self._day(self._clock())
        for kind, name in (("run", f"run {tree}"), ("day", day), ("month", day[:7])):
            if (limit := self._limit(kind, tree)) is not None:
                yield name, round(limit * NANO)

    def _limit(self, kind: str, tree: str | None) -> float | None:
        limit = self._limits[kind]
        if kind != "run" or tree is None:
            return limit
        least = [dollars for dollars in (limit, self._least.get(tree)) if dollars is not None]
        return min(least) + self._granted.get(tree, 0.0) if least else None

    def _day(self, at: float) -> str:
        return datetime.fromtimestamp(at, self._zone).date().isoformat()


def _accounts(tree: str, day: str) -> tuple[str, str, str]:
    return f"run {tree}", day, day[:7]
