"""The strategy ``quote``: no model. The caged program chooses among passages that a search found; the engine quotes."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence

from rlmd.engine.cells import RunCellHost
from rlmd.engine.citations import Finder
from rlmd.engine.conclusion import Conclusion
from rlmd.engine.mapping import check_question
from rlmd.engine.programs import PASSAGES, quote_cell
from rlmd.engine.programs.quote import choose as choose_quotes
from rlmd.engine.run import Run
from rlmd.errors import CageUnavailable, InternalError, NoHost
from rlmd.events import Citation, Span
from rlmd.repl import SearchPassage

#: Characters of a question that a search takes.
_MOST_SEARCHED = 10_000
#: What the program ``quote`` says of itself.
_NO_MODEL = "No language model was used: these are the passages that a search found, not an answer in words."
_ONLY_CLOUD = "The text is private, and no host of your own is there to read it."
_ADD_MODEL = "To have questions answered, add a model: rlmctl host add NAME URL"


async def run_quote(run: Run) -> Conclusion:
    """The program ``quote``: search, choose, and answer with verified quotes."""
    modelless = not run.candidates("root")
    if run.answer_type is not None:
        raise NoHost(
            "A typed answer needs a language model; the strategy quote gives passages.",
            hint="Add a model with `rlmctl host add NAME URL`, or ask without a schema.",
        )
    ending = [_NO_MODEL]
    if modelless and run.private and run.parts.pool.candidates("root"):
        ending.append(_ONLY_CLOUD)
    if modelless:
        silent = run.awaited("root")
        ending.append(f"No answer came from {', '.join(silent)}." if silent else _ADD_MODEL)
    run.note(" ".join(ending))
    check_question(run, _MOST_SEARCHED)
    chosen = await _chosen_passages(run)
    finder = Finder(run.contexts)
    citations: list[Citation] = []
    indents: dict[int, str] = {}
    for passage, start, end in chosen:
        span = Span(
            context=passage.context,
            document=passage.document,
            start=passage.start + start,
            end=passage.start + end,
        )
        if (citation := finder.verified(len(citations) + 1, span)) is not None:
            citations.append(citation)
            indents[citation.number] = _indent_before(run, span)
    return Conclusion(
        "answered" if citations else "none",
        quoted_answer(citations, indents, ending),
        "quoted by search, without a model" if citations else "the search found nothing",
        citations=tuple(citations),
        model_used=False,
    )


async def _chosen_passages(run: Run) -> list[tuple[SearchPassage, int, int]]:
    """What the caged program chose; its word is checked. Our own code may do it here where cells cannot run."""
    question = run.request.question
    try:
        report = await run.cells.run(quote_cell(question), 0, program="quote", output_chars=4000)
    except CageUnavailable as error:
        run.note(f"Cells cannot run here, so the search ran outside of one. {error.message} {error.hint}".strip())
        host = RunCellHost(0, "cell-0/output", run.asking, run.recorder)
        passages = await host.search(question, PASSAGES)
        texts = [_Placed(passage) for passage in passages]
        return [(passages[index], start, end) for index, start, end in choose_quotes(question, texts)]
    if report.final is None or run.cells.host is None:
        raise InternalError(f"The program quote failed: {report.error or 'it gave no answer'}.")
    passages = run.cells.host.passages
    chosen = []
    for index, start, end in json.loads(report.final.text):
        passage = passages[index]
        if 0 <= start < end <= len(passage.text):
            chosen.append((passage, start, end))
    return chosen


class _Placed(str):
    """A passage as the program sees one."""

    __slots__ = ("document", "end", "start")
    document: str
    start: int
    end: int

    def __new__(cls, passage: SearchPassage) -> _Placed:
        placed = super().__new__(cls, passage.text)
        placed.document, placed.start, placed.end = passage.document, passage.start, passage.end
        return placed


def quoted_answer(citations: Sequence[Citation], indents: Mapping[int, str], ending: Sequence[str]) -> str:
    """The answer of ``quote``: numbered quotes, and in ``ending`` what it is and what to do next.

    ``indents`` is the white space before a quote on its first line, by the citation's number.
    """
    last = "\n".join(ending)
    if not citations:
        return f"No passage of the text matches the words of the question.\n\n{last}"
    one = len(citations) == 1
    parts = ["The passage that matches the question best:" if one else "The passages that match the question best:"]
    for citation in citations:
        label = citation.locator.label if citation.locator else citation.document
        parts.append(f"[{citation.number}] {label}:\n{_as_block(indents.get(citation.number, '') + citation.quote)}")
    return "\n\n".join([*parts, last])


def _indent_before(run: Run, span: Span) -> str:
    """The white space before ``span`` on its line; empty when words stand there."""
    context = next(one for one in run.contexts if one.pin.context == span.context)
    before = context.read(span.document, max(0, span.start - 200), span.start)
    line = before[before.rfind("\n") + 1 :]
    return "" if line.strip() else line


def _as_block(quote: str) -> str:
    """As a quoted block, without the indentation that all its lines share."""
    lines = textwrap.dedent(quote.expandtabs(8)).strip("\n").split("\n")
    return "\n".join(f"> {line}".rstrip() for line in lines)
