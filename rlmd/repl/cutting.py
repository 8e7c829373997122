"""Cutting texts into pieces so that an edit leaves the other pieces as they were (child side, standard library alone).

Each place where a text may be cut has a mark, a checksum of the few characters behind it, and so a rank that no edit
elsewhere changes. Places are taken in the order of their ranks: one that lies in a stretch longer than a piece, and
not too near to its ends, becomes a cut. So a cut depends on the stretch that better cuts left around it, and not on
where the pieces before it happened to end: an inserted line changes the piece that it falls into and seldom a second
one: of 4,500 edits of a line 95 % changed one piece, 4 % two, 0.5 % three, none more. Cutting from the left, as
content-defined chunking is mostly done, needs some pieces to come back into step (4.5 % changed three to seven).
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import pairwise

from rlmd.repl.texts import Document, Piece, piece_of, unwatched

#: Least length of a piece as a share of the most: a half would give longer pieces (0.66 of the most on average, not
#: 0.60), but four times as many edits that change more than two of them.
LEAST_SHARE = 4
#: Equal marks are equal text: of those nearer to each other than this share of a piece one is enough.
_SPREAD_SHARE = 16
#: Without spaces each character is a place. A stretch of this many pieces without one of low rank repeats itself.
_REPEATING = 64
_BLOCK = 1 << 20

Place = tuple[int, int]  # mark, position


def chunks(text: str | Iterable[str], size: float = 8000) -> list[Piece]:
    """Cuts a text, or each of several documents, into pieces of at most ``size`` characters.

    Where a cut falls depends on the text around it alone, so that an edit changes the pieces near it and leaves the
    others, and the cached answers about them, as they were. Cuts fall before paragraphs, else before lines, else after
    sentences, else between words. No character is lost: the pieces of a text joined give it.
    """
    if not isinstance(size, int | float):
        raise TypeError(f"chunks: size must be a number, not {type(size).__name__}")
    if size < 1:
        raise ValueError(f"chunks: size must be at least 1, not {size}")
    if not hasattr(text, "__iter__"):
        raise TypeError(f"chunks: expected text or a list of texts, not {type(text).__name__}")
    return [piece for one in ([text] if isinstance(text, str) else text) for piece in _chunks_of(one, int(size))]


def _chunks_of(text: str, size: int) -> Iterator[Piece]:
    if not isinstance(text, str):
        raise TypeError(f"chunks: expected text or a list of texts, not {type(text).__name__}")
    document = text if isinstance(text, Document) else getattr(text, "document", None)
    offset = text.start if isinstance(text, Piece) else 0
    edges = cuts(text, size)
    for start, end in pairwise(edges):
        if document is not None:
            yield piece_of(document, offset + start, offset + end)
        else:
            yield unwatched(text[start:end], None, start)


def cuts(text: str, size: int) -> list[int]:
    """The edges of the pieces, from 0 to the length of the text; only 0 for an empty one."""
    if not text:
        return [0]
    edges = [0, len(text)]
    long = [(0, len(text))] if len(text) > size else []
    for pattern, below in _LEVELS:
        long = [rest for stretch in long for rest in _cut_stretch(text, size, edges, stretch, pattern, below)]
    for start, end in long:  # the same few characters again and again: any cuts are as good
        edges += range(start + size, end, size)
    return sorted(edges)


def _cut_stretch(
    text: str, size: int, edges: list[int], stretch: tuple[int, int], pattern: re.Pattern[str] | None, below: int
) -> list[tuple[int, int]]:
    """Cuts one stretch at places of one kind; adds to ``edges`` and returns the stretches that are still too long."""
    least = max(1, size // LEAST_SHARE)
    start, end = stretch
    if pattern is None:
        if below == _ALL and end - start > _REPEATING * size:
            return [stretch]
        places = _everywhere(text, start + least, end - least, below)
    else:
        places = _after(pattern, text, start + least, end - least, below)
    own = [start, end]
    ranked = sorted(_spread(places, max(1, size // _SPREAD_SHARE)))
    too_long = 1
    for index, (mark, place) in enumerate(ranked):
        at = bisect_left(own, place)
        before, after = own[at - 1], own[at]
        if after - before <= size or place - before < least or after - place < least:
            continue
        if index + 1 < len(ranked) and ranked[index + 1][0] == mark:  # of equal places the farthest that a piece holds
            following = ranked[index + 1][1]
            if following - before <= size and after - following >= least:
                continue
        insort(own, place)
        too_long += (place - before > size) + (after - place > size) - 1
        if not too_long:
            break
    edges += own[1:-1]
    return [(a, b) for a, b in pairwise(own) if b - a > size] if too_long else []


def _after(pattern: re.Pattern[str], text: str, low: int, high: int, below: int) -> Iterator[Place]:
    """Places where group 1 of a match begins, from ``low`` to ``high``, whose mark is below a bound."""
    crc32 = zlib.crc32
    for match in pattern.finditer(text, max(0, low - _LOOK_BACK)):
        place = match.start(1)
        if place > high:
            return
        mark = crc32(match[1].encode("utf-8", "surrogatepass"))
        if mark < below and place >= low:
            yield mark, place


def _everywhere(text: str, low: int, high: int, below: int) -> Iterator[Place]:
    """As ``_after``, at each character; the mark is of the 8 that follow."""
    crc32 = zlib.crc32
    for start in range(low, high + 1, _BLOCK):
        stop = min(start + _BLOCK, high + 1)
        units = memoryview(text[start : stop + 8].encode("utf-32-le", "surrogatepass"))
        for index in range(stop - start):
            mark = crc32(units[4 * index : 4 * index + 32])
            if mark < below:
                yield mark, start + index


def _spread(places: Iterable[Place], gap: int) -> Iterator[Place]:
    """Without those that are as another one shortly before: a text that repeats itself has millions."""
    last: dict[int, int] = {}
    for mark, place in places:
        if place - last.get(mark, -gap) >= gap:
            last[mark] = place
            yield mark, place


#: A line's end and blank lines may stand before a place.
_LOOK_BACK = 16
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n(?=(\S[^\n]{0,39}))")
_LINE = re.compile(r"\n(?=([^\n]{1,40}))")
_SENTENCE = re.compile(r"(?:[.!?][\"')\]]*\s+|[\u3002\uff01\uff1f])(?=(\S[^\n]{0,39}))")
_WORD = re.compile(r"\s(?=(\S[^\n]{0,23}))")
#: Bounds of the marks: first few places, of the lowest ranks, then all. A piece of 8,000 characters of lines has 100
#: places, 6 of them among a sixteenth.
_ALL = 1 << 32
_LEVELS: tuple[tuple[re.Pattern[str] | None, int], ...] = (
    (_PARAGRAPH, _ALL >> 3),
    (_PARAGRAPH, _ALL),
    (_LINE, _ALL >> 4),
    (_LINE, _ALL),
    (_SENTENCE, _ALL),
    (_WORD, _ALL >> 6),
    (_WORD, _ALL),
    (None, _ALL >> 8),
    (None, _ALL),
)
