"""Waking a session: its worker is made again by running its cells again, with the seeds and the replies of then.

Each cell must come to what it came to: the same output and the same variables. At the first that does not, a fresh
worker gets the cells before it, and who asks is told which names are lost. Nothing is asked of any model.
"""

from __future__ import annotations

import ast
import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import structlog

from rlmd.engine.child_asking import answer_of, child_digest
from rlmd.engine.journal import clean, read_facts, read_text
from rlmd.engine.lasting import lasting
from rlmd.engine.parts import ContextsPart, PinnedContext, Recalled, ReplPart, Woken, WorkersPart
from rlmd.engine.passages import passages_of
from rlmd.engine.past import SubQueryEnd
from rlmd.engine.runfolder import RunFolder
from rlmd.engine.sessionlog import CellOfRun, SessionLog, by_run
from rlmd.engine.typed_asking import TypedAsking
from rlmd.errors import InvalidParams, NotFound, ReplyMismatch, RlmdError, SessionLost
from rlmd.events import (
    CellEnded,
    CellStarted,
    ChildEnded,
    Pin,
    RunEnded,
    RunStarted,
    SubQueryFailed,
    SubQueryReplied,
    Text,
    digest_of,
)
from rlmd.repl import ChildQuery, Name, SearchPassage, SubQuery, SubQueryFailure, SubQueryReply

logger = structlog.get_logger(__name__)

#: A worker is made again so often at most; each time the cells before the one that differed.
_MOST_ATTEMPTS = 4
#: Seconds for a cell that took next to none; one that took longer gets a multiple of that.
_LEAST_SECONDS, _SLOWER = 30.0, 4.0
_CPU_SHARE = 4.0


@dataclass(slots=True)
class _PastCell:
    """A cell as it ran: what is needed to run it again, and what it came to."""

    cell: CellOfRun
    started: CellStarted
    ended: CellEnded
    source: str
    pins: tuple[Pin, ...]
    replies: dict[tuple[str, int], SubQueryReply | SubQueryFailure]

    @property
    def seconds(self) -> float:
        return max(_LEAST_SECONDS, _SLOWER * self.ended.seconds)


class _Differs(Exception):
    """A cell did not come to what it had come to; the message says in what."""


class Waker:
    """Args:
    contexts: Pins contexts at the revisions of then, and searches them.
    workers: Gives workers.
    threads: Where journals are read.
    runs: The folders of a session's runs, in the order in which they held it.
    folder: The folder of a run.
    memory_bytes: Address space of a worker.
    """

    def __init__(
        self,
        contexts: ContextsPart,
        workers: WorkersPart,
        threads: Executor,
        runs: Callable[[str], Sequence[RunFolder]],
        folder: Callable[[str], RunFolder],
        memory_bytes: int,
    ) -> None:
        self._contexts, self._workers, self._threads = contexts, workers, threads
        self._runs, self._folder, self._memory_bytes = runs, folder, memory_bytes

    async def recall(self, session_id: str) -> Recalled:
        """What the journals tell of a named session."""
        folders = self._runs(session_id)
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: _recalled(folders))

    async def wake(self, log: SessionLog, known: Sequence[PinnedContext] = (), level: int = 0) -> Woken:
        """A worker with the names that the log's cells made, as far as they come to what they came to.

        Args:
            log: Of the session.
            known: Contexts at hand, such as those that a child run was given and nobody can pin again.
            level: How deep its run stands below the one that was asked for.

        Raises:
            CageUnavailable: No cell can run here.
        """
        loop = asyncio.get_running_loop()
        cells = await loop.run_in_executor(self._threads, lambda: _past_cells(log, self._folder))
        keep, why = len(cells), ""
        for attempt in range(_MOST_ATTEMPTS):
            repl = await self._worker(log, level)
            replaying = _Replaying(repl, self._contexts, self._threads, tuple(known), skipped=bool(log.stopped))
            try:
                at, differs = await replaying.run(cells[:keep])
            except BaseException:
                await repl.close()
                raise
            if at == keep:
                return _woken(repl, replaying, log, cells, keep, why)
            await repl.close()
            keep = at if attempt < _MOST_ATTEMPTS - 2 else 0
            why = why or _why(cells[at], differs)
        raise AssertionError("unreachable: without cells nothing differs")

    async def _worker(self, log: SessionLog, level: int) -> ReplPart:
        return await self._workers.acquire(
            memory_bytes=self._memory_bytes, hash_seed=log.hash_seed, random_seed=log.random_seed, level=level
        )


