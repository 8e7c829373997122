"""Finds which stretches of which documents a prompt holds (child side, standard library alone).

A hint for the receipt and for citations; the parent checks it before it counts. Pieces that cells were handed are
remembered as positions only. A prompt is tried against those that follow the last hit, then against the newest; then
its longest lines are looked for in the documents, forward from the last hit. All work is bounded.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rlmd.repl.texts import Document

    Found = tuple[Document, int, int]
    #: Start and end in the prompt, and what stands there.
    Place = tuple[int, int, Found]

#: Positions of pieces kept (24 bytes each and the tuple): a batch over 400 MB in pieces of 4 KB.
REMEMBERED = 100_000
#: Pieces tried after the last hit, and from the newest, for one prompt: 40 × 2 µs.
AHEAD, RECENT = 24, 16
#: Characters that begin a piece and must stand in the prompt; shorter pieces are not traced.
ANCHOR = 40
#: Stretches reported for one prompt.
MOST_SPANS = 64
#: Lines of a prompt that are looked for, their least length, and the characters looked at most.
PROBES, PROBE_CHARS, PROBE_MOST = 6, 24, 200
#: Characters of documents looked through for one prompt, and for one batch: 5 ms and 100 ms at 3 GB/s.
SCAN_PROMPT, SCAN_BATCH = 16_000_000, 320_000_000


class Tracer:
    """Remembers pieces handed out and traces prompts to them."""

    def __init__(self) -> None:
        self._pieces: list[Found] = []
        self._next = 0  # the piece after the last hit
        self._documents: list[Document] = []
        self._last = (0, 0)  # index of the document, and position, of the last line found
        self._scan_left = SCAN_BATCH

    def use(self, documents: Iterable[Document]) -> None:
        """Traces into these documents from now on; what was handed out before is forgotten."""
        self._documents = list(documents)
        self._pieces.clear()
        self._next, self._last = 0, (0, 0)

    def watch(self, document: Document, start: int, end: int) -> None:
        """Remembers that a cell was handed this piece."""
        if end - start < ANCHOR:
            return
        if len(self._pieces) >= 2 * REMEMBERED:
            del self._pieces[:REMEMBERED]
            self._next = max(0, self._next - REMEMBERED)
        self._pieces.append((document, start, end))

    def begin_batch(self) -> None:
        """Grants the scanning of one batch."""
        self._scan_left = SCAN_BATCH

    def trace(self, prompt: str) -> list[Found]:
        """The stretches that ``prompt`` holds, in its order; within the prompt they do not overlap."""
        if not self._documents:
            return []
        places = self._ahead(prompt) or self._newest(prompt) or self._by_lines(prompt)
        return [found for _, _, found in sorted(places, key=lambda place: place[0])]

    def _ahead(self, prompt: str) -> list[Place]:
        places: list[Place] = []
        index = self._next
        while index < min(len(self._pieces), self._next + AHEAD) and len(places) < MOST_SPANS:
            place = _place(prompt, self._pieces[index], places)
            index += 1
            if place is not None:
                _add(places, place)
                self._next = index
        return places

    def _newest(self, prompt: str) -> list[Place]:
        places: list[Place] = []
        for index in range(len(self._pieces) - 1, max(-1, len(self._pieces) - 1 - RECENT), -1):
            place = _place(prompt, self._pieces[index], places)
            if place is not None:
                _add(places, place)
                self._next = index + 1
        return places

    def _by_lines(self, prompt: str) -> list[Place]:
        places: list[Place] = []
        lines = sorted(_lines(prompt), key=lambda line: line[0] - line[1])[:PROBES]
        for start, end in lines:
            if any(a <= start < b for a, b, _ in places):
                continue
            where = self._find(prompt[start : min(end, start + PROBE_MOST)])
            if where is not None:
                places.append(_grow(prompt, start, *where))
        return places

    def _find(self, line: str) -> tuple[Document, int] | None:
        """Looks forward from the last hit through all documents, once around."""
        allowed = min(SCAN_PROMPT, self._scan_left)
        first, position = self._last
        count = len(self._documents)
        for step in range(count + 1):
            index = (first + step) % count
            document = self._documents[index]
            begin = position if step == 0 else 0
            stop = min(len(document), begin + allowed)
            at = str.find(document, line, begin, stop)
            allowed -= (at if at >= 0 else stop) - begin
            if at >= 0:
                self._last = (index, at)
            if at >= 0 or allowed <= 0:
                self._scan_left -= min(SCAN_PROMPT, self._scan_left) - allowed
                return (document, at) if at >= 0 else None
        self._scan_left -= min(SCAN_PROMPT, self._scan_left) - allowed
        return None


def _lines(prompt: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(prompt):
        end = prompt.find("\n", start)
        end = len(prompt) if end < 0 else end
        if end - start >= PROBE_CHARS:
            yield start, end
        start = end + 1


def _place(prompt: str, piece: Found, places: list[Place]) -> Place | None:
    """Where in the prompt the piece begins, and how far the two agree; None when it is not there."""
    document, start, _ = piece
    at = prompt.find(str.__getitem__(document, slice(start, start + ANCHOR)))
    if at < 0 or any(a <= at < b for a, b, _ in places):
        return None
    length = _agreement(prompt, at, document, start)
    return at, at + length, (document, start, start + length)


def _add(places: list[Place], place: Place) -> None:
    """Adds a place; those within it go: a passage that was found first, and then the piece around it."""
    start, end, _ = place
    places[:] = [one for one in places if not start <= one[0] <= one[1] <= end]
    places.append(place)


def _grow(prompt: str, at: int, document: Document, position: int) -> Place:
    """The longest stretch around a line that stands at ``at`` in the prompt and at ``position`` in the document."""
    back = 0
    while back < min(at, position) and prompt[at - back - 1] == str.__getitem__(document, position - back - 1):
        back += 1
    length = _agreement(prompt, at, document, position)
    return at - back, at + length, (document, position - back, position + length)


def _agreement(left: str, i: int, right: str, j: int) -> int:
    """How many characters from ``left[i]`` and ``right[j]`` on are equal, in O(log) comparisons of slices."""
    most = min(len(left) - i, len(right) - j)
    equal, step, growing = 0, 64, True
    while equal < most and step:
        a, b = i + equal, j + equal
        size = min(step, most - equal)
        if str.__getitem__(left, slice(a, a + size)) == str.__getitem__(right, slice(b, b + size)):
            equal += size
            step = step * 2 if growing else step
        else:
            growing = False
            step = size // 2
    return equal
