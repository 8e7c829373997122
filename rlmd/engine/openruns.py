"""Open runs: a run that asks nothing by itself and stays open for what its client asks, one thing after another.

Sub-queries are asked in it; cells and questions are runs of their own *within* it. All of them take from its purse and
count as its tree in the ledger, and none outlives it. Knows no client; whoever opened a run closes it.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from rlmd.engine.cells import Asking, RunCellHost
from rlmd.engine.conclusion import Conclusion
from rlmd.engine.limits import Purse
from rlmd.engine.recorder import Recorder
from rlmd.engine.requests import QueryRequest, RunRequest
from rlmd.errors import Conflict, RunCancelled
from rlmd.events import ChildEnded, ChildStarted, Strategy, Text, digest_of
from rlmd.pool import PooledCompletion
from rlmd.repl import SubQuery

#: How a run is ended from outside.
Stop = Literal["cancelled", "interrupted"]
#: What was asked by a client and by no cell has this number.
NO_CELL = 0


@dataclass(frozen=True, slots=True)
class QueryReport:
    """A whole reply, and who gave it."""

    run_id: str
    reply: str
    done: PooledCompletion


class Opened(Protocol):
    """The run that is open."""

    @property
    def asking(self) -> Asking: ...
    @property
    def purse(self) -> Purse: ...
    @property
    def recorder(self) -> Recorder: ...
    @property
    def request(self) -> RunRequest: ...
    @property
    def stopping(self) -> Stop | None: ...
    def chosen(self, strategy: Strategy, why: str) -> None: ...


class Stoppable(Protocol):
    @property
    def private(self) -> bool: ...
    def stop(self, how: Stop, why: str) -> bool: ...


class Within(Protocol):
    """A run within the open one."""

    @property
    def ended(self) -> asyncio.Event: ...
    @property
    def recorder(self) -> Recorder: ...
    @property
    def run(self) -> Stoppable: ...
    @property
    def task(self) -> asyncio.Task[None]: ...


class OpenRun:
    """What a run holds while it is open. Made with the run; only ``stay_open`` opens it."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.taking = False
        self._within: dict[str, Within] = {}
        self._queries: set[asyncio.Task[QueryReport]] = set()
        self._numbers = itertools.count(1)

    async def stay_open(self, run: Opened) -> Conclusion:
        """Until the client closes it. However it ends, what is within it ends first."""
        run.chosen("open", "it stays open for what its client asks")
        self.taking = True
        try:
            await self.closing.wait()
        finally:
            self.taking = False
            await self._end_all(run)
        return Conclusion("answered", "", "its client closed it", citations=())

    async def query(self, run: Opened, request: QueryRequest) -> QueryReport:
        """Asks one sub-query in it.

        Raises:
            RlmdError: Of the pool or the purse; ``RunCancelled`` when the run ended meanwhile.
        """
        self.check(run)
        run.purse.check_time()
        task = asyncio.create_task(self._ask(run, request), name=f"query {run.request.run_id}")
        self._queries.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if (own := asyncio.current_task()) is not None and own.cancelling():
                raise
            raise RunCancelled("The run ended before the reply came.", run_id=run.request.run_id) from None
        finally:
            self._queries.discard(task)

    def check(self, run: Opened) -> None:
        """Raises ``Conflict`` for a run that takes nothing (any more)."""
        if not self.taking:
            raise Conflict(
                f"Run {run.request.run_id} is not open.",
                hint="Open one with run/open; it closes when its client goes.",
                run_id=run.request.run_id,
            )

    def begun(self, run: Opened, live: Within) -> None:
        """Tells that another run began within this one."""
        self._within[live.recorder.run_id] = live
        record, hidden = live.recorder.record, _must_not_tell(run, live)
        tell = record.question.digest is None and not hidden
        run.recorder.add(
            ChildStarted,
            **_which(live),
            question=record.question if tell else _EMPTY,
            held=() if hidden else record.held,
            private=live.run.private,
        )
        # Whoever reads there may ask here of what he read.
        run.asking.held = tuple(dict.fromkeys((*run.asking.held, *record.held)))
        run.asking.ephemeral = run.asking.ephemeral or record.ephemeral

    def ended(self, run: Opened, live: Within) -> None:
        """Tells how a run within this one ended, and what it took."""
        del self._within[live.recorder.run_id]
        record = live.recorder.record
        if run.recorder.record.active and record.outcome is not None:
            error, receipt = record.error, record.receipt
            if _must_not_tell(run, live):
                error, receipt = None, receipt and receipt.model_copy(update={"unread": ()})
            run.recorder.add(
                ChildEnded,
                **_which(live),
                outcome=record.outcome,
                answer=_EMPTY,
                error=error,
                receipt=receipt,
            )

    async def _ask(self, run: Opened, request: QueryRequest) -> QueryReport:
        asking = run.asking if request.sub is None else replace(run.asking, sub=request.sub)
        number = next(self._numbers)
        host = RunCellHost(NO_CELL, f"query-{number}", asking, run.recorder)
        reply, done = await host.ask(SubQuery(request.prompt, request.model), number, 0)
        return QueryReport(run.request.run_id, reply, done)

    async def _end_all(self, run: Opened) -> None:
        for task in self._queries:
            task.cancel()
        within = list(self._within.values())
        for live in within:
            if live.run.stop(run.stopping or "cancelled", "the run that it is within ended"):
                live.task.cancel()
        for live in within:
            await live.ended.wait()
        await asyncio.gather(*self._queries, return_exceptions=True)


_EMPTY = Text(chars=0, text="")


def _must_not_tell(run: Opened, live: Within) -> bool:
    """What is ephemeral is not told in a journal on disk."""
    return live.recorder.record.ephemeral and not run.recorder.record.ephemeral


def _which(live: Within) -> dict[str, str | int]:
    child = live.recorder.run_id
    return {
        "cell": NO_CELL,
        "batch": 0,
        "slot": 0,
        "child": child,
        "prompt_digest": digest_of(child),
        "occurrence": 1,
    }