@dataclass(slots=True)
class _Replaying:
    """Cells on their way through a fresh worker."""

    repl: ReplPart
    contexts: ContextsPart
    threads: Executor
    known: tuple[PinnedContext, ...]
    skipped: bool
    loaded: tuple[PinnedContext, ...] = ()
    names: tuple[Name, ...] = ()

    async def run(self, cells: Sequence[_PastCell]) -> tuple[int, str]:
        """How many cells came to what they had come to, and in what the next one differed."""
        for index, cell in enumerate(cells):
            try:
                await self._load(cell)
                await self._again(cell)
            except _Differs as error:
                return index, str(error)
            except RlmdError as error:
                return index, error.message
        return len(cells), ""

    async def _load(self, cell: _PastCell) -> None:
        if list(cell.pins) == [one.pin for one in self.loaded]:
            return
        at_hand = {one.pin.context: one for one in self.known if one.pin in cell.pins}
        pinned = [at_hand.get(pin.context) or await pinned_again(self.contexts, pin) for pin in cell.pins]
        await self.repl.load_contexts(pinned)  # type: ignore[arg-type]  # the real one is both Protocols
        self.loaded = tuple(pinned)

    async def _again(self, cell: _PastCell) -> None:
        host = _PastHost(cell, self.contexts, self.loaded, TypedAsking(self.threads))
        try:
            report = await self.repl.run_cell(
                cell.source,
                host,
                seconds=cell.seconds,
                cpu_seconds=_CPU_SHARE * cell.seconds,
                output_chars=cell.started.output_chars or 20_000,
                number=cell.started.worker_cell or None,
            )
        except SessionLost as error:
            raise _Differs(error.message) from error
        if report.lost or report.interrupted:
            raise _Differs(report.error or "it was stopped")
        if host.unknown:
            raise _Differs("it asked a sub-query that it had not asked")
        if report.digest != cell.ended.digest:
            raise _Differs("its output is another")
        self._compare_names(cell, report.names)
        self.names = report.names

    def _compare_names(self, cell: _PastCell, names: tuple[Name, ...]) -> None:
        """Variables by type and size. Where a cell before was not run again some may be missing."""
        before = {name: (kind, size) for name, kind, size in cell.ended.names}
        now = {clean(one.name): (clean(one.type), clean(one.size)) for one in names}
        for name in before.keys() | now.keys():
            if before.get(name) != now.get(name) and not (self.skipped and name not in now):
                raise _Differs(f"its variable {name} is another")


