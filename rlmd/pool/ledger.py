"""The budget on disk: every attempt that may cost money is written before it is sent, and again when it is settled.

SQLite on one thread, ``synchronous = FULL``: what was reserved is there after ``kill -9`` and after a power cut. What
an earlier daemon reserved and did not settle may have been spent, so it counts as spent whole.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from rlmd.errors import DiskFull
from rlmd.pool.budget import Budget, Entry
from rlmd.pool.lots import Lots

_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
  number INTEGER PRIMARY KEY, tree TEXT NOT NULL, host TEXT NOT NULL, model TEXT NOT NULL, day TEXT NOT NULL,
  at REAL NOT NULL, reserved INTEGER NOT NULL, spent INTEGER, prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS by_day ON attempts (day);
CREATE TABLE IF NOT EXISTS sums (
  day TEXT NOT NULL, tree TEXT NOT NULL, host TEXT NOT NULL, model TEXT NOT NULL, spent INTEGER NOT NULL,
  attempts INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
  PRIMARY KEY (day, tree, host, model)
) STRICT, WITHOUT ROWID;
"""
_SUM_UP = """
INSERT INTO sums
SELECT day, tree, host, model, sum(spent), count(*), sum(prompt_tokens), sum(completion_tokens)
FROM attempts WHERE at <= unixepoch() - ? AND spent IS NOT NULL GROUP BY day, tree, host, model
ON CONFLICT DO UPDATE SET spent = sums.spent + excluded.spent, attempts = sums.attempts + excluded.attempts,
  prompt_tokens = sums.prompt_tokens + excluded.prompt_tokens,
  completion_tokens = sums.completion_tokens + excluded.completion_tokens
"""
_SUMMED_UP = "DELETE FROM attempts WHERE at <= unixepoch() - ? AND spent IS NOT NULL"
_SUMS = "SELECT 0, tree, host, model, day, 0.0, spent, spent, prompt_tokens, completion_tokens FROM sums"
_COLUMNS = "number, tree, host, model, day, at, reserved, spent, prompt_tokens, completion_tokens"
#: How long each attempt stands by itself. Then those of a day, a run and a model are one row, which stays: no limit
#: is ever counted otherwise than it was.
KEPT_DAYS = 62

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Ledger:
    """Args:
    file: The database; None keeps nothing (a pool without a state folder).
    budget: Decides; this writes down.
    """

    def __init__(self, file: Path | None, budget: Budget) -> None:
        self._file = file
        self.budget = budget
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rlmd-ledger")
        self._database: sqlite3.Connection | None = None
        self._lots: Lots[Entry] = Lots(self._thread, self._write)

    async def open(self) -> None:
        """One that cannot be read is set aside, and as long as it stands there nothing is spent."""
        if self._file is None:
            return
        entries, number, aside = await self._call(self._opened)
        self.budget.restore(entries, number)
        if aside:
            log.error("ledger_damaged", file=str(aside))
            self.budget.blocked = f"the ledger was damaged and is now {aside}; nothing is spent until that file is gone"

    async def close(self) -> None:
        self._lots.hand_over()
        await self._call(self._close)
        self._thread.shutdown(wait=False)

    async def keep(self, entry: Entry) -> None:
        """Returns when it is on disk. Raises ``DiskFull`` when it is not: then nothing may be sent."""
        try:
            await self._lots.add(str(entry.number), entry)
        except sqlite3.Error as error:
            log.error("ledger_failed", error=type(error).__name__)
            raise DiskFull("What would be spent could not be written down, so nothing is sent.") from error

    def note(self, entry: Entry) -> None:
        """Writes it soon; until it is there, what was reserved counts."""
        self._lots.add(str(entry.number), entry)

    async def sum_up(self) -> None:
        """What is older than ``KEPT_DAYS`` becomes sums. No limit counts otherwise; a fault leaves all as it was."""
        try:
            await self._call(lambda: self._sum_up(self._database))
        except sqlite3.Error as error:
            log.error("ledger_failed", error=type(error).__name__)

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # ── on the thread ───────────────────────────────────────────────────────────────────────────────────────

    def _opened(self) -> tuple[list[Entry], int, Path | None]:
        assert self._file is not None
        try:
            entries, number = self._open()
        except sqlite3.DatabaseError:
            self._close()
            self._file.replace(self._file.with_name(f"{self._file.name}.damaged-{int(time.time())}"))
            entries, number = self._open()
        return entries, number, next(iter(sorted(self._file.parent.glob(f"{self._file.name}.damaged-*"))), None)

    def _open(self) -> tuple[list[Entry], int]:
        assert self._file is not None
        self._database = sqlite3.connect(self._file, isolation_level=None)
        self._file.chmod(0o600)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)
        self._database.execute("UPDATE attempts SET spent = reserved WHERE spent IS NULL")
        self._sum_up(self._database)
        everything = f"SELECT {_COLUMNS} FROM attempts UNION ALL {_SUMS}"  # noqa: S608  columns of ours
        rows = self._database.execute(everything).fetchall()
        (last,) = self._database.execute("SELECT coalesce(max(number), 0) FROM attempts").fetchone()
        return [Entry(*row) for row in rows], last + 1

    def _sum_up(self, database: sqlite3.Connection | None) -> None:
        if database is None:
            return
        seconds = (KEPT_DAYS * 86_400,)
        with database:
            database.execute("BEGIN IMMEDIATE")
            database.execute(_SUM_UP, seconds)
            database.execute(_SUMMED_UP, seconds)

    def _write(self, lot: dict[str, Entry]) -> None:
        if self._database is None:
            return
        rows = [
            (e.number, e.tree, e.host, e.model, e.day, e.at, e.reserved, e.spent, e.prompt_tokens, e.completion_tokens)
            for e in lot.values()
        ]
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            marks = ", ".join("?" * 10)
            self._database.executemany(f"INSERT OR REPLACE INTO attempts ({_COLUMNS}) VALUES ({marks})", rows)  # noqa: S608  columns of ours

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
