"""A run that only hosts could serve that sleep, are paused or are down waits for one: told, timed, and with an end.

One ``Waits`` a tree of runs, which tells in the journal of the run that was asked for. The tree's time stands still
meanwhile. The pool says when nothing goes on and when it does again, and gives up what has waited too long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rlmd.engine.limits import Purse
from rlmd.engine.recorder import Recorder
from rlmd.events import AwaitedHost, Waiting, WentOn
from rlmd.pool import HostWait

#: A run that has waited as long as it may waits so long for each further request (seconds): a server that was just
#: started anew is no reason to give up.
_LEAST_PATIENCE = 10.0


class Timed(Protocol):
    """A run whose time stands still while the tree waits."""

    def hold_time(self) -> None: ...
    def goes_on(self) -> None: ...


class Waits:
    """Args:
    recorder: Of the run that was asked for.
    purse: Its purse.
    now: Seconds since the epoch.
    stopping: Whether somebody ended the run: then there is nothing to tell.
    """

    def __init__(
        self, recorder: Recorder, purse: Purse, now: Callable[[], float], stopping: Callable[[], bool]
    ) -> None:
        self._recorder, self._purse, self._now, self._stopping = recorder, purse, now, stopping
        self._timed: set[Timed] = set()
        self._held = False

    @property
    def waiting(self) -> bool:
        return self._held

    @property
    def patience(self) -> float:
        """Seconds for which a request may yet wait for a host."""
        allowed = self._purse.limits.waiting
        return max(min(allowed, _LEAST_PATIENCE), allowed - self._recorder.record.waited_until(self._now()))

    def follow(self, run: Timed) -> None:
        self._timed.add(run)

    def forget(self, run: Timed) -> None:
        self._timed.discard(run)

    def heard(self, wait: HostWait | None) -> None:
        """The pool says that nothing of the tree goes on before a host is back; None: it does again."""
        if wait is None:
            self._go_on()
        elif not self._stopping() and self._recorder.record.active:
            self._hold(wait)

    def _hold(self, wait: HostWait) -> None:
        hosts = tuple(AwaitedHost(name=one.name, state=one.state, why=one.why) for one in wait.hosts)
        self._recorder.add(Waiting, why=_in_words(hosts), hosts=hosts, until=wait.until)
        if not self._held:
            self._held = True
            self._purse.pause()
            for run in self._timed:
                run.hold_time()

    def _go_on(self) -> None:
        if not self._held:
            return
        self._held = False
        self._purse.go_on()
        if not self._stopping() and self._recorder.record.active:
            self._recorder.add(WentOn, came=self._now() < self._until)
        for run in self._timed:
            run.goes_on()

    @property
    def _until(self) -> float:
        waits = self._recorder.record.waits
        return waits.until if waits is not None else 0.0


def _in_words(hosts: tuple[AwaitedHost, ...]) -> str:
    said = ", ".join(f"{one.name} ({one.state})" for one in hosts)
    return f"No host that may answer takes work now: {said}." if said else "No host that may answer is there."
