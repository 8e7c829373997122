"""What the contexts room takes and gives: sources, reports, pinned documents, hits.

Plain frozen records. Offsets are code points of the stored text (bytes decoded as UTF-8 with surrogateescape),
sizes are bytes, times seconds since the epoch.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["text", "collection"]
Change = Literal["created", "updated", "unchanged"]
SkipReason = Literal[
    "binary",
    "ignored",
    "excluded",
    "unreadable",
    "too_large",
    "special",
    "generated",
    "vendored",
    "minified",
    "unconverted",
]
SearchMode = Literal["bm25", "regex"]


class Notice(NamedTuple):
    """What was found amiss when the store was opened, and what to do about it."""

    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """A file as ``stat`` shows it: equal identity is taken for equal bytes."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class InlineSource:
    text: str
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class PathSource:
    """Absolute paths of files or directories; ``include`` and ``exclude`` are gitignore patterns.

    ``everything``: also what is generated, vendored or minified. ``convert``: text of other encodings becomes UTF-8,
    HTML and notebooks plain text; else offsets are those of the file. ``confined``: no symbolic link is followed, not
    in the paths either, and of folders what is private is left out.
    """

    paths: tuple[str, ...]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    everything: bool = False
    convert: bool = False
    identity: FileIdentity | None = None
    confined: bool = False


@dataclass(frozen=True, slots=True)
class SpoolSource:
    """A bare file name in the spool folder; the file is consumed once the load is durable.

    ``raw``: taken as it is, so that offsets are the client's; else decoded and converted as a file is.
    """

    file: str
    origin: str | None = None
    raw: bool = True


@dataclass(frozen=True, slots=True)
class UploadSource:
    """The file of a whole upload; ``raw`` as of a spool file."""

    file: str
    origin: str | None = None
    raw: bool = True


Source = InlineSource | PathSource | SpoolSource | UploadSource


@dataclass(frozen=True, slots=True)
class Segment:
    """``length`` bytes of one blob file from ``offset`` on."""

    blob: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PinnedDocument:
    """One document of one revision. Its bytes are its segments', concatenated, then decoded.

    ``max_codepoint`` is rounded up to 7F, FF, FFFF or 10FFFF: it tells the bytes a code point in a ``str``.
    ``marks`` is the sparse index of ``text.Ruler``. ``encoding`` is that of the bytes as read, ``format`` what they
    were before they became text; ``pages`` are the code points at which pages begin (little-endian u64), if it has any.
    """

    name: str
    origin: str | None
    digest: str
    chars: int
    bytes: int
    max_codepoint: int
    segments: tuple[Segment, ...]
    origin_digest: str = ""
    marks: builtins.bytes = field(default=b"", repr=False)
    encoding: str = "utf-8"
    format: str = "text"
    pages: builtins.bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """A document that was just read, on its way into the catalogue; ``identity`` is None if it has no file."""

    document: PinnedDocument
    identity: FileIdentity | None


@dataclass(frozen=True, slots=True)
class Skipped:
    reason: SkipReason
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """``used``: when it was last read or asked; ``roots``: it came from paths, which are looked through again;
    ``ephemeral``: it is in memory alone."""

    name: str
    revision: int
    kind: Kind
    private: bool
    implicit: bool
    documents: int
    chars: int
    bytes: int
    digest: str
    created: float
    updated: float
    sources: tuple[str, ...]
    used: float = 0.0
    roots: bool = False
    ephemeral: bool = False


class Statistics(NamedTuple):
    """Of all contexts together: ``bytes`` of their texts, of which ``ephemeral_bytes`` are in memory alone."""

    contexts: int
    bytes: int
    ephemeral_bytes: int


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    name: str
    origin: str | None
    chars: int
    bytes: int
    digest: str
    origin_digest: str
    encoding: str = "utf-8"
    format: str = "text"


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """One document between two revisions. Lines that stand in the one and not in the other; one moved is neither."""

    name: str
    change: Literal["added", "removed", "changed"]
    lines_added: int
    lines_removed: int


@dataclass(frozen=True, slots=True)
class Diff:
    """``documents`` are some of them, by name; the counts are of all."""

    from_revision: int
    to_revision: int
    added: int
    removed: int
    changed: int
    documents: tuple[DocumentChange, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """Something that was, or would be, removed: ``bytes`` are free then. ``name`` is the context's, or the run's id."""

    what: Literal["context", "revisions", "uploads", "index", "run"]
    name: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """``context`` is None after a dry run; ``change`` is then what would happen."""

    change: Change
    context: ContextInfo | None
    documents: int
    chars: int
    bytes: int
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peek:
    document: str
    start: int
    end: int
    text: str
    document_chars: int
    line: int


@dataclass(frozen=True, slots=True)
class Found:
    """``complete``: these are all the places. ``searched`` of the context's ``chars`` were looked through; ``late``:
    the time was over then. ``rest``: where a regex goes on."""

    hits: tuple[Hit, ...]
    complete: bool
    searched: int
    chars: int
    late: bool
    rest: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A place that a search found; ``text`` is the document's text from ``start`` to ``end``.

    For a regex the place is the line (or lines) of the match, cut to a window when very long, and ``matches`` holds
    the exact spans within the document. ``line`` counts from 1; ``label`` is ``document:line``.
    """

    context: str
    document: str
    start: int
    end: int
    text: str
    score: float
    line: int
    label: str
    heading: str = ""
    matches: tuple[tuple[int, int], ...] = ()
