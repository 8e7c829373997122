"""Citations: the quotes of an answer, found in the pinned contexts.

Models cite by quoting. Every quote of the answer is looked up exactly, then normalised; where the run knows spans
that a model was shown, these are looked at first. A quote that is not found stays in the list, marked.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from rlmd.engine.journal import clean
from rlmd.engine.parts import PinnedContext
from rlmd.errors import NotFound
from rlmd.events import Citation, Locator, Span

T = TypeVar("T")

#: Shorter quotes are words and names; they would be found anywhere and prove nothing.
_LEAST_CHARS = 12
_LEAST_WORDS = 2
_MOST_CHARS = 4000
#: An answer's quotes that are looked up; each may cost a search through the whole context.
_MOST_QUOTES = 40
#: Of a longer answer (a table from a variable) only the beginning is looked through.
_MOST_ANSWER = 50_000
#: Hints that are tried one by one before the contexts are searched.
_MOST_HINTS = 200
_HINT_CHARS = 200_000
_QUOTED = re.compile(
    r"“(?P<curly>[^“”]{2,})”"
    r"|«(?P<guillemets>[^«»]{2,})»"
    r"|(?<![\w\"])\"(?P<straight>(?:[^\"\n]|\n(?!\n)){2,}?)\"(?!\w)"
    r"|(?<!`)`(?P<code>[^`\n]{2,})`(?!`)",
)
_BLOCK = re.compile(r"(?:^[ \t]*>[^\n]*(?:\n|$))+", re.MULTILINE)
_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)^[ \t]*\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL)
_ELLIPSIS = re.compile(r"\s*(?:\[\s*(?:…|\.{3})\s*\]|…|\.{3,})\s*")


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote in an answer. ``claimed``: the form says that it is one (marks or a block), not mere code."""

    text: str
    claimed: bool = True


def quotes_in(answer: str) -> list[Quote]:
    """The quotes of an answer in order of appearance, each once."""
    found: list[tuple[int, Quote]] = []
    answer = answer[:_MOST_ANSWER]
    for block in _BLOCK.finditer(answer):
        text = "\n".join(line.lstrip()[1:].removeprefix(" ") for line in block[0].rstrip("\n").split("\n"))
        found.extend((block.start(), quote) for quote in _parts(_unquoted(text.strip()), claimed=True))
    rest = _BLOCK.sub(_blank, answer)
    for fenced in _FENCED.finditer(rest):
        found.extend((fenced.start(), quote) for quote in _parts(fenced[2].strip("\n"), claimed=False))
    rest = _FENCED.sub(_blank, rest)
    for match in _QUOTED.finditer(rest):
        text = next(group for group in match.groups() if group is not None)
        found.extend((match.start(), quote) for quote in _parts(text, claimed=match["code"] is None))
    found.sort(key=lambda pair: pair[0])
    return list({quote.text: quote for _, quote in reversed(found)}.values())[::-1][:_MOST_QUOTES]


def _parts(text: str, *, claimed: bool) -> Iterable[Quote]:
    """A quote with something left out is as many quotes as it has parts."""
    for part in _ELLIPSIS.split(text):
        part = part.strip()
        if _LEAST_CHARS <= len(part) <= _MOST_CHARS and len(part.split()) >= (_LEAST_WORDS if claimed else 1):
            yield Quote(part, claimed)


def _unquoted(text: str) -> str:
    for opening, closing in (('"', '"'), ("“", "”")):
        if text.startswith(opening) and text.endswith(closing) and len(text) > 2:
            return text[1:-1]
    return text


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


class Finder:
    """Looks quotes up in the contexts of a run.

    Args:
        contexts: The pinned contexts.
        hints: Stretches that models were shown, most telling first.
        threads: Where texts are read and looked through; without it that is done on the loop.
    """

    def __init__(
        self, contexts: Sequence[PinnedContext], hints: Sequence[Span] = (), threads: Executor | None = None
    ) -> None:
        self._threads = threads
        self._texts: list[tuple[Span, str]] | None = None
        self._contexts = {context.pin.context: context for context in contexts}
        self._hints = [span for span in hints if span.end - span.start <= _HINT_CHARS][:_MOST_HINTS]

    async def cite(self, answer: str) -> tuple[Citation, ...]:
        """Citations for an answer, numbered from 1. Code that is found nowhere was no quote and is left out."""
        citations: list[Citation] = []
        for quote in await self._in_thread(lambda: quotes_in(answer)):
            citation = await self.find(quote.text, len(citations) + 1)
            if citation.verified or quote.claimed:
                citations.append(citation)
        return tuple(citations)

    async def find(self, quote: str, number: int) -> Citation:
        """One quote's place: from the hints, exactly, or normalised."""
        span = await self._in_thread(lambda: self._among_hints(quote))
        if span is not None:
            return self.citation(number, quote, span, "exact")
        for context in self._contexts.values():
            if places := await context.find(quote, hint=None, limit=1):
                return self.citation(number, quote, places[0], "exact")
        for context in self._contexts.values():
            if places := await context.find_normalised(quote):
                return self.citation(number, quote, places[0], "normalised")
        return Citation(number=number, quote=clean(quote), verified=False, match="none")

    def verified(self, number: int, span: Span) -> Citation | None:
        """A citation for a known stretch, its quote read from the context; None where there is no such text."""
        context = self._contexts.get(span.context)
        if context is None or span.end <= span.start:
            return None
        try:
            text = context.read(span.document, span.start, span.end)
        except NotFound:
            return None
        return self.citation(number, text, span, "exact") if len(text) == span.end - span.start else None

    def citation(self, number: int, quote: str, span: Span, match: str) -> Citation:
        context = self._contexts[span.context]
        return Citation(
            number=number,
            quote=clean(quote),
            verified=True,
            match="exact" if match == "exact" else "normalised",
            context=span.context,
            revision=context.pin.revision,
            document=span.document,
            start=span.start,
            end=span.end,
            locator=locate(context, span),
        )

    def _among_hints(self, quote: str) -> Span | None:
        if self._texts is None:
            self._texts = [
                (hint, self._contexts[hint.context].read(hint.document, hint.start, hint.end))
                for hint in self._hints
                if hint.context in self._contexts
            ]
        for hint, text in self._texts:
            at = text.find(quote)
            if at >= 0:
                start = hint.start + at
                return Span(context=hint.context, document=hint.document, start=start, end=start + len(quote))
        return None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def locate(context: PinnedContext, span: Span) -> Locator:
    """``path:line`` where the document came from a file, else ``document:line``; page or heading where lines are not
    those of the file."""
    origin = context.document(span.document).origin
    path = clean(origin) if origin is not None and os.path.isabs(origin) else None
    shown = _shown(origin or span.document)
    page, heading = context.part_of(span.document, span.start)
    if page is not None:
        return Locator(label=clean(f"{shown}, page {page}"), path=path, page=page)
    if heading is not None:
        label = f"{shown} ({heading})" if heading else shown
        return Locator(label=clean(label), path=path, heading=clean(heading))
    line = context.line_of(span.document, span.start)
    return Locator(label=clean(f"{shown}:{line}"), path=path, line=line)


def _shown(origin: str) -> str:
    """A path as a person writes it."""
    home = os.path.expanduser("~")
    return "~" + origin[len(home) :] if origin.startswith(home + "/") else origin
