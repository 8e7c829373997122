"""A regex that is late gives what it has found, and says truly how far it came."""

from __future__ import annotations

from rlmd.contexts.matching import Progress, regex_hits
from rlmd.contexts.records import PinnedDocument, Segment
from rlmd.contexts.shelf import Shelf, Volume
from rlmd.contexts.text import Ruler

TEXT = b"one match here\nnone there\nanother match\n"


class Held(Shelf):
    """Documents of one text, without a store."""

    def __init__(self) -> None:
        """Nothing is opened."""

    def view(self, document: PinnedDocument) -> memoryview:
        return memoryview(TEXT)

    def ruler(self, document: PinnedDocument) -> Ruler:
        return Ruler(document.chars, document.bytes, b"", lambda start, end: TEXT[start:end])


def volume(count: int) -> Volume:
    size = len(TEXT)
    return Volume(
        tuple(PinnedDocument(f"{n}.txt", None, "d", size, size, 0x7F, (Segment("b", 0, size),)) for n in range(count))
    )


def late_at(check: int) -> Progress:
    asked = iter(range(1, 1000))
    return Progress(lambda: next(asked) >= check)


def test_in_time_it_is_whole() -> None:
    progress = late_at(1000)
    hits, complete = regex_hits(Held(), volume(3), "match", 100, progress)
    assert (len(hits), complete, progress.stopped, progress.chars) == (6, True, False, 3 * len(TEXT))


def test_late_it_gives_what_it_has() -> None:
    """Asked before each document and before each hit: whenever it stops, the hits are the first ones."""
    whole, _ = regex_hits(Held(), volume(3), "match", 100, late_at(1000))
    for check in range(1, 10):
        progress = late_at(check)
        hits, complete = regex_hits(Held(), volume(3), "match", 100, progress)
        assert hits == whole[: len(hits)]
        assert (complete, progress.stopped) == (False, True)
        last = hits[-1]["matches"][-1][1] + TEXT.count(b"x") if hits else 0  # type: ignore[index]
        before = [hit["document"] for hit in hits]
        done = len(set(before)) - 1 if before else 0
        assert progress.chars >= done * len(TEXT) + last
        assert progress.chars <= 3 * len(TEXT)
    assert len({len(regex_hits(Held(), volume(3), "match", 100, late_at(n))[0]) for n in range(1, 10)}) == 6


def test_a_limit_is_not_lateness() -> None:
    progress = late_at(1000)
    hits, complete = regex_hits(Held(), volume(3), "match", 3, progress)
    assert (len(hits), complete, progress.stopped) == (3, False, False)
