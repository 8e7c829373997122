"""What changed between two revisions: documents, and lines of each. Runs in the helper.

A line counts as added when it stands more often in the new text than in the old, and as removed the other way round;
one that only moved counts as neither. That takes time in proportion to the texts, where the shortest edit of two
million lines would take minutes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from rlmd.contexts.records import PinnedDocument
from rlmd.contexts.shelf import Shelf, Volume


def compare(shelf: Shelf, before: Volume, after: Volume, start: int, limit: int) -> dict[str, Any]:
    """Counts of all documents that differ, and ``limit`` of them by name, from ``start`` on, with their lines."""
    old = {document.name: document for document in before.documents}
    new = {document.name: document for document in after.documents}
    told = [{(document.name, document.digest) for document in volume.documents} for volume in (before, after)]
    differing = sorted({name for name, _ in told[0] ^ told[1]})
    return {
        "added": sum(name not in old for name in differing),
        "removed": sum(name not in new for name in differing),
        "changed": sum(name in old and name in new for name in differing),
        "documents": [_change(shelf, name, old.get(name), new.get(name)) for name in differing[start : start + limit]],
    }


def _change(shelf: Shelf, name: str, old: PinnedDocument | None, new: PinnedDocument | None) -> dict[str, Any]:
    before, after = _lines(shelf, old), _lines(shelf, new)
    return {
        "name": name,
        "change": "added" if old is None else "removed" if new is None else "changed",
        "lines_added": (after - before).total(),
        "lines_removed": (before - after).total(),
    }


def _lines(shelf: Shelf, document: PinnedDocument | None) -> Counter[bytes]:
    if document is None:
        return Counter()
    lines = bytes(shelf.view(document)).split(b"\n")
    return Counter(lines if lines[-1] else lines[:-1])
