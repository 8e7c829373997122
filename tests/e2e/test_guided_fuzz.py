"""The guided fuzzer of ``tests.guided_fuzz``, seeded with a real message of every method in both framings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlmd.wire.framing import framed
from rlmd.wire.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "count",
    [5_000, pytest.param(1_000_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])],
    ids=["few", "million"],
)
def test_no_input_breaks_framing_and_dispatch(count: int, tmp_path: Path) -> None:
    for method in METHODS:
        message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "x"}}).encode()
        for framing in ("lines", "headers"):
            (tmp_path / f"{method.replace('/', '-')}-{framing}").write_bytes(b"".join(framed((message,), framing)) * 2)  # type: ignore[arg-type]
    ran = subprocess.run(
        [
            sys.executable, "-m", "tests.guided_fuzz", f"-runs={count}", "-seed=1", "-max_len=3000", "-timeout=10",
            "-rss_limit_mb=1024", f"-artifact_prefix={tmp_path}/", str(tmp_path),
        ],
        cwd=ROOT, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert f"Done {count} runs" in ran.stderr, ran.stderr[-2000:]
