"""What happened in a run and its children, in the order in which a person reads it; texts are bounded."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from rlmd.engine.history import elide
from rlmd.engine.journal import read_facts, read_text
from rlmd.engine.lasting import lasting
from rlmd.engine.record import RunRecord, fold
from rlmd.engine.runfolder import RunFolder
from rlmd.errors import RlmdError
from rlmd.events import (
    AnyFact,
    CellEnded,
    CellStarted,
    ChildEnded,
    ChildStarted,
    CompletionRecord,
    FinalRefused,
    LimitHit,
    Note,
    Receipt,
    RootFailed,
    RootReplied,
    RunContinued,
    RunInterrupted,
    RunResumed,
    RunStarted,
    Searched,
    SessionStarted,
    StrategyChosen,
    SubQueryFailed,
    SubQueryReplied,
    Text,
    TurnStarted,
    Waiting,
)

#: Characters of one text that are kept, two thirds of them from its beginning.
MOST_CHARS = 20_000
#: Sub-queries of one cell that are told; their number is told in full.
MOST_SUB_QUERIES = 2000
#: Child runs of the whole tree whose turns are told; of the others what they were asked and what came of it.
MOST_CHILDREN = 500


@dataclass(slots=True)
class SubQueryStory:
    """``prompt`` is its beginning: a journal keeps no more of it. ``failed``: the reply is the reason."""

    prompt: str
    prompt_chars: int
    reply: str
    failed: bool
    seconds: float
    completion: CompletionRecord | None


@dataclass(slots=True)
class ChildStory:
    """A run that a cell asked. ``answer`` is what the cell was told; ``story`` None where it is told no further."""

    run_id: str
    question: str
    given_chars: int | None
    outcome: str = ""
    answer: str = ""
    receipt: Receipt | None = None
    story: Story | None = None


@dataclass(slots=True)
class CellStory:
    number: int
    code: str
    program: str | None = None
    output: str = ""
    cut: int = 0
    ok: bool = True
    error: str | None = None
    final: str | None = None
    seconds: float = 0.0
    names: tuple[tuple[str, str, str], ...] = ()
    searches: list[Searched] = field(default_factory=list)
    sub_queries: list[SubQueryStory] = field(default_factory=list)
    #: How many there were in all.
    asked: int = 0
    children: list[ChildStory] = field(default_factory=list)


@dataclass(slots=True)
class TurnStory:
    """One root completion with what followed; number 0 holds the cells of programs and of clients."""

    number: int
    time: float
    reply: str = ""
    thinking: str = ""
    failed: str = ""
    completion: CompletionRecord | None = None
    cells: list[CellStory] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Story:
    record: RunRecord
    started: RunStarted
    question: str
    answer: str | None
    turns: list[TurnStory]
    remarks: list[str]


def story_of(folder: RunFolder) -> Story:
    """Reads a run's folder and those of its children. Raises ``InternalError``, ``NotFound``."""
    return _story_of(folder, _Room(MOST_CHILDREN))


@dataclass(slots=True)
class _Room:
    """How many more children are told, in the whole tree."""

    children: int


def _story_of(folder: RunFolder, room: _Room) -> Story:
    facts = read_facts(folder).facts
    record = fold(facts)
    teller = _Teller(folder, room)
    for fact in lasting(facts).facts:
        teller.tell(fact)
    started = next(fact for fact in facts if isinstance(fact, RunStarted))
    return Story(
        record=record,
        started=started,
        question=teller.text(started.question),
        answer=teller.text(record.answer) if record.answer is not None else None,
        turns=teller.turns,
        remarks=teller.remarks,
    )


