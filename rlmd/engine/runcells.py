"""The cells of one run in their session: run, or taken from the journal, and told as facts.

Keeps what the last cell left behind: its host, and ``answer`` as it stands. Knows nothing of turns, roots or
strategies.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal, Protocol

from rlmd.engine.cells import Asking, RunCellHost
from rlmd.engine.confirming import Confirming
from rlmd.engine.lasting import stopped
from rlmd.engine.limits import Purse, time_is_over
from rlmd.engine.parts import Parts, PinnedContext, ReplPart
from rlmd.engine.passages import shown_in
from rlmd.engine.past import Past
from rlmd.engine.recorder import Recorder
from rlmd.engine.sessions import Session
from rlmd.errors import RlmdError, SessionLost
from rlmd.events import CellEnded, CellFinal, CellStarted, Text, digest_of
from rlmd.repl import CellReport, Final, Name

_VIA: dict[str, Literal["FINAL", "FINAL_VAR", "SUBMIT", "answer"]] = {
    "FINAL": "FINAL",
    "FINAL_VAR": "FINAL_VAR",
    "SUBMIT": "SUBMIT",
    "answer": "answer",
}
#: CPU seconds that a cell may use for each second of its own time: its threads may work while it waits.
_CPU_SHARE = 4.0


class CellsOf(Protocol):
    """A run, as far as its cells need it."""

    @property
    def asking(self) -> Asking: ...
    @property
    def contexts(self) -> tuple[PinnedContext, ...]: ...
    @property
    def confirming(self) -> Confirming: ...
    @property
    def parts(self) -> Parts: ...
    @property
    def past(self) -> Past: ...
    @property
    def purse(self) -> Purse: ...
    @property
    def recorder(self) -> Recorder: ...
    @property
    def session(self) -> Session: ...
    def goes_on(self) -> None: ...


class RunCells:
    """Args:
    run: Whose cells they are.

    Attributes:
        count: How many were run, or taken from the journal.
        host: The host of the last cell.
        answer: ``answer["content"]`` as it stands: what remains when a limit is hit.
    """

    def __init__(self, run: CellsOf) -> None:
        self._run = run
        self.count = 0
        self.host: RunCellHost | None = None
        self.answer = ""
        self._left: str | None = None

    async def run(
        self, source: str, turn: int, *, output_chars: int, program: str | None = None, seconds: float | None = None
    ) -> CellReport:
        """Runs one cell in the session. A worker that dies is a failed cell; the next cell gets a new one."""
        self.count += 1
        if (begun := self._run.past.source(self.count)) is not None:
            source = await self._run.past.text(begun.code)  # what a program asks may have changed since
            if (ended := self._run.past.output(self.count)) is not None:
                return await self._as_it_was(begun, ended)
        self._run.goes_on()
        repl = await self._run.session.worker(self._run.contexts, self._run.parts, self._run.recorder)
        if self.count == 1:
            await self._note_left(repl, begun)
        cell, stream = self.count, f"cell-{self.count}/output"
        self._run.session.log.apply(
            self._run.recorder.add(
                CellStarted,
                turn=turn,
                cell=cell,
                stream=stream,
                code=await self._run.recorder.text(source),
                program=program,
                worker_cell=repl.next_cell,
                output_chars=output_chars,
                left=await self._run.recorder.text(self._left) if self._left is not None else None,
                pins=() if self._run.recorder.record.contexts else tuple(one.pin for one in self._run.contexts),
            )
        )
        host = RunCellHost(cell, stream, self._run.asking, self._run.recorder)
        self.host = host
        died = False
        try:
            report = await repl.run_cell(
                source,
                host,
                seconds=seconds or self._run.parts.settings.repl.cell_seconds,
                cpu_seconds=_CPU_SHARE * (seconds or self._run.parts.settings.repl.cell_seconds),
                output_chars=output_chars,
            )
        except SessionLost as error:
            report, died = lost_report(error), True
        except BaseException as error:
            self._cell_stopped(turn, cell, stream, error)
            raise
        await self._cell_ended(turn, cell, stream, report, host, died=died)
        return report

    async def _note_left(self, repl: ReplPart, begun: CellStarted | None) -> None:
        """What an earlier run of the session left in ``answer`` is no answer to this question."""
        if begun is not None:
            self._left = await self._run.past.text(begun.left) if begun.left is not None else None
        elif self._run.session.cells:
            with suppress(SessionLost):  # the cell meets it again, and reports it
                self._left = await repl.value_of("answer")

    async def _as_it_was(self, begun: CellStarted, ended: CellEnded) -> CellReport:
        """A cell out of the journal. It is not run again here: what it made is in the session, or told as lost."""
        if (answer := self._run.confirming.as_it_was(ended.error if ended.interrupted else None)) is not None:
            raise answer
        if stopped(ended):
            raise time_is_over(self._run.purse.limits)
        if begun.left is not None:
            self._left = await self._run.past.text(begun.left)
        self.host = RunCellHost(ended.cell, ended.stream, self._run.asking, self._run.recorder)
        await self.host.restore()
        report = await report_of(ended, self._run.past)
        self._run.session.names = report.names
        self._take_answer(report)
        return report

    def _take_answer(self, report: CellReport) -> None:
        if report.answer != self._left:  # what an earlier run left in ``answer`` is none to this question
            self.answer = report.answer or self.answer
            self._left = None

    async def _cell_ended(
        self, turn: int, cell: int, stream: str, report: CellReport, host: RunCellHost, *, died: bool
    ) -> None:
        self._run.session.names = report.names
        self._take_answer(report)
        if report.lost:
            await self._run.session.end_worker()
        fact = self._run.recorder.add(
            CellEnded,
            turn=turn,
            cell=cell,
            stream=stream,
            output=await self._run.recorder.text(report.output),
            digest=report.digest,
            cut=report.cut,
            ok=report.ok,
            error=report.error,
            seconds=report.seconds,
            names_lost=report.lost,
            worker_died=died,
            shown=shown_in(report.output, host.passages),
            interrupted=report.interrupted,
            names=tuple((one.name, one.type, one.size) for one in report.names),
            final=await self._final_of(report),
            answer=await self._run.recorder.text(report.answer) if report.answer is not None else None,
        )
        self._run.session.log.apply(fact)

    async def _final_of(self, report: CellReport) -> CellFinal | None:
        final = report.final
        return (
            CellFinal(text=await self._run.recorder.text(final.text), via=final.via, name=final.name) if final else None
        )

    def _cell_stopped(self, turn: int, cell: int, stream: str, error: BaseException) -> None:
        """Closes the stream of a cell that was cancelled or could not go on."""
        fact = self._run.recorder.add(
            CellEnded,
            turn=turn,
            cell=cell,
            stream=stream,
            output=Text(chars=0, text=""),
            digest=digest_of(""),
            cut=0,
            ok=False,
            error="cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__,
            seconds=0.0,
            interrupted=True,
        )
        self._run.session.log.apply(fact)

    async def value_of(self, name: str) -> str | None:
        """The text of a variable; of ``answer`` its content."""
        if name == "answer":
            return self.answer or None
        if self._run.session.repl is None or not self._run.session.alive:
            return None
        try:
            return await self._run.session.repl.value_of(name)
        except SessionLost:
            await self._run.session.end_worker()
            return None


async def report_of(ended: CellEnded, past: Past) -> CellReport:
    """A cell's report as its fact tells it."""
    final = ended.final
    return CellReport(
        ok=ended.ok,
        output=await past.text(ended.output),
        cut=ended.cut,
        digest=ended.digest,
        error=ended.error,
        final=Final(await past.text(final.text), _VIA[final.via], final.name) if final else None,
        answer=await past.text(ended.answer) if ended.answer is not None else None,
        names=tuple(Name(*one) for one in ended.names),
        seconds=ended.seconds,
        interrupted=ended.interrupted,
        lost=ended.names_lost,
    )


def lost_report(error: RlmdError) -> CellReport:
    """The report of a cell whose worker died by itself."""
    text = f"{error.message} Its variables are gone; the contexts are loaded again."
    return CellReport(
        ok=False,
        output=text,
        cut=0,
        digest=digest_of(text),
        error=error.message,
        final=None,
        answer=None,
        names=(),
        seconds=0.0,
        interrupted=False,
        lost=True,
    )
