"""The ranked search: an inverted index of passages in SQLite's FTS5, one file a context, in the cache folder.

Runs in the helper. The index is derived: it may be deleted at any time, and is rebuilt when damaged. It is contentless
(it holds no text) and knows documents by name and digest, so that an update indexes only what is new.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlmd.contexts.passages import passages, syntax_of
from rlmd.contexts.records import PinnedDocument
from rlmd.contexts.shelf import Shelf, Volume
from rlmd.contexts.text import CHUNK, decode
from rlmd.contexts.thesaurus import LONGEST, related
from rlmd.contexts.words import WORD, query_words, spelled_out, storable

INDEX_VERSION = 4
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
        path: Where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self._owners: list[int] | None = None
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


@dataclass(frozen=True, slots=True)
class Ranked:
    document: PinnedDocument
    start: int
    end: int
    line: int
    heading: str
    score: float
    text: str


@dataclass(slots=True)
class Concept:
    """One thing that a question names: match expressions for it, each with a weight; the best one counts."""

    terms: dict[str, float]
    weight: float = 1.0


# Tuned on questions over the kernel's documentation; each is at a plateau, where a third more or less changes little.
#: A related term counts this much of the word itself.
_SYNONYM_WEIGHT = 0.7
#: Two words of the question side by side: little, because two rare words side by side are counted thrice as it is.
_PAIR_WEIGHT = 0.1
#: What a word in the passage before or after is worth.
_NEIGHBOUR_WEIGHT = 0.2
#: What the best passage of the document for each word is worth to all of them.
_DOCUMENT_WEIGHT = 0.15
#: Compresses a word's score: to have most words of a question counts for more than to have one rare word often.
_POWER = 0.5
#: BM25 prefers short passages; one of no length loses this share, one of ``_FULL_CHARS`` nothing.
_SHORT_PENALTY = 0.15
_FULL_CHARS = 800
#: Weights of body, heading, title, name.
_FIELDS = "1.0, 2.0, 1.0, 1.0"
_MAX_CONCEPTS = 80


def concepts(query: str) -> list[Concept]:
    """What a question is about, word by word, with related terms, and its words in pairs."""
    everything = [w.lower() for w in WORD.findall(storable(query))]
    found: dict[str, Concept] = {}
    for word in query_words(query):
        terms = {quoted(word): 1.0}
        for term in related((word,)):
            terms.setdefault(quoted(term), _SYNONYM_WEIGHT)
        found[word] = Concept(terms)
    for size in range(2, LONGEST + 1):
        for at in range(len(everything) - size + 1):
            phrase = tuple(everything[at : at + size])
            terms = {quoted(t): _SYNONYM_WEIGHT for t in related(phrase)}
            if terms:
                found[" ".join(phrase)] = Concept(terms)
    pairs = [
        Concept({f"NEAR({quoted(a)} {quoted(b)}, 2)": 1.0}, _PAIR_WEIGHT)
        for a, b in itertools.pairwise(w for w in everything if w in found)
        if a != b
    ]
    return [*found.values(), *pairs][:_MAX_CONCEPTS]


def quoted(term: str) -> str:
    return '"' + term.replace('"', "") + '"'


def rank(index: Index, shelf: Shelf, volume: Volume, query: str, limit: int) -> list[Ranked]:
    """The best passages for a question, best first."""
    live = {(d.name, d.digest): d for d in volume.documents}
    tally = _Tally(index, {row for row, *key in index.documents() if tuple(key) in live})
    for concept in concepts(query):
        tally.add(concept)
    return _chosen(index, shelf, live, tally.best(200 + 4 * limit), limit)


class _Tally:
    """Adds up what the passages of the documents in question are worth."""

    def __init__(self, index: Index, documents: set[int]) -> None:
        self._db = index.db
        self._owners = index.owners()
        self._documents = documents
        self._passages: dict[int, float] = {}
        self._by_document: dict[int, float] = {}

    def add(self, concept: Concept) -> None:
        """Adds a concept: to a passage by its best term, to its neighbours and its document a share of that."""
        worth = self._worth(concept)
        best: dict[int, float] = {}
        for passage, score in worth.items():
            document = self._owners[passage]
            if score > best.get(document, 0.0):
                best[document] = score
        for passage, score in list(worth.items()):
            lent = score * _NEIGHBOUR_WEIGHT**_POWER
            for beside in (passage - 1, passage + 1):
                if self._together(passage, beside) and lent > worth.get(beside, 0.0):
                    worth[beside] = lent
        for totals, scores in ((self._passages, worth), (self._by_document, best)):
            for key, score in scores.items():
                totals[key] = totals.get(key, 0.0) + concept.weight * score

    def best(self, count: int) -> dict[int, float]:
        """The passages worth most, with their document's share."""
        owners, documents = self._owners, self._by_document
        totals = {p: s + _DOCUMENT_WEIGHT * documents[owners[p]] for p, s in self._passages.items()}
        return {p: totals[p] for p in heapq.nlargest(count, totals, key=totals.__getitem__)}

    def _worth(self, concept: Concept) -> dict[int, float]:
        """What each passage that has the concept gets for it. Its terms are as rare as all of them together."""
        lists = [(rows, weight) for term, weight in concept.terms.items() if (rows := self._rows(term))]
        holding = len({passage for rows, _ in lists for passage, _ in rows})
        total = len(self._owners)
        worth: dict[int, float] = {}
        for rows, weight in lists:
            scale = weight * rarity(total, holding) / rarity(total, len(rows))
            for passage, score in rows:
                if self._owners[passage] in self._documents and (scaled := (score * scale) ** _POWER) > worth.get(
                    passage, 0.0
                ):
                    worth[passage] = scaled
        return worth

    def _rows(self, term: str) -> list[tuple[int, float]]:
        rows = self._db.execute(
            f"SELECT rowid, -bm25(words, {_FIELDS}) FROM words WHERE words MATCH ?",  # noqa: S608
            (term,),
        )
        return rows.fetchall()

    def _together(self, passage: int, beside: int) -> bool:
        owners = self._owners
        return 0 < beside < len(owners) and owners[beside] == owners[passage]


