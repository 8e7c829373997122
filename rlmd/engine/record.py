"""A run as its facts tell it: the pure fold from facts to ``RunRecord``.

The same fold serves a live run, a list of runs read from disk, and a client's view. Nothing else assigns a run's
state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypedDict

from rlmd.errors import InternalError
from rlmd.events import (
    AnyFact,
    ChildStarted,
    Citation,
    Confirmed,
    ErrorRecord,
    Estimated,
    Outcome,
    Pin,
    Receipt,
    RunContinued,
    RunEnded,
    RunInterrupted,
    RunResumed,
    RunStarted,
    RunState,
    Strategy,
    StrategyChosen,
    SubQueryFact,
    Text,
    TurnStarted,
    Waiting,
    WentOn,
)

_STATE_OF_OUTCOME: dict[Outcome, RunState] = {
    "answered": "ended",
    "partial": "ended",
    "none": "ended",
    "failed": "failed",
    "cancelled": "cancelled",
}
#: States of a run that has not ended.
ACTIVE: frozenset[RunState] = frozenset({"queued", "running", "asking", "waiting"})


class _Held(TypedDict):
    held: tuple[str, ...]
    private: bool


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of a run. ``ended`` and ``created`` are seconds since the epoch.

    ``private`` is as it was at the start, or when a private run began within it; ``held`` names the contexts whose text
    the run may tell, to ask anew.
    ``resumable``: it is interrupted, and the next daemon takes it up again. ``ephemeral``: it is in memory alone.
    """

    run_id: str
    question: Text
    state: RunState
    strategy: Strategy
    contexts: tuple[Pin, ...]
    session: str | None
    private: bool
    created: float
    request_digest: str
    last_seq: int
    held: tuple[str, ...] = ()
    session_id: str | None = None
    resumable: bool = False
    turns: int = 0
    sub_queries: int = 0
    outcome: Outcome | None = None
    ended: float | None = None
    why: str | None = None
    error: ErrorRecord | None = None
    answer: Text | None = None
    citations: tuple[Citation, ...] = ()
    receipt: Receipt | None = None
    parent: str | None = None
    ephemeral: bool = False
    #: What it asks about, while it does.
    asks: Estimated | None = None
    #: What hosts it waits for, while it does; since when, and how long it waited before.
    waits: Waiting | None = None
    waits_since: float | None = None
    waited: float = 0.0

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    def waited_until(self, now: float) -> float:
        """Seconds for which it has waited for hosts by then."""
        return self.waited + (max(0.0, now - self.waits_since) if self.waits_since is not None else 0.0)

    def _waits_no_more(self, now: float) -> RunRecord:
        return replace(self, waits=None, waits_since=None, waited=self.waited_until(now))

    @classmethod
    def begin(cls, fact: RunStarted) -> RunRecord:
        return cls(
            run_id=fact.run_id,
            question=fact.question,
            state="running",
            strategy=fact.strategy,
            contexts=fact.contexts,
            session=fact.session,
            private=fact.private,
            created=fact.time,
            request_digest=fact.request_digest,
            last_seq=fact.seq,
            session_id=fact.session_id,
            parent=fact.parent,
            ephemeral=fact.ephemeral,
            held=tuple(dict.fromkeys((*(pin.context for pin in fact.contexts), *fact.session_held))),
        )

    def apply(self, fact: AnyFact) -> RunRecord:
        """The record after one more fact."""
        match fact:
            case StrategyChosen():
                return replace(self, last_seq=fact.seq, strategy=fact.strategy)
            case TurnStarted():
                return replace(self, last_seq=fact.seq, turns=max(self.turns, fact.turn))
            case Estimated(asks=True):
                return replace(self, last_seq=fact.seq, state="asking", asks=fact)
            case Confirmed() | Waiting() | WentOn():
                return self._waited(fact)
            case SubQueryFact():
                return replace(self, last_seq=fact.seq, sub_queries=self.sub_queries + 1)
            case ChildStarted():
                return replace(self, last_seq=fact.seq, **self._with(fact.held, private=fact.private))
            case RunInterrupted():
                return replace(
                    self._waits_no_more(fact.time),
                    last_seq=fact.seq,
                    state="interrupted",
                    ended=fact.time,
                    why=fact.why,
                    resumable=fact.resumable,
                    asks=None,
                )
            case RunResumed():
                return replace(
                    self,
                    last_seq=fact.seq,
                    state="running",
                    ended=None,
                    why=None,
                    resumable=False,
                    waits=None,
                    waits_since=None,
                )
            case RunContinued():
                return replace(
                    self,
                    last_seq=fact.seq,
                    state="running",
                    outcome=None,
                    ended=None,
                    why=None,
                    error=None,
                    answer=None,
                    citations=(),
                    receipt=None,
                    waited=0.0,
                )
            case RunEnded():
                return replace(
                    self._waits_no_more(fact.time),
                    last_seq=fact.seq,
                    state=_STATE_OF_OUTCOME[fact.outcome],
                    strategy=fact.strategy or self.strategy,
                    outcome=fact.outcome,
                    ended=fact.time,
                    why=fact.why,
                    asks=None,
                    error=fact.error,
                    answer=fact.answer,
                    citations=fact.citations,
                    receipt=fact.receipt,
                    turns=max(self.turns, fact.receipt.turns),
                    sub_queries=max(self.sub_queries, fact.receipt.sub_queries),
                    **self._with(fact.held, private=fact.private),
                )
        return replace(self, last_seq=fact.seq)

    def _waited(self, fact: Confirmed | Waiting | WentOn) -> RunRecord:
        """After it was confirmed, began to wait for a host, or went on."""
        state: RunState
        match fact:
            case Confirmed():
                state = "running" if self.waits is None else "waiting"
                return replace(self, last_seq=fact.seq, state=state, asks=None)
            case Waiting():
                state = "waiting" if self.asks is None else "asking"
                since = fact.time if self.waits_since is None else self.waits_since
                return replace(self, last_seq=fact.seq, state=state, waits=fact, waits_since=since)
            case WentOn():
                state = "running" if self.asks is None else "asking"
                return replace(self._waits_no_more(fact.time), last_seq=fact.seq, state=state)

    def _with(self, held: tuple[str, ...], *, private: bool) -> _Held:
        """What it may tell, with what was told within it."""
        return {"held": tuple(dict.fromkeys((*self.held, *held))), "private": self.private or private}

    def slim(self) -> RunRecord:
        """Without what only ``show`` needs: thousands of ended runs are kept in memory like this."""
        return replace(self, answer=None, citations=(), receipt=None)


def fold(facts: Iterable[AnyFact]) -> RunRecord:
    """The record that a run's facts, from the first on, amount to."""
    record: RunRecord | None = None
    for fact in facts:
        if isinstance(fact, RunStarted):
            record = RunRecord.begin(fact)
        elif record is not None:
            record = record.apply(fact)
    if record is None:
        raise InternalError("A journal does not begin with run_started.")
    return record
