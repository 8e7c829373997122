"""What a session's worker holds, as facts tell it: the seeds that it was born with, and the cells that made its names.

A pure fold, over the facts as they come and over journals alike. Knows no worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rlmd.events import (
    AnyFact,
    CellEnded,
    CellsOfRun,
    CellStarted,
    Pin,
    RunInterrupted,
    RunResumed,
    RunStarted,
    SessionStarted,
)

_MOST_NAMES = 40

#: A cell of a run, by its number there.
CellOfRun = tuple[str, int]


@dataclass(slots=True)
class SessionLog:
    """``cells`` made the names, in this order; ``stopped`` were cut short, so that nobody can say what they did, and
    are never run again; ``ended`` counts all."""

    hash_seed: int | None = None
    random_seed: int | None = None
    cells: list[CellOfRun] = field(default_factory=list)
    stopped: list[CellOfRun] = field(default_factory=list)
    #: The contexts that the worker has, or is to have.
    pins: tuple[Pin, ...] = ()
    ended: int = 0
    #: The last cell, if it was cancelled.
    _cancelled: CellOfRun | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing that a new worker would lack."""
        return not self.cells and not self.stopped

    def apply(self, fact: AnyFact) -> None:
        match fact:
            case RunStarted() if fact.contexts:
                self.pins = fact.contexts
            case SessionStarted():
                self.hash_seed, self.random_seed = fact.hash_seed, fact.random_seed
                self.cells = [(one.run_id, cell) for one in fact.woken for cell in one.cells]
                self.stopped = []
            case CellStarted():
                self._forget_stopped(fact)
            case CellEnded():
                self._cell_ended(fact)
            case RunInterrupted(resumable=True) | RunResumed() if self._cancelled in self.stopped:
                self.stopped.remove(self._cancelled)

    def _cell_ended(self, fact: CellEnded) -> None:
        self.ended += 1
        cell = (fact.run_id, fact.cell)
        self._cancelled = cell if fact.interrupted and fact.error == "cancelled" else None
        if fact.names_lost:
            self.forget()
        elif fact.interrupted:
            self.stopped.append(cell)
        else:
            self.cells.append(cell)

    def _forget_stopped(self, fact: CellStarted) -> None:
        """A cell that only the daemon's end stopped is run anew."""
        cell = (fact.run_id, fact.cell)
        if cell in self.stopped:
            self.stopped.remove(cell)

    def forget(self) -> None:
        """The worker has gone with all its names, and it is to be so."""
        self.cells, self.stopped = [], []
        self.hash_seed = self.random_seed = None


def folded(facts: Iterable[AnyFact]) -> SessionLog:
    """The log that facts amount to: of all runs of a session, in the order in which they held it."""
    log = SessionLog()
    for fact in facts:
        log.apply(fact)
    return log


def by_run(cells: Sequence[CellOfRun]) -> tuple[CellsOfRun, ...]:
    """Cells as a fact names them."""
    return tuple(
        CellsOfRun(run_id=run_id, cells=tuple(cell for _, cell in several))
        for run_id, several in groupby(cells, key=lambda one: one[0])
    )


def what_is_lost(fact: SessionStarted) -> str:
    """What a woken worker does not have as it was; empty when it has it all."""
    said = [fact.why] if fact.why else []
    if fact.names_lost:
        said.append(f"Variables that are gone: {_listed(fact.names_lost)}.")
    if fact.names_older:
        said.append(f"Variables with an earlier value than their last: {_listed(fact.names_older)}.")
    return " ".join(said)


def told_as_lost(fact: SessionStarted) -> str:
    """The same for the root."""
    said = what_is_lost(fact)
    return f"The REPL was made anew, and not all of it came back. {said} Define again what you need." if said else ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"
