"""Programs from npm for tests: each installed once, at a fixed version, into a folder that test runs share."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

#: Package → version.
VERSIONS = {
    "@modelcontextprotocol/inspector": "2.12.0",
    "@anthropic-ai/claude-code": "2.1.197",
    "opencode-ai": "1.18.33",
}


def program(package: str, name: str) -> str:
    """The path of a package's program. Skips the test where npm or its registry is not there."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = Path(tempfile.gettempdir()) / f"rlmd-npm-{os.getuid()}" / package.replace("/", "+")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes may want it at once
        found = folder / "node_modules" / ".bin" / name
        if not found.exists():
            command = ["npm", "install", "--prefix", str(folder), "--silent", f"{package}@{VERSIONS[package]}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode or not found.exists():
                pytest.skip(f"npm cannot install {package}: {done.stderr[-300:]}")
    return str(found)
