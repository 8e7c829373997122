"""A REPL session: one caged worker, its contexts, one cell at a time (parent side).

Owns what happens to a worker over time: loading between cells, one cell after another, loss. The worker is ended
whenever it surprises us, such as by a breach of the protocol: a surprised worker is thrown away, the daemon goes on.
How one cell ends is ``execution``'s; what a cell asks is not known here.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from rlmd.errors import Conflict, SessionLost, TooLarge
from rlmd.events import Pin
from rlmd.repl import channel as frames
from rlmd.repl.base import CellHost, CellReport, ContextSource
from rlmd.repl.cell import Cell
from rlmd.repl.channel import Breach, Channel, Header
from rlmd.repl.execution import GRACE, Execution, Worker
from rlmd.repl.loading import frames_of, sizes_of
from rlmd.repl.output import Output
from rlmd.repl.process import BASE_BYTES, WorkerProcess
from rlmd.repl.tree import Usage
from rlmd.repl.watch import excess

#: Between cells a worker sleeps; one that computes (behind a forged end of its cell) is ended. Seconds between looks,
#: and CPU seconds allowed in all until the next cell.
_IDLE_LOOK, _IDLE_CPU = 5.0, 0.5
#: Address space for work on a text, in copies of it.
_COPIES = 6


class ReplSession:
    """One worker. Not for concurrent use: one cell, load or look at a time.

    Attributes:
        layers: What protects the machine from this worker, such as bubblewrap, landlock, seccomp.
        hash_seed, random_seed: What a replay needs to get the same order of sets and the same random numbers.
        memory_taken: Bytes that its processes had when a cell of it was last looked at.
    """

    def __init__(
        self,
        process: WorkerProcess,
        *,
        hash_seed: int,
        random_seed: int,
        memory_bytes: int,
        when_measured: Callable[[], None] = lambda: None,
    ) -> None:
        self.layers, self.hash_seed, self.random_seed = process.layers, hash_seed, random_seed
        self.memory_taken = 0
        self._process, self._memory_bytes, self._when_measured = process, memory_bytes, when_measured
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
    def next_cell(self) -> int:
        """The number of the next cell, from 1."""
        return self._cells + 1

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
            fresh = {name: source for name, source in wanted.items() if self._loaded.get(name) != source.pin}
            sizes = {name: await sizes_of(source.documents) for name, source in fresh.items()}
            strings = {name: sizes[name][1] if name in sizes else self._string_bytes[name] for name in wanted}
            self._make_room(sum(strings.values()))
            for name, source in fresh.items():
                self._documents[name] = sizes[name][0]
                await self._send_context(source)
            await self._ask({"t": "contexts", "names": list(wanted)}, "loaded")
            self._loaded = {name: source.pin for name, source in wanted.items()}
            self._documents = {name: self._documents[name] for name in wanted}
            self._string_bytes = strings

    def _make_room(self, strings: int) -> None:
        needed = strings + BASE_BYTES // 2
        if needed > self._memory_bytes:
            raise TooLarge(
                f"The contexts need {needed >> 20:,} MiB in the REPL; it may take {self._memory_bytes >> 20:,} MiB",
                hint="Raise repl.memory_bytes in the configuration, or ask about fewer contexts at once.",
            )
        self._process.limit_memory(min(self._memory_bytes, BASE_BYTES + _COPIES * strings))

    async def _send_context(self, source: ContextSource) -> None:
        with self._process.receiving():
            for header, descriptors in frames_of(source):
                await self._ask(header, "loaded", descriptors)

    # Cells.

    async def run_cell(
        self,
        source: str,
        host: CellHost,
        *,
        seconds: float,
        cpu_seconds: float | None = None,
        output_chars: int,
        number: int | None = None,
    ) -> CellReport:
        """Runs one cell.

        Args:
            source: Python code.
            host: Answers the cell's sub-queries and searches, and hears its output.
            seconds: The cell's own time; waiting for sub-queries does not count.
            cpu_seconds: CPU time of the process for this cell, over all threads and all the while.
            output_chars: How much of the output is kept, half of it from the end.
            number: The cell's, as its tracebacks name it; by default the next.

        Raises:
            SessionLost: The worker died by itself or broke the protocol; it has been reaped.
            Exception: What ``host.answer`` or ``host.search`` raised; the cell was stopped first.
        """
        with _Claim(self):
            self._cells = self.next_cell if number is None else number
            worker = Worker(
                self._process, self._channel.send, self._output, lambda: self.alive, self._excess, self._end
            )
            self._process.limit_threads()
            execution = Execution(worker, self._cells, host, self._documents, seconds, cpu_seconds)
            self._cell = execution.cell
            try:
                return await execution.run(source, output_chars)
            finally:
                self._cell = None
                self._excess()  # what it keeps between cells counts among all that workers have

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

    def taken(self) -> Usage | None:
        """What its processes take now; None where nothing tells."""
        return self._process.usage()

    @property
    def grouped(self) -> bool:
        """Whether it has a control group of its own, whose limits the kernel holds."""
        return self._process.grouped

    def give_up(self, why: str) -> None:
        """Ends the worker for a reason from outside; a cell that it runs is lost with it."""
        self._begin_end(why)

    def _excess(self) -> str | None:
        """What its processes have too much of, or None; tells whoever adds up all sessions."""
        usage = self.taken() if self._process.watched else None
        if usage is None:
            return None
        self.memory_taken = usage.memory_bytes
        self._when_measured()
        return excess(usage, processes=self._process.processes, memory_bytes=self._memory_bytes)

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
            self._why_lost = why
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


def _how_it_died(status: int) -> str:
    if status in (0, 1) or 0 < status < 128:
        return f"the worker left with exit status {status}"
    number = -status if status < 0 else status - 128
    try:
        return f"the worker was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"the worker left with exit status {status}"
