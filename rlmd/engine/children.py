"""Child runs: a question that a cell asked of a run of its own.

A child is a run like any other, with a journal inside its parent's folder, a worker one level deeper, and a purse that
claims from its parent's. Its parent's cell waits for it; when that cell is stopped the child ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlmd import __version__
from rlmd.engine.archive import Archive
from rlmd.engine.child_asking import ChildReport
from rlmd.engine.continuing import limits_of
from rlmd.engine.course import Course
from rlmd.engine.feed import Feed
from rlmd.engine.given import GivenContext, given_documents
from rlmd.engine.journal import Journal
from rlmd.engine.lasting import ended_by, lasting, limited
from rlmd.engine.limits import Purse, spent_by
from rlmd.engine.live import Live
from rlmd.engine.parts import PinnedContext
from rlmd.engine.past import Past
from rlmd.engine.prompts import own_prompts
from rlmd.engine.receipt import Tally, union
from rlmd.engine.recorder import Recorder
from rlmd.engine.requests import RunRequest
from rlmd.engine.run import Run
from rlmd.engine.sessionlog import SessionLog, folded
from rlmd.engine.sessions import Session
from rlmd.errors import InternalError, TooLarge
from rlmd.events import AnyFact, More, RunContinued, RunEnded, RunResumed, RunStarted, Span
from rlmd.repl import ChildQuery

#: Stretches that a child's end names as read, the longest ones.
_MOST_READ = 500
_MOST_QUESTION = 100_000


class Children:
    """Args:
    archive: Where journals are.

    Attributes:
        live: Those that go on, by id.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.live: dict[str, Live] = {}

    async def ask(self, parent: Run, child_id: str, query: ChildQuery) -> ChildReport:
        """Runs a child to its end. Cancelled, it ends the child first.

        Raises:
            TooLarge, NotFound: What it was to be given.
        """
        if len(query.question) > _MOST_QUESTION:
            raise TooLarge(
                f"The question of a child run has {len(query.question):,} characters; it may have {_MOST_QUESTION:,}.",
                hint="Give the long part as its context.",
            )
        contexts = await self._contexts(parent, query)
        self._archive.place_child(parent.request.run_id, child_id)
        facts = await self._archive.reopened(child_id)
        if facts:
            run = self._taken_up(parent, query.question, facts, contexts)
        else:
            run = await self._begin(parent, child_id, query.question, contexts)
        if run.recorder.record.outcome is None:
            await self._to_its_end(parent, run)
        else:
            await run.recorder.finish()
        record = run.recorder.record
        answer = await self._archive.text(child_id, record.answer) if record.answer is not None else ""
        return ChildReport(record, answer, *_read(run.recorder.tally, contexts))

    async def _to_its_end(self, parent: Run, run: Run) -> None:
        child_id = run.recorder.run_id
        task = asyncio.create_task(Course(run).execute(), name=f"run {child_id}")
        live = self.live[child_id] = Live(run, run.recorder, task)
        self._archive.records[child_id] = run.recorder.record
        try:
            await _to_its_end(parent, live)
        finally:
            del self.live[child_id]
            self._archive.records[child_id] = run.recorder.record.slim()
            run.recorder.feed.end()
            live.ended.set()

    async def _contexts(self, parent: Run, query: ChildQuery) -> Sequence[PinnedContext]:
        if query.given is None:
            return parent.contexts
        given, loop = query.given, asyncio.get_running_loop()
        threads = parent.parts.threads
        documents = await loop.run_in_executor(threads, given_documents, given, parent.contexts)
        ephemeral = parent.recorder.record.ephemeral
        return (GivenContext(documents, private=parent.private, ephemeral=ephemeral, threads=threads),)

    async def _begin(self, parent: Run, child_id: str, question: str, contexts: Sequence[PinnedContext]) -> Run:
        """Opens the journal inside the parent's and writes the first fact."""
        parts, request = parent.parts, _request(parent, child_id, question)
        purse = parent.purse.below()
        recorder = self._recorder(parent, child_id)
        started = recorder.add(
            RunStarted,
            question=await recorder.text(question),
            strategy=request.strategy,
            contexts=tuple(context.pin for context in contexts),
            session=None,
            root=tuple(one.name for one in parent.candidates("root")),
            sub=tuple(one.name for one in parent.candidates("sub")),
            limits=purse.limits,
            private=parent.private,
            ephemeral=parent.recorder.record.ephemeral,
            session_held=parent.recorder.record.held,
            request_digest=request.digest,
            rlmd=__version__,
            prompts=own_prompts(parts.settings.prompts.system, parts.settings.prompts.note).version,
            parent=parent.request.run_id,
        )
        return _below(parent, request, contexts, recorder, purse, folded([started]))

    def _taken_up(self, parent: Run, question: str, facts: list[AnyFact], contexts: Sequence[PinnedContext]) -> Run:
        """A child that an earlier daemon could not end goes on with its parent, one that a limit ended goes on when
        its parent is continued; one that has ended otherwise is as it was."""
        if not isinstance(facts[0], RunStarted):
            raise InternalError("A journal does not begin with run_started.")
        child_id = facts[0].run_id
        folder, threads = self._archive.folder(child_id), parent.parts.threads
        more = _continued(parent, facts)
        past = Past(facts if more is None else [*facts, more], folder, threads)
        recorder = self._recorder(parent, child_id)
        recorder.restore(facts, past)
        purse = Purse(limits_of(past.facts), parent.parts.monotonic, parent.purse)
        receipt = recorder.record.receipt
        log = folded(lasting(past.facts, stops=False).facts)
        if more is not None:
            purse.restore(past.paid)
            recorder.add(RunContinued, limit=more.limit, more=more.more, limits=more.limits)
        elif receipt is not None:
            purse.restore(spent_by(receipt))
        else:
            purse.restore(past.paid)
            log.apply(recorder.add(RunResumed, why="the run that asked it was taken up again"))
        request = _request(parent, child_id, question)
        return _below(parent, request, contexts, recorder, purse, log, past)

    def _recorder(self, parent: Run, child_id: str) -> Recorder:
        parts, folder = parent.parts, self._archive.folder(child_id)
        return Recorder(
            child_id,
            Journal(folder, parts.threads),
            lambda made: Feed(child_id, folder, parts.threads, lambda: made.last_seq),
            parts.now,
        )


