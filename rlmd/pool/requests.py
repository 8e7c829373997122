"""A request that is not settled yet: what was tried, where it does not fit, what is in flight for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlmd.pool.actions import Work
from rlmd.pool.slots import Attempt, Target

MAX_ATTEMPTS = 4
#: Pauses that a host asked for do not count as attempts, but end somewhere.
MAX_OVERLOADS = 20


@dataclass(slots=True)
class Request:
    """A request that is not settled yet: queued, or with one or two attempts in flight."""

    work: Work
    units: int
    #: When it was submitted.
    since: float = 0.0
    attempts: dict[int, Attempt] = field(default_factory=dict)
    tries: int = 0
    overloads: int = 0
    unfit: set[Target] = field(default_factory=set)
    avoided: set[str] = field(default_factory=set)

    @property
    def tried_out(self) -> bool:
        return self.tries >= MAX_ATTEMPTS or self.overloads >= MAX_OVERLOADS
