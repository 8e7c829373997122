"""Getting contexts into a worker: documents in frames, blobs as descriptors, room for the text (parent side)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence

from rlmd.repl.base import ContextSource, DocumentLike
from rlmd.repl.channel import Header
from rlmd.repl.process import MOST_AT_ONCE

#: Documents of one frame: writing it takes some 2 ms.
_DOCUMENTS = 1000


def frames_of(source: ContextSource) -> Iterable[tuple[Header, list[int]]]:
    """The frames that carry a context, each with the descriptors that go with it."""
    first = True
    for part in _parts(source.documents):
        blobs = list(dict.fromkeys(segment.blob for document in part for segment in document.segments))
        index = {blob: position for position, blob in enumerate(blobs)}
        docs = [[d.name, d.origin, [[index[s.blob], s.offset, s.length] for s in d.segments]] for d in part]
        header = {
            "t": "documents",
            "context": source.pin.context,
            "kind": source.pin.kind,
            "first": first,
            "docs": docs,
        }
        yield header, _open_all(source, blobs)
        first = False


def _parts(documents: Sequence[DocumentLike]) -> Iterable[list[DocumentLike]]:
    """The documents in parts that fit one frame each; at least one part, so that an empty context exists too."""
    part: list[DocumentLike] = []
    blobs: set[str] = set()
    for document in documents:
        more = {segment.blob for segment in document.segments} - blobs
        if part and (len(part) >= _DOCUMENTS or len(blobs) + len(more) > MOST_AT_ONCE):
            yield part
            part, blobs, more = [], set(), {segment.blob for segment in document.segments}
        part.append(document)
        blobs |= more
    yield part


def _open_all(source: ContextSource, blobs: Sequence[str]) -> list[int]:
    opened: list[int] = []
    try:
        for blob in blobs:
            opened.append(source.open_blob(blob))  # noqa: PERF401  those before a failure must be closed
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise
    return opened


async def sizes_of(documents: Sequence[DocumentLike]) -> tuple[dict[str, int], int]:
    """Characters of each by name, and what all take as Python strings; a stretch at a time, because a hundred thousand
    would hold the loop for 40 ms."""
    chars: dict[str, int] = {}
    strings = 0
    for at in range(0, len(documents), _DOCUMENTS):
        part = documents[at : at + _DOCUMENTS]
        chars.update((one.name, one.chars) for one in part)
        strings += sum(map(string_bytes, part))
        await asyncio.sleep(0)
    return chars, strings


def string_bytes(document: DocumentLike) -> int:
    """What the document takes as a Python string: 1, 2 or 4 bytes a character by its highest one."""
    highest = document.max_codepoint
    return document.chars * (1 if highest < 0x100 else 2 if highest < 0x10000 else 4) + 200
