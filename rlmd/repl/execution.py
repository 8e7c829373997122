"""One cell's execution: clocks, cancelling and the report (parent side).

Owns a cell's deadlines and the ways in which it ends: by itself, out of time, cancelled, with threads left behind. A
worker that does not come to its end is ended. Knows nothing of contexts, nor of the sessions that hand it a worker.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlmd.errors import SessionLost, TooLarge
from rlmd.repl.base import CellHost, CellReport
from rlmd.repl.cell import Cell, CellClock
from rlmd.repl.channel import Header
from rlmd.repl.done import Done
from rlmd.repl.output import Output
from rlmd.repl.process import WorkerProcess
from rlmd.repl.watch import WATCH_SECONDS

#: From SIGINT to SIGKILL; a cell that can stop does so in 2 to 4 ms.
GRACE = 0.5
#: Threads that are just ending are gone within this time: those that Python still counts, and those that the kernel
#: alone does, which have nothing left to run but may wait long for their last turn on a machine that is busy.
_THREADS_SECONDS, _LAST_TURN_SECONDS = 0.1, 2.0
#: Least time between two looks at the CPU clock of a cell that waits.
_LEAST_LOOK = 0.05
_CORES = os.cpu_count() or 64
_MOST_SOURCE = 1_900_000


@dataclass(frozen=True, slots=True)
class Worker:
    """What an execution needs of the session whose worker it uses.

    Attributes:
        alive: Whether the worker is not being ended.
        excess: What its processes have too much of by now, or None.
        end: Ends it, for the reason given; returns when it is gone.
    """

    process: WorkerProcess
    send: Callable[[Header, bytes], None]
    output: Output
    alive: Callable[[], bool]
    excess: Callable[[], str | None]
    end: Callable[[str], Awaitable[None]]


class Execution:
    """One cell on its way through a worker: its deadlines and its end, whichever way that comes.

    Attributes:
        cell: Takes the worker's frames while the cell runs.
    """

    def __init__(
        self,
        worker: Worker,
        number: int,
        host: CellHost,
        documents: Mapping[str, Mapping[str, int]],
        seconds: float,
        cpu_seconds: float | None,
    ) -> None:
        self.cell = Cell(number, host, worker.send, documents, self._waiting)
        self._worker, self._host = worker, host
        self._seconds, self._cpu_seconds = seconds, cpu_seconds
        self._loop = asyncio.get_running_loop()
        self._process = worker.process
        self._clock = CellClock(time.monotonic, self._process.cpu_seconds)
        self._cpu_before = self._process.cpu_seconds()
        self._alarm: asyncio.TimerHandle | None = None
        self._guard: asyncio.TimerHandle | None = None
        #: The limit that the cell hit, as its error; and whether it is one that ends the worker without a grace.
        self._limit = ""
        self._at_once = False

    async def run(self, source: str, output_chars: int) -> CellReport:
        """Runs it; the same errors as ``ReplSession.run_cell``."""
        if len(source) > _MOST_SOURCE:
            raise TooLarge(f"A cell of {len(source):,} characters; at most {_MOST_SOURCE:,} can be run")
        worker, cell = self._worker, self.cell
        worker.output.begin(output_chars, self._host.output)
        try:
            header = {"t": "run", "cell": cell.number, "echo": output_chars}
            worker.send(header, source.encode("utf-8", "replace"))
            self._look()
            self._watch()
            await cell.woken.wait()
            if self._at_once:
                await worker.end(self._limit)
            elif cell.error is None and cell.done is None:  # out of time
                await self._shielded(self._stop(cell))
            if cell.error is not None and not (self._limit and isinstance(cell.error, SessionLost)):
                raise cell.error
            await self._check_threads(cell.done)
        except BaseException:
            await self._shielded(self._stop(cell))
            raise
        finally:
            for timer in (self._alarm, self._guard):
                if timer is not None:
                    timer.cancel()
            await self._shielded(cell.stop())
        return self._report(cell.done)

    async def _stop(self, cell: Cell) -> None:
        """Sub-queries first, then SIGINT, then SIGKILL."""
        await cell.stop()
        if not self._worker.alive():
            await self._worker.end("")
        elif cell.done is None:
            self._process.interrupt()
            try:
                async with asyncio.timeout(GRACE):
                    await cell.reported.wait()
            except TimeoutError:
                await self._worker.end(f"the cell did not stop within {GRACE} s of being interrupted")

    async def _check_threads(self, done: Done | None) -> None:
        """A worker with threads left behind is ended: they could spend the next cell's purse."""
        if done is None:
            return
        deadline = self._loop.time() + (_THREADS_SECONDS if done.threads > 1 else _LAST_TURN_SECONDS)
        # A numerical library keeps threads for the next product; those of Python are the worker's to tell then.
        kernel = None if self._process.libraries else self._process.threads
        while (count := (kernel and kernel()) or done.threads) > 1:
            if self._loop.time() > deadline:
                self._limit = self._limit or f"threads: {count - 1} left running by the cell"
                await self._worker.end("the cell left threads running")
                return
            await asyncio.sleep(0.005)

    def _waiting(self, waiting: bool) -> None:
        self._clock.wait(waiting)
        self._look()

    def _look(self) -> None:
        """Looks at both clocks, and sets the alarm for the first moment at which one can have run out."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._limit:
            return None
        left = self._seconds - self._clock.seconds()
        if self._clock.waiting:
            left /= _CORES
        if left <= 0:
            return self._expire(f"CellTimeout: more than {self._seconds:g} s of the cell's own time")
        if self._cpu_seconds is not None:
            cpu_left = self._cpu_seconds - (self._process.cpu_seconds() - self._cpu_before)
            if cpu_left <= 0:
                return self._expire(f"CellTimeout: more than {self._cpu_seconds:g} s of CPU time")
            left = min(left, cpu_left / _CORES)
        self._alarm = self._loop.call_later(max(_LEAST_LOOK, left), self._look)
        return None

    def _watch(self) -> None:
        """Looks at what the worker's processes take; too much of it ends them without waiting for the cell."""
        excess = self._worker.excess()
        if excess is None or self._limit:
            self._guard = self._loop.call_later(WATCH_SECONDS, self._watch)
        else:
            self._at_once = True
            self._expire(excess)

    def _expire(self, limit: str) -> None:
        self._limit = limit
        self.cell.woken.set()

    async def _shielded(self, work: Any) -> None:
        """Clean-up goes to its end even when the caller is cancelled again meanwhile."""
        task = self._loop.create_task(work)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                if task.cancelled():
                    break
                cancelled = error
        if cancelled is not None:
            raise cancelled
        task.result()

    def _report(self, done: Done | None) -> CellReport:
        output, cut, digest = self._worker.output.end()
        error = self._limit or (done.error if done is not None else None) or None
        return CellReport(
            ok=error is None, output=output, cut=cut, digest=digest, error=error,
            final=done.final if done is not None else None, answer=done.answer if done is not None else None,
            names=done.names if done is not None else (), seconds=self._clock.seconds(),
            interrupted=done is None or done.stopped, lost=not self._worker.alive(),
        )  # fmt: skip
