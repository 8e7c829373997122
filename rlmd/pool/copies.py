"""Second copies of what takes too long: which attempts are stragglers, and where a copy would be done sooner. Pure.

A copy pays when the attempt would take longer than all that waits, and longer than starting over on a free slot. The
first whole answer wins; the scheduler aborts the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from rlmd.pool.outlook import Outlook
from rlmd.pool.requests import MAX_ATTEMPTS, Request
from rlmd.pool.slots import Attempt, Slots, Target

#: A copy must be expected to save this many times its own duration, and at least this many seconds: it costs a prompt.
COPY_GAIN, COPY_SECONDS = 1.0, 0.3


class Copies:
    """Over the scheduler's own hosts, requests and attempts."""

    def __init__(
        self,
        hosts: Mapping[str, Slots],
        requests: Mapping[int, Request],
        attempts: Mapping[int, Attempt],
        outlook: Outlook,
    ) -> None:
        self._hosts = hosts
        self._requests = requests
        self._attempts = attempts
        self._outlook = outlook
        #: Units of the largest request so far.
        self.largest = 0

    def stragglers(
        self, free: list[Slots], now: float, wake: list[float], *, interactive: bool
    ) -> list[tuple[float, Attempt]]:
        """Attempts in flight, with the seconds they may still take, whose copy at the fastest of the free hosts would
        pay, and would take as long as all that waits and comes before them: as in a queue, the longest go first.
        ``interactive``: some attempt in flight is waited for by a person or a root."""
        waits = self._outlook.drain(now)
        fastest = min(host.estimate("", 1) or self._outlook.typical(1) or math.inf for host in free)
        if waits and waits > fastest * self.largest and not interactive:
            return []  # a long queue: not one of them, and no look at each
        before = waits and self._outlook.drain(now, interactive=True)
        found = []
        for attempt in self._attempts.values():
            here = fastest * attempt.units
            queue = before if attempt.interactive else waits
            remaining = None if queue > here and queue else self._outlook.remaining(attempt, now)
            if remaining is None:
                continue
            if remaining > max((1 + COPY_GAIN) * here, here + COPY_SECONDS):
                found.append((remaining, attempt))
            elif not attempt.aborting:
                wake.append(now + max(0.05, (1 + COPY_GAIN) * here + COPY_SECONDS - remaining))
        return found

    def best_for(
        self, host: Slots, late: list[tuple[float, Attempt]], now: float, wake: list[float]
    ) -> tuple[int, Target] | None:
        """The straggler whose second copy here would save most. Only trusted hosts run copies, as theirs cost no
        money."""
        best: tuple[float, float, Attempt, Target] | None = None
        for remaining, attempt in late:
            found = self._target(attempt, host, now)
            if found is None:
                continue
            here = self._seconds(host, found.model, attempt.units)
            gain = remaining - here
            if gain > max(COPY_GAIN * here, COPY_SECONDS) and (best is None or gain > best[0]):
                best = (gain, here, attempt, found)
        if best is None:
            return None
        _, here, attempt, found = best
        sooner = self._outlook.sooner_elsewhere(attempt, self._places(attempt, host, now), here, now)
        if sooner is not None:
            wake.append(now + sooner)
            return None
        return attempt.request, found

    def _seconds(self, host: Slots, model: str, units: int) -> float:
        return host.estimate(model, units) or self._outlook.typical(units) or math.inf

    def _places(self, attempt: Attempt, besides: Slots, now: float) -> list[tuple[Slots, str]]:
        hosts = (host for host in self._hosts.values() if host is not besides and host.serviceable(now))
        found = ((host, self._target(attempt, host, now)) for host in hosts)
        return [(host, target.model) for host, target in found if target is not None]

    def _target(self, attempt: Attempt, host: Slots, now: float) -> Target | None:
        request = self._requests.get(attempt.request)
        if request is None or attempt.aborting or attempt.target.host == host.view.name:
            return None
        if len(request.attempts) > 1 or request.tries >= MAX_ATTEMPTS or host.view.name in request.avoided:
            return None
        work = request.work
        for target in work.targets:
            if target.host != host.view.name or target in request.unfit or not host.offers(target.model, now):
                continue
            if host.allows(target.model, private=True):
                return target
        return None
