"""The catalogue's tables: made, carried forward from earlier releases, and never written to when they are not ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from rlmd.errors import DiskFull, RlmdError, Unavailable

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE contexts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, private INTEGER NOT NULL,
    implicit INTEGER NOT NULL, revision INTEGER NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
    sources TEXT NOT NULL
);
CREATE TABLE revisions (
    context INTEGER NOT NULL, revision INTEGER NOT NULL, digest TEXT NOT NULL, documents INTEGER NOT NULL,
    chars INTEGER NOT NULL, bytes INTEGER NOT NULL, created REAL NOT NULL, PRIMARY KEY (context, revision)
) WITHOUT ROWID;
-- A row holds from revision `first` up to, not including, `past`; NULL: up to the newest.
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, context INTEGER NOT NULL, first INTEGER NOT NULL, past INTEGER, name TEXT NOT NULL,
    origin TEXT, digest TEXT NOT NULL, origin_digest TEXT NOT NULL, chars INTEGER NOT NULL, bytes INTEGER NOT NULL,
    max_codepoint INTEGER NOT NULL, marks BLOB NOT NULL, segments TEXT NOT NULL, identity TEXT
);
CREATE INDEX documents_by_name ON documents (context, name, first);
CREATE TABLE blobs (context INTEGER NOT NULL, digest TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (context, digest)) WITHOUT ROWID;
CREATE INDEX blobs_by_digest ON blobs (digest);
INSERT INTO meta VALUES ('store', lower(hex(randomblob(8))));
"""
#: What leads from the schema of a version to that of the next. A catalogue is carried forward in one transaction.
_MIGRATIONS = {
    1: """
ALTER TABLE contexts ADD COLUMN used REAL NOT NULL DEFAULT 0;
-- The paths that it came from, as a JSON object; NULL where a client brought the text.
ALTER TABLE contexts ADD COLUMN roots TEXT;
ALTER TABLE documents ADD COLUMN encoding TEXT NOT NULL DEFAULT 'utf-8';
ALTER TABLE documents ADD COLUMN format TEXT NOT NULL DEFAULT 'text';
ALTER TABLE documents ADD COLUMN pages BLOB NOT NULL DEFAULT x'';
UPDATE contexts SET used = updated;
""",
}


class CatalogueUnreadable(Exception):
    """The file is no catalogue of ours, or damaged; never written to."""


def translated(error: sqlite3.OperationalError, what: str) -> RlmdError:
    """What the machine refused to SQLite, as an error that a user can act on."""
    name = error.sqlite_errorname
    if name.startswith("SQLITE_FULL") or name == "SQLITE_IOERR_WRITE":
        return DiskFull(f"No space left while {what}.", hint="Free some space, or drop contexts, and try again.")
    return Unavailable(
        f"{what[:1].upper()}{what[1:]} failed: {name}.", hint="Look at the state folder's owner, mode and disk."
    )


def opened(path: Path | None) -> sqlite3.Connection:
    """Opens or makes a catalogue's database; without a path one in memory.

    Raises:
        CatalogueUnreadable: It is damaged, of another make, or of a later release.
        DiskFull, Unavailable: It may be well, but the machine does not let us at it.
    """
    try:
        return _opened(path)
    except sqlite3.OperationalError as error:
        raise translated(error, "opening the catalogue") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise CatalogueUnreadable(type(error).__name__) from error


def _opened(path: Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=True, timeout=5)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        empty = not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not (1 <= version <= SCHEMA_VERSION or (version == 0 and empty)):
            raise sqlite3.DatabaseError(f"schema version {version}")
        if not empty and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA temp_store = MEMORY")  # what is sorted is in no file
        steps = [_SCHEMA] * empty + [_MIGRATIONS[n] for n in range(version or 1, SCHEMA_VERSION)]
        if steps:
            # One transaction: a catalogue is there, or carried forward, wholly or not at all.
            db.executescript(f"BEGIN; {' '.join(steps)} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    except BaseException:
        db.close()
        raise
    return db
