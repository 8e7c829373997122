"""Contexts: ways in, and ways to look at them. Offsets are code points of the stored text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlmd.wire.methods.base import Done, Method, NameParams, Nothing, Params, Result

#: Above this a text goes by path or spool; Emacs blocks 5 s for 40 MB of JSON (measured).
INLINE_BYTES = 256 * 1024
MAX_PEEK_CHARS = 65_536
#: Bytes of one chunk of an upload.
MAX_CHUNK = 1 << 20


EPHEMERAL = Field(
    False,
    description="Private, and never on disk: it and all that is derived from it are in memory, and go with the daemon",
)
#: Revision, document and code point at which a search goes on; clients need not know.
CURSOR = r"^([0-9]{1,15}\.[0-9]{1,15}\.[0-9]{1,15})?$"
Decimal = Annotated[str, Field(pattern=r"^-?[0-9]{1,20}$")]


class FileIdentity(Params):
    """A file as the client sees it, each number in decimal; a difference is answered ``not_visible``."""

    device: Decimal
    inode: Decimal
    size: Decimal
    mtime_ns: Decimal


class InlineSource(Params):
    kind: Literal["inline"] = "inline"
    text: str
    origin: str | None = Field(None, description="A label or path that citations show")


class PathSource(Params):
    """Files or directories. A directory honours .gitignore; ``include`` and ``exclude`` are gitignore patterns.

    ``identity`` is of the one path; of a directory device and inode count.
    """

    kind: Literal["path"] = "path"
    paths: tuple[str, ...] = Field(min_length=1)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    everything: bool = Field(False, description="Also what is generated, vendored or minified")
    convert: bool = Field(
        False,
        description="Text of other encodings becomes UTF-8, HTML and notebooks plain text; offsets are then of that",
    )
    identity: FileIdentity | None = Field(None, description="Of the one path in paths")
    confined: bool = Field(
        False,
        description="No link is followed, not in paths either; what is private in a directory is left out",
    )


class SpoolSource(Params):
    """A file that the client wrote into the daemon's spool folder: a bare file name; consumed by the load."""

    kind: Literal["spool"] = "spool"
    file: str
    origin: str | None = Field(None, description="A label or path that citations show")
    raw: bool = Field(True, description="Keep every byte, so that offsets are the client's; else decode and convert")


Source = Annotated[InlineSource | PathSource | SpoolSource, Field(discriminator="kind")]


class LoadParams(Params):
    """Loading what is there is an update. Without ``name`` the context is implicit, named by its content."""

    name: str | None = Field(None, min_length=1, max_length=200)
    source: Source
    private: bool = False
    ephemeral: bool = EPHEMERAL
    dry_run: bool = False
    max_bytes: int | None = Field(
        None, ge=0, le=2**53 - 1, description="Of what must be read; more is refused, and nothing is kept"
    )


