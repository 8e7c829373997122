"""A program of the user as a strategy: its file is the cell of an ordinary run, and what that came to is the answer."""

from __future__ import annotations

import asyncio
import re

from rlmd.engine.conclusion import Conclusion
from rlmd.engine.mapping import as_typed
from rlmd.engine.run import Run
from rlmd.errors import ProgramFailed
from rlmd.pool import unheard_of
from rlmd.repl import CellReport

#: Where a traceback says that the program was: the program is the second cell of its run.
_LINE = re.compile(r"line (\d+)")
#: What only the models' windows tell.
_PIECES = "piece_chars"
_NO_ANSWER = "it ended without an answer: end it with FINAL(text)"


async def run_program(run: Run) -> Conclusion | None:
    """The question is bound by a cell of its own, so that lines in tracebacks are those of the file. None when a limit
    was reached before there was anything to tell."""
    name = run.request.strategy
    # Of a run that is taken up the cell is in the journal; the file may be another by now, or gone.
    source = "" if run.past.source(2) is not None else await _source(run, name)
    run.asking.small = None
    if _PIECES in source and (silent := await run.wait_for_model("sub")):
        raise unheard_of(silent, run.waits.patience)
    run.know_sub_models()
    pieces = run.sub_facts.piece_chars if run.sub_facts else 0
    chars = run.parts.settings.repl.output_chars
    given = f"question = {run.request.question!r}\n{_PIECES} = {pieces}\n"
    await run.cells.run(given, 0, program=name, output_chars=chars)
    report = await run.cells.run(source, 0, program=name, output_chars=chars, seconds=run.purse.limits.seconds)
    text = (report.final.text if report.final else run.cells.answer).strip()
    if (limit := run.asking.limit) is not None:
        return Conclusion("partial", text, limit.message, error=limit) if text else None
    if report.ok and text:
        return await as_typed(run, text, f"answered by the program {name}")
    why = f"The program {name} failed: {_failure(report)}"
    error = ProgramFailed(f"{why}.", hint="Its output is in the run: rlmctl run show, or Emacs' trace.")
    return Conclusion("partial" if text else "none", text, why, error=error, citations=None if text else ())


async def _source(run: Run, name: str) -> str:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(run.parts.threads, run.parts.own_programs.source, name)


def _failure(report: CellReport) -> str:
    if report.ok:
        return _NO_ANSWER
    lines = _LINE.findall(report.output)
    where = f" (line {lines[-1]})" if lines else ""
    return f"{(report.error or 'no answer').rstrip('.')}{where}"
