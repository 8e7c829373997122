"""The catalogue: which contexts there are, their revisions and documents, and which blobs these are made of.

SQLite (WAL, synchronous FULL) on one thread of its own; a load is acknowledged once its transaction here committed.
Document rows carry the range of revisions in which they hold, so that an update of one file among many adds one row.
Reading and writing blobs is not done here.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmd.contexts.records import (
    Change,
    ContextInfo,
    DocumentInfo,
    FileIdentity,
    Kind,
    LoadedDocument,
    PathSource,
    PinnedDocument,
    Segment,
)
from rlmd.contexts.schema import opened, translated

_CONTEXT = """
SELECT c.id, c.name, c.revision, c.kind, c.private, c.implicit, r.documents, r.chars, r.bytes, r.digest,
    c.created, c.updated, c.sources, c.used, c.roots IS NOT NULL
FROM contexts c JOIN revisions r ON r.context = c.id AND r.revision = c.revision
"""
#: What makes a ``PinnedDocument``, in order; the helper process reads the same columns.
DOCUMENT_COLUMNS = (
    "name, origin, digest, chars, bytes, max_codepoint, segments, origin_digest, marks, encoding, format, pages"
)
_INFO_COLUMNS = "name, origin, chars, bytes, digest, origin_digest, encoding, format"
HOLDS = "context = ? AND first <= ? AND (past IS NULL OR past > ?)"


@dataclass(frozen=True, slots=True)
class ContextRow:
    """A context at its newest revision. ``id`` is never used twice in one catalogue."""

    id: int
    info: ContextInfo


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """A document of the newest revision as a re-load sees it."""

    row: int
    identity: FileIdentity | None
    document: PinnedDocument


@dataclass(frozen=True, slots=True)
class ContextChange:
    """What one load does to one context; applied wholly or not at all.

    ``fresh`` are documents that are new or differ, ``gone`` the rows that end, ``touched`` rows whose text is the
    same under another identity. ``blob`` is the pack that ``fresh`` lie in.
    """

    name: str
    kind: Kind
    private: bool
    implicit: bool
    sources: tuple[str, ...]
    roots: PathSource | None
    digest: str
    documents: int
    chars: int
    bytes: int
    fresh: Sequence[LoadedDocument]
    gone: Sequence[int]
    touched: Sequence[tuple[int, FileIdentity | None]]
    blob: tuple[str, int] | None


def document_of(row: Sequence[Any]) -> PinnedDocument:
    """A ``PinnedDocument`` of ``DOCUMENT_COLUMNS``."""
    name, origin, digest, chars, size, widest, segments, origin_digest, marks, encoding, form, pages = row
    return PinnedDocument(
        name=name,
        origin=origin,
        digest=digest,
        chars=chars,
        bytes=size,
        max_codepoint=widest,
        segments=tuple(Segment(*s) for s in json.loads(segments)),
        origin_digest=origin_digest,
        marks=marks,
        encoding=encoding,
        format=form,
        pages=pages,
    )


class Catalogue:
    """All methods are called on one thread, that which opened it.

    Args:
        path: The database; None: of ephemeral contexts, in memory.

    Raises:
        CatalogueUnreadable, DiskFull, Unavailable: As ``schema.opened`` does.
    """

    def __init__(self, path: Path | None) -> None:
        self._ephemeral = path is None
        self._db = opened(path)

    def close(self) -> None:
        self._db.close()

    def snapshot(self) -> bytes:
        """All of it, as the bytes of a database."""
        return self._db.serialize()

    def store_id(self) -> str:
        """Random, made with the catalogue: derived files of another catalogue do not fit this one."""
        return str(self._db.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()[0])

    def contexts(self) -> list[ContextRow]:
        return [self._context(row) for row in self._db.execute(_CONTEXT)]

    def blobs(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT digest, bytes FROM blobs"))

    def known(self, context: int) -> dict[str, KnownDocument]:
        """The newest revision's documents by name."""
        rows = self._db.execute(
            f"SELECT {DOCUMENT_COLUMNS}, id, identity FROM documents WHERE context = ? AND past IS NULL",  # noqa: S608
            (context,),
        )
        return {row[0]: KnownDocument(row[-2], _identity(row[-1]), document_of(row[:-2])) for row in rows}

    def documents(self, context: int, revision: int) -> tuple[PinnedDocument, ...]:
        rows = self._db.execute(
            f"SELECT {DOCUMENT_COLUMNS} FROM documents WHERE {HOLDS} ORDER BY name",  # noqa: S608
            (context, revision, revision),
        )
        return tuple(map(document_of, rows))

    def document_infos(self, context: int, revision: int, start: int, limit: int) -> tuple[DocumentInfo, ...]:
        rows = self._db.execute(
            f"SELECT {_INFO_COLUMNS} FROM documents WHERE {HOLDS} ORDER BY name LIMIT ? OFFSET ?",  # noqa: S608
            (context, revision, revision, limit, start),
        )
        return tuple(DocumentInfo(*row) for row in rows)

    def revision(self, context: int, revision: int) -> tuple[str, int, int] | None:
        """Digest, documents and code points of a revision."""
        row: tuple[str, int, int] | None = self._db.execute(
            "SELECT digest, documents, chars FROM revisions WHERE context = ? AND revision = ?", (context, revision)
        ).fetchone()
        return row

    def apply(self, change: ContextChange, now: float) -> tuple[ContextRow, Change]:
        """Commits a load. What was there under the name decides whether it creates, updates or changes nothing."""
        with _transaction(self._db):
            before = self._db.execute(f"{_CONTEXT} WHERE c.name = ?", (change.name,)).fetchone()
            if before is None:
                verdict: Change = "created"
                context = self._insert_context(change, now)
                self._write_revision(context, 1, change, now)
            else:
                context, verdict = before[0], self._update_context(self._context(before), change, now)
            touched = [(_identity_text(identity), row) for row, identity in change.touched]
            self._db.executemany("UPDATE documents SET identity = ? WHERE id = ?", touched)
            row = self._db.execute(f"{_CONTEXT} WHERE c.id = ?", (context,)).fetchone()
        return self._context(row), verdict

    def roots(self, context: int) -> PathSource | None:
        """The paths that a context came from; None where a client brought the text."""
        (text,) = self._db.execute("SELECT roots FROM contexts WHERE id = ?", (context,)).fetchone()
        return None if text is None else _roots(text)

    def touch(self, context: int, now: float) -> None:
        """Keeps in mind that a context was used."""
        self._db.execute("UPDATE contexts SET used = ? WHERE id = ?", (now, context))

    def set_private(self, context: int, private: bool) -> ContextRow:
        """Marks a context, or takes the mark away."""
        self._db.execute("UPDATE contexts SET private = ? WHERE id = ?", (private, context))
        return self._context(self._db.execute(f"{_CONTEXT} WHERE c.id = ?", (context,)).fetchone())

    def prune(self, context: int, keep: Collection[int], *, dry_run: bool) -> tuple[int, dict[str, int]]:
        """Forgets the revisions that are not to be kept: how many, and the blobs (with bytes) that are free then."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            known = {row[0] for row in self._db.execute("SELECT revision FROM revisions WHERE context = ?", (context,))}
            # One that came after it was decided what to keep is none of those that may go.
            gone = sorted(revision for revision in known.difference(keep) if revision < max(keep))
            for revision in gone:
                self._db.execute("DELETE FROM revisions WHERE context = ? AND revision = ?", (context, revision))
            orphans = self._prune_documents(context, sorted(known.difference(gone))) if gone else {}
            self._db.execute("ROLLBACK" if dry_run else "COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return len(gone), orphans

    def _prune_documents(self, context: int, kept: Sequence[int]) -> dict[str, int]:
        needed: set[str] = set()
        rows = self._db.execute("SELECT id, first, past, segments FROM documents WHERE context = ?", (context,))
        for row, first, past, segments in rows.fetchall():
            if any(first <= revision and (past is None or revision < past) for revision in kept):
                needed.update(segment[0] for segment in json.loads(segments))
            else:
                self._db.execute("DELETE FROM documents WHERE id = ?", (row,))
        blobs = dict(self._db.execute("SELECT digest, bytes FROM blobs WHERE context = ?", (context,)))
        orphans = {digest: size for digest, size in blobs.items() if digest not in needed}
        for digest in orphans:
            self._db.execute("DELETE FROM blobs WHERE context = ? AND digest = ?", (context, digest))
        others = {row[0] for row in self._db.execute("SELECT digest FROM blobs")} if orphans else set()
        return {digest: size for digest, size in orphans.items() if digest not in others}

    def drop(self, context: int) -> list[str]:
        """Forgets a context; returns the blobs that no other context is made of."""
        with _transaction(self._db):
            orphans = self._db.execute(
                "SELECT digest FROM blobs b WHERE context = ?"
                " AND NOT EXISTS (SELECT 1 FROM blobs o WHERE o.digest = b.digest AND o.context != b.context)",
                (context,),
            ).fetchall()
            for table in ("blobs", "documents", "revisions"):
                self._db.execute(f"DELETE FROM {table} WHERE context = ?", (context,))  # noqa: S608
            self._db.execute("DELETE FROM contexts WHERE id = ?", (context,))
        return [digest for (digest,) in orphans]

    def empty_log(self) -> None:
        """After a drop: the log still holds names. Raises ``DiskFull``: it is emptied with the next load then."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            raise translated(error, "writing the catalogue") from error

    def _context(self, row: Sequence[Any]) -> ContextRow:
        number, name, revision, kind, private, implicit, documents, chars, size, digest, *times, roots = row
        created, updated, sources, used = times
        info = ContextInfo(
            name=name,
            revision=revision,
            kind=kind,
            private=bool(private),
            implicit=bool(implicit),
            documents=documents,
            chars=chars,
            bytes=size,
            digest=digest,
            created=created,
            updated=updated,
            sources=tuple(json.loads(sources)),
            used=used,
            roots=bool(roots),
            ephemeral=self._ephemeral,
        )
        return ContextRow(number, info)

    def _insert_context(self, change: ContextChange, now: float) -> int:
        cursor = self._db.execute(
            "INSERT INTO contexts (name, kind, private, implicit, revision, created, updated, used, sources, roots)"
            " VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?)",
            (
                change.name,
                change.kind,
                change.private,
                change.implicit,
                now,
                now,
                now,
                json.dumps(change.sources),
                _roots_text(change.roots),
            ),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _update_context(self, before: ContextRow, change: ContextChange, now: float) -> Change:
        info = before.info
        private = info.private or change.private  # sticky: a load never makes public what was private
        implicit = info.implicit and change.implicit
        sources = change.sources
        differs = bool(change.fresh or change.gone)
        roots = _roots_text(change.roots)
        (known_roots,) = self._db.execute("SELECT roots FROM contexts WHERE id = ?", (before.id,)).fetchone()
        told = (info.private, info.implicit, info.sources, known_roots)
        if not differs and (private, implicit, sources, roots) == told:
            return "unchanged"
        revision = info.revision + differs
        self._db.execute(
            "UPDATE contexts SET private = ?, implicit = ?, revision = ?, updated = ?, used = ?, sources = ?, roots = ?"
            " WHERE id = ?",
            (private, implicit, revision, now, now, json.dumps(sources), roots, before.id),
        )
        if differs:
            self._write_revision(before.id, revision, change, now)
        return "updated" if differs or private != info.private else "unchanged"

    def _write_revision(self, context: int, revision: int, change: ContextChange, now: float) -> None:
        self._db.execute(
            "INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?)",
            (context, revision, change.digest, change.documents, change.chars, change.bytes, now),
        )
        self._db.executemany("UPDATE documents SET past = ? WHERE id = ?", [(revision, row) for row in change.gone])
        self._db.executemany(
            f"INSERT INTO documents (context, first, {DOCUMENT_COLUMNS}, identity)"  # noqa: S608
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (_document_row(context, revision, loaded) for loaded in change.fresh),
        )
        if change.blob is not None:
            self._db.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", (context, *change.blob))


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Wholly or not at all, also when the disk is full at the very commit. Raises ``DiskFull``, ``Unavailable``."""
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            raise translated(error, "writing the catalogue") from error
        raise


def _document_row(context: int, revision: int, loaded: LoadedDocument) -> tuple[Any, ...]:
    d = loaded.document
    segments = json.dumps([(s.blob, s.offset, s.length) for s in d.segments])
    return (
        context,
        revision,
        d.name,
        d.origin,
        d.digest,
        d.chars,
        d.bytes,
        d.max_codepoint,
        segments,
        d.origin_digest,
        d.marks,
        d.encoding,
        d.format,
        d.pages,
        _identity_text(loaded.identity),
    )


def _roots_text(roots: PathSource | None) -> str | None:
    if roots is None:
        return None
    told = {"paths": roots.paths, "include": roots.include, "exclude": roots.exclude, "everything": roots.everything}
    told["convert"] = roots.convert
    if roots.confined:  # else the text is what earlier releases wrote and read
        told["confined"] = True
    return json.dumps(told)


def _roots(text: str) -> PathSource:
    told = json.loads(text)
    patterns = tuple(told["include"]), tuple(told["exclude"])
    return PathSource(
        tuple(told["paths"]), *patterns, told["everything"], told["convert"], confined=told.get("confined", False)
    )


def _identity_text(identity: FileIdentity | None) -> str | None:
    """As text: an inode number may exceed SQLite's signed 64 bits."""
    if identity is None:
        return None
    return f"{identity.device} {identity.inode} {identity.size} {identity.mtime_ns}"


def _identity(text: str | None) -> FileIdentity | None:
    return None if text is None else FileIdentity(*map(int, text.split()))
