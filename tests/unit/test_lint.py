"""The house's other readers: ruff, mypy, and systemd on the unit files. Their findings are failures like any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

READERS = {
    "ruff check": ["-m", "ruff", "check", ".", "tests/run"],
    "ruff format": ["-m", "ruff", "format", "--check", ".", "tests/run"],
    "mypy": ["-m", "mypy"],
}


@pytest.mark.parametrize("reader", READERS)
def test_python_is_clean(reader: str) -> None:
    read = subprocess.run([sys.executable, *READERS[reader]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stdout + read.stderr


def test_shell_scripts_parse() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    scripts = [path for line in tracked.splitlines() if (path := ROOT / line).is_file() and is_shell(path)]
    assert scripts
    for script in scripts:
        read = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, check=False)
        assert read.returncode == 0, f"{script}: {read.stderr}"


def is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(100)
    return first.startswith(b"#!") and b"sh" in first.split(b"/")[-1]
