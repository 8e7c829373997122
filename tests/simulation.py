"""The scheduler in simulated time: hosts of given slots and speed, requests of given sizes, and what goes wrong.

The code that decides is the daemon's own; only time and hosts are made up. ``bound`` is the least time in which any
order could do the same work on what was left of the hosts.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rlmd.pool.actions import Abort, Action, Dispatch, Ending, Settle, Verdict, WakeAt, Work
from rlmd.pool.scheduler import Scheduler
from rlmd.pool.slots import BASE_CHARS, HostView, ModelView, Target

#: What befalls a host: nothing listens; it takes requests and never answers; connections break in the middle; streams
#: end without their last record; ten times as slow. ``ok`` mends it.
Fault = Literal["down", "hung", "broken", "cut", "slow", "ok"]

#: Seconds without a token after which an attempt at a host that hangs is given up.
SILENCE = 60.0
#: Seconds until a refused connection is told.
REFUSED = 0.005
SLOWER = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    """``seconds``: for a request of size 1 in one slot."""

    name: str
    slots: int
    seconds: float


#: Two old cards and a fast one, as research/serving.md measured them, halved.
UNEQUAL = (Machine("m40", 2, 0.5), Machine("rtx", 4, 0.175), Machine("p100", 2, 0.8))


def lognormal(count: int, rng: random.Random, sigma: float = 0.6) -> list[float]:
    """Sizes with mean 1."""
    return [rng.lognormvariate(-(sigma**2) / 2, sigma) for _ in range(count)]


def drawn(rng: random.Random) -> tuple[Machine, ...]:
    """Three to six machines of any size and speed."""
    return tuple(
        Machine(f"h{number}", rng.choice((1, 1, 2, 2, 4, 8)), rng.uniform(0.1, 1.5))
        for number in range(rng.randint(3, 6))
    )


@dataclass(frozen=True, slots=True)
class Change:
    """At ``time`` (seconds) a machine's lot changes."""

    time: float
    machine: str
    fault: Fault


@dataclass
class _Flight:
    dispatch: Dispatch
    ends: float
    ending: Ending
    #: Of the event that ends it; an older event counts for nothing.
    token: int


