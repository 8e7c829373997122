"""What the journal holds of a run that is taken up again: replies, outputs and decisions, each by its place.

The run goes its way again by the same code. What it would ask or do and the journal holds, it takes from here: nothing
of it is asked, done or told twice, and the state that follows is the one that was. Where the journal ends, the run
goes on. A run that begins has an empty past.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from types import MappingProxyType
from typing import TypeVar

from rlmd.engine.journal import read_text
from rlmd.engine.lasting import Lasting, lasting
from rlmd.engine.runfolder import RunFolder
from rlmd.engine.sessionlog import told_as_lost
from rlmd.errors import InternalError, LimitReached, RlmdError
from rlmd.events import (
    AnyFact,
    BatchStarted,
    CancelRequested,
    CellEnded,
    CellStarted,
    ChildEnded,
    ChildStarted,
    Confirmed,
    ErrorRecord,
    Estimated,
    FinalRefused,
    LimitHit,
    Note,
    RootFailed,
    RootReplied,
    RunContinued,
    RunEnded,
    RunInterrupted,
    RunResumed,
    RunStarted,
    Searched,
    SessionStarted,
    Strategy,
    StrategyChosen,
    SubQueryFailed,
    SubQueryReplied,
    Text,
    TurnStarted,
    Waiting,
    WentOn,
)

F = TypeVar("F", bound=AnyFact)
SubQueryEnd = SubQueryReplied | SubQueryFailed
Place = tuple[object, ...]

#: By what a fact is known again: its place in the run. Facts of other kinds must be equal.
_PLACES: Mapping[type, tuple[str, tuple[str, ...]]] = {
    StrategyChosen: ("strategy", ()),
    TurnStarted: ("turn", ("stream",)),
    RootReplied: ("reply", ("stream",)),
    RootFailed: ("reply", ("stream",)),
    CellStarted: ("cell", ("cell",)),
    CellEnded: ("output", ("cell",)),
    BatchStarted: ("batch", ("cell", "batch")),
    SubQueryReplied: ("sub-query", ("cell", "prompt_digest", "occurrence")),
    SubQueryFailed: ("sub-query", ("cell", "prompt_digest", "occurrence")),
    ChildStarted: ("child", ("child",)),
    ChildEnded: ("child's end", ("child",)),
    Searched: ("search", ("cell", "contexts")),
    FinalRefused: ("refused", ("turn",)),
    LimitHit: ("limit", ("limit",)),
    Note: ("note", ("text",)),
    Estimated: ("estimated", ("what", "cell")),
}
#: Told each time that they happen.
_NEVER_KNOWN = (
    RunStarted,
    SessionStarted,
    RunInterrupted,
    RunResumed,
    RunContinued,
    RunEnded,
    CancelRequested,
    Confirmed,
    Waiting,
    WentOn,
)
#: Limits that cells run into, and go on.
_OF_CELLS = ("sub_queries", "tokens", "money")


def _place(fact: AnyFact) -> Place:
    if (known := _PLACES.get(type(fact))) is not None:
        name, fields = known
        return (name, *(getattr(fact, field) for field in fields))
    return (type(fact).__name__, fact.model_dump_json(exclude={"run_id", "seq", "time"}))


class Past:
    """Args:
    facts: The run's, from the first on; none for a run that begins.
    folder: Its journal's, for texts that are too long for a fact.
    threads: Where files are read.
    """

    def __init__(
        self, facts: Sequence[AnyFact] = (), folder: RunFolder | None = None, threads: Executor | None = None
    ) -> None:
        self._folder, self._threads = folder, threads
        self._strategy: StrategyChosen | None = None
        self._replies: dict[str, RootReplied | RootFailed] = {}
        self._started: dict[int, CellStarted] = {}
        self._ended: dict[int, CellEnded] = {}
        self._sub_queries: dict[int, dict[tuple[str, int], SubQueryEnd]] = defaultdict(dict)
        self._children: dict[tuple[int, str, int], ChildEnded] = {}
        self._begun: dict[tuple[int, str, int], str] = {}
        self._searches: dict[int, list[Searched]] = defaultdict(list)
        self._refused: dict[int, str] = {}
        self._limits: dict[str, LimitHit] = {}
        self._last_words: set[int] = set()
        #: Turns that it had taken when it was continued.
        self.turns_before = 0
        self._confirmed: deque[Confirmed] = deque()
        self._lost: dict[int, str] = {}
        self._untold: list[str] = []
        self._told: dict[Place, deque[AnyFact]] = defaultdict(deque)
        self.any = bool(facts)
        self.facts = facts
        #: Who asked that the run be cancelled, if somebody did before its last fact.
        self.cancelled: CancelRequested | None = None
        #: Seconds that the run has been going.
        self.seconds = seconds_of(facts)
        #: How often it was taken up again without coming any further, the daemon having died each time.
        self.vain = _vain(facts)
        #: How often it was continued after a limit.
        self.continued = sum(isinstance(fact, RunContinued) for fact in facts)
        #: Its facts as they hold, and what holds no more.
        self.lasting: Lasting = lasting(facts)
        #: What the purse gave for what holds no more.
        self.paid = self.lasting.paid
        for fact in self.lasting.facts:
            self._note(fact)

    def _note(self, fact: AnyFact) -> None:
        match fact:
            case StrategyChosen() if self._strategy is None:
                self._strategy = fact
            case SessionStarted() if told_as_lost(fact):
                self._untold.append(told_as_lost(fact))
            case TurnStarted() if fact.last or self._limits.keys() - set(_OF_CELLS):
                self._last_words.add(fact.turn)
            case RootReplied() | RootFailed():
                self._replies[fact.stream] = fact
                self._lost[fact.turn] = "\n".join([*filter(None, [self._lost.get(fact.turn)]), *self._untold])
                self._untold = []
            case FinalRefused():
                self._refused[fact.turn] = fact.why
            case LimitHit():
                self._limits[fact.limit] = fact
            case CancelRequested():
                self.cancelled = fact
            case Confirmed():
                self._confirmed.append(fact)
            case RunContinued():
                self._continue(fact)
            case _:
                self._note_cell(fact)
        if self._is_over(fact):
            self._told[_place(fact)].append(fact)

    def _continue(self, fact: RunContinued) -> None:
        """Who continues a run has said yes to what it takes, and its root is to know of it."""
        self.turns_before = self.last_turn
        self._confirmed.append(Confirmed(run_id=fact.run_id, seq=fact.seq, time=fact.time, accepted=True))
        if self._replies:
            self._untold.append(told_as_continued(fact))

    def _note_cell(self, fact: AnyFact) -> None:
        match fact:
            case CellStarted():
                self._started[fact.cell] = fact
            case CellEnded():
                self._ended[fact.cell] = fact
            case SubQueryReplied() | SubQueryFailed():
                self._sub_queries[fact.cell][fact.prompt_digest, fact.occurrence] = fact
            case ChildStarted():
                self._begun[fact.cell, fact.prompt_digest, fact.occurrence] = fact.child
            case ChildEnded():
                self._children[fact.cell, fact.prompt_digest, fact.occurrence] = fact
            case Searched():
                self._searches[fact.cell].append(fact)

    def _is_over(self, fact: AnyFact) -> bool:
        """Whether it need not be told again. The beginning of what is begun anew is."""
        asks = isinstance(fact, Estimated) and fact.asks
        return not asks and not isinstance(fact, (*_NEVER_KNOWN, TurnStarted, CellStarted))

    # ── what was told ───────────────────────────────────────────────────────────────────────────────────────

    def take(self, fact: F) -> F | None:
        """The fact that the journal has in the place of this one; each is given once."""
        if not self.any:
            return None
        if isinstance(fact, TurnStarted) and fact.stream in self._replies:
            return fact
        known = self._told.get(_place(fact))
        return known.popleft() if known else None  # type: ignore[return-value]  # its place says its kind

    async def text(self, text: Text) -> str:
        """The whole of a text in one of its facts."""
        if text.text is not None or self._folder is None:
            return text.text or ""
        folder = self._folder
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: read_text(folder, text))

    # ── decisions ───────────────────────────────────────────────────────────────────────────────────────────

    def strategy(self) -> tuple[Strategy, str] | None:
        """The first that was chosen, and why."""
        return (self._strategy.strategy, self._strategy.why) if self._strategy else None

    def refused(self, turn: int) -> str | None:
        """Why a final of that turn was not accepted."""
        return self._refused.get(turn)

    def lost_before(self, turn: int) -> str:
        """What the root was told before that turn of names that are gone; before the first that is of no past, what it
        was not told yet."""
        if turn <= self.last_turn:
            return self._lost.get(turn, "")
        untold, self._untold = "\n".join(self._untold), []
        return untold

    def confirmation(self) -> Confirmed | None:
        """The answer to a question that the run asks again; each is given once."""
        return self._confirmed.popleft() if self._confirmed else None

    def chosen_instead(self) -> Strategy | None:
        """The strategy that somebody chose, if that is what the run's next question came to; given once."""
        if self._confirmed and self._confirmed[0].strategy is not None:
            return self._confirmed.popleft().strategy
        return None

    @property
    def limit_of_cells(self) -> LimitReached | None:
        """The limit that refused something to a cell, if one did."""
        return next((self._limit(name) for name in _OF_CELLS if name in self._limits), None)

    @property
    def limit_of_turns(self) -> LimitReached | None:
        """Where the turns were used up, which holds however few are counted now."""
        return self._limit("turns")

    def _limit(self, name: str) -> LimitReached | None:
        hit = self._limits.get(name)
        return LimitReached(hit.why, limit=hit.limit, allowed=hit.allowed) if hit else None

    def error(self, record: ErrorRecord) -> RlmdError:
        """The error of a root's turn; a limit by its name, which the record of an error has not."""
        error = error_of(record)
        if isinstance(error, LimitReached):
            hit = next((hit for hit in self._limits.values() if hit.why == record.message), None)
            # Before the limit was told: what a turn itself runs into is tokens, or else the money told at once.
            error.details |= {"limit": hit.limit if hit else "tokens", "allowed": hit.allowed if hit else 0}
        return error

    # ── replies and outputs ─────────────────────────────────────────────────────────────────────────────────

    @property
    def last_turn(self) -> int:
        """The last turn in which the root was heard; 0 before the first."""
        return max((reply.turn for reply in self._replies.values()), default=0)

    def claimed(self, turn: int) -> bool:
        """Whether a turn was taken from the purse that was not the last word at a limit."""
        return turn <= self.last_turn and turn not in self._last_words

    def reply(self, stream: str) -> RootReplied | RootFailed | None:
        return self._replies.get(stream)

    def source(self, cell: int) -> CellStarted | None:
        """How a cell began, whether it came to an end or not."""
        return self._started.get(cell)

    def output(self, cell: int) -> CellEnded | None:
        """How a cell ended; None for one that is to be run."""
        return self._ended.get(cell)

    def sub_query(self, cell: int, digest: str, occurrence: int) -> SubQueryEnd | None:
        return self._sub_queries[cell].get((digest, occurrence))

    def child_begun(self, cell: int, digest: str, occurrence: int) -> str | None:
        """The id of a child run that a cell asked, whether it came to its end or not."""
        return self._begun.get((cell, digest, occurrence))

    def child(self, cell: int, digest: str, occurrence: int) -> ChildEnded | None:
        """How a child run ended that a cell asked."""
        return self._children.get((cell, digest, occurrence))

    def children(self, cell: int) -> Sequence[ChildEnded]:
        """How the child runs ended that a cell asked."""
        return [ended for (asked_in, *_), ended in self._children.items() if asked_in == cell]

    def sub_queries(self, cell: int) -> Sequence[SubQueryEnd]:
        return list(self._sub_queries[cell].values())

    def searches(self, cell: int) -> Sequence[Searched]:
        return self._searches[cell]


