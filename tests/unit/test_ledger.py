"""The ledger over the months: attempts become sums, and no limit ever counts otherwise than it did."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from rlmd.config import BudgetSettings
from rlmd.pool.budget import Budget
from rlmd.pool.ledger import KEPT_DAYS, Ledger
from rlmd.pool.prices import NANO

DAY = 86_400.0


class Wall:
    """The time of day, days ago."""

    ago = 0.0

    def __call__(self) -> float:
        return time.time() - self.ago * DAY


async def spend(file: Path, wall: Wall, days_ago: float, tree: str, nano: int, count: int) -> None:
    wall.ago = days_ago
    ledger = Ledger(file, Budget(BudgetSettings(), wall))
    await ledger.open()
    for _ in range(count):
        entry = ledger.budget.reserve(tree, "cloud", "sub", 2 * nano)
        await ledger.keep(entry)
        ledger.note(ledger.budget.settle(entry.number, nano, 10, 3))
    await ledger.close()
    wall.ago = 0.0


def told(file: Path) -> tuple[int, int, int, int]:
    """Attempts that stand by themselves, rows of sums; all that was spent, all tokens."""
    with closing(sqlite3.connect(file)) as database:
        found = database.execute(
            "SELECT (SELECT count(*) FROM attempts), (SELECT count(*) FROM sums), "
            "(SELECT coalesce(sum(spent), 0) FROM attempts) + (SELECT coalesce(sum(spent), 0) FROM sums), "
            "(SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM attempts) "
            "+ (SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM sums)"
        ).fetchone()
    return tuple(found)


async def spent(file: Path, tree: str) -> dict[str, float]:
    ledger = Ledger(file, Budget(BudgetSettings(run=1, day=1, month=1), time.time))
    await ledger.open()
    accounts = {account.name: account.spent for account in ledger.budget.accounts(tree)}
    await ledger.close()
    return accounts


async def test_what_is_old_becomes_sums_and_counts_as_it_did(tmp_path: Path) -> None:
    file, wall = tmp_path / "ledger.sqlite", Wall()
    await spend(file, wall, KEPT_DAYS + 40, "old run", NANO // 100, 50)
    await spend(file, wall, KEPT_DAYS + 40, "another", NANO // 100, 7)
    await spend(file, wall, KEPT_DAYS + 3, "old run", NANO // 100, 20)
    await spend(file, wall, 0, "old run", NANO // 100, 5)
    assert told(file) == (5, 3, 82 * NANO // 100, 82 * 13)
    assert (await spent(file, "old run"))["run"] == pytest.approx(0.75), "a run that goes on has spent what it had"
    assert (await spent(file, "another"))["run"] == pytest.approx(0.07)
    today = await spent(file, "old run")
    assert (today["day"], today["month"]) == (pytest.approx(0.05), pytest.approx(0.05))
    assert told(file) == (5, 3, 82 * NANO // 100, 82 * 13), "summed up once"


async def test_a_day_that_is_summed_up_twice_is_one_row(tmp_path: Path) -> None:
    """A clock that was wrong, or a daemon of an earlier time beside it, adds to a day that had become sums."""
    file, wall = tmp_path / "ledger.sqlite", Wall()
    for _ in range(3):
        await spend(file, wall, KEPT_DAYS + 10, "run", NANO // 100, 4)
    ledger = Ledger(file, Budget(BudgetSettings(), time.time))
    await ledger.open()
    await ledger.sum_up()
    await ledger.close()
    assert told(file) == (0, 1, 12 * NANO // 100, 12 * 13)
    assert (await spent(file, "run"))["run"] == pytest.approx(0.12)


async def test_what_a_killed_daemon_had_reserved_long_ago_counts_whole(tmp_path: Path) -> None:
    file, wall = tmp_path / "ledger.sqlite", Wall()
    wall.ago = KEPT_DAYS + 10
    ledger = Ledger(file, Budget(BudgetSettings(), wall))
    await ledger.open()
    await ledger.keep(ledger.budget.reserve("run", "cloud", "sub", NANO // 10))
    await ledger.sum_up()
    assert told(file)[0] == 1, "what is not settled stays by itself"
    await ledger.close()
    assert (await spent(file, "run"))["run"] == pytest.approx(0.1)
