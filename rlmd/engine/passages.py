"""Stretches of pinned contexts that a cell found, sent or printed: looked for, checked against the text, read again."""

from __future__ import annotations

from collections.abc import Sequence

from rlmd.engine.given import GivenContext
from rlmd.engine.journal import clean
from rlmd.engine.parts import ContextsPart, Hit, PinnedContext
from rlmd.errors import NotFound
from rlmd.events import Span
from rlmd.repl import SearchPassage

#: A hinted stretch longer than this is not checked; no model's useful window is larger.
_HINT_CHARS = 2_000_000
_MOST_SPANS = 64
_MOST_PASSAGES = 1000


async def passages_of(
    contexts: ContextsPart, pinned: Sequence[PinnedContext], query: str, k: int
) -> list[SearchPassage]:
    """The best ``k`` passages of these contexts, best first."""
    limit = max(1, min(k, _MOST_PASSAGES))
    passages: list[SearchPassage] = []
    for context in pinned:
        hits = await _hits(contexts, context, query, limit)
        passages.extend(
            SearchPassage(hit.context, hit.document, hit.start, hit.end, hit.text, hit.score, hit.line) for hit in hits
        )
    passages.sort(key=lambda passage: -passage.score)
    return passages[:limit]


async def _hits(contexts: ContextsPart, context: PinnedContext, query: str, limit: int) -> Sequence[Hit]:
    if isinstance(context, GivenContext):
        return await context.search(query, limit)
    hits, _ = await contexts.search(context, query, "bm25", limit)
    return hits


def verified(spans: Sequence[Span], prompt: str, contexts: Sequence[PinnedContext]) -> tuple[Span, ...]:
    """Those hinted stretches whose text really stands in the prompt; the hints come from the cell's process."""
    by_name = {context.pin.context: context for context in contexts}
    return tuple(span for span in spans[:_MOST_SPANS] if _stands_in(span, prompt, by_name))


def _stands_in(span: Span, prompt: str, contexts: dict[str, PinnedContext]) -> bool:
    context = contexts.get(span.context)
    length = span.end - span.start
    if context is None or span.start < 0 or not 0 < length <= min(len(prompt), _HINT_CHARS):
        return False
    try:
        text = context.read(span.document, span.start, span.end)
    except NotFound:
        return False
    return len(text) == length and clean(text) in prompt


def passages_at(spans: Sequence[Span], contexts: Sequence[PinnedContext]) -> list[SearchPassage]:
    """Passages found earlier, read again; how well they matched is not known any more."""
    by_name = {context.pin.context: context for context in contexts}
    found = []
    for span in spans:
        if (context := by_name.get(span.context)) is not None:
            text = context.read(span.document, span.start, span.end)
            line = context.line_of(span.document, span.start)
            found.append(SearchPassage(span.context, span.document, span.start, span.end, text, 0.0, line))
    return found


def span_of(passage: SearchPassage) -> Span:
    return Span(context=passage.context, document=passage.document, start=passage.start, end=passage.end)


def shown_in(output: str, passages: Sequence[SearchPassage]) -> tuple[Span, ...]:
    """Those passages that were printed, and so reach the root."""
    return tuple(dict.fromkeys(span_of(passage) for passage in passages if clean(passage.text) in output))
