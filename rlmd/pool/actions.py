"""The scheduler's vocabulary: what it is told (work, ends of attempts) and what it answers (actions)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rlmd.pool.slots import Target

#: How an attempt ended: with a whole answer; by transport (``refused``: nothing listens); told to wait; cut or
#: malformed (tried again, elsewhere first); ``unfit``: this target cannot take this request; ``barred``: nor any other
#: request for a while; ``aborted`` by us; ``fatal``: trying again cannot help.
Verdict = Literal["whole", "failed", "refused", "overloaded", "cut", "unfit", "barred", "aborted", "fatal"]
#: Why a request is settled.
Outcome = Literal["whole", "no_host", "given_up", "unfit", "fatal", "cancelled"]


#: Seconds for which a host is waited for that could take a request, where nobody says how long.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Work:
    """A request as the scheduler sees it. ``ordered``: earlier targets are preferred (a root), not just allowed.
    ``run``: the head of a tree of runs; shares and budgets are its."""

    id: int
    run: str
    targets: tuple[Target, ...]
    chars: int
    interactive: bool = False
    ordered: bool = False
    private: bool = False
    prefix: str = ""
    #: The most that each target may cost, in nano; those that cost nothing are left out.
    costs: Mapping[Target, int] = field(default_factory=dict)
    #: Seconds for which a host is waited for when all that could take it are down, asleep or paused.
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True)
class Ending:
    """``window``: for an unfit target, tokens; targets with no larger one are left out too."""

    verdict: Verdict
    retry_after: float | None = None
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """``entry``: the number under which its money is reserved; None when it costs nothing."""

    attempt: int
    request: int
    target: Target
    entry: int | None = None


@dataclass(frozen=True, slots=True)
class Abort:
    attempt: int


@dataclass(frozen=True, slots=True)
class Settle:
    """``attempt`` is the winner's, when there is one."""

    request: int
    outcome: Outcome
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class WakeAt:
    time: float


@dataclass(frozen=True, slots=True)
class WakeHost:
    """The machine sleeps, and work waits that is worth waking it for."""

    host: str


@dataclass(frozen=True, slots=True)
class Stalled:
    """Nothing of this run goes on before a host is back, which is waited for ``until`` then."""

    run: str
    until: float


@dataclass(frozen=True, slots=True)
class Moving:
    """A run that was stalled is so no more: a host is back, or nothing waits any longer."""

    run: str


Action = Dispatch | Abort | Settle | WakeAt | WakeHost | Stalled | Moving


@dataclass(frozen=True, slots=True)
class Statistics:
    queued: int
    in_flight: int
    copies: int
    settled: int
    queued_for: dict[str, int]
    #: Seconds that the hosts need for what waits; None when there is no telling.
    drain: float | None = None
