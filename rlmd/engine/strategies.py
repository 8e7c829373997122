"""The ways to answer a question, and how ``auto`` chooses among them.

Each takes a run and gives a ``Conclusion``. ``FOLLOW`` is the table; ``conclude`` is what remains at a limit.
"""

from __future__ import annotations

import asyncio
import json
import math
import textwrap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rlmd.engine.cells import RunCellHost
from rlmd.engine.citations import Finder
from rlmd.engine.conclusion import Conclusion
from rlmd.engine.conversation import LEAST_WINDOW, Conversation
from rlmd.engine.finals import Accepted, judge
from rlmd.engine.parsing import read_reply
from rlmd.engine.parts import PinnedContext
from rlmd.engine.programs import PASSAGES, map_cell, quote_cell
from rlmd.engine.programs.quote import choose as choose_quotes
from rlmd.engine.prompts import direct_prompt
from rlmd.engine.root import Root
from rlmd.engine.tokens import tokens_of
from rlmd.errors import (
    CageUnavailable,
    CompletionCut,
    InternalError,
    LimitReached,
    NoHost,
    PromptTooLong,
    PromptTruncated,
    RlmdError,
    TooLarge,
)
from rlmd.events import Citation, Span, Strategy
from rlmd.providers.base import Message
from rlmd.repl import SearchPassage

if TYPE_CHECKING:
    from rlmd.engine.run import Run

#: Pieces up to which mapping all of them is cheaper than exploring: two rounds of the slots, and never many.
_FEW_ROUNDS, _FEW_PIECES = 2, 12
#: No tokenizer makes more characters of a token than this on real text; beyond it a text surely does not fit.
_MOST_CHARS_PER_TOKEN = 8
#: A text of more characters is read in a thread.
_INLINE_READ = 100_000
#: Seconds that a last root call may take after the time is over: a tenth of the limit within these bounds.
_LEAST_GRACE, _MOST_GRACE = 10.0, 120.0
#: Characters of a question that a search takes.
_MOST_SEARCHED = 10_000
#: What the program ``quote`` says of itself.
_NO_MODEL = "No language model was used: these are the passages that a search found, not an answer in words."
_ONLY_CLOUD = "The text is private, and no host of your own is there to read it."
_ADD_MODEL = "To have questions answered, add a model: rlmctl host add NAME URL"


async def choose(run: Run) -> tuple[Strategy, str]:
    """Fits the useful window → direct; few pieces → map; else rlm. Without a model → quote."""
    roots = run.candidates("root")
    chars = sum(context.pin.chars for context in run.contexts)
    if not roots:
        return "quote", "there is no language model to ask"
    root = roots[0]
    if await _fits(run, root.useful_window):
        return "direct", f"{chars:,} characters fit the useful window of {root.useful_window:,} tokens"
    facts = run.sub_facts
    pieces = math.ceil(chars / facts.piece_chars) if facts else 0
    if root.window < LEAST_WINDOW and facts:
        return "map", f"the root's window of {root.window:,} tokens is too small to explore with"
    if facts and pieces <= min(_FEW_PIECES, _FEW_ROUNDS * facts.slots, facts.sub_queries - 2):
        return "map", f"{chars:,} characters are only {pieces} pieces"
    return "rlm", f"{chars:,} characters are far more than {root.model} reads at once"


async def answer(run: Run) -> Conclusion:
    """Follows the strategy that was asked for, or the one that ``auto`` chooses; each choice is a fact."""
    if run.request.strategy != "auto":
        run.chosen(run.request.strategy, "asked for")
        return await FOLLOW[run.request.strategy](run)
    strategy, why = await choose(run)
    run.chosen(strategy, why)
    try:
        return await FOLLOW[strategy](run)
    except (PromptTooLong, PromptTruncated) as error:
        if strategy != "direct":
            raise
        run.chosen("rlm", f"it did not fit after all: {error.message}")
        return await converse(run)


async def _fits(run: Run, tokens: int) -> bool:
    chars = sum(context.pin.chars for context in run.contexts)
    if chars > _MOST_CHARS_PER_TOKEN * tokens:
        return False
    return tokens_of(await _whole_text(run)) + tokens_of(run.request.question) <= tokens


async def _whole_text(run: Run) -> str:
    chars = sum(context.pin.chars for context in run.contexts)
    if chars <= _INLINE_READ:
        return _joined(run.contexts)
    return await asyncio.get_running_loop().run_in_executor(run.parts.threads, _joined, run.contexts)


def _joined(contexts: Sequence[PinnedContext]) -> str:
    """All documents, each under its name when there are several."""
    documents = [(context, document) for context in contexts for document in context.documents]
    texts = [context.read(document.name, 0, document.chars) for context, document in documents]
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"=== {document.name} ===\n{text}" for (_, document), text in zip(documents, texts, strict=True))


# ── direct ──────────────────────────────────────────────────────────────────────────────────────────────────


async def answer_directly(run: Run) -> Conclusion:
    """One streamed completion over the whole text."""
    root = Root(run)
    messages = (Message("user", direct_prompt(await _whole_text(run), run.request.question)),)

    def build(budget: int) -> tuple[Message, ...]:
        tokens = root.meter.of(messages)
        if tokens > budget:
            raise PromptTooLong(
                f"The text and the question take about {tokens:,} tokens; {budget:,} are free in the root's window.",
                hint="Ask with the strategy auto, rlm or map.",
                tokens=tokens,
                window=root.window,
            )
        return messages

    build(root.budget)
    run.purse.claim("turns")
    said = await root.ask(1, build)
    text = _unwrapped(said.reply.text, said.raw)
    if not said.whole:
        why = f"the reply was cut at {said.tokens:,} tokens"
        cut = CompletionCut(f"{why[0].upper()}{why[1:]}.", hint="Raise max_tokens of the model, or ask for less.")
        return Conclusion("partial", text, why, stream=said.stream if text == said.raw else None, error=cut)
    if not text:
        return Conclusion("none", "", "the model's reply was empty")
    return Conclusion("answered", text, "answered directly", stream=said.stream if text == said.raw else None)


