"""How long things will take: what is in flight, what waits, here and elsewhere. Pure; reads the hosts and the queue.

Estimates are seconds a character of prompt, learned for each host and model. They decide nothing while a queue is
long (every free slot takes the next request); at its end they keep the last requests off hosts that are too slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from rlmd.pool.slots import Attempt, Slots, Target
from rlmd.pool.waiting import Bucket, Key, Waiting

#: A request left for others is looked at again after at least this long (seconds).
LOOK_AGAIN = 0.05


class Outlook:
    """Over the scheduler's own hosts and queue."""

    def __init__(self, hosts: Mapping[str, Slots], waiting: Waiting) -> None:
        self._hosts = hosts
        self._waiting = waiting
        self._fleets: dict[tuple[Key, bool], _Fleet] = {}
        self._slowest: float | None = None

    def forget(self) -> None:
        """Time has passed, or an attempt began: what was computed holds no more."""
        self._fleets.clear()
        self._slowest = None

    def remaining(self, attempt: Attempt, now: float) -> float | None:
        """Seconds that an attempt may still take; None when nothing was measured anywhere. One that is over its time
        has as long to go as it is late: the longer it hangs, the less it is believed."""
        host = self._hosts[attempt.target.host]
        expected = host.estimate(attempt.target.model, attempt.units) or self.typical(attempt.units)
        if expected is None:
            return None
        elapsed = now - attempt.started
        return max(expected - elapsed, elapsed - expected, 0.1 * expected)

    def drain(self, now: float, *, interactive: bool = False) -> float:
        """Seconds that the hosts need for all that waits, or for what people and roots wait for; infinite when there
        is no telling."""
        ahead = sum(bucket.units for bucket in self._waiting if bucket.key.interactive or not interactive)
        if not ahead:
            return 0.0
        paces = ((host, host.estimate("", 1)) for host in self._hosts.values() if host.serviceable(now))
        speed = sum(host.usable / pace for host, pace in paces if pace)
        return ahead / speed if speed else math.inf

    def drain_of(self, targets: Iterable[Target], private: bool, now: float) -> float:
        """Seconds that these need for all that waits; infinite when none of them takes work. As long as none was
        measured, the age of the oldest attempt at them."""
        found = {
            target.host: host
            for target in targets
            if (host := self._hosts.get(target.host)) is not None and host.serves(target.model, private, now)
        }
        if not found:
            return math.inf
        speed = sum(host.usable / pace for host in found.values() if (pace := host.estimate("", 1)))
        if speed:
            return self._waiting.units / speed
        return max((now - each.started for host in found.values() for each in host.in_flight.values()), default=0.0)

    def sooner_elsewhere(
        self, attempt: Attempt, places: Sequence[tuple[Slots, str]], here: float, now: float
    ) -> float | None:
        """Seconds until one of these busy hosts has a slot free by which the attempt's request would be done sooner
        than ``here``; None when there is none."""
        found = []
        for host, model in places:
            takes = host.estimate(model, attempt.units)
            if takes is None or takes >= here or host.free(now) or not host.in_flight:
                continue
            frees = min(self.remaining(each, now) or 0.0 for each in host.in_flight.values())
            if frees + takes < here:
                found.append(max(LOOK_AGAIN, frees))
        return min(found, default=None)

    def typical(self, units: int) -> float | None:
        """For hosts that have not finished anything yet: the slowest measured one's time."""
        if self._slowest is None:
            self._slowest = max((max(host.pace.values()) for host in self._hosts.values() if host.pace), default=0.0)
        return self._slowest * units or None

    def longest_in_time(self, bucket: Bucket, target: Target, now: float) -> float:
        """Units of the longest request that this target finishes before all that waits is done.

        0 while its pace is not known: the longest request on what turns out to be the slowest host would make
        everybody wait for it, and a short one measures it soon.
        """
        key = bucket.key
        single = self._hosts[target.host].estimate(target.model, 1)
        fleet = self._fleet(key, target, now)
        if single is None or not fleet.hosts:
            return 0.0 if len({target.host for target in key.targets}) > 1 else math.inf
        ahead = self._waiting.units
        if ahead / fleet.speed >= single * bucket.longest:
            return math.inf  # a long queue: nothing is too long for anybody
        return (ahead + fleet.in_flight) / fleet.speed / single

    def better_left(self, bucket: Bucket, request: int, target: Target, now: float, extra_units: int) -> float | None:
        """Seconds after which to look again, if the request would be done sooner when this free slot left it to the
        other hosts; else None. ``extra_units``: what taking it costs this host besides."""
        units = bucket.members[request]
        here = self._hosts[target.host].estimate(target.model, units + extra_units)
        if here is None or bucket.key.ordered:
            return None
        elsewhere = self._done_elsewhere(bucket.key, target, units, here, now)
        return max(LOOK_AGAIN, here - elsewhere) if elsewhere < here else None

    def _done_elsewhere(self, key: Key, target: Target, units: int, here: float, now: float) -> float:
        """Seconds (if less than ``here``) after which the others would have done all that waits, this request last.

        One with a free slot has just left it to us and does not count."""
        fleet = self._fleet(key, target, now)
        if not fleet.busy:
            return math.inf
        queued = (self._waiting.units - units) / fleet.busy_speed
        if queued >= here:
            return math.inf  # spares the look at everything that is in flight
        return queued + fleet.busy_backlog + fleet.busy_pace * units

    def _fleet(self, key: Key, asking: Target, now: float) -> _Fleet:
        """Hosts that could take what waits under ``key``; the same for every host that asks, until ``forget``. One of
        mine leaves nothing to the cloud, which costs money."""
        cloud = self._is_cloud(asking)
        if (known := self._fleets.get((key, cloud))) is None:
            hosts = list(self._measured(key, cloud, now))
            known = self._fleets[key, cloud] = _Fleet(hosts, now, self._backlog)
        return known

    def _is_cloud(self, target: Target) -> bool:
        return self._hosts[target.host].view.models[target.model].trust == "cloud"

    def _measured(self, key: Key, cloud: bool, now: float) -> Iterator[tuple[Slots, float]]:
        """Each with its seconds a unit."""
        seen = set(key.avoided)
        for target in key.targets:
            host = self._hosts.get(target.host)
            if host is None or target.host in seen or not host.serves(target.model, key.private, now):
                continue
            if not cloud and self._is_cloud(target):
                continue
            seen.add(target.host)
            if (pace := host.estimate(target.model, 1)) is not None:
                yield host, pace

    def _backlog(self, host: Slots, now: float) -> float:
        """Seconds of slot time that the host's attempts will still take."""
        return sum(self.remaining(attempt, now) or 0.0 for attempt in host.in_flight.values())


