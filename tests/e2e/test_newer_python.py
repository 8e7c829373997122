"""The Python of Debian 13, which is newer than that of the other tests: loops, warnings and the library differ."""

from __future__ import annotations

import subprocess

import pytest

from tests import trixie

#: The whole of the vocabulary, and the socket. What is left out looks at the checkout, not at the code.
TESTS = (
    *("tests/unit", "tests/integration/test_wire.py"),
    *("--ignore=tests/unit/test_lint.py", "--ignore=tests/unit/test_architecture.py"),
    # From 3.13 on what a test or a library leaves to the garbage collector (a connection of SQLite) says so, in
    # whichever test runs then.
    *("-W", "ignore::pytest.PytestUnraisableExceptionWarning"),
)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_house_stands_on_it() -> None:
    python = "/opt/rlmd/bin/python"
    command = trixie.entering(
        trixie.folder(), python, "-m", "pytest", "-q", "-m", "not full", "-p", "no:cacheprovider", *TESTS, forgets=True
    )
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