class _Teller:
    """The fold from facts to turns."""

    def __init__(self, folder: RunFolder, room: _Room) -> None:
        self._folder, self._room = folder, room
        self.turns: list[TurnStory] = []
        self.remarks: list[str] = []
        self._cells: dict[int, CellStory] = {}
        self._children: dict[str, ChildStory] = {}

    def text(self, text: Text) -> str:
        """The text, bounded; of one that is damaged on the disk its beginning and a word on that."""
        try:
            return elide(read_text(self._folder, text), MOST_CHARS * 2 // 3, MOST_CHARS // 3, "characters")
        except RlmdError:
            return f"{text.preview or ''}\n[the rest of {text.chars:,} characters is not on the disk any more]"

    def tell(self, fact: AnyFact) -> None:
        match fact:
            case TurnStarted():
                self._turn(fact.turn, fact.time)
            case RootReplied():
                turn = self._turn(fact.turn, fact.time)
                turn.reply, turn.completion, turn.failed = self.text(fact.reply), fact.completion, ""
                turn.thinking = self.text(fact.thinking) if fact.thinking is not None else ""
            case RootFailed():
                self._turn(fact.turn, fact.time).failed = fact.error.message
            case CellStarted():
                self._cell_started(fact)
            case CellEnded():
                self._cell_ended(fact)
            case SubQueryReplied() | SubQueryFailed():
                self._sub_query(fact)
            case ChildStarted():
                self._child_started(fact)
            case ChildEnded():
                self._child_ended(fact)
            case Searched():
                if (cell := self._cells.get(fact.cell)) is not None:
                    cell.searches.append(fact)
            case _:
                if remark := _remark(fact):
                    (self.turns[-1].remarks if self.turns else self.remarks).append(remark)

    def _turn(self, number: int, time: float) -> TurnStory:
        for turn in reversed(self.turns):
            if turn.number == number:
                return turn
        self.turns.append(TurnStory(number, time))
        return self.turns[-1]

    def _cell_started(self, fact: CellStarted) -> None:
        if (cell := self._cells.get(fact.cell)) is None:  # else it is begun anew after a stop
            cell = self._cells[fact.cell] = CellStory(fact.cell, self.text(fact.code), fact.program)
            self._turn(fact.turn, fact.time).cells.append(cell)

    def _cell_ended(self, fact: CellEnded) -> None:
        cell = self._cells.get(fact.cell)
        if cell is None:
            return
        cell.output, cell.cut, cell.ok, cell.error = self.text(fact.output), fact.cut, fact.ok, fact.error
        cell.seconds, cell.names = fact.seconds, fact.names
        cell.final = self.text(fact.final.text) if fact.final is not None else None

    def _child_started(self, fact: ChildStarted) -> None:
        if fact.child in self._children or (cell := self._cells.get(fact.cell)) is None:
            return
        child = self._children[fact.child] = ChildStory(fact.child, self.text(fact.question), fact.given_chars)
        cell.children.append(child)
        folder = self._folder.child(fact.child)
        if self._room.children > 0 and folder.begun():
            self._room.children -= 1
            with suppress(RlmdError):  # its journal is damaged: what its parent knows of it is told
                child.story = _story_of(folder, self._room)

    def _child_ended(self, fact: ChildEnded) -> None:
        if (child := self._children.get(fact.child)) is not None:
            child.outcome, child.receipt = fact.outcome, fact.receipt
            child.answer = fact.told or self.text(fact.answer)

    def _sub_query(self, fact: SubQueryReplied | SubQueryFailed) -> None:
        cell = self._cells.get(fact.cell)
        if cell is None:
            return
        cell.asked += 1
        if len(cell.sub_queries) >= MOST_SUB_QUERIES:
            return
        replied = isinstance(fact, SubQueryReplied)
        cell.sub_queries.append(
            SubQueryStory(
                prompt=fact.prompt_preview,
                prompt_chars=fact.prompt_chars,
                reply=self.text(fact.reply) if isinstance(fact, SubQueryReplied) else fact.error.message,
                failed=not replied,
                seconds=fact.completion.seconds if isinstance(fact, SubQueryReplied) else 0.0,
                completion=fact.completion if isinstance(fact, SubQueryReplied) else None,
            )
        )


def _remark(fact: AnyFact) -> str:
    match fact:
        case StrategyChosen():
            return f"Strategy {fact.strategy}: {fact.why}."
        case FinalRefused():
            return f"The final was not accepted. {fact.why}"
        case LimitHit() | RunInterrupted() | Waiting():
            return fact.why
        case Note():
            return fact.text
        case RunContinued():
            return f"The run was continued after its limit of {fact.limit.replace('_', '-')}."
        case RunResumed():
            return f"The run was taken up again: {fact.why}."
        case SessionStarted() if fact.lost:
            return "The REPL was started anew; variables were lost."
    return ""
