"""The Emacs side in real Emacs: compiled, documented and linted without a warning, and every ERT test by its name.

Each file of elisp/test runs once, in an Emacs of its own; what it says of each test is a test here, so that one
summary counts everything.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ELISP = ROOT / "elisp"
SOURCES = sorted(ELISP.glob("*.el"))
TESTS = sorted((ELISP / "test").glob("*-test.el"))
#: Seconds for one file of tests: a bound of a hang.
PATIENCE = 900

pytestmark = pytest.mark.timeout(PATIENCE + 60)

DEFINED = re.compile(r"^\(ert-deftest (\S+)", re.MULTILINE)
RESULT = re.compile(r"^ +(passed|FAILED|skipped|ABORTED|QUIT) +\d+/\d+ +(\S+)", re.MULTILINE)


def emacs(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "HOME": str(folder) if folder != ROOT else "/nonexistent",
        "LANG": "C.UTF-8",
        "RLM_TEST_PYTHON": sys.executable,
    }
    return subprocess.run(
        ["emacs", "-Q", "--batch", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=False,
    )


@dataclass(frozen=True)
class Told:
    """What Emacs said of one file's tests."""

    status: int
    output: str
    results: dict[str, str]


@functools.cache
def run_file(file: Path) -> Told:
    ran = emacs("-L", "elisp", "-L", "elisp/test", "-l", str(file), "-f", "ert-run-tests-batch-and-exit")
    return Told(ran.returncode, ran.stdout, {name: result for result, name in RESULT.findall(ran.stdout)})


def story_of(name: str, output: str) -> str:
    """The part of the output that ends with the test's result, with the lines around it."""
    place = output.find(f"  {name}\n")
    return output[max(0, place - 4000) : place + 500] if place >= 0 else output[-6000:]


@pytest.mark.parametrize(
    ("file", "name"),
    [pytest.param(file, name, id=name) for file in TESTS for name in DEFINED.findall(file.read_text())],
)
def test_ert(file: Path, name: str) -> None:
    told = run_file(file)
    assert told.results.get(name) == "passed", story_of(name, told.output)


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_ert_file_ends_well(file: Path) -> None:
    """Emacs itself must say so too: an error outside of any test counts."""
    told = run_file(file)
    assert told.status == 0, told.output[-6000:]


def test_compiles_without_a_warning(tmp_path: Path) -> None:
    for source in SOURCES:
        shutil.copy(source, tmp_path)
    names = [source.name for source in SOURCES]
    strict = "(setq byte-compile-error-on-warn t)"
    compiled = emacs("-L", ".", "--eval", strict, "-f", "batch-byte-compile", *names, folder=tmp_path)
    assert compiled.returncode == 0, compiled.stdout
    assert {path.stem for path in tmp_path.glob("*.elc")} == {source.stem for source in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_checkdoc_finds_nothing(source: Path) -> None:
    """Without its guesses about verbs, and about full stops, which belong to sentences that a person is shown."""
    without = "(setq checkdoc-verb-check-experimental-flag nil)"
    read = emacs("-L", "elisp", "--eval", without, "--eval", f'(checkdoc-file "{source}")')
    assert read.returncode == 0, read.stdout
    found = [line for line in read.stdout.splitlines() if line.startswith(source.name)]
    assert not [line for line in found if not re.search(r"Error messages should|Messages should start", line)]


def test_package_lint_finds_nothing() -> None:
    """Old releases of the linter do not know the Emacs that is asked for, nor all names that Org wants of a language:
    what they say of these does not count."""
    site = Path("/usr/share/emacs/site-lisp")
    linter = next(path.parent for path in sorted(site.glob("elpa*/package-lint-*/package-lint.el")))
    load = '(progn (require \'package-lint) (setq package-lint-main-file "rlm.el"))'
    names = [source.name for source in SOURCES]
    read = emacs("-L", str(linter), "--eval", load, "-f", "package-lint-batch-and-exit", *names, folder=ELISP)
    found = re.findall(r"^\S+:\d+:\d+: .*", read.stdout, re.MULTILINE)
    assert "Debugger entered" not in read.stdout, read.stdout
    unknown = re.compile(r"uninstallable in all released Emacs versions|[\"`]org-babel-[a-z-]+:rlm\b")
    assert not [line for line in found if not unknown.search(line)]