def rarity(total: int, holding: int) -> float:
    """The inverse document frequency as FTS5's bm25 has it."""
    return max(math.log((total - holding + 0.5) / (holding + 0.5)), 1e-6)


def _chosen(
    index: Index,
    shelf: Shelf,
    live: dict[tuple[str, str], PinnedDocument],
    worth: dict[int, float],
    limit: int,
) -> list[Ranked]:
    """The first of the candidates, without those that say what a better one says."""
    marks = ",".join("?" * len(worth))
    rows = index.db.execute(
        "SELECT p.id, p.start, p.end, p.line, p.heading, d.name, d.digest FROM passages p"  # noqa: S608
        f" JOIN documents d ON d.id = p.document WHERE p.id IN ({marks})",
        list(worth),
    )
    scored = [(worth[row[0]] * _fullness(row[2] - row[1]), row) for row in rows]
    hits: list[Ranked] = []
    seen: list[set[str]] = []
    for score, (_, start, end, line, heading, name, digest) in sorted(scored, key=lambda s: (-s[0], s[1][0])):
        document = live[name, digest]
        text = shelf.ruler(document).text(start, end)
        words = set(WORD.findall(text))
        if any(len(words & other) > _SAME * len(words | other) for other in seen):
            continue
        seen.append(words)
        hits.append(Ranked(document, start, end, line, heading, score, text))
        if len(hits) >= limit:
            break
    return hits


#: Passages that share more of their words than this are taken for copies of one another.
_SAME = 0.85


def _fullness(chars: int) -> float:
    return 1 - _SHORT_PENALTY * (1 - min(1.0, chars / _FULL_CHARS))


def remove(path: Path) -> None:
    """Erases an index file."""
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path.with_name(path.name + suffix))
