"""Free and offline: with every address but loopback unreachable all of it works, and nothing tries to go out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.harness import ROOT

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="a network namespace of one's own takes root")


def offline(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.offline", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.full
def test_all_of_it_works_and_nothing_tries_to_go_out() -> None:
    told = offline()
    gave = told["gave"]
    assert gave["ask"] == "In the cellar.\n"
    assert "boiler stands" in gave["quote"]
    assert gave["exec"] == "In the cellar.\n"
    assert json.loads(gave["batch"])["answer"] == "In the cellar."
    assert gave["status"]
    assert gave["mcp"] == "In the cellar."
    assert told["no_routes"] == 0


@pytest.mark.full
def test_whatever_tried_would_be_seen() -> None:
    assert offline("leak")["no_routes"] > 0
