"""A context at one revision: what a run, a session and the quote finder read.

Reading goes to the blobs directly; finding goes to the helper process.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rlmd.contexts.blobs import Blobs
from rlmd.contexts.records import PinnedDocument
from rlmd.contexts.text import Ruler
from rlmd.errors import NotFound
from rlmd.events import Pin, Span
from rlmd.validation import did_you_mean

_LONGEST_HEADING = 200
_HEADING = re.compile(rf"^#{{1,6}} (.{{1,{_LONGEST_HEADING}}})", re.MULTILINE)
#: How far above a heading is looked for.
_HEADING_CHARS = 50_000
_RULERS_KEPT = 8
#: Formats whose lines are not those of the file.
_HEADED = frozenset({"html", "notebook", "docx", "odt", "epub"})


class Finder(Protocol):
    """What finds text in a pinned context without holding up the loop."""

    async def find(
        self, context: int, revision: int, quote: str, near: tuple[str, int, int] | None, limit: int
    ) -> list[Any]: ...

    async def find_normalised(self, context: int, revision: int, quote: str, limit: int) -> list[Any]: ...


@dataclass(frozen=True, slots=True, weakref_slot=True)
class PinnedContext:
    """``key`` is the catalogue's number of the context."""

    pin: Pin
    documents: Sequence[PinnedDocument]
    key: int
    _by_name: dict[str, PinnedDocument]
    _blobs: Blobs
    _finder: Finder
    #: By document: that of a gigabyte holds a megabyte of marks, which are not made anew for each look.
    _rulers: OrderedDict[str, Ruler] = field(default_factory=OrderedDict, repr=False, compare=False)

    def document(self, name: str) -> PinnedDocument:
        """The document of that name.

        Raises:
            NotFound: There is none in this revision.
        """
        try:
            return self._by_name[name]
        except KeyError as error:
            near = did_you_mean(name, self._by_name)
            raise NotFound(
                f"Context {self.pin.context!r} has no document of that name.",
                hint=f"{near}context/info lists its documents.",
            ) from error

    def open_blob(self, blob: str) -> int:
        """A new read-only descriptor of a blob; the caller closes it."""
        return self._blobs.open(blob)

    def read(self, document: str, start: int, end: int) -> str:
        """Code points ``start`` to ``end``, cut to the document. Some 50 µs; in a thread for more than a megabyte."""
        return self._ruler(self.document(document)).text(start, end)

    def line_of(self, document: str, start: int) -> int:
        """The line (from 1) of a code point. Some 50 µs, wherever it lies."""
        return self._ruler(self.document(document)).line_of(start)

    def part_of(self, document: str, start: int) -> tuple[int | None, str | None]:
        """The page (from 1) of a code point, if there are pages; and the heading above it, where lines are not those of
        the file: empty if there is none."""
        known = self.document(document)
        pages = array("Q", known.pages)
        if sys.byteorder == "big":  # pragma: no cover
            pages.byteswap()
        page = bisect_right(pages, start) or None
        if known.format not in _HEADED:
            return page, None
        first = max(0, start - _HEADING_CHARS)
        text = self.read(document, first, start + _LONGEST_HEADING)
        found = [one for one in _HEADING.finditer(text) if one.start() <= start - first]
        return page, found[-1][1].strip() if found else ""

    async def find(self, quote: str, *, hint: Span | None = None, limit: int = 3) -> list[Span]:
        """Places whose text is the quote; those nearest to ``hint`` first."""
        near = None if hint is None else (hint.document, hint.start, hint.end)
        places = await self._finder.find(self.key, self.pin.revision, quote, near, limit)
        return [self._span(place) for place in places]

    async def find_normalised(self, quote: str, *, limit: int = 3) -> list[Span]:
        """Places whose text is the quote but for white space, case, quotation marks, dashes or composition."""
        places = await self._finder.find_normalised(self.key, self.pin.revision, quote, limit)
        return [self._span(place) for place in places]

    def _span(self, place: Sequence[Any]) -> Span:
        return Span(context=self.pin.context, document=place[0], start=place[1], end=place[2])

    def _ruler(self, document: PinnedDocument) -> Ruler:
        ruler = self._rulers.pop(document.name, None)  # which must not know this object, that it would keep alive
        if ruler is None:
            ruler = Ruler(
                document.chars, document.bytes, document.marks, functools.partial(_bytes_of, self._blobs, document)
            )
        self._rulers[document.name] = ruler
        if len(self._rulers) > _RULERS_KEPT:
            self._rulers.popitem(last=False)
        return ruler


def _bytes_of(blobs: Blobs, document: PinnedDocument, start: int, end: int) -> bytes:
    pieces, before = [], 0
    for segment in document.segments:
        first, past = max(start - before, 0), min(end - before, segment.length)
        if first < past:
            pieces.append(_read_blob(blobs, segment.blob, segment.offset + first, past - first))
        before += segment.length
    return b"".join(pieces)


def _read_blob(blobs: Blobs, blob: str, offset: int, length: int) -> bytes:
    fd = blobs.open(blob)
    try:
        data = b""
        while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
            data += more
    finally:
        os.close(fd)
    return data
