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


@dataclass(slots=True)
class _Stall:
    """Nothing of these trees goes on before ``wait`` is over; ``alone``: unless the scheduler has work of theirs."""

    trees: frozenset[str]
    wait: HostWait
    alone: bool


class Stalls:
    """Args:
    statuses: All hosts as they stand.
    together: The runs that wait for each of the replies that are under way.
    goes_on: Whether the scheduler has work of a run that does not wait for a host.
    ask_soon: These hosts are to be asked soon whether they are back.
    clock: The scheduler's.
    """

    def __init__(
        self,
        statuses: Callable[[], Iterable[HostStatus]],
        together: Callable[[], Iterable[Set[str]]],
        goes_on: Callable[[str], bool],
        ask_soon: Callable[[Collection[str]], None],
        clock: Callable[[], float],
    ) -> None:
        self._statuses, self._together, self._goes_on, self._clock = statuses, together, goes_on, clock
        self._ask_soon = ask_soon
        self._listeners: dict[str, list[Told]] = {}
        self._stalls: dict[object, _Stall] = {}
        #: What the listeners of each tree were last told, if it waits.
        self._said: dict[str, HostWait] = {}

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
        stall = _Stall(frozenset({run, *self._joined(run)}), self._wait_for(hosts, until), alone=False)
        before, self._stalls[run] = self._stalls.get(run), stall
        self._say(stall.trees | (before.trees if before is not None else frozenset()))

    def moving(self, run: str) -> None:
        """It does again."""
        if (stall := self._stalls.pop(run, None)) is not None:
            self._say(stall.trees)

    def unheard(self, tree: str, until: float, hosts: Collection[str]) -> object:
        """Something that a tree of runs asks waits for hosts of which nobody knows which models they have, and so for
        nothing in the scheduler's queue. Told while nothing else of the tree goes on; until ``heard`` is given what
        this returns."""
        stall = _Stall(frozenset({tree}), self._wait_for(hosts, until), alone=True)
        self._stalls[key := object()] = stall
        self._say(stall.trees)
        return key

    def heard(self, key: object) -> None:
        self._say(self._stalls.pop(key).trees)

    def awaits(self, host: str) -> bool:
        """Whether something waits for it."""
        return any(one.name == host for stall in self._stalls.values() for one in stall.wait.hosts)

    def look(self) -> None:
        """Of a tree that was alone something may go on now, or nothing any more."""
        if alone := [stall for stall in self._stalls.values() if stall.alone]:
            self._say({tree for stall in alone for tree in stall.trees})

    def _wait_for(self, hosts: Collection[str], until: float) -> HostWait:
        self._ask_soon(hosts)
        said = tuple(
            WaitedHost(one.name, one.state, one.last_error or "") for one in self._statuses() if one.name in hosts
        )
        return HostWait(said, time.time() + until - self._clock())

    def _joined(self, run: str) -> set[str]:
        """Runs that wait for nothing but replies that this one waits for too."""
        flights = list(self._together())
        beside = {other for runs in flights if run in runs for other in runs}
        return {other for other in beside if all(run in runs for runs in flights if other in runs)}

    def _say(self, trees: Iterable[str]) -> None:
        """Tells the listeners of these trees what is another than what they were last told."""
        for tree in trees:
            wait = self._merged(tree)
            if wait == self._said.get(tree):
                continue
            if wait is None:
                del self._said[tree]
            else:
                self._said[tree] = wait
            for told in list(self._listeners.get(tree, ())):
                told(wait)

    def _merged(self, tree: str) -> HostWait | None:
        """All that a tree waits for, and until the first of it is given up; None while something of it goes on."""
        found = [stall for stall in self._stalls.values() if tree in stall.trees]
        if not found or (self._goes_on(tree) and all(stall.alone for stall in found)):
            return None
        hosts = {host.name: host for stall in found for host in stall.wait.hosts}
        return HostWait(tuple(hosts.values()), min(stall.wait.until for stall in found))
