"""The engine's front: runs by their id, sessions by their name, and who follows them.

Starting is idempotent, cancelling answers when it is done, and a run that the daemon did not end is taken up again at
the next start. Knows the order of a daemon's life; the order of a run's is in ``run.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from rlmd import __version__
from rlmd.config import Settings
from rlmd.contexts import Collected
from rlmd.engine.archive import Archive
from rlmd.engine.children import Children
from rlmd.engine.exports import ExportForm
from rlmd.engine.feed import Feed, Subscription
from rlmd.engine.journal import Journal
from rlmd.engine.limits import Purse
from rlmd.engine.live import Live
from rlmd.engine.parts import ContextsPart, Parts, PinnedContext, PoolPart, WorkersPart
from rlmd.engine.past import Past
from rlmd.engine.prompts import own_prompts
from rlmd.engine.record import RunRecord
from rlmd.engine.recorder import Recorder
from rlmd.engine.requests import ExecuteRequest, RunRequest, Sink, request_from, request_text
from rlmd.engine.run import Run
from rlmd.engine.sessionends import SessionEnds
from rlmd.engine.sessionlog import folded
from rlmd.engine.sessions import Session, SessionDetail, SessionRecord, Sessions
from rlmd.engine.waking import Waker
from rlmd.errors import Busy, Conflict, Draining, NotFound, RlmdError
from rlmd.events import (
    AnyFact,
    CancelRequested,
    CellEnded,
    Note,
    RunEnded,
    RunInterrupted,
    RunResumed,
    RunStarted,
    RunState,
)

log = structlog.get_logger(__name__)

#: Characters of an export that are given at once.
MOST_EXPORTED = 500_000
#: How often a run is taken up again without coming any further before it is left interrupted.
_MOST_IN_VAIN = 3
#: How often unused sessions are looked at, seconds.
_SWEEP_SECONDS = 60.0
#: How often what has expired is removed: once a day.
_COLLECT_MINUTES = 1440
#: A run of one cell ends with that cell's fact, its own, and perhaps a limit's.
_LAST_FACTS = 20


@dataclass(frozen=True, slots=True)
class ExecuteReport:
    """What became of one cell that a client ran. ``died``: its worker did, by itself; ``error`` says how."""

    run_id: str
    ok: bool
    output: str
    output_cut: int
    error: str | None
    final: str | None
    seconds: float
    died: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many runs and sessions went with a context."""

    runs: int
    sessions: int


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    runs: int
    runs_active: int
    sessions: int
    draining: bool


