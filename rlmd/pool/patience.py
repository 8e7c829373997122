"""How long what waits is waited for, and which runs wait for a host and not for a slot. Pure.

A host that is down, asleep or paused may come back: what only such hosts could take waits for one of them, as long as
its run has patience. A run of which nothing else goes on is *stalled*: that is told, and told when it goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlmd.pool.actions import Action, Moving, Stalled
from rlmd.pool.eligibility import Eligibility
from rlmd.pool.requests import Request
from rlmd.pool.slots import MAX_PAUSE_SECONDS, Attempt, Slots, Target
from rlmd.pool.waiting import Bucket, Key, Waiting

#: A host that is out of reach for less long is no reason to say that a run waits for it (seconds): a restart takes so
#: long, and the breaker's first pause.
GRACE = 3.0


@dataclass(slots=True)
class _Wait:
    """``since`` when no host takes it, and ``until`` when one is waited for."""

    since: float
    until: float


class Patience:
    """Over the scheduler's own hosts, queue, attempts and requests."""

    def __init__(
        self,
        hosts: Mapping[str, Slots],
        waiting: Waiting,
        attempts: Mapping[int, Attempt],
        requests: Mapping[int, Request],
        may: Eligibility,
    ) -> None:
        self._hosts = hosts
        self._waiting = waiting
        self._attempts = attempts
        self._requests = requests
        self._may = may
        #: Runs that were said to be stalled, and until when they wait.
        self._told: dict[str, float] = {}

    @property
    def told(self) -> bool:
        """Whether some run was said to be stalled."""
        return bool(self._told)

    def stalled(self, run: str) -> bool:
        """Whether it was said to be."""
        return run in self._told

    def look(self, now: float, actions: list[Action], wake: list[float]) -> list[int]:
        """Tells which runs are stalled and which no more; the requests that have waited long enough."""
        waits: dict[str, _Wait] = {}
        moving: set[str] = set()
        expired: list[int] = []
        for bucket in self._waiting:
            wait = self._wait(bucket, now)
            if wait is None:
                moving.add(bucket.key.run)
            elif wait.until <= now:
                expired += bucket.members
            else:
                wake.append(wait.until)
                _merge(waits, bucket.key.run, wait)
        if waits or self._told:
            self._tell(waits, moving, now, actions, wake)
        return expired

    def _tell(
        self, waits: dict[str, _Wait], moving: set[str], now: float, actions: list[Action], wake: list[float]
    ) -> None:
        trying, going = self._in_flight()
        moving |= going
        for run in [run for run in self._told if run in moving or run not in waits.keys() | trying]:
            del self._told[run]
            actions.append(Moving(run))
        for run, wait in waits.items():
            if run in moving or self._told.get(run) == wait.until:
                continue
            if now < wait.since + GRACE:
                wake.append(wait.since + GRACE)
                continue
            self._told[run] = wait.until
            actions.append(Stalled(run, wait.until))

    def _in_flight(self) -> tuple[set[str], set[str]]:
        """Runs with attempts at hosts of which nobody knows whether they are back, and with others."""
        trying: set[str] = set()
        going: set[str] = set()
        for attempt in self._attempts.values():
            request = self._requests.get(attempt.request)
            if request is not None:
                known = attempt.spoke or self._hosts[attempt.target.host].down_since is None
                (going if known else trying).add(request.work.run)
        return trying, going

    def _wait(self, bucket: Bucket, now: float) -> _Wait | None:
        """None while one of its hosts is fit, and so will take it as soon as it has a slot free."""
        key = bucket.key
        since, until = bucket.since, -math.inf
        for host in self._coming(key, now):
            out = host.out_since(now)
            if out is None:
                return None
            since = max(since, out)
            until = max(until, host.waking_until or -math.inf, since + key.patience)
        return _Wait(since, until)

    def _coming(self, key: Key, now: float) -> Iterator[Slots]:
        """Hosts that may take it, now or when they are back; time alone does not bring the others back."""
        for target in key.targets:
            host = self._hosts.get(target.host)
            if host is not None and self._may_come(key, target, host, now):
                yield host

    def _may_come(self, key: Key, target: Target, host: Slots, now: float) -> bool:
        if not host.allows(target.model, key.private) or not host.offers(target.model, now):
            return False
        if self._may.room(key, target) == "never":
            return False
        return host.closed_until <= now + max(key.patience, MAX_PAUSE_SECONDS)


def _merge(waits: dict[str, _Wait], run: str, wait: _Wait) -> None:
    """A run waits since all of it does, and until the first of it is given up."""
    known = waits.setdefault(run, wait)
    if known is not wait:
        waits[run] = _Wait(max(known.since, wait.since), min(known.until, wait.until))
