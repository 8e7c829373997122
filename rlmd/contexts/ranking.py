"""The ranked search: an inverted index of passages in SQLite's FTS5, one file a context, in the cache folder.

Runs in the helper. The index is derived: it may be deleted at any time, and is rebuilt when damaged. It is contentless
(it holds no text) and knows documents by name and digest, so that an update indexes only what is new.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rlmd.contexts.passages import passages
from rlmd.contexts.records import PinnedDocument
from rlmd.contexts.shelf import Shelf, Volume
from rlmd.contexts.text import CHUNK, decode

INDEX_VERSION = 1
_SCHEMA = """
CREATE TABLE documents (id INTEGER PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, UNIQUE (name, digest));
CREATE TABLE passages (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
    line INTEGER NOT NULL, heading TEXT NOT NULL);
CREATE INDEX passages_by_document ON passages (document);
CREATE VIRTUAL TABLE words USING fts5 (body, heading, name, content='',
    tokenize="porter unicode61 remove_diacritics 2");
"""
_BATCH_BYTES = 4 << 20


class Index:
    """The index file of one context.

    Args:
        path: Where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.db = self._open(path)
        except sqlite3.DatabaseError:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self.db = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, timeout=30)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, INDEX_VERSION):
                raise sqlite3.DatabaseError("another version")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {INDEX_VERSION}; COMMIT;")
            path.chmod(0o600)
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        self.db.close()

    def missing(self, volume: Volume) -> list[PinnedDocument]:
        known = set(self.db.execute("SELECT name, digest FROM documents"))
        return [d for d in volume.documents if (d.name, d.digest) not in known]

    def add(self, shelf: Shelf, documents: list[PinnedDocument], progress: Callable[[int], None]) -> None:
        """Indexes documents, some megabytes a transaction; ``progress`` takes the bytes done."""
        done = pending = 0
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
        for p in passages(_lines(shelf, document)):
            row = self.db.execute(
                "INSERT INTO passages (document, start, end, line, heading) VALUES (?, ?, ?, ?, ?)",
                (number, p.start, p.end, p.line, _storable(p.heading)[:200]),
            ).lastrowid
            self.db.execute(
                "INSERT INTO words (rowid, body, heading, name) VALUES (?, ?, ?, ?)",
                (row, spelled_out(p.text), spelled_out(p.heading), name),
            )


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


_CAMEL = re.compile(r"[a-z0-9][A-Z]")
_CAMEL_WORD = re.compile(r"[A-Za-z0-9]*[a-z0-9][A-Z][A-Za-z0-9]*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", " ")


def spelled_out(text: str) -> str:
    """What is indexed for a text: itself, and the parts of its camelCase words; snake_case is split by FTS5."""
    text = _storable(text)
    if _CAMEL.search(text) is None:
        return text
    parts = [_HUMP.sub(" ", word) for word in set(_CAMEL_WORD.findall(text))]
    return f"{text} {' '.join(parts)}"


_WORD = re.compile(r"[^\W_]+")
_STOPS = (
    "a about after all also am an and any are as at be because been before being between both but by can could did do"
    " does doing done each else for from get gets give given had has have having he her here hers him his how i if in"
    " into is it its itself just let like may me might more most must my no nor not of off on once one only or other"
    " our ours out over own please same shall she should so some such tell than that the their theirs them then there"
    " these they this those through to too under until up upon us use used using very was way we were what when where"
    " whether which while who whom whose why will with within without would you your yours"
)
STOP_WORDS = frozenset(_STOPS.split())


def query_words(query: str) -> list[str]:
    """The words of a question that carry meaning, each once, lower case; all of them if none does."""
    words = list(dict.fromkeys(w.lower() for w in _WORD.findall(spelled_out(query))))
    return [w for w in words if w not in STOP_WORDS] or words


@dataclass(frozen=True, slots=True)
class Ranked:
    document: PinnedDocument
    start: int
    end: int
    line: int
    heading: str
    score: float
    text: str


def rank(index: Index, shelf: Shelf, volume: Volume, query: str, limit: int) -> list[Ranked]:
    """The best passages for a question, best first."""
    words = query_words(query)
    if not words:
        return []
    match = " OR ".join(f'"{w}"' for w in words[:64])
    live = {(d.name, d.digest): d for d in volume.documents}
    rows = index.db.execute(
        "SELECT p.start, p.end, p.line, p.heading, d.name, d.digest, w.score FROM"
        " (SELECT rowid, bm25(words, 1.0, 2.0, 1.0) AS score FROM words WHERE words MATCH ? ORDER BY score LIMIT ?) w"
        " JOIN passages p ON p.id = w.rowid JOIN documents d ON d.id = p.document ORDER BY w.score",
        (match, max(300, 4 * limit)),
    )
    hits = []
    for start, end, line, heading, name, digest, score in rows:
        document = live.get((name, digest))
        if document is not None:
            text = shelf.ruler(document).text(start, end)
            hits.append(Ranked(document, start, end, line, heading, -score, text))
            if len(hits) >= limit:
                break
    return hits


def remove(path: Path) -> None:
    """Erases an index file."""
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path.with_name(path.name + suffix))