class Engine:
    """Owns runs, sessions and journals.

    Args:
        contexts: Pins and searches contexts.
        pool: Completes prompts.
        workers: Gives REPL workers.
        settings: The daemon's.
        state_folder: ``runs/`` is below it.
        now: Seconds since the epoch.
        monotonic: Seconds that never jump.
    """

    def __init__(
        self,
        *,
        contexts: ContextsPart,
        pool: PoolPart,
        workers: WorkersPart,
        settings: Settings,
        state_folder: Path,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="rlmd-engine")
        self._archive = archive = Archive(state_folder / "runs", self._threads)
        waker = Waker(contexts, workers, self._threads, archive.of_session, archive.folder, settings.repl.memory_bytes)
        self._children = Children(archive)
        self._parts = Parts(
            contexts, pool, workers, settings, self._threads, now, monotonic, self._children, self._make_room, waker
        )
        self._live: dict[str, Live] = {}
        self._ends = SessionEnds(state_folder / "sessions.jsonl", self._threads)
        self._sessions = Sessions(self._parts.any_private, self._ends)
        self._starting = asyncio.Lock()
        self._draining = False
        self._feeds: set[Feed] = set()
        self._sweeper: asyncio.Task[None] | None = None

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Reads what runs there are, and takes up those that an earlier daemon could not end."""
        records = await self._archive.open()
        self._sessions.restore(records, await self._ends.all())
        for record in sorted(records, key=lambda one: one.created):
            if record.active or record.resumable:
                try:
                    await self._take_up(record)
                except (RlmdError, OSError) as error:
                    log.warning("run not taken up", run_id=record.run_id, error=type(error).__name__)
        self._sweeper = asyncio.create_task(self._sweep(), name="unused sessions")

    async def drain(self) -> None:
        """Refuses new runs and interrupts running ones; each has its last fact when this returns."""
        self._draining = True
        for live in list(self._live.values()):
            if live.recorder.record.active and live.run.stop("interrupted", "the daemon stopped"):
                live.task.cancel()
        for live in list(self._live.values()):
            await live.ended.wait()

    async def close(self) -> None:
        """Drains, then ends sessions and threads."""
        await self.drain()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for feed in list(self._feeds):
            feed.close()
        await self._sessions.close()
        self._threads.shutdown()

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(len(self._archive.records), len(self._live), len(self._sessions), self._draining)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────────────────

    async def start_run(self, request: RunRequest, *, egress: bool = False) -> RunRecord:
        """Starts a run, or returns the one that was started by an equal request.

        Raises:
            Conflict: The id is known with other parameters.
            NotFound: A context does not exist for this client.
            Busy: The session is held, and ``if_busy`` is ``refuse``.
            Draining: The daemon is stopping.
        """
        stale = await self._refresh(request, egress=egress)
        async with self._starting:
            known = await self._known(request, egress=egress)
            if known is not None:
                return known
            if self._draining:
                raise Draining("The daemon is stopping.", hint="Ask again when it has restarted.")
            await self._parts.pool.find_default_host()
            contexts = [await self._parts.contexts.pin(name, egress=egress) for name in request.contexts]
            session = self._sessions.choose(request.session, request.if_busy, self._parts.now(), egress=egress)
            live = await self._begin(request, contexts, session, egress=egress)
            if stale:
                live.recorder.add(Note, text=stale)
            await asyncio.sleep(0)  # its task has begun: one that is cancelled before would never write a last fact
            return live.recorder.record

    async def wait(self, run_id: str, *, egress: bool = False) -> RunRecord:
        """The run once it has ended."""
        record = self._find(run_id, egress=egress)
        live = self._going(run_id)
        if live is not None:
            await live.ended.wait()
            record = self._find(run_id, egress=egress)  # it may have become private meanwhile
        return await self._archive.whole(record)

    async def cancel(self, run_id: str, why: str, *, egress: bool = False) -> RunRecord:
        """Cancels a run; answered when it has ended. One that has ended already is returned as it is."""
        self._find(run_id, egress=egress)
        live = self._going(run_id)
        if live is not None and live.recorder.record.active and live.run.stop("cancelled", why):
            live.task.cancel()
            live.recorder.add(CancelRequested, why=why)
        return await self.wait(run_id, egress=egress)

    def run(self, run_id: str, *, egress: bool = False) -> RunRecord:
        """A run as it stands; once it has ended, without answer, citations and receipt."""
        return self._find(run_id, egress=egress)

    async def whole(self, run_id: str, *, egress: bool = False) -> RunRecord:
        """A run with its answer, citations and receipt, as far as there are any."""
        await self.look_for(run_id)
        return await self._archive.whole(self._find(run_id, egress=egress))

    def runs(self, state: RunState | None = None, limit: int = 50, *, egress: bool = False) -> list[RunRecord]:
        """Runs, newest first, without answers; child runs are left out."""
        shown = [
            record
            for record in map(self._current, self._archive.records.values())
            if record.parent is None and (state is None or record.state == state) and not (egress and record.private)
        ]
        return sorted(shown, key=lambda record: record.created, reverse=True)[:limit]

    async def facts(
        self, run_id: str, from_seq: int = 1, to_seq: int | None = None, *, egress: bool = False
    ) -> list[AnyFact]:
        """Facts ``from_seq`` to ``to_seq`` inclusive, at most 5,000 at once."""
        await self.look_for(run_id)
        self._find(run_id, egress=egress)
        return await self._archive.facts(run_id, from_seq, to_seq)

    async def value(self, run_id: str, digest: str, *, egress: bool = False) -> str:
        """The text named by a digest in one of the run's facts."""
        await self.look_for(run_id)
        self._find(run_id, egress=egress)
        return await self._archive.value(run_id, digest)

    async def answer(self, record: RunRecord) -> str | None:
        """The whole answer of a run that has ended."""
        text = (await self._archive.whole(record)).answer
        return None if text is None else await self._archive.text(record.run_id, text)

    async def export(
        self, run_id: str, form: ExportForm, start: int = 0, chars: int = MOST_EXPORTED, *, egress: bool = False
    ) -> tuple[str, int]:
        """A stretch of the run in another form, and how many characters the whole has."""
        self._archive.records[run_id] = self._find(run_id, egress=egress)
        text = await self._archive.exported(run_id, form)
        self._find(run_id, egress=egress)  # it may have become private meanwhile
        if start + chars >= len(text):
            self._archive.forget_export()
        return text[start : start + chars], len(text)

    async def delete_run(self, run_id: str, *, egress: bool = False) -> None:
        """Takes a run off the disk, with all that is kept of it. Raises ``NotFound``, ``Busy`` while it goes on."""
        record = self._find(run_id, egress=egress)
        if record.parent is not None:
            raise Conflict(f"Run {run_id} is part of run {record.parent}.", hint=f"Delete {record.parent}.")
        if run_id in self._live:
            raise Busy(f"Run {run_id} goes on.", hint="Cancel it first.", run_id=run_id)
        for feed in list(self._feeds):
            if feed.run_id == run_id:
                feed.close()
        await self._archive.delete(run_id)

    def subscribe(
        self, run_id: str, from_seq: int, sink: Sink, *, deltas: bool = True, egress: bool = False
    ) -> Subscription:
        """Facts from ``from_seq`` on, those of the past first, then live; deltas of streams still open."""
        record = self._find(run_id, egress=egress)

        def withdrawn() -> bool:
            return egress and self._current(record).private

        live = self._going(run_id)
        if live is not None:
            return live.recorder.feed.subscribe(sink, from_seq, deltas=deltas, withdrawn=withdrawn)
        folder = self._archive.folder(run_id)
        feed = Feed(run_id, folder, self._threads, lambda: record.last_seq, done=self._feeds.discard, over=True)
        self._feeds.add(feed)
        return feed.subscribe(sink, from_seq, deltas=False, withdrawn=withdrawn)

    # ── cells and sessions ──────────────────────────────────────────────────────────────────────────────────

    async def execute(self, request: ExecuteRequest, *, egress: bool = False) -> ExecuteReport:
        """Runs one cell as a run of its own; asked again under the same id, it tells how that one went."""
        await self.start_run(request.as_run(), egress=egress)
        record = await self.wait(request.run_id, egress=egress)
        # The end of the journal alone: thousands of sub-queries may stand before it.
        facts = await self.facts(request.run_id, max(1, record.last_seq - _LAST_FACTS), egress=egress)
        cell = next((fact for fact in reversed(facts) if isinstance(fact, CellEnded)), None)
        ended = next((fact for fact in facts if isinstance(fact, RunEnded)), None)
        if cell is None:
            error = ended.error if ended else None
            return ExecuteReport(
                request.run_id, False, "", 0, error.message if error else record.why or record.state, None, 0.0
            )
        output = await self._archive.text(request.run_id, cell.output)
        final = await self.answer(record)
        return ExecuteReport(
            request.run_id, cell.ok, output, cell.cut, cell.error, final or None, cell.seconds, cell.worker_died
        )

    async def sessions(self, *, egress: bool = False) -> list[SessionRecord]:
        """The named sessions."""
        shown = self._sessions.visible(egress=egress)
        for session in shown:
            await session.recall(self._parts)
        return [session.record() for session in shown]

    def session_count(self, *, egress: bool = False) -> int:
        return len(self._sessions.visible(egress=egress))

    async def session(self, name: str, *, egress: bool = False) -> SessionDetail:
        """A named session with its variables and last questions. Raises ``NotFound``."""
        session = self._sessions.named(name, egress=egress)
        await session.recall(self._parts)
        return session.detail()

    async def reset_session(self, name: str, *, egress: bool = False) -> SessionDetail:
        """Begins a session anew, without its variables and questions. Raises ``NotFound``, ``Busy``."""
        return (await self._sessions.reset(name, egress=egress)).detail()

    async def drop_session(self, name: str, *, egress: bool = False) -> None:
        """Ends a session and forgets its names. Raises ``NotFound``, ``Busy``."""
        await self._sessions.drop(name, egress=egress)

    async def drop_context(self, name: str, *, egress: bool = False) -> Dropped:
        """Erases a context and all that tells of it: runs that read it, sessions that held it, cached replies.

        The context goes last: where this is cut short, it is still there to be dropped again.

        Raises:
            NotFound: There is none, or none that this client may know of.
        """
        name = self._parts.contexts.real_name(name, egress=egress)
        async with self._starting:
            telling = [run_id for run_id, record in self._archive.records.items() if name in self._held(record)]
            for run_id in telling:
                if run_id in self._live:
                    await self.cancel(run_id, f"its context {name!r} was dropped")
            sessions = await self._sessions.drop_holding(name)
            for run_id in telling:
                await self.delete_run(run_id)
            await self._parts.pool.forget(name)
            await self._parts.contexts.drop(name, egress=False)
        return Dropped(len(telling), sessions)

    async def collect(self, *, dry_run: bool = False) -> Sequence[Collected]:
        """Removes what has expired of the contexts, or says what would be. What a run or session names is kept."""
        async with self._starting:  # no run begins on what is being removed
            sessions = self._sessions.visible(egress=False)
            held = {name for one in sessions for name in one.held}
            held.update(name for live in self._live.values() for name in live.recorder.record.held)
            pins = {(pin.context, pin.revision) for one in self._archive.records.values() for pin in one.contexts}
            pins.update((pin.context, pin.revision) for one in sessions for pin in one.record().contexts)
            return await self._parts.contexts.collect(held, pins, dry_run=dry_run)

    def _held(self, record: RunRecord) -> tuple[str, ...]:
        live = self._live.get(record.run_id)
        return record.held if live is None else live.recorder.record.held

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _known(self, request: RunRequest, *, egress: bool) -> RunRecord | None:
        if request.run_id not in self._archive.records:
            return None
        record = self._find(request.run_id, egress=egress)
        if record.request_digest != request.digest:
            raise Conflict(
                f"Run {request.run_id} is known with other parameters.",
                hint="A new question needs a new run id.",
                run_id=request.run_id,
            )
        return await self._archive.whole(record)

    async def _refresh(self, request: RunRequest, *, egress: bool) -> str:
        """Brings contexts of paths up to date, and says which could not be. Others may start runs meanwhile."""
        if request.run_id in self._archive.records or self._draining:
            return ""
        told = [await self._parts.contexts.refresh(name, egress=egress) for name in request.contexts]
        return "; ".join(filter(None, told))

    async def _begin(
        self, request: RunRequest, contexts: list[PinnedContext], session: Session, *, egress: bool
    ) -> Live:
        """Opens the journal, writes the first fact, and sets the run going."""
        parts = self._parts
        folder = await self._archive.unused(request.run_id)
        private = self._sessions.private(session) or any(context.pin.private for context in contexts)
        held = tuple(sorted(session.held))
        # Before the run has its turn: who asks next, or looks, meets what the session is going to hold.
        session.private = private
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
        )
        session.log.apply(started)
        run = Run(request, contexts, session, recorder, Purse(limits, parts.monotonic), parts, egress=egress)
        return self._set_going(run)

    def _recorder(self, run_id: str, folder: Path) -> Recorder:
        return Recorder(
            run_id,
            Journal(folder, self._threads),
            lambda made: Feed(run_id, folder, self._threads, lambda: made.last_seq),
            self._parts.now,
        )

    def _set_going(self, run: Run) -> Live:
        recorder = run.recorder
        task = asyncio.create_task(run.execute(), name=f"run {recorder.run_id}")
        live = Live(run, recorder, task)
        self._archive.records[recorder.run_id] = recorder.record
        self._live[recorder.run_id] = live
        task.add_done_callback(lambda done: self._over(live, done))
        return live

    async def _take_up(self, record: RunRecord) -> None:
        """A run that the last daemon could not end goes on, unless that was tried in vain."""
        cut = await self._archive.mend(record.run_id)
        torn = f"; {cut} bytes of a torn line were cut" if cut else ""
        facts = await self._archive.all_facts(record.run_id)
        started, past = facts[0], Past(facts, self._archive.folder(record.run_id), self._threads)
        if not isinstance(started, RunStarted) or started.request is None:
            await self._interrupt(record, f"the daemon ended while the run was going{torn}")
        elif past.vain >= _MOST_IN_VAIN:
            await self._interrupt(record, f"{past.vain} times the daemon ended when the run was taken up again")
        else:
            live = self._set_going(await self._taken_up(started, facts, past))
            why = f"{record.why or 'the daemon ended while the run was going'}{torn}"
            live.run.session.log.apply(live.recorder.add(RunResumed, why=why))
            await asyncio.sleep(0)  # its task has begun: see start_run
            if past.cancelled is not None and live.run.stop("cancelled", past.cancelled.why):
                live.task.cancel()

    async def _taken_up(self, started: RunStarted, facts: list[AnyFact], past: Past) -> Run:
        """The run as the journal tells it, about to go its way again."""
        assert started.request is not None
        request = request_from(await past.text(started.request), await past.text(started.question))
        session = self._sessions.of(started) if started.session is not None else None
        if session is None:
            session = Session(None, self._parts.now(), private=started.private, log=folded(facts))
            session.held.update(self._archive.records[started.run_id].held)
        recorder = self._recorder(started.run_id, self._archive.folder(started.run_id))
        recorder.restore(facts, past)
        purse = Purse(started.limits, self._parts.monotonic)
        return Run(request, (), session, recorder, purse, self._parts, egress=started.egress, past=past)

    def _over(self, live: Live, task: asyncio.Task[None]) -> None:
        """A run's task is done: only its record stays in memory."""
        record = live.recorder.record
        error = None if task.cancelled() else task.exception()
        if record.active:
            # Its last fact could not be written (a full disk): the next start will tell it as interrupted.
            why = error.message if isinstance(error, RlmdError) else "the last fact could not be written"
            log.error("run ended without its last fact", run_id=record.run_id, error=type(error).__name__)
            record = replace(record, state="failed", why=why, ended=self._parts.now())
        self._archive.records[record.run_id] = record.slim()
        del self._live[record.run_id]
        live.recorder.feed.end()
        live.ended.set()

    def _going(self, run_id: str) -> Live | None:
        """A run that has not ended, a child or not."""
        return self._live.get(run_id) or self._children.live.get(run_id)

    async def look_for(self, run_id: str) -> None:
        """Children of runs of the past are not in memory: they are looked for when they are asked about."""
        if run_id not in self._archive.records:
            await self._archive.find_child(run_id)

    def privacy_changed(self) -> None:
        """A context may have been marked private: what runs that hold it are asking goes to trusted hosts only, from
        now on."""
        going = {**self._live, **self._children.live}
        private = {run_id for run_id, live in going.items() if self._current(live.recorder.record).private}
        if private:
            self._parts.pool.make_private(private)

    def _find(self, run_id: str, *, egress: bool) -> RunRecord:
        record = self._archive.records.get(run_id)
        if record is None or (egress and self._current(record).private):
            raise NotFound(f"There is no run {run_id}.", hint="List runs with run/list.", run_id=run_id)
        return self._current(record)

    def _current(self, record: RunRecord) -> RunRecord:
        """As it stands: what was public when the run began may be private by now."""
        live = self._going(record.run_id)
        record = live.recorder.record if live is not None else record
        if not record.private and self._parts.any_private(record.held):
            return replace(record, private=True)
        return record

    async def _interrupt(self, record: RunRecord, why: str) -> None:
        """Tells that a run goes no further."""
        if record.active or record.resumable:
            fact = RunInterrupted(run_id=record.run_id, seq=record.last_seq + 1, time=self._parts.now(), why=why)
            await self._archive.add(record, fact)

    async def _sweep(self) -> None:
        for minute in itertools.count():
            await asyncio.sleep(_SWEEP_SECONDS)
            if minute % _COLLECT_MINUTES == 0:
                with contextlib.suppress(RlmdError):  # tried again tomorrow
                    await self.collect()
            await self._sessions.end_unused(self._parts.now() - self._parts.settings.repl.idle_seconds)

    async def _make_room(self) -> None:
        await self._sessions.make_room()


def _names(pool: PoolPart, role: str, private: bool, narrowed: tuple[str, ...] | None) -> tuple[str, ...]:
    candidates = pool.candidates("root" if role == "root" else "sub", private=private, narrowed_to=narrowed)
    return tuple(f"{candidate.host}/{candidate.model}" for candidate in candidates)
