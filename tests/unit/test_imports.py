"""What starting the daemon loads: nothing that only a host, a terminal or a command line needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: aiohttp alone reads the system's certificates twice, 60 ms; together they take a third of the start.
LATER = ("aiohttp", "httpx", "httpx_aiohttp", "typer", "rlmd.client", "rlmd.ctl")


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    code = "import sys, rlmd.daemon; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", LATER)
def test_the_daemon_starts_without(name: str, loaded: set[str]) -> None:
    assert "rlmd.daemon" in loaded
    assert name not in loaded
