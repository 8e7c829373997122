"""The runs that go on: how one begins, how one is taken up out of its journal, and what remains when it is over.

Knows how a ``Run`` is put together. Who may begin one, and when, is in ``runs.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, replace

import structlog

from rlmd import __version__
from rlmd.engine.archive import Archive
from rlmd.engine.children import Children
from rlmd.engine.continuing import grant, limits_of, money_of
from rlmd.engine.course import Course
from rlmd.engine.feed import Feed
from rlmd.engine.journal import Journal
from rlmd.engine.lasting import lasting
from rlmd.engine.limits import Purse
from rlmd.engine.live import Live
from rlmd.engine.parts import Parts, PinnedContext, PoolPart
from rlmd.engine.past import Past
from rlmd.engine.prompts import own_prompts
from rlmd.engine.record import RunRecord
from rlmd.engine.recorder import Recorder
from rlmd.engine.requests import RunRequest, request_from, request_text
from rlmd.engine.run import Run
from rlmd.engine.runfolder import RunFolder
from rlmd.engine.sessionlog import folded
from rlmd.engine.sessions import Session, Sessions
from rlmd.engine.waking import pinned_again
from rlmd.errors import Conflict, RlmdError
from rlmd.events import AnyFact, More, Note, RunContinued, RunInterrupted, RunResumed, RunStarted, RunState

log = structlog.get_logger(__name__)

#: How often a run is taken up again without coming any further before it is left interrupted.
_MOST_IN_VAIN = 3
_NOT_KEPT = "The text is ephemeral: this run is kept in memory alone, and is gone when the daemon stops."


class Going:
    """Args:
    archive: Where journals are, and the records of runs that do not go on.
    sessions: The named ones.
    children: The child runs.
    parts: The collaborators of every run.
    watch: Is given a run's record when it begins, is taken up, and whenever its state is another; children left out.

    Attributes:
        live: Runs that go on, by id, children left out.
    """

    def __init__(
        self,
        archive: Archive,
        sessions: Sessions,
        children: Children,
        parts: Parts,
        watch: Callable[[RunRecord], None],
    ) -> None:
        self._archive = archive
        self._sessions = sessions
        self._children = children
        self._parts = parts
        self._watch = watch
        self._threads = parts.threads
        self.live: dict[str, Live] = {}

    def use(self, parts: Parts) -> None:
        """Runs that begin or are taken up from now on get these."""
        self._parts = parts

    def of(self, run_id: str) -> Live | None:
        """A run that has not ended, a child or not."""
        return self.live.get(run_id) or self._children.live.get(run_id)

    def all(self) -> dict[str, Live]:
        """Children too."""
        return {**self.live, **self._children.live}

    def current(self, record: RunRecord) -> RunRecord:
        """As it stands: what was public when the run began may be private by now."""
        live = self.of(record.run_id)
        return self._marked(live.recorder.record if live is not None else record)

    def _marked(self, record: RunRecord) -> RunRecord:
        if not record.private and self._parts.any_private(record.held):
            return replace(record, private=True)
        return record

    def state(self, record: RunRecord) -> RunState:
        """The state of a run as it stands."""
        live = self.of(record.run_id)
        return record.state if live is None else live.recorder.record.state

    async def begin(
        self,
        request: RunRequest,
        contexts: list[PinnedContext],
        session: Session,
        within: Run | None = None,
        *,
        egress: bool,
    ) -> Live:
        """Opens the journal, writes the first fact, and sets the run going, within an open one or by itself."""
        parts = self._parts
        ephemeral = session.ephemeral or request.ephemeral or any(context.pin.ephemeral for context in contexts)
        folder = await self._archive.unused(request.run_id, ephemeral=ephemeral)
        private = ephemeral or self._sessions.private(session) or any(context.pin.private for context in contexts)
        held = tuple(sorted(session.held))
        # Before the run has its turn: who asks next, or looks, meets what the session is going to hold.
        session.private, session.ephemeral = private, ephemeral
        session.held.update(context.pin.context for context in contexts)
        root = _names(parts.pool, "root", private, request.root)
        sub = _names(parts.pool, "sub", private, request.sub)
        recorder = self._recorder(request.run_id, folder)
        limits = request.limits.over(parts.settings.limits)
        parts.workers.deepen(limits.depth)
        started = recorder.add(
            RunStarted,
            question=await recorder.text(request.question),
            strategy=request.strategy,
            contexts=tuple(context.pin for context in contexts),
            session=session.name,
            root=root,
            sub=sub,
            limits=limits,
            private=private,
            session_held=held,
            request_digest=request.digest,
            rlmd=__version__,
            prompts=own_prompts(parts.settings.prompts.system, parts.settings.prompts.note).version,
            answer_schema=await recorder.text(request.schema) if request.schema is not None else None,
            request=await recorder.text(request_text(request)),
            egress=egress,
            session_id=session.id if session.name else None,
            ephemeral=ephemeral,
        )
        session.log.apply(started)
        if ephemeral:
            recorder.add(Note, text=_NOT_KEPT)
        purse = Purse(limits, parts.monotonic, within.purse if within is not None else None)
        run = Run(request, contexts, session, recorder, purse, parts, self._children.ask, egress=egress, within=within)
        self._limit_spending(run)
        live = self._set_going(run)
        if within is not None:
            within.open.begun(within, live)
        return live

    def _recorder(self, run_id: str, folder: RunFolder) -> Recorder:
        return Recorder(
            run_id,
            Journal(folder, self._threads, self._parts.syncing),
            lambda made: Feed(run_id, folder, self._threads, lambda: made.last_seq),
            self._parts.now,
            lambda record: self._watch(self._marked(record)),
        )

    def _set_going(self, run: Run) -> Live:
        recorder = run.recorder
        task = asyncio.create_task(Course(run).execute(), name=f"run {recorder.run_id}")
        live = Live(run, recorder, task)
        self._archive.records[recorder.run_id] = recorder.record
        self.live[recorder.run_id] = live
        self._watch(self._marked(recorder.record))
        log.info("run begun", run_id=recorder.run_id, strategy=run.request.strategy)
        task.add_done_callback(lambda done: self._over(live, done))
        return live

    async def take_up(self, record: RunRecord) -> None:
        """A run that the last daemon could not end goes on, unless that was tried in vain."""
        cut = await self._archive.mend(record.run_id)
        torn = f"; {cut} bytes of a torn line were cut" if cut else ""
        facts = await self._archive.all_facts(record.run_id)
        started, past = facts[0], Past(facts, self._archive.folder(record.run_id), self._threads)
        if not isinstance(started, RunStarted) or started.request is None:
            await self.interrupt(record, f"the daemon ended while the run was going{torn}")
        elif started.strategy == "open":
            await self.interrupt(record, f"it was open when the daemon ended{torn}")
        elif past.vain >= _MOST_IN_VAIN:
            await self.interrupt(record, f"{past.vain} times the daemon ended when the run was taken up again")
        else:
            live = self._set_going(await self._taken_up(started, facts, past))
            why = f"{record.why or 'the daemon ended while the run was going'}{torn}"
            live.run.session.log.apply(live.recorder.add(RunResumed, why=why))
            await asyncio.sleep(0)  # its task has begun: see start_run
            if past.cancelled is not None and live.run.stop("cancelled", past.cancelled.why):
                live.task.cancel()

    async def go_on(self, record: RunRecord, more: More) -> Live:
        """A run that ended at a limit goes on with more.

        Raises:
            Conflict: It did not end at one, or its session went on without it.
            InvalidParams: The limit that ended it is not raised.
            NotFound: A context that it asked is gone.
        """
        await self._archive.mend(record.run_id)
        facts = await self._archive.all_facts(record.run_id)
        granted = grant(facts, more, self._parts.settings.budget.run)
        for pin in record.contexts:
            await pinned_again(self._parts.contexts, pin)
        folder = self._archive.folder(record.run_id)
        now, what = self._parts.now(), asdict(granted)
        fact = RunContinued(run_id=record.run_id, seq=record.last_seq + 1, time=now, **what)
        past = Past([*facts, fact], folder, self._threads)
        run = await self._taken_up(facts[0], facts, past)
        if run.session.name is not None:
            await run.session.look_back(keep_worker=not past.lasting.cells_undone)
        run.recorder.add(RunContinued, **what)
        live = self._set_going(run)
        await asyncio.sleep(0)  # its task has begun: see start_run
        return live

    async def _taken_up(self, started: AnyFact, facts: list[AnyFact], past: Past) -> Run:
        """The run as the journal tells it, about to go its way again."""
        if not isinstance(started, RunStarted) or started.request is None:
            raise Conflict("The run is of a release that did not keep what was asked.", hint="Ask again.")
        request = request_from(await past.text(started.request), await past.text(started.question))
        session = self._sessions.of(started) if started.session is not None else None
        if session is None:
            log = folded(lasting(past.facts, stops=False).facts)
            now, ephemeral = self._parts.now(), started.ephemeral
            session = Session(None, now, private=started.private, ephemeral=ephemeral, log=log)
            session.held.update(self._archive.records[started.run_id].held)
        recorder = self._recorder(started.run_id, self._archive.folder(started.run_id))
        recorder.restore(facts, past)
        limits, money = limits_of(past.facts), money_of(past.facts)
        self._parts.workers.deepen(limits.depth)
        purse = Purse(limits, self._parts.monotonic)
        purse.restore(past.paid)
        run = Run(
            request, (), session, recorder, purse, self._parts, self._children.ask, egress=started.egress, past=past
        )
        self._limit_spending(run)
        if money:
            self._parts.pool.grant(run.tree, money)
        return run

    def _limit_spending(self, run: Run) -> None:
        if (dollars := run.purse.limits.money) is not None:
            self._parts.pool.limit_spending(run.tree, dollars)

    def _over(self, live: Live, task: asyncio.Task[None]) -> None:
        """A run's task is done: only its record stays in memory."""
        record = live.recorder.record
        error = None if task.cancelled() else task.exception()
        if record.active:
            # Its last fact could not be written (a full disk): the next start will tell it as interrupted.
            why = error.message if isinstance(error, RlmdError) else "the last fact could not be written"
            log.error("run ended without its last fact", run_id=record.run_id, error=type(error).__name__)
            record = replace(record, state="failed", why=why, ended=self._parts.now())
            self._watch(self._marked(record))
        told = {"outcome": record.outcome or record.state, "turns": record.turns, "sub_queries": record.sub_queries}
        log.info("run ended", run_id=record.run_id, seconds=round(self._parts.now() - record.created, 3), **told)
        self._archive.records[record.run_id] = record.slim()
        del self.live[record.run_id]
        live.recorder.feed.end()
        if live.run.within is not None:
            live.run.within.open.ended(live.run.within, live)
        live.ended.set()

    async def interrupt(self, record: RunRecord, why: str) -> None:
        """Tells that a run goes no further."""
        if record.active or record.resumable:
            fact = RunInterrupted(run_id=record.run_id, seq=record.last_seq + 1, time=self._parts.now(), why=why)
            await self._archive.add(record, fact)


def _names(pool: PoolPart, role: str, private: bool, narrowed: tuple[str, ...] | None) -> tuple[str, ...]:
    candidates = pool.candidates("root" if role == "root" else "sub", private=private, narrowed_to=narrowed)
    return tuple(f"{candidate.host}/{candidate.model}" for candidate in candidates)
