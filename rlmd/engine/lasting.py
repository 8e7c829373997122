"""Which facts of a journal still hold when its run is taken up again: a pure sieve, in the order in which they came.

Two things undo facts. A stop of the daemon cut a turn or cell short, which is begun anew. And a run that had ended at a
limit was continued: the limit, what it cut short and all that was said and done after it hold no more. What had been
answered for the cell that the limit fell into holds on, so that nothing of it is asked twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rlmd.engine.limits import Claimed, spent_by
from rlmd.errors import LimitReached, RunCancelled
from rlmd.events import (
    AnyFact,
    BatchStarted,
    CellEnded,
    CellStarted,
    ChildEnded,
    ChildStarted,
    Confirmed,
    LimitHit,
    RootFailed,
    RootReplied,
    RunContinued,
    RunEnded,
    RunInterrupted,
    RunResumed,
    RunStarted,
    Searched,
    SubQueryFailed,
    SubQueryReplied,
    TurnStarted,
    Waiting,
    WentOn,
)

_STOPPED = "cancelled"
_UNASKED = (LimitReached.kind, RunCancelled.kind)
_OfCell = BatchStarted | SubQueryReplied | SubQueryFailed | ChildStarted | ChildEnded | Searched


@dataclass(frozen=True, slots=True)
class Lasting:
    """``facts`` hold; ``undone`` are those that hold no more since the run was continued. What was paid for stands in
    both."""

    facts: list[AnyFact] = field(default_factory=list)
    undone: list[AnyFact] = field(default_factory=list)

    @property
    def cells_undone(self) -> bool:
        """Whether the REPL may hold what no fact tells of any more."""
        return any(isinstance(fact, CellStarted | CellEnded) for fact in self.undone)

    @property
    def paid(self) -> Mapping[Claimed, int]:
        """What the purse gave for what holds no more. Older journals have last words that never came out of it."""
        counts: Counter[Claimed] = Counter()
        after_cell = False
        for fact in self.undone:
            match fact:
                case LimitHit():
                    after_cell = False
                case CellEnded():
                    after_cell = True
                case TurnStarted():
                    claimed = fact.last or after_cell
                    counts["turns"] += claimed and fact.stream.endswith("/root")  # not one that is sent again
                case RootReplied() if fact.completion.source == "model":
                    counts["tokens"] += fact.completion.prompt_tokens + fact.completion.completion_tokens
                case SubQueryReplied() if fact.completion.source == "model":
                    counts["sub_queries"] += 1
                    counts["tokens"] += fact.completion.prompt_tokens + fact.completion.completion_tokens
                case ChildEnded(receipt=receipt) if receipt is not None:
                    counts.update(spent_by(receipt))
        return counts


def lasting(facts: Sequence[AnyFact], *, stops: bool = True) -> Lasting:
    """The facts of a run, from its first, as they hold after its last.

    Args:
        facts: All of them.
        stops: Whether what a stop of the daemon cut short is left out too.
    """
    found = Lasting()
    kept = found.facts
    told = (fact for fact in facts if not isinstance(fact, Waiting | WentOn))  # they hold nothing
    for fact in (*told, None):
        if stops and (fact is None or isinstance(fact, RunInterrupted | RunResumed)):  # or killed while it stopped
            while kept and _is_stopped(kept[-1]):
                kept.pop()
        if isinstance(fact, RunContinued):
            _undo(found)
        if fact is not None:
            kept.append(fact)
    return found


def ended_by(facts: Sequence[AnyFact]) -> str:
    """The limit at which a run ended, the last that it hit since it began or was continued; empty without one."""
    for fact in reversed(facts):
        if isinstance(fact, LimitHit):
            return fact.limit
        if isinstance(fact, RunContinued):
            break
    return ""


def stopped(end: RootFailed | CellEnded) -> bool:
    """Whether a turn or cell was stopped from outside: by the time's end, where the run went on after it."""
    return _is_stopped(end)


def _is_stopped(fact: AnyFact) -> bool:
    if isinstance(fact, RootFailed):
        return fact.error.kind == _STOPPED
    return isinstance(fact, CellEnded) and fact.interrupted and fact.error == _STOPPED


def _undo(found: Lasting) -> None:
    """Takes back the end of a run that is continued, from the limit on; of one that was stopped by its parent's limit
    the end alone."""
    kept = found.facts
    tail = _taken(kept, _end_of(kept))
    while kept and _cut_short(kept[-1]):
        tail.insert(0, kept.pop())
    cell = _open_cell(kept)
    undone = _removed(kept, lambda fact: isinstance(fact, LimitHit) or _refused(fact, cell))
    for fact in tail:
        holds = isinstance(fact, _OfCell) and fact.cell == cell and not _refused(fact, cell)
        (kept if holds else undone).append(fact)
    # A child of the cell goes on too, and tells what it cost when it ends anew.
    found.undone.extend(fact for fact in undone if not (isinstance(fact, ChildEnded) and fact.cell == cell))


def _end_of(kept: Sequence[AnyFact]) -> int:
    """Where the end begins: at the last limit, else at the last fact of the run."""
    end = len(kept)
    for at in range(len(kept) - 1, -1, -1):
        fact = kept[at]
        if isinstance(fact, LimitHit):
            return at
        if isinstance(fact, RunEnded):
            end = at
        if isinstance(fact, RunContinued | RunStarted):
            break
    return end


def _cut_short(fact: AnyFact) -> bool:
    """Whether it is the end of a turn or cell that a limit stopped."""
    if isinstance(fact, RootFailed):
        return fact.error.kind in (_STOPPED, LimitReached.kind)
    return isinstance(fact, CellEnded) and fact.interrupted and fact.error in (_STOPPED, LimitReached.__name__)


def _open_cell(kept: Sequence[AnyFact]) -> int | None:
    """The cell that has begun and has no end."""
    for fact in reversed(kept):
        if isinstance(fact, CellEnded):
            return None
        if isinstance(fact, CellStarted):
            return fact.cell
    return None


def _refused(fact: AnyFact, cell: int | None) -> bool:
    """Whether it is a no that the continuing overrules: a person's, or the purse's to the cell that goes on."""
    match fact:
        case Confirmed():
            return not fact.accepted
        case SubQueryFailed():
            return fact.cell == cell and fact.error.kind in _UNASKED
        case ChildEnded():
            return fact.cell == cell and limited(fact)
    return False


def limited(ended: ChildEnded | RunEnded) -> bool:
    """Whether a child run could not go on because of a limit, its own or one above it."""
    stopped_above = ended.outcome == "cancelled"
    refused = ended.error is not None and ended.error.kind in _UNASKED
    return stopped_above or refused or (ended.receipt is not None and ended.receipt.limit is not None)


def _taken(kept: list[AnyFact], at: int) -> list[AnyFact]:
    tail = kept[at:]
    del kept[at:]
    return tail


def _removed(facts: list[AnyFact], which: Callable[[AnyFact], bool]) -> list[AnyFact]:
    removed = [fact for fact in facts if which(fact)]
    facts[:] = [fact for fact in facts if not which(fact)]
    return removed
