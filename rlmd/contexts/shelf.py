"""The helper process's view of the contexts: documents of a revision, their bytes mapped, read-only.

Runs in the helper alone. Keeps the last few revisions and blobs open between requests.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlmd.contexts.catalogue import DOCUMENT_COLUMNS, HOLDS, document_of
from rlmd.contexts.records import PinnedDocument
from rlmd.contexts.text import Ruler
from rlmd.errors import NotFound

_REVISIONS_KEPT = 4
_BLOBS_KEPT = 64
#: Of a document that grew, and lies in several places, so many bytes are looked through at once; a match that begins in
#: them is followed so much further, and ``\\b`` sees the character before them.
STRETCH_BYTES, AHEAD_BYTES, _BEHIND = 32 << 20, 4 << 20, 4


class Volume:
    """The documents of one revision, and which of them holds a byte of a blob."""

    def __init__(self, documents: tuple[PinnedDocument, ...]) -> None:
        self.documents = documents
        self._by_blob: dict[str, tuple[list[int], list[tuple[int, int, int]]]] = {}
        places: dict[str, list[tuple[int, int, int, int]]] = {}
        for number, document in enumerate(documents):
            before = 0
            for s in document.segments:
                places.setdefault(s.blob, []).append((s.offset, s.length, number, before))
                before += s.length
        for blob, spans in places.items():
            spans.sort()
            self._by_blob[blob] = [s[0] for s in spans], [s[1:] for s in spans]

    @property
    def blobs(self) -> list[str]:
        return list(self._by_blob)

    def at(self, blob: str, offset: int, length: int) -> tuple[PinnedDocument, int] | None:
        """The document that holds these bytes of a blob whole, and where in its own bytes they begin."""
        starts, spans = self._by_blob[blob]
        index = bisect_right(starts, offset) - 1
        if index < 0:
            return None
        size, number, before = spans[index]
        within = offset - starts[index]
        return (self.documents[number], before + within) if within + length <= size else None


class Stretch(NamedTuple):
    """``data`` are a document's bytes from ``base`` on; what begins at ``cut`` or later is the next stretch's."""

    data: memoryview
    base: int
    cut: int


class Shelf:
    """Args:
    contexts_folder: Where catalogue and blobs are; None: they are in the daemon's memory, as ``see`` tells.
    """

    def __init__(self, contexts_folder: Path | None) -> None:
        if contexts_folder is None:
            self._db = sqlite3.connect(":memory:")
        else:
            self._blobs_folder = contexts_folder / "blobs"
            self._db = sqlite3.connect(f"file:{contexts_folder / 'catalogue.sqlite'}?mode=ro", uri=True, timeout=10)
        self._in_memory: dict[str, str] = {}
        self._version = 0
        self._volumes: OrderedDict[tuple[int, int], Volume] = OrderedDict()
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()

    def see(self, version: int, catalogue: str, blobs: dict[str, str]) -> None:
        """Takes the catalogue from a file in the daemon's memory, if it is another than before."""
        self._in_memory = blobs
        if version != self._version:
            self._db.deserialize(Path(catalogue).read_bytes())
            self._version = version

    def volume(self, context: int, revision: int) -> Volume:
        key = (context, revision)
        if key not in self._volumes:
            rows = self._db.execute(
                f"SELECT {DOCUMENT_COLUMNS} FROM documents WHERE {HOLDS} ORDER BY name",  # noqa: S608
                (context, revision, revision),
            )
            self._volumes[key] = Volume(tuple(map(document_of, rows)))
            while len(self._volumes) > _REVISIONS_KEPT:
                self._volumes.popitem(last=False)
        self._volumes.move_to_end(key)
        return self._volumes[key]

    def forget(self, context: int) -> None:
        """Lets go of a dropped context, so that its blobs' space is freed."""
        for key in [k for k in self._volumes if k[0] == context]:
            del self._volumes[key]
        self._maps.clear()

    def mapped(self, blob: str) -> mmap.mmap:
        if blob not in self._maps:
            try:
                fd = self._open(blob)
            except (OSError, KeyError) as error:
                raise NotFound("The context's text is no longer stored.", hint="Load the context again.") from error
            try:
                self._maps[blob] = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
            finally:
                os.close(fd)
            while len(self._maps) > _BLOBS_KEPT:
                self._maps.popitem(last=False)
        self._maps.move_to_end(blob)
        return self._maps[blob]

    def _open(self, blob: str) -> int:
        if self._version:
            return os.open(self._in_memory[blob], os.O_RDONLY | os.O_CLOEXEC)
        return os.open(self._blobs_folder / blob[:2] / blob, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def bytes_of(self, document: PinnedDocument, start: int = 0, end: int | None = None) -> bytes:
        """A stretch of a document's bytes, copied."""
        end = document.bytes if end is None else min(end, document.bytes)
        pieces, before = [], 0
        for s in document.segments:
            a, b = max(start - before, 0), min(end - before, s.length)
            if a < b:
                pieces.append(self.mapped(s.blob)[s.offset + a : s.offset + b])
            before += s.length
        return b"".join(pieces)

    def view(self, document: PinnedDocument, start: int = 0, end: int | None = None) -> memoryview:
        """A stretch of a document's bytes, without a copy when they lie in one place."""
        end, before = document.bytes if end is None else end, 0
        for s in document.segments:
            if before <= start and end <= before + s.length:
                first = s.offset + start - before
                return memoryview(self.mapped(s.blob))[first : first + end - start]
            before += s.length
        return memoryview(self.bytes_of(document, start, end))

    def stretches(self, document: PinnedDocument, start: int = 0) -> Iterator[Stretch]:
        """A document's bytes from one on: all at once where they lie in one place, else stretch by stretch, so that no
        more than one of them is copied."""
        if len(document.segments) <= 1:
            yield Stretch(self.view(document), 0, document.bytes + 1)
            return
        while start <= document.bytes:
            base, cut = max(0, start - _BEHIND), start + STRETCH_BYTES
            end = min(document.bytes, cut + AHEAD_BYTES)
            yield Stretch(self.view(document, base, end), base, cut if end < document.bytes else document.bytes + 1)
            start = cut if end < document.bytes else document.bytes + 1

    def ruler(self, document: PinnedDocument) -> Ruler:
        return Ruler(
            document.chars, document.bytes, document.marks, lambda start, end: self.bytes_of(document, start, end)
        )
