"""Money and what saves it: the budget, the cache of finished sub-queries."""

from __future__ import annotations

from typing import Literal

from rlmd.wire.methods.base import Method, Nothing, Params, Result


class BudgetParams(Params):
    """``run_id``: also what this run and its children spent."""

    run_id: str | None = None


class BudgetAccount(Result):
    """Dollars. ``reserved`` is set aside for requests under way; ``limit`` is null where there is none."""

    name: Literal["run", "day", "month"]
    limit: float | None
    spent: float
    reserved: float


class BudgetResult(Result):
    """``blocked``: why nothing is spent at all; empty as a rule."""

    accounts: tuple[BudgetAccount, ...]
    ask: bool
    overflow_after: float
    blocked: str = ""


class BudgetAllowParams(Params):
    run_id: str


class CacheResult(Result):
    """``hits`` and ``joined`` (answers that an equal request in flight shared) count from the daemon's start."""

    entries: int
    bytes: int
    limit_bytes: int
    hits: int
    joined: int
    completed: int


METHODS = (
    Method("budget/show", BudgetParams, BudgetResult, "What was spent today, this month and by a run, and the limits."),
    Method("budget/allow", BudgetAllowParams, BudgetResult, "Lets a run spend, where budget.ask is on."),
    Method("cache/stats", Nothing, CacheResult, "How full the cache of sub-queries is, and what it saved."),
    Method("cache/clear", Nothing, CacheResult, "Forgets every finished sub-query; runs keep theirs."),
)