def seconds_of(facts: Sequence[AnyFact]) -> float:
    """Of each stretch between a start and a stop of the daemon, the time from its first step to its last fact; without
    the time that somebody was asked, or a host was waited for."""
    total, began, last = 0.0, None, 0.0
    for fact in facts:
        stands = isinstance(fact, Waiting) or (isinstance(fact, Estimated) and fact.asks)
        if isinstance(fact, RunStarted | RunResumed | RunContinued) or stands:
            last = fact.time if stands else last
            total += last - began if began is not None else 0.0
            began = None
        elif began is None:
            began = fact.time
        last = fact.time
    return max(0.0, total + (last - began if began is not None else 0.0))


def _vain(facts: Sequence[AnyFact]) -> int:
    count = 0
    for fact in reversed(facts):
        if isinstance(fact, RunResumed):
            count += 1
        elif not isinstance(fact, SessionStarted | TurnStarted | CellStarted):  # to begin is no progress
            break
    return count


def told_as_continued(fact: RunContinued) -> str:
    """What the root is told of limits that it has, or its cells have, run into."""
    return (
        f"The run had reached a limit and goes on with more; {fact.limits.sub_queries:,} sub-queries in all. What was "
        "refused may be asked again."
    )


def _kinds(base: type[RlmdError]) -> dict[str, type[RlmdError]]:
    found = {base.kind: base}
    for one in base.__subclasses__():
        found |= _kinds(one)
    return found


_ERRORS = MappingProxyType(_kinds(RlmdError))


def error_of(record: ErrorRecord) -> RlmdError:
    """The error that a fact tells of."""
    return _ERRORS.get(record.kind, InternalError)(record.message, hint=record.hint)
