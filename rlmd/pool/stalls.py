"""Who is told that a run waits for a host: the listeners of its tree, and of those who wait for the same replies."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import dataclass

from rlmd.pool.status import HostStatus


@dataclass(frozen=True, slots=True)
class WaitedHost:
    """``state`` as a person sees it; ``why``: what it last failed with."""

    name: str
    state: str
    why: str


@dataclass(frozen=True, slots=True)
class HostWait:
    """Every host that could serve a run is out of reach; one is waited for ``until`` then (seconds since the epoch)."""

    hosts: tuple[WaitedHost, ...]
    until: float


Told = Callable[[HostWait | None], None]


class Stalls:
    """Args:
    statuses: All hosts as they stand.
    together: The runs that wait for each of the replies that are under way.
    clock: The scheduler's.
    """

    def __init__(
        self,
        statuses: Callable[[], Iterable[HostStatus]],
        together: Callable[[], Iterable[Set[str]]],
        clock: Callable[[], float],
    ) -> None:
        self._statuses, self._together, self._clock = statuses, together, clock
        self._listeners: dict[str, list[Told]] = {}
        #: Trees that were told on account of each stalled run.
        self._told: dict[str, set[str]] = {}

    def watch(self, tree: str, told: Told) -> None:
        self._listeners.setdefault(tree, []).append(told)

    def unwatch(self, tree: str, told: Told) -> None:
        left = [one for one in self._listeners.get(tree, ()) if one != told]
        if left:
            self._listeners[tree] = left
        else:
            self._listeners.pop(tree, None)

    def stalled(self, run: str, until: float, hosts: Collection[str]) -> None:
        """Nothing of a run goes on before one of these hosts is back."""
        said = tuple(
            WaitedHost(one.name, one.state, one.last_error or "") for one in self._statuses() if one.name in hosts
        )
        wait = HostWait(said, time.time() + until - self._clock())
        self._told[run] = {run, *self._joined(run)}
        for tree in self._told[run]:
            self._tell(tree, wait)

    def moving(self, run: str) -> None:
        """It does again."""
        for tree in self._told.pop(run, ()):
            self._tell(tree, None)

    def _joined(self, run: str) -> set[str]:
        """Runs that wait for nothing but replies that this one waits for too."""
        flights = list(self._together())
        beside = {other for runs in flights if run in runs for other in runs}
        return {other for other in beside if all(run in runs for runs in flights if other in runs)}

    def _tell(self, tree: str, wait: HostWait | None) -> None:
        for told in list(self._listeners.get(tree, ())):
            told(wait)
