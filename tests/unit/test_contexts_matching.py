"""A regex that is late gives what it has found, and says truly how far it came."""

from __future__ import annotations

import pytest

from rlmd.contexts.matching import START, Progress, Start, regex_hits
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
    hits, rest = regex_hits(Held(), volume(3), "match", 100, progress)
    assert (len(hits), rest, progress.stopped, progress.chars) == (6, None, False, 3 * len(TEXT))


def test_late_it_gives_what_it_has() -> None:
    """Asked before each document and before each hit: whenever it stops, the hits are the first ones."""
    whole, _ = regex_hits(Held(), volume(3), "match", 100, late_at(1000))
    for check in range(1, 10):
        progress = late_at(check)
        hits, rest = regex_hits(Held(), volume(3), "match", 100, progress)
        assert hits == whole[: len(hits)]
        assert (rest is not None, progress.stopped) == (True, True)
        again, _ = regex_hits(Held(), volume(3), "match", 100, late_at(1000), rest)
        assert hits + again == whole, "what comes after it is all the rest"
        last = hits[-1]["matches"][-1][1] + TEXT.count(b"x") if hits else 0  # type: ignore[index]
        before = [hit["document"] for hit in hits]
        done = len(set(before)) - 1 if before else 0
        assert progress.chars >= done * len(TEXT) + last
        assert progress.chars <= 3 * len(TEXT)
    assert len({len(regex_hits(Held(), volume(3), "match", 100, late_at(n))[0]) for n in range(1, 10)}) == 6


def test_a_limit_is_not_lateness() -> None:
    progress = late_at(1000)
    hits, rest = regex_hits(Held(), volume(3), "match", 3, progress)
    assert (len(hits), rest is None, progress.stopped) == (3, False, False)


def pages(pattern: str, count: int, size: int) -> list[dict[str, object]]:
    """All hits, page by page."""
    hits: list[dict[str, object]] = []
    start: Start | None = START
    while start is not None:
        more, start = regex_hits(Held(), volume(count), pattern, size, late_at(1000), start, page=True)
        hits += more
        assert len(more) == size or start is None
    return hits


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "pattern", ["match", "e", r"^\w", r"\b\w+$", "here\nnone", r"r\w*|\n", "(?s)match.*none", "zzz"]
)
def test_pages_together_are_the_whole(pattern: str, size: int) -> None:
    """Several matches in a line, matches over line ends, and what looks at its neighbours."""
    whole, _ = regex_hits(Held(), volume(3), pattern, 1000, late_at(1000))
    assert pages(pattern, 3, size) == whole


def test_a_page_is_there_before_the_next_match_was_looked_for() -> None:
    progress = late_at(1000)
    hits, rest = regex_hits(Held(), volume(3), "one match", 1, progress, START, page=True)
    assert (len(hits), rest) == (1, (0, len("one match here")))
    assert progress.chars == len("one match")
