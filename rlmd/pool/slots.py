"""One host as the scheduler sees it: slots, breaker, pace. Pure: no clock, no HTTP; times are handed in.

Owns when a host may be given another request, and how long a request would take there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rlmd.config import Trust

#: Transport failures in a row that open the breaker; a refused connection opens it at once.
STRIKES = 2
#: Answers in a row that were cut or malformed, after which a host counts as failed: it would ruin every request once.
CUTS = 4
#: Seconds for which the breaker first stays open, doubled up to the cap each time that the trial fails.
OPEN_SECONDS, MAX_OPEN_SECONDS = 2.0, 60.0
#: How long a wrong key or a missing model keeps a target out before it is tried again.
BARRED_SECONDS = 60.0
#: An overloaded host that names no pause gets this one, doubled up to the cap.
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0
#: A host that names a pause of 0 would be asked in a loop.
MIN_PAUSE_SECONDS = 0.1
#: Weight of the newest measurement of a host's pace.
PACE_WEIGHT = 0.3
#: What a request costs beyond its prompt, in characters: generating a typical short reply.
BASE_CHARS = 1000
#: The cap on a learned pace's sample, against one stalled request spoiling the estimates for long.
MAX_SAMPLE_RATIO = 8.0

#: What loading a model takes where nobody has measured it: 20 GB from a disk (research/serving.md, 1a).
LOAD_SECONDS = 15.0
#: A model that has work keeps its place for so many times what loading another takes: swaps take a fifth at most.
HOLD = 4.0
#: A machine that was woken in vain is left alone for so long.
WAKE_AGAIN_SECONDS = 600.0

HostState = Literal["ok", "busy", "asleep", "waking", "down", "paused", "unknown"]


class Target(NamedTuple):
    """A model on a host."""

    host: str
    model: str


@dataclass(frozen=True, slots=True)
class ModelView:
    window: int
    trust: Trust


@dataclass(frozen=True, slots=True)
class HostView:
    """What the scheduler is told of a host. ``ready``: it has answered what it is (until then nothing is sent)."""

    name: str
    slots: int
    models: Mapping[str, ModelView]
    ready: bool = True
    paused: bool = False
    #: Models in memory, as far as the server tells, and seconds a unit by model from earlier days.
    resident: tuple[str, ...] = ()
    pace: Mapping[str, float] = field(default_factory=dict)
    #: Requests of others that it works on.
    foreign: int = 0
    #: It does not answer, and can be woken; how long it then takes at most.
    asleep: bool = False
    boot_seconds: float = 0.0
    #: A model that is not in memory takes another's place, which takes so long (seconds).
    swaps: bool = False
    load_seconds: float = LOAD_SECONDS


@dataclass(slots=True)
class Attempt:
    """One request at one host. ``aborting``: cancelled, but its slot is not free before its end is reported;
    ``overtaken``: because its second copy was whole before it."""

    id: int
    request: int
    target: Target
    started: float
    units: int
    interactive: bool = False
    backup: bool = False
    #: A token of it has come.
    spoke: bool = False
    #: What is reserved for it, in nano.
    cost: int = 0
    aborting: bool = False
    overtaken: bool = False


def units_of(chars: int) -> int:
    """The size of a request for estimates: prompt characters and a typical reply."""
    return chars + BASE_CHARS


@dataclass(slots=True)
class Slots:
    """A host's slots. ``permits``: how many are used at present, halved when the host says that it is overloaded."""

    view: HostView
    since: float
    in_flight: dict[int, Attempt] = field(default_factory=dict)
    permits: int = 1
    smooth: int = 0
    failures: int = 0
    level: int = 0
    cuts: int = 0
    open_until: float | None = None
    #: Its last failure: nothing listened there.
    unreached: bool = False
    trial: int | None = None
    pauses: int = 0
    closed_until: float = -math.inf
    barred: dict[str, float] = field(default_factory=dict)
    pace: dict[str, float] = field(default_factory=dict)
    #: None while the host is fit, else when it stopped being so.
    down_since: float | None = None
    was_up: bool = False
    #: None unless it is paused.
    paused_since: float | None = None
    resident: str | None = None
    #: The model that last wrote something.
    spoken: str | None = None
    prefix: str = ""
    #: The run whose root prompt is cached on a one-slot host, and the prompt's units.
    root_prefix: tuple[str, int] | None = None
    completed: int = 0
    failed: int = 0
    removed: bool = False
    #: The most that may be in flight: the slots, or what was in flight when they were lowered.
    ceiling: int = 1
    #: Until when a machine that was woken may take; before when it is not woken again; since when nothing is in flight.
    waking_until: float | None = None
    no_wake_before: float = -math.inf
    idle_since: float | None = None
    #: Since when the model is in memory, as far as we know.
    resident_since: float = -math.inf

    def __post_init__(self) -> None:
        self.permits = self.ceiling = self.view.slots
        self.pace = dict(self.view.pace)
        self.resident = next(iter(self.view.resident), None)
        self.down_since = None if self.view.ready else self.since
        self.idle_since = self.since
        self.was_up = self.view.ready
        self.paused_since = self.since if self.view.paused else None

    def change(self, view: HostView, now: float) -> None:
        if view.resident and (self.resident is None or not self.in_flight) and self.resident not in view.resident:
            self.resident, self.resident_since = view.resident[0], now
        if view.slots != self.view.slots:
            self.permits = view.slots
            self.ceiling = max(view.slots, len(self.in_flight))
        if view.ready and not self.view.ready and (self.view.asleep or self.waking_until is not None):
            self.failures = self.level = 0
            self.open_until = self.trial = self.waking_until = None
            self.idle_since = now
        if view.ready and not self.view.ready and self.open_until is None:
            self.down_since, self.was_up = None, True
        elif self.view.ready and not view.ready and self.down_since is None:
            self.down_since = now
        if view.paused != self.view.paused:
            self.paused_since = now if view.paused else None
        if view.pace != self.view.pace:  # it was calibrated
            self.pace.update(view.pace)
        self.view = view

    # ── which model is in memory ────────────────────────────────────────────────────────────────────────────

    def needs_swap(self, model: str) -> bool:
        """Whether another model must leave its memory for this one."""
        return self.view.swaps and self.resident is not None and model not in (self.resident, *self.view.resident)

    @property
    def loading(self) -> str | None:
        """A model that is on its way into memory: it was asked and has not said a word, and was not there before."""
        asked = (attempt for attempt in self.in_flight.values() if not attempt.spoke and not attempt.aborting)
        there = (self.spoken, *self.view.resident)
        return next((one.target.model for one in asked if self.view.swaps and one.target.model not in there), None)

    @property
    def held_until(self) -> float:
        """When a model that has work gives its place to one that waits."""
        return self.resident_since + HOLD * self.view.load_seconds

    # ── sleep ───────────────────────────────────────────────────────────────────────────────────────────────

    def can_be_woken(self, now: float) -> bool:
        return self.view.asleep and not self.view.paused and self.waking_until is None and now >= self.no_wake_before

    def wake(self, now: float) -> None:
        self.waking_until = now + self.view.boot_seconds

    def end_waking(self, now: float) -> None:
        """It was woken in vain: it is down like any other from now on, and for a while not woken again."""
        if self.waking_until is not None and now >= self.waking_until:
            self.waking_until = None
            self.no_wake_before = now + WAKE_AGAIN_SECONDS
            self.down_since, self.was_up = now, False

    def out_since(self, now: float) -> float | None:
        """Since when it takes no work that waits, longer than a busy host would; None while it is fit."""
        if self.paused_since is not None:
            return self.paused_since
        if self.down_since is None and self.closed_until > now + MAX_PAUSE_SECONDS:
            return -math.inf  # it says itself for how long, and was asked
        return self.down_since

    # ── may it be given work ────────────────────────────────────────────────────────────────────────────────

    def serviceable(self, now: float) -> bool:
        """Whether it takes work at all, now or as soon as a slot is free."""
        if not self.view.ready or self.view.paused or now < self.closed_until:
            return False
        return self.open_until is None or (now >= self.open_until and self.trial is None)

    @property
    def usable(self) -> int:
        """Slots that are ours; one always is, as what others do may be over by now."""
        return max(1, min(self.permits, self.view.slots - self.view.foreign))

    def free(self, now: float) -> int:
        if not self.serviceable(now):
            return 0
        if self.open_until is not None:
            return min(1, max(0, self.view.slots - len(self.in_flight)))
        return max(0, self.usable - len(self.in_flight))

    def offers(self, model: str, now: float) -> bool:
        return now >= self.barred.get(model, -math.inf)

    def allows(self, model: str, private: bool) -> bool:
        """Whether such text may go to that model here; a model that is not here is not allowed."""
        known = self.view.models.get(model)
        return known is not None and (not private or known.trust == "mine")

    def serves(self, model: str, private: bool, now: float) -> bool:
        """Whether it takes such a request, now or as soon as a slot is free."""
        return self.allows(model, private) and self.serviceable(now) and self.offers(model, now)

    def opens_at(self, now: float) -> float | None:
        """When it may be asked again by the passing of time alone; None if time does not decide."""
        if self.open_until is None and self.closed_until <= now and not self.barred:
            return None
        times = [self.closed_until] if self.closed_until > now else []
        if self.open_until is not None and self.trial is None:
            times.append(self.open_until)
        times += [until for until in self.barred.values() if until > now]
        return max(times) if times else None

    def state(self, now: float) -> HostState:
        if self.view.paused:
            return "paused"
        if self.view.asleep and not self.view.ready and now >= self.no_wake_before:
            return "asleep" if self.waking_until is None else "waking"
        if self.open_until is not None or now < self.closed_until:
            return "down"
        if not self.view.ready:
            return "down" if self.was_up or now < self.no_wake_before else "unknown"
        return "ok" if self.free(now) else "busy"

    # ── what happened ───────────────────────────────────────────────────────────────────────────────────────

    def begin(self, attempt: Attempt, *, prefix: str, root_run: str | None) -> None:
        self.in_flight[attempt.id] = attempt
        self.idle_since = None
        if self.open_until is not None:
            self.trial = attempt.id
        if attempt.target.model != self.resident:
            self.resident, self.resident_since = attempt.target.model, attempt.started
        self.prefix = prefix
        if self.view.slots == 1:
            self.root_prefix = (root_run, attempt.units) if root_run else None

    def end(self, attempt: Attempt, now: float) -> None:
        del self.in_flight[attempt.id]
        if not self.in_flight:
            self.idle_since = now

    def succeed(self, attempt: Attempt, now: float) -> None:
        self.completed += 1
        self.cuts = 0
        self.recover(attempt, now)
        self.learn(attempt, now - attempt.started)
        self.smooth += 1
        if self.smooth >= self.permits and self.permits < self.view.slots:
            self.permits += 1
            self.smooth = 0

    def recover(self, attempt: Attempt, now: float) -> None:
        """It answered, whatever it answered: the transport works. A host that was said not to be ready stays down,
        with patience counted from this last sign of life: nothing else would ever end the wait for it."""
        if self.open_until is None or self.trial == attempt.id:
            self.failures = self.level = self.pauses = 0
            self.open_until = self.trial = None
            self.down_since = None if self.view.ready else now
            self.was_up = True

    def cut(self, attempt: Attempt, now: float) -> None:
        """It answered, but what it answered does not count. One such reply may be the request's fault."""
        self.cuts += 1
        if self.cuts >= CUTS:
            self.fail(attempt, now, refused=True)
        else:
            self.recover(attempt, now)

    def give_up_trial(self, attempt: Attempt) -> None:
        if self.trial == attempt.id:
            self.trial = None

    def fail(self, attempt: Attempt, now: float, *, refused: bool) -> None:
        """A transport failure. Those of attempts that began before the breaker opened do not open it further."""
        self.failed += 1
        self.failures += 1
        on_trial = self.trial == attempt.id
        if on_trial or (self.open_until is None and (refused or self.failures >= STRIKES)):
            self.open_until = now + min(MAX_OPEN_SECONDS, OPEN_SECONDS * 2.0**self.level)
            self.level = min(self.level + 1, 10)
            self.trial = None
            self.root_prefix = None
            if self.down_since is None:
                self.down_since = now

    def try_now(self, now: float) -> None:
        """Something listens there again."""
        if self.unreached and self.open_until is not None:
            self.open_until, self.level = min(self.open_until, now), 0

    def overload(self, attempt: Attempt, now: float, retry_after: float | None) -> None:
        """Fewer at a time from now on, and none before the pause is over."""
        self.give_up_trial(attempt)
        if now >= self.closed_until:
            self.permits = max(1, self.permits // 2)
            self.pauses = min(self.pauses + 1, 10)
        self.smooth = 0
        growing = min(MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** (self.pauses - 1))
        pause = growing if retry_after is None else max(retry_after, MIN_PAUSE_SECONDS)
        self.closed_until = max(self.closed_until, now + pause)

    def bar(self, model: str, now: float) -> None:
        """A wrong key, no balance, a model that is gone: not asked again for a while."""
        self.failed += 1
        self.barred[model] = now + BARRED_SECONDS

    # ── how long it would take ──────────────────────────────────────────────────────────────────────────────

    def learn(self, attempt: Attempt, seconds: float) -> None:
        sample = max(seconds, 1e-6) / attempt.units
        known = self.pace.get(attempt.target.model)
        if known is None:
            self.pace[attempt.target.model] = sample
        else:
            sample = min(sample, known * MAX_SAMPLE_RATIO)
            self.pace[attempt.target.model] = known + PACE_WEIGHT * (sample - known)

    def learn_slowness(self, attempt: Attempt, now: float) -> None:
        """It would have taken longer than this at least."""
        seconds = now - attempt.started
        if (known := self.estimate(attempt.target.model, attempt.units)) is not None and seconds > known:
            self.learn(attempt, seconds)

    def estimate(self, model: str, units: int) -> float | None:
        """Seconds for a request; None as long as nothing was measured here."""
        pace = self.pace.get(model)
        if pace is None and self.pace:
            pace = sum(self.pace.values()) / len(self.pace)
        return None if pace is None else pace * units
