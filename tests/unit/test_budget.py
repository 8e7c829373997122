"""The budget alone: nothing that is sent exceeds a limit, whatever the clock does meanwhile."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmd.config import BudgetSettings
from rlmd.pool.budget import Budget
from rlmd.pool.prices import NANO

#: Nights in which the clocks are changed are in it, and a month's end.
BERLIN = ZoneInfo("Europe/Berlin")
STARTS = [
    datetime(2026, 3, 29, 0, 50, tzinfo=UTC), datetime(2026, 10, 25, 0, 50, tzinfo=UTC),
    datetime(2026, 10, 31, 22, 55, tzinfo=UTC), datetime(2026, 12, 31, 22, 55, tzinfo=UTC),
]  # fmt: skip
#: Seconds that the clock moves by between two steps; it is set back too, by an hour, a day, a month.
JUMPS = st.sampled_from([0.0, 1.0, 400.0, 3600.0, -3600.0, 86_400.0, -86_400.0, -31 * 86_400.0, 31 * 86_400.0])
STEP = st.tuples(JUMPS, st.sampled_from(["one", "two"]), st.integers(1, 400), st.sampled_from([None, 0, 50, 100]))


@pytest.mark.parametrize("start", STARTS, ids=str)
@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEP, max_size=60), settle=st.lists(st.booleans(), min_size=60, max_size=60))
def test_no_day_month_or_run_is_spent_beyond_its_limit(
    start: datetime, steps: list[tuple[float, str, int, int | None]], settle: list[bool]
) -> None:
    """As the entries that are written down tell it: each counts for the day on which it was sent."""
    now = start.timestamp()
    limits = {"run": 500, "day": 700, "month": 1500}
    budget = Budget(BudgetSettings(**{name: limit / NANO for name, limit in limits.items()}), lambda: now, BERLIN)
    flying: list[tuple[int, int | None]] = []
    counted: defaultdict[str, int] = defaultdict(int)
    for (jump, tree, amount, percent), ends in zip(steps, settle, strict=False):
        now += jump
        if budget.room(tree, amount) == "now":
            entry = budget.reserve(tree, "host", "model", amount)
            assert entry.day == datetime.fromtimestamp(now, BERLIN).date().isoformat()
            flying.append((entry.number, percent))
            for name in (f"run {tree}", f"day {entry.day}", f"month {entry.day[:7]}"):
                counted[name] += amount
        for name, nano in counted.items():
            assert nano <= limits[name.split()[0]], f"{name} is spent beyond its limit"
        if ends and flying:
            number, share = flying.pop(0)
            entry = budget.entry(number)
            settled = budget.settle(number, None if share is None else entry.reserved * share // 100)
            for name in (f"run {entry.tree}", f"day {entry.day}", f"month {entry.day[:7]}"):
                counted[name] += settled.counts - entry.reserved
    assert budget.reserved == sum(budget.entry(number).reserved for number, _ in flying)
