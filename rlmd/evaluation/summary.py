"""Rows summed up: one line a task and length, with the mean of each column."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rlmd.evaluation.asking import COLUMNS, Column, Row


class Cell(BaseModel):
    """One column of one task and length. ``score`` is the mean of the items that have one; ``cut``: of how many items
    a part was left out; seconds, dollars and sub-queries are means an item."""

    model_config = ConfigDict(frozen=True)

    score: float | None
    items: int
    cut: int
    seconds: float
    money: float
    sub_queries: float


class Line(BaseModel):
    """One task at one length."""

    model_config = ConfigDict(frozen=True)

    type: Literal["summary"] = "summary"
    task: str
    tokens: int
    columns: dict[Column, Cell]


def summary(rows: Iterable[Row]) -> list[Line]:
    """In the order in which tasks and lengths first came."""
    groups: dict[tuple[str, int], dict[Column, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row.task, row.tokens][row.column].append(row)
    return [
        Line(task=task, tokens=tokens, columns={one: _cell(found[one]) for one in COLUMNS if one in found})
        for (task, tokens), found in groups.items()
    ]


def _cell(rows: list[Row]) -> Cell:
    scores = [row.score for row in rows if row.score is not None]
    return Cell(
        score=fmean(scores) if scores else None,
        items=len(rows),
        cut=sum(row.cut > 0 for row in rows),
        seconds=fmean(row.seconds for row in rows),
        money=fmean(row.money for row in rows),
        sub_queries=fmean(row.sub_queries for row in rows),
    )
