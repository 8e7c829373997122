"""What becomes of an ``rlm_query`` of a cell: a run of its own, two facts, and an answer or a typed failure."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from rlmd.engine.journal import clean
from rlmd.engine.limits import Purse, spent_by
from rlmd.engine.past import Past
from rlmd.engine.record import RunRecord
from rlmd.engine.recorder import Recorder
from rlmd.errors import LimitReached, RlmdError
from rlmd.events import ChildEnded, ChildStarted, ErrorRecord, Span, digest_of
from rlmd.repl import ChildQuery, SubQueryFailure, SubQueryReply

#: Stretches that a fact names as given.
_MOST_SPANS = 64


@dataclass(frozen=True, slots=True)
class ChildReport:
    """How a child ended; ``read`` are stretches of the parent's contexts that reached a model in it, ``read_more`` the
    characters of those beyond."""

    record: RunRecord
    answer: str
    read: tuple[Span, ...]
    read_more: int


AskChild = Callable[[str, ChildQuery], Awaitable["ChildReport"]]


class ChildAsking:
    """Args:
    cell: The cell that asks.
    ask: Runs a child to its end, under the id given.
    purse: The asking run's.
    past: What the journal holds of children that ended already.
    recorder: Where the facts go.
    """

    def __init__(self, cell: int, ask: AskChild, purse: Purse, past: Past, recorder: Recorder) -> None:
        self._cell, self._ask, self._purse, self._past, self._recorder = cell, ask, purse, past, recorder
        self._occurrences: Counter[str] = Counter()

    async def answer(self, query: ChildQuery, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        """The answer of a run of its own; one that is not whole is a failure that tells what there is."""
        digest = child_digest(query)
        self._occurrences[digest] += 1
        known = self._past.child(self._cell, digest, self._occurrences[digest])
        if known is not None:
            return await self._as_it_was(known)
        begun = self._past.child_begun(self._cell, digest, self._occurrences[digest])
        child_id = begun or str(uuid.uuid4())
        which = {
            "cell": self._cell,
            "batch": batch,
            "slot": slot,
            "child": child_id,
            "prompt_digest": digest,
            "occurrence": self._occurrences[digest],
        }
        question = clean(query.question)
        spans = tuple(one for one in query.given or () if isinstance(one, Span))
        self._recorder.add(
            ChildStarted,
            **which,
            question=await self._recorder.text(question),
            given=spans[:_MOST_SPANS],
            given_chars=None if query.given is None else sum(map(_chars, query.given)),
        )
        try:
            if self._purse.limits.depth <= 0:
                raise LimitReached("This run may have no child runs; ask llm_query.", limit="depth", allowed=0, used=0)
            report = await self._ask(child_id, ChildQuery(question, query.given))
        except RlmdError as error:
            return await self._failed(which, error)
        return await self._ended(which, report)

    async def _as_it_was(self, known: ChildEnded) -> SubQueryReply | SubQueryFailure:
        """An answer out of the journal: asked once, it is not asked again."""
        self._spent(known)
        return answer_of(known, await self._past.text(known.answer))

    def restore(self) -> None:
        """Takes over what the children of a cell of the past cost."""
        for known in self._past.children(self._cell):
            self._spent(known)

    def _spent(self, known: ChildEnded) -> None:
        if known.receipt is not None:
            self._purse.restore(spent_by(known.receipt))

    async def _failed(self, which: dict[str, Any], error: RlmdError) -> SubQueryFailure:
        told = f"{error.message} {error.hint}".strip()
        record = ErrorRecord(code=error.code, kind=error.kind, message=error.message, hint=error.hint)
        self._recorder.add(
            ChildEnded, **which, outcome="failed", answer=await self._recorder.text(""), error=record, told=told
        )
        return SubQueryFailure(kind=error.kind, message=told)

    async def _ended(self, which: dict[str, Any], report: ChildReport) -> SubQueryReply | SubQueryFailure:
        record = report.record
        found = f" What it found by then: {report.answer}" if record.outcome == "partial" else ""
        ended = self._recorder.add(
            ChildEnded,
            **which,
            outcome=record.outcome or "failed",
            answer=await self._recorder.text(report.answer),
            error=record.error,
            told=None if record.outcome == "answered" else f"{record.why or 'The child run failed.'}{found}",
            read=report.read,
            read_more=report.read_more,
            receipt=record.receipt,
        )
        return answer_of(ended, report.answer)


def child_digest(query: ChildQuery) -> str:
    """By what an equal question of a cell is known again."""
    given = () if query.given is None else map(_as_text, query.given)
    return digest_of("\0".join([clean(query.question), *given]))


def answer_of(ended: ChildEnded, answer: str) -> SubQueryReply | SubQueryFailure:
    """What the cell is told of a child that ended."""
    if ended.outcome == "answered":
        return SubQueryReply(answer)
    return SubQueryFailure(kind=ended.error.kind if ended.error else ended.outcome, message=ended.told or "")


def _as_text(given: Span | str) -> str:
    return given if isinstance(given, str) else given.model_dump_json()


def _chars(given: Span | str) -> int:
    return len(given) if isinstance(given, str) else given.end - given.start
