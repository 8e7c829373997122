"""A regex that is late gives what it has found, and says truly how far it came."""

from __future__ import annotations

import pytest

from rlmd.contexts import matching, shelf
from rlmd.contexts.matching import START, Progress, Start, find_exact, find_normalised, regex_hits
from rlmd.contexts.records import PinnedDocument, Segment
from rlmd.contexts.shelf import Shelf, Volume
from rlmd.contexts.text import Ruler

TEXT = b"one match here\nnone there\nanother match\n"


class Held(Shelf):
    """Documents of one text, without a store."""

    def __init__(self) -> None:
        """Nothing is opened."""
        self.copied: list[int] = []

    def mapped(self, blob: str) -> bytes:  # type: ignore[override]
        return TEXT

    def bytes_of(self, document: PinnedDocument, start: int = 0, end: int | None = None) -> bytes:
        data = super().bytes_of(document, start, end)
        self.copied.append(len(data))
        return data

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


# ── a document in several places ────────────────────────────────────────────────────────────────────────────


def grown(*cuts: int) -> Volume:
    """One document whose bytes lie in several places, as those of a file that grew."""
    size, ends = len(TEXT), [*cuts, len(TEXT)]
    segments = tuple(Segment("b", at, end - at) for at, end in zip([0, *cuts], ends, strict=True))
    return Volume((PinnedDocument("0.txt", None, "d", size, size, 0x7F, segments),))


@pytest.mark.parametrize("stretch", [1, 5, 16, 1000])
@pytest.mark.parametrize(
    "pattern",
    ["match", "e", r"^\w", r"\b\w+$", "here\nnone", r"r\w*|\n", r"\Aone", "(?s)match.*none", r"h\z", "[a-z ]+"],
)
def test_a_grown_text_is_searched_as_one_that_lies_in_one_place(
    pattern: str, stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stretch by stretch, with matches over their borders, and what looks at its neighbours there."""
    monkeypatch.setattr(shelf, "STRETCH_BYTES", stretch)
    monkeypatch.setattr(shelf, "AHEAD_BYTES", 16)
    whole, _ = regex_hits(Held(), volume(1), pattern, 1000, late_at(1000))
    for cuts in ((7,), (3, 15, 16), (14, 15, 30)):
        hits, rest = regex_hits(Held(), grown(*cuts), pattern, 1000, late_at(1000))
        assert (hits, rest) == (whole, None)


def test_of_a_grown_text_no_more_than_a_stretch_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte that a log grew to was copied for each page of hits."""
    monkeypatch.setattr(shelf, "STRETCH_BYTES", 8)
    monkeypatch.setattr(shelf, "AHEAD_BYTES", 2)
    held = Held()
    regex_hits(held, grown(7, 20), "zzz", 10, late_at(1000))
    assert held.copied
    assert max(held.copied) <= 8 + 2 + 4
    assert [hit[1:] for hit in find_normalised(held, grown(7, 20), "Another", 5)] == [(26, 33)]


def test_of_several_places_the_nearest_comes_first() -> None:
    """Behind the hint or before it."""
    for near, places in ((8, [4, 34]), (30, [34, 4]), (0, [4, 34]), (18, [4, 34]), (20, [34, 4])):
        found = find_exact(Held(), grown(), "match", ("0.txt", near, near + 1), 5)
        assert [start for _, start, _ in found] == places
        assert find_exact(Held(), grown(), "match", ("0.txt", near, near + 1), 1) == found[:1]


def test_a_quote_over_several_borders_is_found_once() -> None:
    for cuts in ((27, 29, 31), (28,), (26, 33), (1, 2, 3)):
        assert find_exact(Held(), grown(*cuts), "another", None, 5) == [("0.txt", 26, 33)]


def test_a_quote_far_from_its_hint_is_found_over_a_border_of_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_NEAR_BYTES", 2)
    for piece in (1, 5, 11, 1000):
        monkeypatch.setattr(matching, "_PIECE_BYTES", piece)
        for cuts in ((), (28,)):
            found = find_exact(Held(), grown(*cuts), "another", ("0.txt", 0, 7), 5)
            assert found[0] == ("0.txt", 26, 33)