@dataclass
class Simulation:
    """``noise``: how far a request's time strays (σ of its logarithm) from what its length says."""

    machines: Sequence[Machine]
    sizes: Sequence[float]
    changes: Sequence[Change] = ()
    noise: float = 0.3
    seed: int = 0
    runs: Sequence[str] = ("run",)
    check_every: int = 1
    arrivals: Sequence[float] = ()

    scheduler: Scheduler = field(default_factory=Scheduler)
    now: float = 0.0
    outcomes: dict[int, str] = field(default_factory=dict)
    finished: dict[int, float] = field(default_factory=dict)
    decisions: int = 0
    decided: float = 0.0

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self._rng = rng
        spread = self.noise
        self.work = [size * rng.lognormvariate(-(spread**2) / 2, spread) if spread else size for size in self.sizes]
        self._machine = {machine.name: machine for machine in self.machines}
        self._fault: dict[str, Fault] = dict.fromkeys(self._machine, "ok")
        self._flights: dict[int, _Flight] = {}
        self._events: list[tuple[float, int, str, object]] = []
        self._tie = itertools.count()
        self._wake: float | None = None
        self._targets = tuple(Target(machine.name, "m") for machine in self.machines)

    def run(self) -> float:
        """Until every request is settled; returns the makespan (seconds)."""
        for machine in self.machines:
            self._call("host_changed", HostView(machine.name, machine.slots, {"m": ModelView(8192, "mine")}))
        for change in self.changes:
            if change.time <= 0:
                self._strike(change)
            else:
                self._push(change.time, "change", change)
        for number, size in enumerate(self.sizes):
            arrival = self.arrivals[number] if self.arrivals else 0.0
            chars = max(1, int(4000 * size) - BASE_CHARS)
            work = Work(number, self.runs[number % len(self.runs)], self._targets, chars)
            if arrival:
                self._push(arrival, "submit", work)
            else:
                self._call("submit", work)
        while len(self.outcomes) < len(self.sizes):
            self._step()
        return self.now

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self) -> None:
        times = [self._events[0][0]] if self._events else []
        times += [self._wake] if self._wake is not None else []
        assert times, f"{len(self.sizes) - len(self.outcomes)} requests would wait for ever"
        self.now = max(self.now, min(times))
        if not self._events or self._events[0][0] > self.now:
            self._call("tick")
            return
        _, token, kind, what = heapq.heappop(self._events)
        if kind == "change":
            assert isinstance(what, Change)
            self._strike(what)
        elif kind == "submit":
            self._call("submit", what)
        else:
            assert isinstance(what, int)
            flight = self._flights.get(what)
            if flight is not None and flight.token == token:
                del self._flights[what]
                self._call("attempt_ended", what, flight.ending)

    def _push(self, when: float, kind: str, what: object) -> int:
        token = next(self._tie)
        heapq.heappush(self._events, (when, token, kind, what))
        return token

    def _call(self, name: str, *arguments: object) -> None:
        began = time.perf_counter()
        actions: list[Action] = getattr(self.scheduler, name)(*arguments, self.now)
        self.decided += time.perf_counter() - began
        self.decisions += 1
        if self.decisions % self.check_every == 0:
            self.scheduler.check()
        self._wake = None
        for action in actions:
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Dispatch():
                seconds, ending = self._fate(action)
                token = self._push(self.now + seconds, "end", action.attempt)
                self._flights[action.attempt] = _Flight(action, self.now + seconds, ending, token)
            case Abort(attempt):
                self._end_at(attempt, 0.0, Ending("aborted"))
            case Settle(request, outcome):
                assert request not in self.outcomes, "settled twice"
                self.outcomes[request] = outcome
                self.finished[request] = self.now
            case WakeAt(when):
                self._wake = when

    def _end_at(self, attempt: int, seconds: float, ending: Ending) -> None:
        flight = self._flights[attempt]
        flight.ends, flight.ending = self.now + seconds, ending
        flight.token = self._push(flight.ends, "end", attempt)

    # ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────

    def _fate(self, dispatch: Dispatch) -> tuple[float, Ending]:
        """How long an attempt that begins now takes, and how it ends."""
        seconds = self.work[dispatch.request] * self._machine[dispatch.target.host].seconds
        match self._fault[dispatch.target.host]:
            case "down":
                return REFUSED, Ending("refused")
            case "hung":
                return SILENCE, Ending("failed")
            case "broken" | "cut" as fault:
                return seconds * self._rng.random(), Ending("failed" if fault == "broken" else "cut")
            case "slow":
                return seconds * SLOWER, Ending("whole")
            case "ok":
                return seconds, Ending("whole")

    def _strike(self, change: Change) -> None:
        """What is in flight there meets the change too."""
        before, self._fault[change.machine] = self._fault[change.machine], change.fault
        for attempt, flight in self._flights.items():
            if flight.dispatch.target.host != change.machine or flight.ending.verdict == "aborted":
                continue
            left = flight.ends - self.now
            match change.fault:
                case "down":
                    self._end_at(attempt, 0.0, Ending("failed"))
                case "hung":
                    self._end_at(attempt, SILENCE, Ending("failed"))
                case "broken" | "cut":
                    verdict: Verdict = "failed" if change.fault == "broken" else "cut"
                    self._end_at(attempt, left * self._rng.random(), Ending(verdict))
                case "slow":
                    self._end_at(attempt, left * SLOWER, Ending("whole"))
                case "ok" if before == "slow":
                    self._end_at(attempt, left / SLOWER, flight.ending)

    def bound(self) -> float:
        """The least time in which any order could do this work on what was left of the machines (seconds)."""
        return least_seconds(self.machines, self.work, self.changes)


def least_seconds(machines: Sequence[Machine], work: Sequence[float], changes: Sequence[Change] = ()) -> float:
    """All work at the capacity there was, and where no machine failed the largest request on the fastest one."""
    share = {"ok": 1.0, "slow": 1 / SLOWER}
    faults: dict[str, Fault] = {machine.name: "ok" for machine in machines}
    clock, left = 0.0, sum(work)
    for change in [*sorted(changes, key=lambda change: change.time), None]:
        speed = sum(share.get(faults[m.name], 0.0) * m.slots / m.seconds for m in machines)
        until = change.time if change else float("inf")
        if speed and left / speed <= until - clock:
            clock += left / speed
            break
        left -= speed * max(0.0, until - clock)
        clock = max(clock, until)
        assert change is not None, "no machine is left"
        faults[change.machine] = change.fault
    failed = any(change.fault != "ok" for change in changes)
    return clock if failed else max(clock, max(work) * min(machine.seconds for machine in machines))
