"""An answer for people and pipes: the answer, its citations as ``file:line:``, the receipt's line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rlmd.ctl.terminal import Output, one_line, shown

if TYPE_CHECKING:
    from rlmd.events import Citation
    from rlmd.wire.methods import RunResult

#: Characters of a quote that are printed; the whole one is in ``--json``.
QUOTE = 240


def print_answer(output: Output, result: RunResult) -> None:
    """Answer and citations on stdout, why there is no full answer and the receipt on stderr."""
    if result.answer:
        output.print(shown(result.answer).rstrip())
    if result.citations:
        output.print()
        for line in citation_lines(output, result.citations):
            output.print(line)
    output.out.flush()
    if (trouble := _trouble(result)) is not None:
        output.remark(trouble, "red" if result.run.outcome == "failed" else "yellow")
    if result.receipt is not None:
        output.remark(one_line(result.receipt.summary))


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
    for citation in citations:
        number = output.painted(f"[{citation.number}]", "bold")
        quote = output.painted(f'"{one_line(citation.quote, QUOTE)}"', "dim")
        if not citation.verified:
            yield f"{number} {output.painted('not found in the text', 'yellow')}: {quote}"
            continue
        changed = " (wording as normalised)" if citation.match == "normalised" else ""
        yield f"{number} {place(citation)}: {quote}{changed}"


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
