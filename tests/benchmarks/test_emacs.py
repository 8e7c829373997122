"""What rlm.el takes, held in ratios: to a floor and to gptel, measured in the same run on the same machine."""

from __future__ import annotations

import pytest

from tests.benchmarks.bench_emacs import Measured, measure

#: Of processor time, which a busy machine does not lengthen.
BLOCK, CPU = "longest-cpu", "cpu"


def row_of(rows: list[Measured], what: str) -> Measured:
    return next(row for row in rows if what in row.what)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("inside", [pytest.param(False, id="here"), pytest.param(True, id="30.1")])
def test_emacs_is_never_held_up(inside: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        print()
        rows = measure(inside)
    deltas = row_of(rows, "20,000 deltas")
    assert deltas.ours[BLOCK] < 4 * deltas.floor[BLOCK], "a block is longer than reading the same messages explains"
    assert deltas.ours[CPU] < 5 * deltas.floor[CPU]
    large = row_of(rows, "1 MB")
    assert large.gptel, "gptel is part of the full tier: Debian's archive must be reachable"
    assert large.ours[CPU] < 2 * large.gptel[CPU]
    typing = row_of(rows, "typed above")
    assert typing.ours["moved"] == 0
    assert row_of(rows, "40 MB").ours["grown"] < 60