def _unwrapped(text: str, raw: str) -> str:
    """The reply as an answer: without FINAL(...) if it is nothing else, and as it was streamed if it is the same."""
    reply = read_reply(text)
    if text.lstrip().startswith(("FINAL(", "SUBMIT(")):
        verdict = judge(reply.finals, ran_cells=False, cell_failed=False, anything_executed=True, variables=())
        if isinstance(verdict, Accepted) and verdict.literal is not None:
            return verdict.literal.strip()
    return raw if text.strip() == raw.strip() else text.strip()


# ── rlm ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def converse(run: Run) -> Conclusion:
    """Turns of a root that explores by code."""
    run.conversation = Conversation(run)
    return await run.conversation.answer()


async def conclude(run: Run, limit: LimitReached) -> Conclusion:
    """At a limit: the answer as it stands, else a last root call over the findings, else an honest none."""
    if run.answer:
        return Conclusion("partial", run.answer, limit.message, error=limit)
    if run.conversation is not None and run.conversation.begun:
        grace = min(_MOST_GRACE, max(_LEAST_GRACE, run.purse.limits.seconds / 10))
        try:
            async with asyncio.timeout(grace):
                text = await run.conversation.last_word(limit)
        except (RlmdError, TimeoutError):
            text = None
        if text:
            return Conclusion("partial", text, limit.message, error=limit)
    return Conclusion("none", f"No answer was found. {limit.message}", limit.message, error=limit, citations=())


# ── map ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def run_map(run: Run) -> Conclusion:
    """The program ``map``: all pieces are asked, then combined."""
    if run.sub_facts is None:
        raise NoHost(
            "No model may and can take the sub-queries of this run.",
            hint="Add one with `rlmctl host add NAME URL`, or ask with the strategy quote, which needs no model.",
        )
    _check_question(run, run.sub_facts.piece_chars)
    source = map_cell(run.request.question, run.sub_facts.piece_chars)
    report = await run.run_cell(
        source, 0, program="map", output_chars=run.parts.settings.repl.output_chars, seconds=run.purse.limits.seconds
    )
    text = report.final.text.strip() if report.final else ""
    if run.asking.limit is not None:
        return (
            Conclusion("partial", text, run.asking.limit.message, error=run.asking.limit)
            if text
            else await conclude(run, run.asking.limit)
        )
    if not text:
        return Conclusion("none", "", f"the program failed: {report.error or 'no answer'}", citations=())
    if run.host is not None and (failed := sum(run.host.failures.values())):
        return Conclusion("partial", text, f"{failed:,} of {run.host.asked:,} sub-queries failed")
    return Conclusion("answered", text, "answered by the program map")


def _check_question(run: Run, chars: int) -> None:
    """The programs hand the question on whole, to each sub-query or to the search."""
    if len(run.request.question) > chars:
        raise TooLarge(
            f"The question has {len(run.request.question):,} characters; here it may have {chars:,}.",
            hint="Put its long part into a context of its own and refer to that.",
            chars=len(run.request.question),
            allowed=chars,
        )


# ── quote ───────────────────────────────────────────────────────────────────────────────────────────────────


async def run_quote(run: Run) -> Conclusion:
    """The program ``quote``: search, choose, and answer with verified quotes."""
    modelless = not run.candidates("root")
    ending = [_NO_MODEL]
    if modelless and run.private and run.parts.pool.candidates("root"):
        ending.append(_ONLY_CLOUD)
    if modelless:
        ending.append(_ADD_MODEL)
    run.note(" ".join(ending))
    _check_question(run, _MOST_SEARCHED)
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
        report = await run.run_cell(quote_cell(question), 0, program="quote", output_chars=4000)
    except CageUnavailable as error:
        run.note(f"Cells cannot run here, so the search ran outside of one. {error.message} {error.hint}".strip())
        host = RunCellHost(0, "cell-0/output", run.asking, run.recorder)
        passages = await host.search(question, PASSAGES)
        texts = [_Placed(passage) for passage in passages]
        return [(passages[index], start, end) for index, start, end in choose_quotes(question, texts)]
    if report.final is None or run.host is None:
        raise InternalError(f"The program quote failed: {report.error or 'it gave no answer'}.")
    passages = run.host.passages
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


# ── execute ─────────────────────────────────────────────────────────────────────────────────────────────────


async def run_execute(run: Run) -> Conclusion:
    """One cell that a client wrote."""
    report = await run.run_cell(run.request.question, 0, output_chars=run.parts.settings.repl.output_chars)
    text = report.final.text if report.final else ""
    if not report.ok:
        return Conclusion("none", text, report.error or "the cell failed", citations=())
    return Conclusion("answered", text, "the cell ran", citations=())


FOLLOW: dict[Strategy, Callable[[Run], Awaitable[Conclusion]]] = {
    "direct": answer_directly,
    "rlm": converse,
    "map": run_map,
    "quote": run_quote,
    "execute": run_execute,
}
