"""An answer for people and pipes: the answer, its citations as ``file:line:``, the receipt's line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlmd.ctl.terminal import Output, one_line, shown

if TYPE_CHECKING:
    from rlmd.events import Citation
    from rlmd.wire.methods import RunResult

#: Characters of a quote that are printed in a pipe; on a terminal a citation is one line. ``--json`` has it whole.
QUOTE = 240
LEAST_QUOTE = 24


def print_answer(output: Output, result: RunResult, notes: Sequence[str] = ()) -> None:
    """Answer and citations on stdout; notes, why there is no full answer, and the receipt on stderr.

    Args:
        notes: What the run had to say. One that the answer says too is not said twice.
    """
    if result.answer:
        output.print(shown(result.answer).rstrip())
    if listed := tuple(citation for citation in result.citations if not _told(citation, result.answer or "")):
        output.print()
        for line in citation_lines(output, listed):
            output.print(line)
    output.flush()
    said = " ".join((result.answer or "").split())
    for note in notes:
        if " ".join(note.split()) not in said:
            output.remark(shown(note), "yellow")
    if (trouble := _trouble(result)) is not None:
        output.remark(trouble, "red" if result.run.outcome == "failed" else "yellow")
    if result.receipt is not None:
        output.remark(one_line(result.receipt.summary))
        if result.receipt.limit is not None and result.run.parent is None:
            output.remark(f"To go on from there: rlmctl run continue {result.run.run_id[:8]}")


def _told(citation: Citation, answer: str) -> bool:
    """Whether the answer itself shows the citation, as those of the program ``quote`` do."""
    return citation.locator is not None and f"[{citation.number}] {citation.locator.label}:\n" in answer


def _trouble(result: RunResult) -> str | None:
    """Why there is no full answer; None when there is one, or the run still goes on."""
    run = result.run
    if run.state == "interrupted":
        return f"interrupted: {one_line(run.why or 'the daemon stopped')}"
    if run.outcome in ("answered", None):
        return None
    word = "no answer" if run.outcome == "none" else str(run.outcome)
    return f"{word}: {one_line(run.why)}" if run.why else word


def citation_lines(output: Output, citations: tuple[Citation, ...]) -> Iterator[str]:
    """``[1] src/app.py:120: "quote"``; one that was not found in the text says so."""
    columns = shutil.get_terminal_size().columns if output.out.isatty() else None
    for citation in citations:
        number = f"[{citation.number}]"
        where = place(citation) if citation.verified else "not found in the text"
        changed = " (but for spacing and signs)" if citation.match == "normalised" else ""
        room = QUOTE if columns is None else max(LEAST_QUOTE, columns - len(f'{number} {where}: ""{changed}'))
        quote = output.painted(f'"{one_line(citation.quote, min(room, QUOTE))}"', "dim")
        where = where if citation.verified else output.painted(where, "yellow")
        yield f"{output.painted(number, 'bold')} {where}: {quote}{changed}"


def place(citation: Citation, here: Path | None = None) -> str:
    """``path:line`` that an editor can jump to, below the current folder as it is seen from there."""
    locator = citation.locator
    if locator is None:
        return one_line(f"{citation.document or citation.context}@{citation.start}")
    if locator.path is None:
        return one_line(locator.label)
    path = locator.path
    folder = str(here or Path.cwd())
    if os.path.isabs(path) and path.startswith(folder.rstrip("/") + "/"):
        path = os.path.relpath(path, folder)
    return one_line(f"{path}:{locator.line}" if locator.line is not None else path)
