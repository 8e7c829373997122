"""The context of a child run that was given text: in memory alone, gone with the run.

It is read, searched and sent to a worker like a pinned context of the store, and remembers which stretches of its
parent's contexts its documents are, so that what the child reads counts as read by the parent.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

from rlmd.contexts.matching import compiled, tolerant_pattern
from rlmd.contexts.passages import Passage, passages, syntax_of
from rlmd.contexts.text import encode
from rlmd.contexts.words import WORD, query_words, spelled_out
from rlmd.engine.journal import clean
from rlmd.engine.parts import PinnedContext
from rlmd.errors import NotFound, TooLarge
from rlmd.events import Pin, Span, digest_of

NAME = "given"
#: Characters that one child may be given: they are held in memory, once here and once in its worker.
MOST_CHARS = 8_000_000
#: A quote of more characters is looked for as it stands only: its pattern would be too large.
_TOLERANT_CHARS = 400
_K1, _B = 1.2, 0.75


@dataclass(frozen=True, slots=True)
class Segment:
    blob: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Hit:
    context: str
    document: str
    start: int
    end: int
    text: str
    score: float
    line: int


@dataclass(frozen=True)
class GivenDocument:
    """``source`` is where its text stands in the parent's contexts; None for text that a cell made."""

    name: str
    text: str
    origin: str | None = None
    source: Span | None = None

    @property
    def chars(self) -> int:
        return len(self.text)

    @cached_property
    def data(self) -> bytes:
        return encode(self.text)

    @property
    def bytes(self) -> int:
        return len(self.data)

    @cached_property
    def max_codepoint(self) -> int:
        return ord(max(self.text, default="\0"))

    @property
    def segments(self) -> tuple[Segment, ...]:
        return (Segment(self.name, 0, self.bytes),)

    @cached_property
    def lines(self) -> list[int]:
        """Where each line begins."""
        starts = [0]
        for line in self.text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts

    @cached_property
    def passages(self) -> list[tuple[Passage, Counter[str]]]:
        """Stretches to be found by a search, with their words."""
        return [
            (one, Counter(word.lower() for word in WORD.findall(spelled_out(one.text))))
            for one in passages(self.text.splitlines(keepends=True), syntax_of(self.name))
        ]


class GivenContext:
    """Args:
    documents: At least one; their names differ.
    private, ephemeral: Whether their text is.
    threads: Where they are searched.
    """

    def __init__(
        self, documents: Sequence[GivenDocument], *, private: bool, threads: Executor, ephemeral: bool = False
    ) -> None:
        self.documents = tuple(documents)
        self._by_name = {document.name: document for document in documents}
        self._threads = threads
        self.pin = Pin(
            context=NAME,
            revision=1,
            kind="text" if len(documents) == 1 else "collection",
            private=private,
            ephemeral=ephemeral,
            documents=len(documents),
            chars=sum(document.chars for document in documents),
            digest=digest_of("\0".join(document.text for document in documents)),
        )

    def document(self, name: str) -> GivenDocument:
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFound(f"Context {NAME!r} has no document of that name.") from None

    def open_blob(self, blob: str) -> int:
        """The document's text as a sealed file in memory; the caller closes it."""
        descriptor = os.memfd_create("rlmd-given", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(self.document(blob).data)
            while view:
                view = view[os.write(descriptor, view) :]
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def read(self, document: str, start: int, end: int) -> str:
        return self.document(document).text[max(0, start) : end]

    def line_of(self, document: str, start: int) -> int:
        return max(1, bisect_right(self.document(document).lines, start))

    def part_of(self, document: str, start: int) -> tuple[int | None, str | None]:
        return None, None

    async def find(self, quote: str, *, hint: Span | None = None, limit: int = 3) -> list[Span]:
        found = ((one, one.text.find(quote)) for one in self.documents)
        return [self._span(one, at, at + len(quote)) for one, at in found if at >= 0][:limit]

    async def find_normalised(self, quote: str) -> list[Span]:
        if len(quote) > _TOLERANT_CHARS:
            return []
        pattern = compiled(tolerant_pattern(quote))
        matches = ((one, pattern.search(clean(one.text))) for one in self.documents)
        return [self._span(one, *match.span()) for one, match in matches if match and match.group()][:3]

    async def search(self, query: str, limit: int) -> list[Hit]:
        """The best passages by BM25 (Robertson and Zaragoza, 2009), best first."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ranked, query, limit)

    def _ranked(self, query: str, limit: int) -> list[Hit]:
        every = [(document, *one) for document in self.documents for one in document.passages]
        if not every:
            return []
        mean = sum(words.total() for _, _, words in every) / len(every) or 1.0
        scores = [0.0] * len(every)
        for word in query_words(query):
            holding = sum(word in words for _, _, words in every)
            rarity = math.log(1 + (len(every) - holding + 0.5) / (holding + 0.5))
            for number, (_, _, words) in enumerate(every):
                if count := words[word]:
                    length = 1 - _B + _B * words.total() / mean
                    scores[number] += rarity * count * (_K1 + 1) / (count + _K1 * length)
        best = sorted((number for number, score in enumerate(scores) if score), key=lambda n: -scores[n])[:limit]
        return [
            Hit(NAME, document.name, one.start, one.end, document.text[one.start : one.end], scores[number], one.line)
            for number in best
            for document, one, _ in (every[number],)
        ]

    def sources(self, read: Iterable[Span]) -> list[Span]:
        """The same stretches in the parent's contexts, as far as they stand there."""
        found = []
        for span in read:
            source = self.document(span.document).source
            if source is not None:
                start = source.start + span.start
                found.append(source.model_copy(update={"start": start, "end": start + span.end - span.start}))
        return found

    @staticmethod
    def _span(document: GivenDocument, start: int, end: int) -> Span:
        return Span(context=NAME, document=document.name, start=start, end=end)


def given_documents(parts: Sequence[Span | str], contexts: Sequence[PinnedContext]) -> list[GivenDocument]:
    """The documents that a child is given; reads its parent's contexts, so a matter for a thread.

    Raises:
        TooLarge: They are more than fit in memory.
        NotFound: A stretch lies in no context of the parent.
    """
    chars = sum(len(part) if isinstance(part, str) else part.end - part.start for part in parts)
    if chars > MOST_CHARS:
        raise TooLarge(
            f"{chars:,} characters were given to a child run; it may have {MOST_CHARS:,}.",
            hint="Leave context out: the child then has all contexts.",
            chars=chars,
            allowed=MOST_CHARS,
        )
    by_name = {context.pin.context: context for context in contexts}
    documents: dict[str, GivenDocument] = {}
    for part in parts:
        made = _document(part, len(documents) + 1, by_name)
        name = made.name if made.name not in documents else f"{made.name} ({len(documents) + 1})"
        documents[name] = GivenDocument(name, made.text, made.origin, made.source)
    return list(documents.values()) or [GivenDocument("text 1", "")]


def _document(part: Span | str, number: int, contexts: dict[str, PinnedContext]) -> GivenDocument:
    if isinstance(part, str):
        return GivenDocument(f"text {number}", part)
    context = contexts.get(part.context)
    if context is None:
        raise NotFound("A piece of a context that this run does not have was given to a child.")
    document = context.document(part.document)
    text = context.read(part.document, part.start, part.end)
    whole = part.start == 0 and part.end == document.chars
    name = part.context if context.pin.kind == "text" else part.document
    if not whole:
        name = f"{name}:{context.line_of(part.document, part.start)}"
    return GivenDocument(name, text, document.origin, part)
