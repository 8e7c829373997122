"""Who may take what waits: trust, windows and breakers by the hosts, money by the purse, cloud only to help.

Pure. Of those that may, the order is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from rlmd.pool.budget import Entry, Room
from rlmd.pool.outlook import Outlook
from rlmd.pool.slots import Slots, Target
from rlmd.pool.waiting import Bucket, Key


def size_class(cost: int) -> int:
    """A cost rounded up by an eighth at most: what a bucket must be able to pay."""
    shift = max(0, cost.bit_length() - 4)
    return -(-cost >> shift) << shift


class Purse(Protocol):
    """What the scheduler needs of the budget. Whoever reports an attempt's end has settled its reservation."""

    def room(self, tree: str, amount: int) -> Room: ...
    def reserve(self, tree: str, host: str, model: str, amount: int) -> Entry: ...
    @property
    def reserved(self) -> int: ...


class Eligibility:
    """Over the scheduler's own hosts.

    Args:
        overflow_after: Seconds that hosts of mine would need for what waits, above which cloud hosts help.
    """

    def __init__(
        self, hosts: Mapping[str, Slots], outlook: Outlook, purse: Purse | None, overflow_after: float
    ) -> None:
        self._hosts = hosts
        self._outlook = outlook
        self._purse = purse
        self.overflow_after = overflow_after
        #: Whether a cloud host was free and left alone, because hosts of mine do the work soon enough.
        self.withheld = False

    def target(self, key: Key, host: Slots, now: float) -> Target | None:
        """The target by which this host may take what waits under ``key``."""
        mine = [target for target in key.targets if target.host == host.view.name]
        mine = [t for t in mine if host.allows(t.model, key.private) and host.offers(t.model, now)]
        mine = [target for target in mine if self.room(key, target) == "now"]
        if not mine:
            return None
        chosen = next((target for target in mine if target.model == host.resident and not key.ordered), mine[0])
        if host.view.name in key.avoided and any(self._fit_elsewhere(key, host, now)):
            return None
        if key.ordered and any(self._preferred_before(key, chosen, now)):
            return None
        if not key.ordered and self._is_cloud(chosen) and not self._overflows(key, now):
            return None
        return chosen

    def worth_waking(self, host: Slots, waiting: Iterable[Bucket], now: float) -> bool:
        """Whether something waits that no other host takes, or that would keep the others for longer than this one
        needs to boot."""
        return any(self._needs(bucket, host, now) for bucket in waiting)

    def _needs(self, bucket: Bucket, host: Slots, now: float) -> bool:
        key, name = bucket.key, host.view.name
        if not any(t.host == name and host.allows(t.model, key.private) for t in key.targets):
            return False
        others = [target for target in key.targets if target.host != name and self.room(key, target) == "now"]
        coming = (self._hosts[other] for other in {target.host for target in others} if other in self._hosts)
        if sum(one.view.slots for one in coming if one.waking_until is not None) >= len(bucket.members):
            return False
        return self._outlook.drain_of(others, key.private, now) > host.view.boot_seconds

    def room(self, key: Key, target: Target) -> Room:
        cost = key.costs[key.targets.index(target)] if key.costs else 0
        return "now" if not cost or self._purse is None else self._purse.room(key.run, cost)

    def _is_cloud(self, target: Target) -> bool:
        host = self._hosts.get(target.host)
        model = host.view.models.get(target.model) if host is not None else None
        return model is not None and model.trust == "cloud"

    def _overflows(self, key: Key, now: float) -> bool:
        """Whether cloud hosts are to help: those of mine are down, or would need too long for what waits."""
        self.withheld = True
        local = [
            target
            for target in key.targets
            if not self._is_cloud(target) and target.host not in key.avoided and self.room(key, target) == "now"
        ]
        return self._outlook.drain_of(local, key.private, now) >= self.overflow_after

    def _fit_elsewhere(self, key: Key, host: Slots, now: float) -> Iterator[bool]:
        for target in key.targets:
            other = self._hosts.get(target.host)
            if other is not None and other is not host and target.host not in key.avoided:
                paid = self.room(key, target) != "never"
                yield paid and other.serves(target.model, key.private, now)

    def _preferred_before(self, key: Key, chosen: Target, now: float) -> Iterator[bool]:
        for target in key.targets[: key.targets.index(chosen)]:
            other = self._hosts.get(target.host)
            if other is not None and target.host != chosen.host and target.host not in key.avoided:
                paid = self.room(key, target) != "never"
                yield paid and other.serves(target.model, key.private, now)


def worth_a_swap(
    may: list[tuple[Bucket, Target]], host: Slots, now: float, wake: list[float]
) -> list[tuple[Bucket, Target]]:
    """Of what a host may take, in order, what does not make its models change places too often: the one in memory goes
    on while it has work and its time is not over, and another comes when nothing is in flight there any more. What a
    person or a root waits for does not wait for that time."""
    stays = [pair for pair in may if not host.needs_swap(pair[1].model)]
    if len(stays) == len(may):
        return may
    bucket, target = may[0]
    if not host.needs_swap(target.model):
        return stays if host.in_flight else may
    if stays and not bucket.key.interactive and now < host.held_until:
        wake.append(host.held_until)
        return stays
    return [] if host.in_flight else may
