"""The benchmarks as a test of the full tier: the table is printed, and the ratios that must hold are held.

No absolute time is asserted: a floor or a peer, measured in the same run on the same machine, is what counts.
"""

from __future__ import annotations

import pytest

from tests.benchmarks import bench_contexts, bench_repl
from tests.benchmarks.__main__ import measure
from tests.benchmarks.bench_repl import Counts
from tests.benchmarks.suite import PEERS, Row, best_makespan

#: Over the best that any order of work can reach, as the issue asks.
MAKESPAN = 1.15

#: A call among clients that do not read, over one without them: 1.0 measured, the rest is for a busy machine.
DEAF = 3

#: Over a bare interpreter's start: the aim is 2.5; what is held leaves room for a busy machine.
COLD_START = 3


def row_of(rows: list[Row], what: str) -> Row:
    found = [row for row in rows if what == row.what or (what in row.what and not row.what.startswith("REPL"))]
    assert len(found) == 1, what
    return found[0]


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_the_table(capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        print()
        rows = await measure(None)
    makespan = row_of(rows, "makespan")
    assert makespan.floor is not None
    assert makespan.ours <= MAKESPAN * makespan.floor
    memory = row_of(rows, "idle daemon")
    assert memory.aim is not None
    assert memory.ours < memory.aim
    cold = row_of(rows, "REPL: cold start")
    assert cold.floor is not None
    assert cold.ours <= COLD_START * cold.floor
    assert row_of(rows, "1000 MB by path: own memory grows").ours < bench_contexts.GROWTH_AIM
    deaf = row_of(rows, "do not read")
    assert deaf.floor is not None
    assert deaf.ours < DEAF * deaf.floor
    for what in ("wall", "CPU of all processes", "journal"):
        row = row_of(rows, f"6 turns: {what}")
        assert row.peers, "the peers are part of the full tier: pip must reach a package index"
        for name, theirs in row.peers.items():
            assert row.ours < theirs, f"{row.what}: {row.ours:.1f} {row.unit}, {name} {theirs:.1f}"
    for what in ("end of first cell", "one by one", "200 × 50 ms"):
        row = row_of(rows, what)
        assert set(row.peers) == set(PEERS), "the peers are part of the full tier: pip must reach a package index"
        for name, theirs in row.peers.items():
            assert row.ours < theirs, f"{row.what}: {row.ours:.1f} {row.unit}, {name} {theirs:.1f}"


async def test_contexts_are_measured() -> None:
    """With small counts: that it runs, loads and finds what it should, and that nothing large stays in memory."""
    rows = await bench_contexts.rows(bench_contexts.Counts(5, 5, 300, 5))
    assert len(rows) == 10
    assert row_of(rows, "5 MB by path: own memory grows").ours < bench_contexts.GROWTH_AIM


async def test_the_repl_is_measured() -> None:
    """With small counts and without the peers: that it runs, and that each line has what it is compared with."""
    rows = await bench_repl.rows(Counts(1, 2, 5, (1,), ((20, 100), (30, 10_000))), ())
    assert [row.what.removeprefix("REPL: ") for row in rows] == [
        "cold start", "cold start and a first cell", "warm start", "1 MB", "idle", "cell", "callback", "20 × 100",
        "30 × 10000",
    ]  # fmt: skip
    assert all(row.ours > 0 for row in rows)
    compared = ["cold start", "cold start and a first cell", "1 MB"]
    assert [row.what.removeprefix("REPL: ") for row in rows if row.floor] == compared


def test_the_bound_is_the_best_of_all_orders() -> None:
    """Checked against every way to divide a few requests among hosts."""
    import itertools

    shape = [(2, 0.3), (1, 0.1), (1, 0.25)]
    lanes = [seconds for slots, seconds in shape for _ in range(slots)]
    for count in range(1, 6):
        every = itertools.product(range(len(lanes)), repeat=count)
        best = min(max(choice.count(lane) * lanes[lane] for lane in set(choice)) for choice in every)
        assert best_makespan(count, shape) == pytest.approx(best)
