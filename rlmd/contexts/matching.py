"""Finding text by its letters: a regex (re2), a quote exactly, a quote as people retype it. Runs in the helper.

All of it works on bytes and reports code points; a place that does not begin and end with a code point is none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import re2

from rlmd.contexts.records import PinnedDocument
from rlmd.contexts.shelf import Shelf, Volume
from rlmd.contexts.text import Ruler, encode
from rlmd.errors import InvalidParams

#: Code points kept on each side of a match in a very long line.
_WINDOW = 200
#: re2's memory for one compiled pattern, in bytes: a quote of 10,000 letters with its classes needs some 100 MB.
_PATTERN_MEMORY = 256 << 20
#: A quote is matched in parts of so many code points: their classes make programs of some megabytes.
_PIECE_CHARS = 2000

Place = tuple[str, int, int]


def find_exact(shelf: Shelf, volume: Volume, quote: str, near: Place | None, limit: int) -> list[Place]:
    """Places of a quote; those in and nearest to ``near`` first, then in order."""
    needle = encode(quote)
    if not needle:
        return []
    places = list(_exact(shelf, volume, needle, quote, near, limit))
    if near is not None:
        document, start, _ = near
        places.sort(key=lambda p: (p[0] != document, abs(p[1] - start)))
    return places[:limit]


def _exact(shelf: Shelf, volume: Volume, needle: bytes, quote: str, near: Place | None, limit: int) -> Iterator[Place]:
    found = 0
    if near is not None:
        for document in volume.documents:
            if document.name == near[0]:
                for start in _in_document(shelf, document, needle, quote, near[1]):
                    found += 1
                    yield document.name, start, start + len(quote)
    if found >= limit:
        return
    for document, offset in _occurrences(shelf, volume, needle):
        if near is not None and document.name == near[0]:
            continue
        aligned = _aligned(shelf.ruler(document), offset, quote)
        if aligned is not None:
            found += 1
            yield document.name, aligned, aligned + len(quote)
            if found >= limit:
                return


#: How far from the hint is looked first, and how many occurrences to each side of it.
_NEAR_BYTES = 1 << 20
_NEAR_COUNT = 50
_PIECE_BYTES = 8 << 20


def _in_document(shelf: Shelf, document: PinnedDocument, needle: bytes, quote: str, near: int) -> Iterator[int]:
    """Code points at which the quote begins: those around the hint, or else the first ones of the document."""
    ruler = shelf.ruler(document)
    around = ruler.byte_of(max(0, min(near, document.chars)))
    first = max(0, around - _NEAR_BYTES)
    window = shelf.bytes_of(document, first, around + _NEAR_BYTES + len(needle))
    offsets = [first + at for at in _around(window, needle, around - first)] or _anywhere(shelf, document, needle)
    for offset in offsets:
        start = _aligned(ruler, offset, quote)
        if start is not None:
            yield start


def _around(text: bytes, needle: bytes, pivot: int) -> Iterator[int]:
    """From the pivot on, then back from it: a quote that stands everywhere must not hide the place that is meant."""
    yield from _forward(text, needle, pivot)
    at, count = text.rfind(needle, 0, pivot + len(needle) - 1), 0
    while at >= 0 and count < _NEAR_COUNT:
        yield at
        at, count = text.rfind(needle, 0, at + len(needle) - 1), count + 1


def _forward(text: bytes, needle: bytes, start: int) -> Iterator[int]:
    at, count = text.find(needle, start), 0
    while at >= 0 and count < _NEAR_COUNT:
        yield at
        at, count = text.find(needle, at + 1), count + 1


def _anywhere(shelf: Shelf, document: PinnedDocument, needle: bytes) -> Iterator[int]:
    """The first occurrences in a document, of which a few megabytes are copied at a time."""
    count = 0
    for base in range(0, document.bytes, _PIECE_BYTES):
        piece = shelf.bytes_of(document, base, base + _PIECE_BYTES + len(needle) - 1)
        for at in _forward(piece, needle, 0):
            yield base + at
            count += 1
            if count >= _NEAR_COUNT:
                return


def _occurrences(shelf: Shelf, volume: Volume, needle: bytes) -> Iterator[tuple[PinnedDocument, int]]:
    """Where the bytes lie: blob by blob, which is one search for any number of small documents."""
    for blob in volume.blobs:
        data = shelf.mapped(blob)
        at = data.find(needle)
        while at >= 0:
            place = volume.at(blob, at, len(needle))
            if place is not None:
                yield place
            at = data.find(needle, at + 1)
    for document in volume.documents:
        if len(document.segments) > 1:
            yield from _across_seams(shelf, document, needle)


def _across_seams(shelf: Shelf, document: PinnedDocument, needle: bytes) -> Iterator[tuple[PinnedDocument, int]]:
    """Occurrences that lie partly in one segment and partly in the next, or in several; each once."""
    seam = 0
    for segment in document.segments[:-1]:
        before, seam = seam, seam + segment.length
        first = max(0, seam - len(needle) + 1)
        data = shelf.bytes_of(document, first, seam + len(needle) - 1)
        at = data.find(needle)
        while at >= 0:
            if first + at >= before:
                yield document, first + at
            at = data.find(needle, at + 1)


def _aligned(ruler: Ruler, offset: int, quote: str) -> int | None:
    """The code point at which the quote begins, if code points begin and end there."""
    start = ruler.char_of(offset)
    return start if ruler.text(start, start + len(quote)) == quote else None


# ── quotes as people retype them ────────────────────────────────────────────────────────────────────────────

_DOUBLE = '"“”„‟«»″＂'
_SINGLE = "'‘’‚‛′`´ʼ＇"
_DASH = "\\-‐‑‒–—―−﹣－"
_SPACE = r"[\s\x{85}\x{A0}\x{AD}\x{1680}\x{2000}-\x{200D}\x{2028}\x{2029}\x{202F}\x{205F}\x{2060}\x{3000}\x{FEFF}]"
_TOKENS = re.compile(
    rf"(?P<dash>\s*[{_DASH}]+)|(?P<space>[\s\u00ad\u200b-\u200d\u2060\ufeff]+)|(?P<double>[{_DOUBLE}]|''|``)"
    rf"|(?P<single>[{_SINGLE}])|(?P<dots>\.\.\.|…)|(?P<other>.)",
    re.DOTALL,
)
_CLASSES = {
    "space": f"{_SPACE}+",
    "dash": f"{_SPACE}*[{_DASH}]{{1,3}}{_SPACE}*",
    "double": f"(?:[{_DOUBLE}]|''|``)",
    "single": f"[{_SINGLE}]",
    "dots": r"(?:\.\.\.|…)",
}


def tolerant_pattern(quote: str) -> str:
    """A re2 pattern that matches the quote with other white space, case, quotation marks, dashes or composition."""
    parts: list[str] = []
    for match in _TOKENS.finditer(unicodedata.normalize("NFC", quote.strip())):
        kind = match.lastgroup
        assert kind is not None
        if kind == "space" and parts and parts[-1] in (_CLASSES["dash"], _CLASSES["space"]):
            continue
        parts.append(_CLASSES.get(kind) or _letter(match.group()))
    return "(?i)" + "".join(parts)


def _letter(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return ""  # a raw byte; re2 has no class for it, and what stands around it suffices
    forms = sorted({letter, unicodedata.normalize("NFC", letter), unicodedata.normalize("NFD", letter)})
    escaped = [str(re2.escape(form)) for form in forms]
    return escaped[0] if len(escaped) == 1 else f"(?:{'|'.join(escaped)})"


def find_normalised(shelf: Shelf, volume: Volume, quote: str, limit: int) -> list[Place]:
    first, *rest = [compiled(tolerant_pattern(piece)) for piece in _pieces(quote)] or [None]
    places: list[Place] = []
    if first is None:
        return places
    for document, start, end in _matches(shelf, volume, first, rest):
        places.append((document.name, start, end))
        if len(places) >= limit:
            break
    return places


def _pieces(quote: str) -> list[str]:
    """The quote in parts of patterns that re2 can hold, cut at white space where there is some."""
    pieces = []
    quote = quote.strip()
    while len(quote) > _PIECE_CHARS:
        cut = quote.rfind(" ", _PIECE_CHARS // 2, _PIECE_CHARS) + 1 or _PIECE_CHARS
        pieces.append(quote[:cut])
        quote = quote[cut:]
    return [piece for piece in (*pieces, quote) if tolerant_pattern(piece) != "(?i)"]


# ── regex ───────────────────────────────────────────────────────────────────────────────────────────────────


def compiled(pattern: str) -> Any:
    """An re2 pattern; ``^`` and ``$`` match at lines.

    Raises:
        InvalidParams: re2 refuses it; its reason names the part.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_MEMORY
    try:
        return re2.compile(f"(?m){pattern}", options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if isinstance(error, re2.error) else "it holds a lone surrogate"
        if isinstance(reason, bytes):
            reason = reason.decode("utf-8", "replace")
        raise InvalidParams(
            f"re2 refuses the pattern: {reason}.", hint="re2 has no look-around and no backreferences."
        ) from None


def _matches(
    shelf: Shelf, volume: Volume, pattern: Any, rest: Sequence[Any] = ()
) -> Iterator[tuple[PinnedDocument, int, int]]:
    """Non-empty matches of a pattern that those of ``rest`` follow at once; document by document, as code points."""
    for document in volume.documents:
        for start, end in _matches_in(shelf, document, pattern, rest):
            yield document, start, end


def _matches_in(
    shelf: Shelf,
    document: PinnedDocument,
    pattern: Any,
    rest: Sequence[Any] = (),
    *,
    first: int = 0,
    past: int | None = None,
) -> Iterator[tuple[int, int]]:
    """Those between two bytes; what stands beside these is seen by ``^``, ``$`` and ``\\b``."""
    ruler = None
    for begin, end in _spans(shelf, document, pattern, rest, first, document.bytes if past is None else past):
        ruler = ruler or shelf.ruler(document)
        start, stop = ruler.char_of(begin), ruler.char_of(end)
        if ruler.byte_of(start) == begin and ruler.byte_of(stop) == end:
            yield start, stop


def _spans(
    shelf: Shelf, document: PinnedDocument, pattern: Any, rest: Sequence[Any], first: int, past: int
) -> Iterator[tuple[int, int]]:
    """The same as bytes."""
    for data, base, cut in shelf.stretches(document, first):
        if base > past:
            return
        for match in pattern.finditer(data, max(first, base) - base, min(past - base, len(data))):
            begin, end = match.span()
            if base + begin >= cut:
                break
            for follower in rest:
                following = follower.match(data, _after_space(data, end))
                end = following.end() if following else begin
                if end == begin:
                    break
            if begin < end:
                yield base + begin, base + end
            first = base + match.end()
        first = max(first, cut)


def _after_space(data: memoryview, at: int) -> int:
    while at < len(data) and data[at] in b" \t\r\n":
        at += 1
    return at


@dataclass(slots=True)
class Progress:
    """How far a search came. ``late`` says that it is to stop; it is asked between documents and between matches, so
    that one document (re2: a gigabyte in some 2 s) is the longest that it may go on."""

    late: Callable[[], bool]
    #: Code points of the documents that were looked through wholly, and of the one under way up to its last match.
    chars: int = 0
    stopped: bool = False

    def check(self) -> bool:
        self.stopped = self.stopped or self.late()
        return self.stopped


#: A match that begins in the last line of a page may go on beyond it so far, in bytes.
_BEYOND_LINE = 64 << 10
#: Where a search begins, or goes on: the number of a document, a code point of it.
Start = tuple[int, int]
START: Start = (0, 0)


def regex_hits(
    shelf: Shelf,
    volume: Volume,
    query: str,
    limit: int,
    progress: Progress,
    start: Start = START,
    *,
    page: bool = False,
) -> tuple[list[dict[str, object]], Start | None]:
    """One hit a line (or stretch of lines) with its matches; and where to go on, None if that is all there is.

    A page has its hits at once; else it is looked for one hit more, so that nobody goes on in vain.
    """
    pattern = compiled(query)
    hits: list[dict[str, object]] = []
    number, first = start
    progress.chars = first + sum(document.chars for document in volume.documents[:number])
    for document in volume.documents[number:]:
        before = progress.chars - first
        stopped = first if progress.check() else _in_one(shelf, document, pattern, hits, limit, progress, first, page)
        if stopped is not None:
            return hits, (number, stopped)
        progress.chars = before + document.chars
        number, first = number + 1, 0
    return hits, None


def _in_one(
    shelf: Shelf,
    document: PinnedDocument,
    pattern: Any,
    hits: list[dict[str, object]],
    limit: int,
    progress: Progress,
    begin: int,
    page: bool,
) -> int | None:
    """Adds the hits of a document from a code point on; where it stopped, None when it was looked through."""
    before = progress.chars - begin
    ruler = shelf.ruler(document)
    current: tuple[int, int] | None = None
    for start, end in _matches_in(shelf, document, pattern, first=ruler.byte_of(begin)):
        progress.chars = before + end
        if current is not None and start < current[1]:
            hits[-1]["matches"].append((start, min(end, current[1])))  # type: ignore[attr-defined]
            continue
        if len(hits) >= limit or progress.check():
            return start
        first, past, text, line = _line_around(ruler, start, end)
        current = first, past
        hits.append(
            {
                "document": document.name,
                "start": first,
                "end": past,
                "text": text,
                "line": line,
                "score": 0.0,
                "heading": "",
                "matches": [(start, min(end, past))],
            }
        )
        if page and len(hits) >= limit:
            return _line_ended(shelf, document, pattern, hits[-1], end)
    return None


def _line_ended(shelf: Shelf, document: PinnedDocument, pattern: Any, hit: dict[str, Any], end: int) -> int:
    """Adds what else matches in the line of a hit; where the search goes on behind it."""
    ruler, past = shelf.ruler(document), int(hit["end"])
    bound = min(document.bytes, ruler.byte_of(past) + _BEYOND_LINE)
    for start, stop in _matches_in(shelf, document, pattern, first=ruler.byte_of(end), past=bound):
        if start >= past:
            break
        hit["matches"].append((start, min(stop, past)))
        end = stop
    return max(end, past)


def _line_around(ruler: Ruler, start: int, end: int) -> tuple[int, int, str, int]:
    """The line of a match, at most ``_WINDOW`` code points around it, without its line end."""
    end = min(end, start + 10 * _WINDOW)
    first = max(0, start - _WINDOW)
    before = ruler.text(first, start)
    inside = ruler.text(start, end)
    after = ruler.text(end, end + _WINDOW)
    head = before[before.rfind("\n") + 1 :]
    tail = "" if inside.endswith("\n") else after.split("\n", 1)[0]
    tail = tail.removesuffix("\r") if "\n" in after else tail
    return start - len(head), end + len(tail), head + inside + tail, ruler.line_of(start - len(head))
