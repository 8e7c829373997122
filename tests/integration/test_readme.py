"""What README.md and docs promise: the first command works, word for word, and what is listed is what there is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rlmd.ctl.exits import MEANING
from tests.conftest import StartDaemon
from tests.harness import ROOT, Daemon, Folders

README = (ROOT / "README.md").read_text()
FIRST = re.findall(r"```sh\n(.*?)\n```", README, flags=re.DOTALL)[0]
CITED = re.compile(r"^\[(\d)\] (/.*?):(\d+):$", flags=re.MULTILINE)


def test_the_first_command_is_one_line_that_any_shell_reads() -> None:
    assert FIRST.count("\n") == 0
    assert FIRST.startswith("v=~/.local/share/rlmd/venv && python3 -m venv $v && $v/bin/pip install -q . && ")
    subprocess.run(["sh", "-n", "-c", FIRST], check=True)


def check_answer(out: str) -> None:
    """Verified citations whose first lines are in the files at the lines that are told; and what to do next."""
    cited = CITED.findall(out)
    assert [number for number, _, _ in cited] == ["1", "2", "3"]
    assert "zombie" in out
    assert "not found in the text" not in out
    assert "No language model was used" in out
    assert "rlmctl host add" in out
    for number, path, line in cited:
        (shown,) = re.findall(rf"^\[{number}\] {re.escape(path)}:{line}:\n> (.*)$", out, flags=re.MULTILINE)
        assert shown in Path(path).read_text().splitlines()[int(line) - 1]


async def test_its_question_is_answered_from_the_standard_library(start_daemon: StartDaemon, folders: Folders) -> None:
    """The part after the installation, with the Python of the tests."""
    await start_daemon()
    asking = "$v/bin/rlmctl ask " + FIRST.partition("$v/bin/rlmctl ask ")[2]
    ran = subprocess.run(
        ["sh", "-c", asking], env=folders.environment(v=sys.prefix), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    check_answer(ran.stdout)


@pytest.mark.full
def test_the_first_command_from_a_bare_checkout(folders: Folders, tmp_path: Path) -> None:
    """Word for word, installation included; pip is set up by the environment of the tests."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive, check=True)
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    environment = folders.environment(**pip)
    environment["PATH"] = f"{Path(sys.base_prefix)}/bin:{environment['PATH'].partition(':')[2]}"
    try:
        ran = subprocess.run(
            ["sh", "-c", FIRST], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        check_answer(ran.stdout)
    finally:
        installed = folders.home / ".local/share/rlmd/venv/bin/rlmctl"
        if installed.exists():
            subprocess.run([installed, "daemon", "stop"], env=environment, check=False)


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target


async def test_the_examples_of_the_python_client_run(
    daemon: Daemon,
    folders: Folders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in folders.environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "mill.txt").write_text("The mill burned down because of a lantern.\n")
    asks, counts = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), flags=re.DOTALL)
    await example(asks, "main")(str(tmp_path), "Why did the mill burn down?")
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["1 documents, created", "1 run_started"]
    assert any(line.endswith(" run_ended") for line in told)
    assert any(line.startswith("1 True ") for line in told)
    assert any("lantern" in line for line in told)
    await example(counts, "count")("A dark hall.\nA lantern.\n", "lantern")
    told = capsys.readouterr().out.splitlines()
    assert told == ["24 characters, created", "notes.txt:1: A dark hall.", "A lantern.", "2"]


def example(source: str, name: str) -> Callable[..., Awaitable[None]]:
    """A function of a page's program, which is not run as one."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "docs/python.md", "exec"), names)
    function: Callable[..., Awaitable[None]] = names[name]
    return function


def test_exit_statuses_are_documented_as_they_are() -> None:
    text = (ROOT / "docs/command-line.md").read_text()
    told = dict(re.findall(r"^\| (\d+) \| (.+) \|$", text, flags=re.MULTILINE))
    assert told == {str(int(status)): meaning for status, meaning in MEANING.items()}


def test_the_picture_is_of_the_readmes_question() -> None:
    picture = (ROOT / "docs/screen.svg").read_text()
    question = json.loads(FIRST.rpartition("--exclude site-packages ")[2])
    assert question.replace(" ", "&#160;") in picture
