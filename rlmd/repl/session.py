"""A REPL session: one caged worker, its contexts, one cell at a time (parent side).

Owns what happens to a worker over time: loading between cells, deadlines, cancelling, loss. The worker is ended
whenever it surprises us (a breach of the protocol, threads left behind, a signal ignored): a surprised worker is
thrown away, the daemon goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from rlmd.errors import Conflict, SessionLost, TooLarge
from rlmd.events import Pin
from rlmd.repl import channel as frames
from rlmd.repl.base import CellHost, CellReport, ContextSource
from rlmd.repl.cell import Cell, CellClock, Done
from rlmd.repl.channel import Breach, Channel, Header
from rlmd.repl.loading import frames_of, string_bytes
from rlmd.repl.output import Output
from rlmd.repl.process import BASE_BYTES, WorkerProcess

#: From SIGINT to SIGKILL; a cell that can stop does so in 2 to 4 ms.
GRACE = 0.5
#: Threads that are just ending are gone within this time.
_THREADS_SECONDS = 0.1
#: Least time between two looks at the CPU clock of a cell that waits.
_LEAST_LOOK = 0.05
_CORES = os.cpu_count() or 64
#: Between cells a worker sleeps; one that computes (behind a forged end of its cell) is ended. Seconds between looks,
#: and CPU seconds allowed in all until the next cell.
_IDLE_LOOK, _IDLE_CPU = 5.0, 0.5
#: Address space for work on a text, in copies of it.
_COPIES = 6
_MOST_SOURCE = 1_900_000


class ReplSession:
    """One worker. Not for concurrent use: one cell, load or look at a time.

    Attributes:
        layers: What protects the machine from this worker, such as bubblewrap, landlock, seccomp.
        hash_seed, random_seed: What a replay needs to get the same order of sets and the same random numbers.
    """

    def __init__(
        self,
        process: WorkerProcess,
        *,
        hash_seed: int,
        random_seed: int,
        memory_bytes: int,
    ) -> None:
        self.layers, self.hash_seed, self.random_seed = process.layers, hash_seed, random_seed
        self._process, self._memory_bytes = process, memory_bytes
        self._on_end: list[Callable[[ReplSession], None]] = []
        self._channel = Channel(process.socket, self._on_frame, self._on_hang_up)
        self._output = Output(process.output)
        self._loaded: dict[str, Pin] = {}
        self._documents: dict[str, dict[str, int]] = {}
        self._string_bytes: dict[str, int] = {}
        self._cells = 0
        self._cell: Cell | None = None
        self._answer: asyncio.Future[tuple[Header, bytes]] | None = None
        self._values = 0
        self._busy = False
        self._idle_look: asyncio.TimerHandle | None = None
        self._why_lost: str | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._ending is None

    @property
    def pid(self) -> int:
        """The worker's process, as this side sees it."""
        return self._process.pid

    def when_ended(self, tell: Callable[[ReplSession], None]) -> None:
        """``tell`` is called once, when the worker is gone."""
        self._on_end.append(tell)

    def allow_memory(self, memory_bytes: int) -> None:
        """Lowers what the session may take; the worker was born with its ceiling."""
        self._memory_bytes = min(self._memory_bytes, memory_bytes)

    # Contexts.

    async def load_contexts(self, contexts: Sequence[ContextSource]) -> None:
        """Makes exactly these contexts the session's, in this order; those loaded already are not sent again.

        Raises:
            TooLarge: They do not fit the worker's memory.
            SessionLost: The worker died of it.
        """
        with _Claim(self):
            wanted = {source.pin.context: source for source in contexts}
            strings = {name: sum(map(string_bytes, source.documents)) for name, source in wanted.items()}
            self._make_room(sum(strings.values()))
            for name, source in wanted.items():
                if self._loaded.get(name) != source.pin:
                    await self._send_context(source)
            await self._ask({"t": "contexts", "names": list(wanted)}, "loaded")
            self._loaded = {name: source.pin for name, source in wanted.items()}
            self._documents = {
                name: self._documents.get(name) or {d.name: d.chars for d in wanted[name].documents} for name in wanted
            }

    def _make_room(self, strings: int) -> None:
        needed = strings + BASE_BYTES // 2
        if needed > self._memory_bytes:
            raise TooLarge(
                f"The contexts need {needed >> 20:,} MiB in the REPL; it may take {self._memory_bytes >> 20:,} MiB",
                hint="Raise repl.memory_bytes in the configuration, or ask about fewer contexts at once.",
            )
        self._process.limit_memory(min(self._memory_bytes, BASE_BYTES + _COPIES * strings))

    async def _send_context(self, source: ContextSource) -> None:
        self._documents[source.pin.context] = {document.name: document.chars for document in source.documents}
        for header, descriptors in frames_of(source):
            await self._ask(header, "loaded", descriptors)

    # Cells.

    async def run_cell(
        self, source: str, host: CellHost, *, seconds: float, cpu_seconds: float | None = None, output_chars: int
    ) -> CellReport:
        """Runs one cell.

        Args:
            source: Python code.
            host: Answers the cell's sub-queries and searches, and hears its output.
            seconds: The cell's own time; waiting for sub-queries does not count.
            cpu_seconds: CPU time of the process for this cell, over all threads and all the while.
            output_chars: How much of the output is kept, half of it from the end.

        Raises:
            SessionLost: The worker died by itself or broke the protocol; it has been reaped.
            Exception: What ``host.answer`` or ``host.search`` raised; the cell was stopped first.
        """
        with _Claim(self):
            return await _Execution(self, host, seconds, cpu_seconds).run(source, output_chars)

    async def value_of(self, expression_name: str) -> str | None:
        """``str()`` of a variable, or None when there is none of that name (or it is too long, or a failure)."""
        if not expression_name.isidentifier():
            return None
        with _Claim(self):
            self._values += 1
            number = self._values
            try:
                async with asyncio.timeout(5):
                    header, body = await self._ask({"t": "value", "id": number, "name": expression_name}, "value")
            except TimeoutError:
                await self._end("the worker did not tell a variable's value")
                raise self._lost() from None
            if frames.integer(header, "id", 1, 1 << 53) != number:
                await self._end("the worker answered a question that was not asked")
                raise self._lost()
            return frames.body_text(header, body) if frames.flag(header, "found") else None

    async def close(self) -> None:
        """Ends the worker; whatever it does is cut off."""
        await self._end("the session was closed")

    def _watch_idle(self) -> None:
        """Looks now and then whether the worker computes while nothing was asked of it."""
        loop, before = asyncio.get_running_loop(), self._process.cpu_seconds()

        def look() -> None:
            if self._process.cpu_seconds() - before > _IDLE_CPU:
                self._begin_end("the worker computed after the end of its cell")
            else:
                self._idle_look = loop.call_later(_IDLE_LOOK, look)

        self._idle_look = loop.call_later(_IDLE_LOOK, look)

    def _forget_idle(self) -> None:
        if self._idle_look is not None:
            self._idle_look.cancel()
            self._idle_look = None

    # Frames and loss.

    async def _ask(self, header: Header, expected: str, descriptors: Sequence[int] = ()) -> tuple[Header, bytes]:
        """Sends a frame and waits for the one frame that answers it."""
        answer = self._answer = asyncio.get_running_loop().create_future()
        try:
            self._channel.send(header, b"", descriptors)
            got, body = await answer
        except asyncio.CancelledError:
            # Half a load, or an answer that would be taken for the next one's: the worker is of no more use.
            await asyncio.shield(self._end("its loading was cancelled"))
            raise
        finally:
            self._answer = None
        if got["t"] != expected:
            await self._end(f"the worker sent {got['t']!r} where {expected!r} was due")
            raise self._lost()
        return got, body

    def _on_frame(self, header: Header, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            if header["t"] not in ("loaded", "value"):
                raise Breach("a frame out of order")
            self._answer.set_result((header, body))
        elif self._cell is None or not self._cell.take(header, body):
            raise Breach("a frame out of order")

    def _on_hang_up(self, breach: Breach | None) -> None:
        """The worker is gone, or is to go: all that waits for it learns so once it has been reaped."""
        why = f"the worker broke the protocol ({breach})" if breach is not None else None
        self._begin_end(why)

    def _begin_end(self, why: str | None) -> asyncio.Task[None]:
        if self._ending is None:
            self._forget_idle()
            self._ending = asyncio.get_running_loop().create_task(self._reap(why), name="end of a worker")
        return self._ending

    async def _end(self, why: str) -> None:
        await asyncio.shield(self._begin_end(why))

    async def _reap(self, why: str | None) -> None:
        if why is None:  # it hung up: give it the moment that dying takes, so that its own status is what we report
            try:
                async with asyncio.timeout(GRACE):
                    await self._process.wait()
            except TimeoutError:
                pass
        self._process.kill()
        status = await self._process.wait()
        self._why_lost = why or _how_it_died(status)
        self._channel.close()
        lost = self._lost()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(lost)
        if self._cell is not None:
            self._cell.fail(lost)
        for tell in self._on_end:
            tell(self)
        if not self._busy:
            self._output.close()

    def _lost(self) -> SessionLost:
        return SessionLost(
            f"The REPL session is lost: {self._why_lost or 'its worker is ending'}.",
            hint="Its variables are gone; the next cell starts in a fresh REPL with the same contexts.",
        )


class _Claim:
    """The session is in use: a second caller is refused, and so is a caller of a session that has ended."""

    def __init__(self, session: ReplSession) -> None:
        self._session = session

    def __enter__(self) -> None:
        if self._session._busy:
            raise Conflict("The REPL session runs something else", hint="One cell at a time.")
        if self._session._ending is not None:
            raise self._session._lost()
        self._session._busy = True
        self._session._forget_idle()

    def __exit__(self, *_: object) -> None:
        self._session._busy = False
        if self._session._ending is None:
            self._session._watch_idle()
        elif self._session._ending.done():
            self._session._output.close()


class _Execution:
    """One run of one cell: its deadline and its end, whichever way it comes."""

    def __init__(self, session: ReplSession, host: CellHost, seconds: float, cpu_seconds: float | None) -> None:
        self._session, self._host = session, host
        self._seconds, self._cpu_seconds = seconds, cpu_seconds
        self._loop = asyncio.get_running_loop()
        self._process = session._process
        self._clock = CellClock(time.monotonic, self._process.cpu_seconds)
        self._cpu_before = self._process.cpu_seconds()
        self._alarm: asyncio.TimerHandle | None = None
        self._cell: Cell | None = None
        #: The limit that the cell hit, as its error.
        self._limit = ""

    async def run(self, source: str, output_chars: int) -> CellReport:
        session = self._session
        if len(source) > _MOST_SOURCE:
            raise TooLarge(f"A cell of {len(source):,} characters; at most {_MOST_SOURCE:,} can be run")
        session._cells += 1
        documents = {(c, d): chars for c, several in session._documents.items() for d, chars in several.items()}
        cell = self._cell = Cell(session._cells, self._host, session._channel.send, documents, self._waiting)
        session._cell = cell
        session._output.begin(output_chars, self._host.output)
        try:
            header = {"t": "run", "cell": cell.number, "echo": output_chars}
            session._channel.send(header, source.encode("utf-8", "replace"))
            self._look()
            await cell.woken.wait()
            if cell.error is None and cell.done is None:  # out of time
                await self._shielded(self._stop(cell))
            if cell.error is not None and not (self._limit and isinstance(cell.error, SessionLost)):
                raise cell.error
            await self._check_threads(cell.done)
        except BaseException:
            await self._shielded(self._stop(cell))
            raise
        finally:
            if self._alarm is not None:
                self._alarm.cancel()
            await self._shielded(cell.stop())
            session._cell = None
        return self._report(cell.done)

    async def _stop(self, cell: Cell) -> None:
        """Sub-queries first, then SIGINT, then SIGKILL."""
        await cell.stop()
        if not self._session.alive:
            await self._session._end("")
        elif cell.done is None:
            self._process.interrupt()
            try:
                async with asyncio.timeout(GRACE):
                    await cell.reported.wait()
            except TimeoutError:
                await self._session._end(f"the cell did not stop within {GRACE} s of being interrupted")

    async def _check_threads(self, done: Done | None) -> None:
        """A worker with threads left behind is ended: they could spend the next cell's purse."""
        if done is None:
            return
        deadline = self._loop.time() + _THREADS_SECONDS
        while (count := self._process.threads() or done.threads) > 1:
            if self._loop.time() > deadline:
                self._limit = self._limit or f"threads: {count - 1} left running by the cell"
                await self._session._end("the cell left threads running")
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

    def _expire(self, limit: str) -> None:
        self._limit = limit
        if self._cell is not None:
            self._cell.woken.set()

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
        output, cut, digest = self._session._output.end()
        error = self._limit or (done.error if done is not None else None) or None
        return CellReport(
            ok=error is None, output=output, cut=cut, digest=digest, error=error,
            final=done.final if done is not None else None, answer=done.answer if done is not None else None,
            names=done.names if done is not None else (), seconds=self._clock.seconds(),
            interrupted=done is None or done.stopped, lost=not self._session.alive,
        )  # fmt: skip


def _how_it_died(status: int) -> str:
    if status in (0, 1) or 0 < status < 128:
        return f"the worker left with exit status {status}"
    number = -status if status < 0 else status - 128
    try:
        return f"the worker was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"the worker left with exit status {status}"
