"""The index of the ranked search: an inverted index of passages in FTS5 of SQLite, one file a context, in the cache.

Runs in the helper. The index is derived: it may be deleted at any time, and is rebuilt when damaged. It is contentless
(it holds no text) and knows documents by name and digest, so that an update indexes only what is new.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlmd.contexts.passages import passages, syntax_of
from rlmd.contexts.records import PinnedDocument
from rlmd.contexts.shelf import Shelf, Volume
from rlmd.contexts.text import CHUNK, decode
from rlmd.contexts.words import spelled_out, storable

INDEX_VERSION = 5
_SCHEMA = """
CREATE TABLE documents (id INTEGER PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, UNIQUE (name, digest));
CREATE TABLE passages (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
    line INTEGER NOT NULL, heading TEXT NOT NULL);
CREATE INDEX passages_by_document ON passages (document);
CREATE VIRTUAL TABLE words USING fts5 (body, heading, title, name, content='',
    tokenize="porter unicode61 remove_diacritics 2");
"""
_BATCH_BYTES = 8 << 20
_ROWS = 500
#: Words are gathered in memory up to this size before they are written as one sorted run: few runs, little merging.
_GATHERED_BYTES = 32 << 20


class Index:
    """The index file of one context.

    Args:
        path: Where it is, or will be; None: in memory, of an ephemeral context.
    """

    def __init__(self, path: Path | None) -> None:
        self._owners: list[int] | None = None
        self._path = path
        try:
            self.db = self._open(path)
        except sqlite3.DatabaseError:
            if path is None:
                raise
            remove(path)
            self.db = self._open(path)

    @staticmethod
    def _open(path: Path | None) -> sqlite3.Connection:
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # whoever deletes the cache may
        db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=30)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, INDEX_VERSION):
                raise sqlite3.DatabaseError("another version")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA temp_store = MEMORY")
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {INDEX_VERSION}; COMMIT;")
            if path is not None:
                path.chmod(0o600)
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        self.db.close()

    @property
    def empty(self) -> bool:
        return not self.db.execute("SELECT EXISTS (SELECT 1 FROM documents)").fetchone()[0]

    def mark_used(self) -> None:
        """For whoever removes what nobody uses: the time of a search is that of the file."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def owners(self) -> list[int]:
        """The document of each passage, by the passage's number."""
        if self._owners is None:
            last = self.db.execute("SELECT coalesce(max(id), 0) FROM passages").fetchone()[0]
            self._owners = [0] * (last + 1)
            for passage, document in self.db.execute("SELECT id, document FROM passages"):
                self._owners[passage] = document
        return self._owners

    def documents(self) -> list[tuple[int, str, str]]:
        """Number, name and digest of each document."""
        return self.db.execute("SELECT id, name, digest FROM documents").fetchall()

    def missing(self, volume: Volume) -> list[PinnedDocument]:
        known = set(self.db.execute("SELECT name, digest FROM documents"))
        return [d for d in volume.documents if (d.name, d.digest) not in known]

    def add(self, shelf: Shelf, documents: list[PinnedDocument], progress: Callable[[int], None]) -> None:
        """Indexes documents, some megabytes a transaction; ``progress`` takes the bytes done."""
        done = pending = 0
        self._owners = None
        self.db.execute("INSERT INTO words (words, rank) VALUES ('hashsize', ?)", (_GATHERED_BYTES,))
        self.db.execute("BEGIN IMMEDIATE")
        try:
            for document in documents:
                self._add_document(shelf, document)
                pending += document.bytes
                if pending >= _BATCH_BYTES:
                    self.db.execute("COMMIT")
                    done, pending = done + pending, 0
                    progress(done)
                    self.db.execute("BEGIN IMMEDIATE")
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def _add_document(self, shelf: Shelf, document: PinnedDocument) -> None:
        cursor = self.db.execute(
            "INSERT OR IGNORE INTO documents (name, digest) VALUES (?, ?)", (document.name, document.digest)
        )
        if not cursor.rowcount:
            return
        number = cursor.lastrowid
        name = spelled_out(document.name)
        title = ""
        spelled = lru_cache(64)(spelled_out)  # many passages lie under the same headings
        last = self.db.execute("SELECT coalesce(max(id), 0) FROM passages").fetchone()[0]
        places, texts = [], []
        for row, p in enumerate(passages(_lines(shelf, document), syntax_of(document.name)), last + 1):
            title = title or (p.trail[0] if p.trail else "")
            places.append((row, number, p.start, p.end, p.line, storable(p.heading)[:200]))
            texts.append((row, spelled_out(p.text), spelled(" / ".join(p.trail)), spelled(title), name))
            if len(places) == _ROWS:
                self._add_rows(places, texts)
        self._add_rows(places, texts)

    def _add_rows(self, places: list[tuple[Any, ...]], texts: list[tuple[Any, ...]]) -> None:
        """Writes passages, and forgets them here: one document may be as large as a disk."""
        self.db.executemany(
            "INSERT INTO passages (id, document, start, end, line, heading) VALUES (?, ?, ?, ?, ?, ?)", places
        )
        self.db.executemany("INSERT INTO words (rowid, body, heading, title, name) VALUES (?, ?, ?, ?, ?)", texts)
        places.clear()
        texts.clear()


def _lines(shelf: Shelf, document: PinnedDocument) -> Iterator[str]:
    """A document's lines, read some at a time; a line beyond a chunk comes in parts."""
    position, rest = 0, b""
    while position < document.bytes:
        data = rest + shelf.bytes_of(document, position, position + CHUNK)
        position += CHUNK
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) > 4 * CHUNK:
            cut = _character_border(data)
        rest = data[cut:]
        yield from _keepends(decode(data[:cut]))
    yield from _keepends(decode(rest))


def _character_border(data: bytes) -> int:
    """The last place at which a UTF-8 sequence may begin."""
    cut = len(data) - 1
    while cut > len(data) - 4 and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _keepends(text: str) -> Iterator[str]:
    """Lines end with LF alone, as in Emacs; ``str.splitlines`` knows too many ends."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start : end + 1]
        start = end + 1
    if start < len(text):
        yield text[start:]


def remove(path: Path) -> None:
    """Erases an index file."""
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path.with_name(path.name + suffix))
