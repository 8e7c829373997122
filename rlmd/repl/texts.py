"""Documents and pieces of them, as cells see them (child side, standard library alone).

A ``Document`` is a ``str`` that knows its name; slices of it, ``chunks`` (in ``cutting``), ``grep`` and ``search`` give
``Piece``s, ``str``s that know where they came from. Positions are code points of the stored text.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, SupportsIndex

    #: Called with (document, start, end) for each piece handed out, so that prompts can be traced back to their text.
    Watcher = Callable[["Document", int, int], None]


class Document(str):
    """One document of a context: its text, and ``name``, ``origin``, ``context``. ``start`` is 0."""

    __slots__ = ("context", "name", "origin", "watcher")
    name: str
    origin: str | None
    context: str
    watcher: Watcher | None

    @classmethod
    def make(
        cls, text: str, *, name: str, origin: str | None = None, context: str = "", watcher: Watcher | None = None
    ) -> Document:
        document = cls(text)
        document.name, document.origin, document.context, document.watcher = name, origin, context, watcher
        return document

    @property
    def text(self) -> str:
        return str.__str__(self)

    @property
    def document(self) -> Document:
        return self

    @property
    def start(self) -> int:
        return 0

    @property
    def end(self) -> int:
        return len(self)

    def __getitem__(self, key: SupportsIndex | slice[Any, Any, Any]) -> str:
        if isinstance(key, slice):
            start, end, step = key.indices(len(self))
            if step == 1 and end > start:
                return piece_of(self, start, end)
        return str.__getitem__(self, key)

    def __reduce__(self) -> tuple[Any, ...]:
        return (str, (str.__str__(self),))


class Piece(str):
    """A stretch of a document: ``document`` (None for text of a cell's own), ``start``, ``end``; ``line`` from grep
    and search, ``score`` from search."""

    __slots__ = ("document", "end", "line", "score", "start")
    document: Document | None
    start: int
    end: int
    line: int | None
    score: float | None

    @property
    def text(self) -> str:
        return str.__str__(self)

    @property
    def name(self) -> str | None:
        return self.document.name if self.document is not None else None

    def __getitem__(self, key: SupportsIndex | slice[Any, Any, Any]) -> str:
        if isinstance(key, slice) and self.document is not None:
            start, end, step = key.indices(len(self))
            if step == 1 and end > start:
                return piece_of(self.document, self.start + start, self.start + end)
        return str.__getitem__(self, key)

    def __reduce__(self) -> tuple[Any, ...]:
        return (str, (str.__str__(self),))


def piece_of(document: Document, start: int, end: int, *, line: int | None = None, score: float | None = None) -> Piece:
    """The piece ``start`` to ``end`` (exclusive), reported to the document's watcher."""
    piece = unwatched(str.__getitem__(document, slice(start, end)), document, start)
    piece.line, piece.score = line, score
    if document.watcher is not None:
        document.watcher(document, start, piece.end)
    return piece


def unwatched(text: str, document: Document | None, start: int) -> Piece:
    """A piece that no watcher is told of."""
    piece = Piece(text)
    piece.document, piece.start, piece.end = document, start, start + len(text)
    piece.line = piece.score = None
    return piece


# --- grep --------------------------------------------------------------------------------------------------------


class LineCounter:
    """Line numbers (from 1) of ascending positions, each stretch counted once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position, self._line = 0, 1

    def line_at(self, position: int) -> int:
        self._line += self._text.count("\n", self._position, position)
        self._position = position
        return self._line


def grep(pattern: str | re.Pattern[str], docs: Iterable[Document], limit: int) -> tuple[list[Piece], bool]:
    """The lines that match, as pieces with ``.line``, and whether there were more than ``limit``."""
    import re  # 3 ms

    compiled = re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
    found: list[Piece] = []
    for document in docs:
        for piece in _matching_lines(compiled, document):
            if len(found) >= limit:
                return found, True
            found.append(piece)
    return found, False


def _matching_lines(compiled: re.Pattern[str], document: Document) -> Iterator[Piece]:
    lines = LineCounter(document)
    position, length = 0, len(document)
    while position <= length and (match := compiled.search(document, position)) is not None:
        start = document.rfind("\n", 0, match.start()) + 1
        # A match that takes its line's end along does not reach into the next line.
        last = match.end() - 1 if match.group().endswith("\n") else match.end()
        end = document.find("\n", max(last, start))
        end = length if end < 0 else end
        yield piece_of(document, start, end, line=lines.line_at(start))
        position = end + 1