class BeginParams(Params):
    """What is going to be sent. Beginning the same again finds what was sent before, also after a restart."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes")
    bytes: int = Field(ge=0, le=2**53 - 1)
    name: str | None = Field(None, min_length=1, max_length=200)
    origin: str | None = Field(None, description="A label or path that citations show")
    private: bool = False
    ephemeral: bool = EPHEMERAL
    raw: bool = Field(True, description="Keep every byte, as of a spool file; else as of a file, decoded and converted")


class UploadResult(Result):
    """``received``: bytes that are there; the next chunk begins at that offset."""

    upload_id: str
    received: int
    chunk_bytes: int = MAX_CHUNK


class AppendParams(Params):
    """A chunk, as ``text`` or as bytes in base64. One that is there already is passed over."""

    upload_id: str
    offset: int = Field(ge=0, le=2**53 - 1, description="Of its first byte")
    text: str | None = None
    data: str | None = Field(None, description="Base64")


class CommitParams(Params):
    """Makes the upload a context. The answer is that of ``context/load``."""

    upload_id: str


class Skipped(Result):
    reason: Literal[
        "binary", "ignored", "excluded", "unreadable", "too_large", "special",
        "generated", "vendored", "minified", "unconverted",
    ]  # fmt: skip
    count: int
    examples: tuple[str, ...]


class ContextInfo(Result):
    name: str
    revision: int
    kind: Literal["text", "collection"]
    private: bool
    implicit: bool
    documents: int
    chars: int
    bytes: int
    digest: str
    created: float
    updated: float
    sources: tuple[str, ...]
    used: float = Field(0.0, description="When it was last read or asked, to the hour")
    roots: bool = Field(False, description="It came from paths, which are looked through again before each question")
    ephemeral: bool = Field(False, description="It is in memory alone, and gone when the daemon stops")


class LoadResult(Result):
    """``change``: created, updated or unchanged; after ``dry_run`` what would happen, and ``context`` is None."""

    change: Literal["created", "updated", "unchanged"]
    context: ContextInfo | None
    documents: int
    chars: int
    bytes: int
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


class ContextListResult(Result):
    contexts: tuple[ContextInfo, ...]


class ContextParams(Params):
    name: str
    documents_from: int = Field(0, ge=0, le=2**53 - 1)
    documents_limit: int = Field(100, ge=0, le=10_000)


class DocumentInfo(Result):
    name: str
    origin: str | None
    chars: int
    bytes: int
    digest: str
    origin_digest: str
    encoding: str = Field("utf-8", description="Of the bytes as read")
    format: str = Field("text", description="What they were before they became text")


class ContextInfoResult(Result):
    context: ContextInfo
    documents: tuple[DocumentInfo, ...]


class UpdateParams(Params):
    """The paths are those that the context was loaded from, with the same patterns."""

    name: str
    dry_run: bool = False


class FlagsParams(Params):
    """What is None stays as it is. What was derived from a private context stays private when the mark goes."""

    name: str
    private: bool | None = None


class DiffParams(Params):
    """By default from the revision before ``to_revision`` to the newest."""

    name: str
    from_revision: int | None = Field(None, ge=1)
    to_revision: int | None = Field(None, ge=1)
    documents_from: int = Field(0, ge=0, le=2**53 - 1)
    limit: int = Field(100, ge=0, le=1000)


class DocumentChange(Result):
    """Lines that stand in one revision and not in the other; a line that only moved is neither added nor removed."""

    name: str
    change: Literal["added", "removed", "changed"]
    lines_added: int
    lines_removed: int


class DiffResult(Result):
    """``documents`` are ``limit`` of them by name, from ``documents_from`` on; the counts are of all."""

    from_revision: int
    to_revision: int
    added: int
    removed: int
    changed: int
    documents: tuple[DocumentChange, ...]


class PeekParams(Params):
    name: str
    document: str | None = Field(None, description="Needed when the context has several")
    start: int = Field(0, ge=0)
    chars: int = Field(2000, ge=1, le=MAX_PEEK_CHARS)


class PeekResult(Result):
    document: str
    start: int
    end: int
    text: str
    document_chars: int
    line: int


class SearchParams(Params):
    """``mode`` bm25 ranks passages for a question; ``regex`` (re2 syntax, linear time) finds matches in order.

    Asked with a ``cursor``, a regex answers as soon as it has ``limit`` hits, and the answer's ``cursor`` goes on
    behind them: the first hit is there before a large text was looked through. All pages are of one revision.
    """

    name: str
    query: str = Field(min_length=1, max_length=10_000)
    mode: Literal["bm25", "regex"] = "bm25"
    limit: int = Field(10, ge=1, le=1000)
    seconds: float = Field(30.0, gt=0, le=50, description="Of a regex: then what was found by then is the answer")
    cursor: str | None = Field(
        None, pattern=CURSOR, description="Of a regex: where it goes on, as an answer said; empty: a first page"
    )


class SearchHit(Result):
    document: str
    start: int
    end: int
    text: str
    line: int
    score: float
    label: str


class SearchResult(Result):
    """``complete``: these are all. ``searched`` of ``chars`` were looked through; ``late``: the time was over then.
    ``cursor``: asked with it, a regex goes on; null when there is nothing more."""

    hits: tuple[SearchHit, ...]
    complete: bool
    searched: int = 0
    chars: int = 0
    late: bool = False
    cursor: str | None = None


class DropResult(Done):
    """How many runs and sessions went with it: those that had read it."""

    runs: int = 0
    sessions: int = 0


METHODS = (
    Method("context/load", LoadParams, LoadResult, "Loads or updates a context; durable when answered."),
    Method("context/begin", BeginParams, UploadResult, "Begins an upload, or goes on with one."),
    Method("context/append", AppendParams, UploadResult, "Adds a chunk to an upload."),
    Method("context/commit", CommitParams, LoadResult, "Makes an upload a context; durable when answered."),
    Method("context/update", UpdateParams, LoadResult, "Looks through the paths that a context came from again."),
    Method("context/flags", FlagsParams, ContextInfo, "Marks a context private, or takes the mark away."),
    Method("context/diff", DiffParams, DiffResult, "What changed between two revisions, by document."),
    Method("context/list", Nothing, ContextListResult, "Lists contexts."),
    Method("context/info", ContextParams, ContextInfoResult, "Shows one context and its documents."),
    Method("context/peek", PeekParams, PeekResult, "Reads a stretch of a document."),
    Method("context/search", SearchParams, SearchResult, "Searches a context."),
    Method("context/drop", NameParams, DropResult, "Erases a context and what was derived from it."),
)