class _Fleet:
    """Hosts with their seconds a unit at one moment; what is dear to know is computed when it is asked for."""

    def __init__(self, hosts: list[tuple[Slots, float]], now: float, backlog: Callable[[Slots, float], float]) -> None:
        self.hosts = hosts
        self._now = now
        self._backlog = backlog

    @cached_property
    def speed(self) -> float:
        """Units a second."""
        return sum(host.usable / pace for host, pace in self.hosts)

    @cached_property
    def in_flight(self) -> float:
        """Units that their attempts have still to do."""
        return sum(self._backlog(host, self._now) / pace for host, pace in self.hosts)

    @cached_property
    def busy(self) -> list[tuple[Slots, float]]:
        """Those without a free slot."""
        return [(host, pace) for host, pace in self.hosts if not host.free(self._now)]

    @cached_property
    def busy_speed(self) -> float:
        return sum(host.usable / pace for host, pace in self.busy)

    @cached_property
    def busy_pace(self) -> float:
        return min(pace for _, pace in self.busy)

    @cached_property
    def busy_backlog(self) -> float:
        """Seconds until what is in flight at the busy ones is done, shared among their slots."""
        seconds = sum(self._backlog(host, self._now) for host, _ in self.busy)
        return seconds / sum(host.usable for host, _ in self.busy)