def _request(parent: Run, child_id: str, question: str) -> RunRequest:
    above = parent.request
    return RunRequest(child_id, question, (), root=above.root, sub=above.sub, fresh=above.fresh)


def _below(
    parent: Run,
    request: RunRequest,
    contexts: Sequence[PinnedContext],
    recorder: Recorder,
    purse: Purse,
    log: SessionLog,
    past: Past | None = None,
) -> Run:
    """The child as a run of its parent's tree."""
    level, ephemeral = parent.session.level + 1, recorder.record.ephemeral
    session = Session(None, parent.parts.now(), level=level, ephemeral=ephemeral, log=log)
    return Run(
        request,
        contexts,
        session,
        recorder,
        purse,
        parent.parts,
        parent.ask_child,
        egress=False,
        past=past,
        tree=parent.tree,
        confirming=parent.confirming,
        waits=parent.waits,
    )


def _continued(parent: Run, facts: Sequence[AnyFact]) -> RunContinued | None:
    """What makes a child go on that a limit had ended, when its parent goes on after one; else None."""
    ended, known = facts[-1], sum(isinstance(fact, RunContinued) for fact in facts)
    if not isinstance(ended, RunEnded) or known >= parent.past.continued or not limited(ended):
        return None
    had, new = limits_of(facts), parent.purse.below().limits
    more = More(turns=new.turns)
    limits = new.model_copy(update={"turns": had.turns + new.turns, "depth": had.depth})
    limit = ended_by(facts) or "parent"
    return RunContinued(run_id=ended.run_id, seq=ended.seq + 1, time=ended.time, limit=limit, more=more, limits=limits)


async def _to_its_end(parent: Run, live: Live) -> None:
    """Waits for a child; cancelled, it sees it off before it lets go."""
    await asyncio.sleep(0)  # its task has begun: one that is cancelled before would never write a last fact
    cancelled: asyncio.CancelledError | None = None
    while not live.task.done():
        try:
            await asyncio.shield(live.task)
        except asyncio.CancelledError as error:
            cancelled = error
            if live.run.stop(parent.stopping or "cancelled", "the cell that asked for it was stopped"):
                live.task.cancel()
    if cancelled is not None:
        raise cancelled
    live.task.result()


def _read(tally: Tally, contexts: Sequence[PinnedContext]) -> tuple[tuple[Span, ...], int]:
    """Stretches that reached a model, as places in the parent's contexts; and the characters of those beyond."""
    found: list[Span] = []
    for context in contexts:
        read = [span for document in context.documents for span in _in_document(tally, context, document.name)]
        found += context.sources(read) if isinstance(context, GivenContext) else read
    found.sort(key=lambda span: span.start - span.end)
    beyond = sum(span.end - span.start for span in found[_MOST_READ:])
    return tuple(found[:_MOST_READ]), tally.read_more + beyond


def _in_document(tally: Tally, context: PinnedContext, name: str) -> list[Span]:
    stretches = union(tally.read.get((context.pin.context, name), ()))
    if tally.direct and tally.root_replied:
        stretches = [(0, context.document(name).chars)]
    return [Span(context=context.pin.context, document=name, start=start, end=end) for start, end in stretches]