@dataclass(slots=True)
class _PastHost:
    """Answers a cell that is run again, from the journal alone."""

    cell: _PastCell
    contexts: ContextsPart
    loaded: tuple[PinnedContext, ...]
    typed: TypedAsking
    unknown: bool = False
    occurrences: Counter[str] = field(default_factory=Counter)

    def batch_started(self, batch: int, total: int) -> None:
        """Was told then."""

    def output(self, text: str) -> None:
        """Was told then."""

    async def answer(self, query: SubQuery | ChildQuery, *, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        if isinstance(query, ChildQuery):
            return self._known(child_digest(query))
        if query.schema is None:
            return await self._ask(query)
        try:
            return await self.typed.answer(query, self._ask)
        except (InvalidParams, ReplyMismatch) as error:
            return SubQueryFailure(kind=error.kind, message=error.message)

    async def _ask(self, query: SubQuery) -> SubQueryReply | SubQueryFailure:
        return self._known(digest_of(clean(query.prompt)))

    def _known(self, digest: str) -> SubQueryReply | SubQueryFailure:
        self.occurrences[digest] += 1
        reply = self.cell.replies.get((digest, self.occurrences[digest]))
        if reply is None:
            self.unknown = True
            raise _Differs("it asked a sub-query that it had not asked")
        return reply

    async def search(self, query: str, k: int) -> list[SearchPassage]:
        return await passages_of(self.contexts, self.loaded, query, k)


async def pinned_again(contexts: ContextsPart, pin: Pin) -> PinnedContext:
    """The context as it was pinned. Raises ``NotFound`` when it has been dropped, or made anew under its name."""
    pinned = await contexts.pin_revision(pin.context, pin.revision)
    if pinned.pin.digest != pin.digest:
        raise NotFound(
            f"The text of context {pin.context!r} at that time is gone.",
            hint="It was dropped and made anew; ask again.",
        )
    return pinned


# ── what the journals hold ──────────────────────────────────────────────────────────────────────────────────────


def _recalled(folders: Sequence[RunFolder]) -> Recalled:
    log = SessionLog()
    names: tuple[Name, ...] = ()
    exchanges: list[tuple[str, str]] = []
    for folder in folders:
        question = Text(chars=0, text="")
        try:
            facts = lasting(read_facts(folder).facts, stops=False).facts
        except RlmdError as error:
            logger.warning("journal not read", run_id=folder.name, error=type(error).__name__)
            continue
        for fact in facts:
            log.apply(fact)
            match fact:
                case RunStarted():
                    question = fact.question
                case CellEnded():
                    names = tuple(Name(*one) for one in fact.names)
                case RunEnded() if fact.outcome in ("answered", "partial"):
                    exchanges.append((_beginning(folder, question), _beginning(folder, fact.answer)))
    return Recalled(log, names, tuple(exchanges[-3:]))


def _beginning(folder: RunFolder, text: Text) -> str:
    return read_text(folder, text)[:1000]


def _past_cells(log: SessionLog, folder: Callable[[str], RunFolder]) -> list[_PastCell]:
    found: dict[CellOfRun, _PastCell] = {}
    wanted = set(log.cells)
    for run_id in dict.fromkeys(run_id for run_id, _ in log.cells):
        try:
            _read_cells(run_id, folder(run_id), wanted, found)
        except NotFound:
            continue  # the run was deleted, and its cells with it
    return [found[cell] for cell in log.cells if cell in found]


def _read_cells(run_id: str, folder: RunFolder, wanted: set[CellOfRun], found: dict[CellOfRun, _PastCell]) -> None:
    facts = lasting(read_facts(folder).facts).facts
    started: dict[int, CellStarted] = {}
    replies: dict[int, dict[tuple[str, int], SubQueryReply | SubQueryFailure]] = {}
    pins: tuple[Pin, ...] = ()
    for fact in facts:
        match fact:
            case RunStarted():
                pins = fact.contexts
            case CellStarted():
                started[fact.cell] = fact
            case SubQueryReplied() | SubQueryFailed() if (run_id, fact.cell) in wanted:
                replies.setdefault(fact.cell, {})[fact.prompt_digest, fact.occurrence] = _reply(folder, fact)
            case ChildEnded() if (run_id, fact.cell) in wanted:
                answer = answer_of(fact, read_text(folder, fact.answer))
                replies.setdefault(fact.cell, {})[fact.prompt_digest, fact.occurrence] = answer
            case CellEnded() if (run_id, fact.cell) in wanted and fact.cell in started:
                begun = started[fact.cell]
                found[run_id, fact.cell] = _PastCell(
                    (run_id, fact.cell),
                    begun,
                    fact,
                    read_text(folder, begun.code),
                    begun.pins or pins,
                    replies.get(fact.cell, {}),
                )


def _reply(folder: RunFolder, fact: SubQueryEnd) -> SubQueryReply | SubQueryFailure:
    if isinstance(fact, SubQueryReplied):
        return SubQueryReply(read_text(folder, fact.reply))
    return SubQueryFailure(kind=fact.error.kind, message=fact.told or fact.error.message)


# ── what is not as it was ───────────────────────────────────────────────────────────────────────────────────────


def _woken(
    repl: ReplPart, replaying: _Replaying, log: SessionLog, cells: Sequence[_PastCell], keep: int, why: str
) -> Woken:
    have = {one.name for one in replaying.names}
    expected = {name for name, _, _ in cells[-1].ended.names} if cells else set()
    bound = set[str]().union(*(bound_names(cell.source) for cell in cells[keep:]))
    reasons = [why] if why else []
    if log.stopped:
        reasons.append(f"{_cells(len(log.stopped))} had been stopped and cannot be run again.")
    if missing := len(log.cells) - len(cells):
        reasons.append(f"{_cells(missing)} of runs that were deleted cannot be run again.")
    return Woken(
        repl,
        replaying.loaded,
        by_run([cell.cell for cell in cells[:keep]]),
        replaying.names,
        lost=tuple(sorted(expected - have)),
        older=tuple(sorted(bound & have)),
        why=" ".join(reasons),
    )


def _why(cell: _PastCell, differs: str) -> str:
    return f"Cell {cell.cell[1]} was run again and came out otherwise: {differs.rstrip('.')}."


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def bound_names(source: str) -> set[str]:
    """The names that a cell binds at its top level, as far as its text tells."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=several) | ast.ImportFrom(names=several):
                names.update((one.asname or one.name).partition(".")[0] for one in several)
    return names
