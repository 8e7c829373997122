"""The engine's front: runs by their id, sessions by their name, and who follows them.

Starting is idempotent, cancelling answers when it is done, and a run that the daemon did not end is taken up again at
the next start. Knows the order of a daemon's life; the order of a run's is in ``run.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from rlmd.config import Settings
from rlmd.engine.archive import Archive
from rlmd.engine.children import Children
from rlmd.engine.going import Going
from rlmd.engine.keeping import Keeping
from rlmd.engine.openruns import QueryReport
from rlmd.engine.parts import ContextsPart, Parts, PoolPart, WorkersPart
from rlmd.engine.programs.own import OwnPrograms
from rlmd.engine.record import RunRecord
from rlmd.engine.requests import ExecuteRequest, QueryRequest, RunRequest
from rlmd.engine.run import Run
from rlmd.engine.sessionends import SessionEnds
from rlmd.engine.sessions import Sessions
from rlmd.engine.strategies import FOLLOW
from rlmd.engine.waking import Waker
from rlmd.errors import Conflict, Draining, InvalidParams, RlmdError
from rlmd.events import (
    STRATEGIES,
    CellEnded,
    Note,
    RunEnded,
)

log = structlog.get_logger(__name__)

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
class EngineStatistics:
    runs: int
    runs_active: int
    sessions: int
    draining: bool


class Engine(Keeping):
    """Owns runs, sessions and journals; beside what is inherited, how runs begin.

    Args:
        contexts: Pins and searches contexts.
        pool: Completes prompts.
        workers: Gives REPL workers.
        settings: The daemon's.
        state_folder: ``runs/`` is below it.
        now: Seconds since the epoch.
        monotonic: Seconds that never jump.
        watch: Is given a run's record when it begins, is taken up, and whenever its state is another.
    """

    def __init__(
        self,
        *,
        contexts: ContextsPart,
        pool: PoolPart,
        workers: WorkersPart,
        settings: Settings,
        state_folder: Path,
        programs_folder: Path | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        watch: Callable[[RunRecord], None] = lambda _: None,
    ) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="rlmd-engine")
        # Of its own: a busy disk may hold it up for seconds, which is to hold up nobody who reads.
        self._syncing = ThreadPoolExecutor(1, thread_name_prefix="rlmd-sync")
        archive = Archive(state_folder / "runs", self._threads)
        waker = Waker(contexts, workers, self._threads, archive.of_session, archive.folder, settings.repl.memory_bytes)
        children = Children(archive)
        self.own_programs = OwnPrograms(programs_folder)
        parts = Parts(
            contexts,
            pool,
            workers,
            settings,
            self._threads,
            now,
            monotonic,
            self._make_room,
            waker,
            self.own_programs,
            self._syncing,
        )
        self._ends = SessionEnds(state_folder / "sessions.jsonl", self._threads)
        sessions = Sessions(parts.any_private, self._ends)
        super().__init__(archive, Going(archive, sessions, children, parts, watch), sessions, parts)
        self._sweeper: asyncio.Task[None] | None = None

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Reads what runs there are, and takes up those that an earlier daemon could not end."""
        records = await self._archive.open()
        await self._sessions.restore(records, await self._ends.all())
        for record in records:
            if record.active or record.resumable:
                try:
                    await self._going.take_up(record)
                except (RlmdError, OSError) as error:
                    log.warning("run not taken up", run_id=record.run_id, error=type(error).__name__)
        self._sweeper = asyncio.create_task(self._sweep(), name="unused sessions")

    def use(self, settings: Settings) -> None:
        """Other settings for runs that begin from now on; those that go on keep theirs to their end."""
        self._parts = replace(self._parts, settings=settings)
        self._going.use(self._parts)
        self._parts.workers.deepen(settings.limits.depth)

    async def drain(self) -> None:
        """Refuses new runs and interrupts running ones; each has its last fact when this returns."""
        self._draining = True
        for live in list(self._going.live.values()):
            if live.recorder.record.active and live.run.stop("interrupted", "the daemon stopped"):
                live.task.cancel()
        for live in list(self._going.live.values()):
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
        self._syncing.shutdown()

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(len(self._archive.records), len(self._going.live), len(self._sessions), self._draining)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────────────────

    async def start_run(self, request: RunRequest, *, egress: bool = False) -> RunRecord:
        """Starts a run, or returns the one that was started by an equal request.

        Raises:
            Conflict: The id is known with other parameters.
            InvalidParams: There is no such strategy, or a run within an open one is to have money of its own.
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
            within = self._open_run(request.within, egress=egress) if request.within is not None else None
            if within is not None and request.limits.money is not None:
                raise InvalidParams(
                    "What runs within an open run spends that run's money, and has no limit of its own.",
                    hint="Give limits.money to run/open.",
                    field="limits.money",
                )
            await self._check_strategy(request.strategy)
            await self._parts.pool.find_default_host()
            contexts = [await self._parts.contexts.pin(name, egress=egress) for name in request.contexts]
            session = self._sessions.choose(request.session, request.if_busy, self._parts.now(), egress=egress)
            live = await self._going.begin(request, contexts, session, within, egress=egress)
            if stale:
                live.recorder.add(Note, text=stale)
            await asyncio.sleep(0)  # its task has begun: one that is cancelled before would never write a last fact
            return live.recorder.record

    async def _check_strategy(self, strategy: str) -> None:
        """Raises ``InvalidParams`` or ``ConfigInvalid`` for one that is neither rlmd's nor a program that can run."""
        if strategy not in FOLLOW and strategy not in (*STRATEGIES, "open"):
            await asyncio.get_running_loop().run_in_executor(self._threads, self.own_programs.source, strategy)

    # ── open runs ───────────────────────────────────────────────────────────────────────────────────────────

    async def close_run(self, run_id: str, *, egress: bool = False) -> RunRecord:
        """Closes an open run, and with it what is within it; answered when it has ended. Others are left alone."""
        self._find(run_id, egress=egress)
        live = self._going.live.get(run_id)
        if live is not None and live.run.request.strategy == "open":
            live.run.open.closing.set()
            return await self.wait(run_id, egress=egress)
        return self.run(run_id, egress=egress)

    async def query(self, request: QueryRequest, *, egress: bool = False) -> QueryReport:
        """Asks one sub-query in an open run.

        Raises:
            NotFound: There is no such run for this client.
            Conflict: It is not open.
            RlmdError: What the pool or the purse refuses with.
        """
        run = self._open_run(request.run_id, egress=egress)
        return await run.open.query(run, request)

    def _open_run(self, run_id: str, *, egress: bool) -> Run:
        self._find(run_id, egress=egress)
        live = self._going.live.get(run_id)
        if live is None:
            raise Conflict(f"Run {run_id} has ended.", hint="Open another with run/open.", run_id=run_id)
        live.run.open.check(live.run)
        return live.run

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

    def privacy_changed(self) -> None:
        """A context may have been marked private: what runs that hold it are asking goes to trusted hosts only, from
        now on."""
        going = self._going.all().items()
        marked = {run_id: live for run_id, live in going if self._going.current(live.recorder.record).private}
        private = set(marked) | {live.run.tree for live in marked.values()}
        if private:
            self._parts.pool.make_private(private)

    async def _sweep(self) -> None:
        for minute in itertools.count():
            await asyncio.sleep(_SWEEP_SECONDS)
            if minute % _COLLECT_MINUTES == 0:
                with contextlib.suppress(RlmdError, OSError):  # tried again tomorrow
                    found = await self.collect()
                    kinds = Counter[str](one.what for one in found)
                    log.info("collected", bytes=sum(one.bytes for one in found), **kinds)
            await self._sessions.end_unused(self._parts.now() - self._parts.settings.repl.idle_seconds)

    async def _make_room(self) -> None:
        await self._sessions.make_room()
