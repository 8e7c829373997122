"""The release before, as it was published: its rlmctl and its rlm.el with this daemon, this rlmctl with its daemon.

``tests/releases/VERSION.tar.xz`` holds ``rlmd`` and ``elisp`` of that release. It is never made anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import Daemon, Folders, Host, config_of
from tests.shell import Ended

ROOT = Path(__file__).resolve().parents[2]
RELEASES = ROOT / "tests" / "releases"
#: Of its tests those that say what a release may change: here, that a run ends with the daemon. It is taken up now.
CHANGED = {"rlm-daemon-killed-in-mid-stream"}
#: Those that are run each time: asking, streaming, citing, cancelling, coming back, handing texts over.
FEW = (
    "an-answer-streams-and-cites", "a-lost-connection-loses-nothing", "cancel", "errors-come-with-their-hint",
    "unchanged-text-is-not-sent-again", "without-a-model-it-quotes",
)  # fmt: skip
TEXT = "The mill burned down in 1912.\nNobody was hurt.\n"
QUESTION = "When did the mill burn down?"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(RELEASES / "0.1.0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    # Its helper takes the installed package before that of its daemon; there the two are one.
    helper = folder / "rlmd" / "contexts" / "helper.py"
    text = helper.read_text()
    assert "sys.path.append(" in text
    helper.write_text(text.replace("sys.path.append(", "sys.path.insert(0, "))
    return folder


@pytest.fixture
async def model() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root"], slots=2) as server:
        server.answer = lambda prompt: "In 1912.\n\n> The mill burned down in 1912."
        yield server


def configure(folders: Folders, model: FakeOllama) -> None:
    folders.write_config(config_of([Host("one", model.url, 2, {"root": 8192})], ("one/root",), ("one/root",)))


class Shell:
    """``rlmctl`` of one release: ``sources`` is where its package is."""

    def __init__(self, folders: Folders, sources: Path) -> None:
        self._environment = folders.environment(PYTHONPATH=str(sources))
        self._folders, self._sources = folders, sources

    async def __call__(self, *arguments: str, stdin: bytes | None = None) -> Ended:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rlmd.ctl.main", *arguments,
            env=self._environment, cwd=self._sources,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    async def well(self, *arguments: str, stdin: bytes | None = None) -> str:
        ended = await self(*arguments, stdin=stdin)
        assert ended.status == 0, (arguments, ended.err)
        return ended.out


async def work_of_a_day(rlmctl: Shell, folders: Folders) -> None:
    """What both releases can, by every method that both know."""
    folder = folders.home / "notes"
    folder.mkdir()
    (folder / "mill.md").write_text(TEXT)
    (folder / "page.html").write_text("<h1>Mill</h1><p>It burned.</p>")
    assert "created" in await rlmctl.well("context", "load", str(folder), "--name", "notes")
    assert "unchanged" in await rlmctl.well("context", "load", str(folder), "--name", "notes")
    await rlmctl.well("context", "load", str(folder / "mill.md"), "--name", "mill")
    await rlmctl.well("context", "load", "-", "--name", "piped", stdin=(TEXT * 10_000).encode())
    await rlmctl.well("context", "load", "-", "--name", "diary", "--private", stdin=TEXT.encode())
    listed = json.loads(await rlmctl.well("context", "list", "--json"))["contexts"]
    assert {one["name"] for one in listed} == {"notes", "mill", "piped", "diary"}
    assert [one["name"] for one in listed if one["private"]] == ["diary"]
    assert "mill.md" in await rlmctl.well("context", "info", "notes")
    assert "1912" in await rlmctl.well("context", "search", "notes", "mill burned")
    assert "1912" in await rlmctl.well("ask", QUESTION, "-c", "mill", "--strategy", "quote")
    assert "1912" in await rlmctl.well("ask", QUESTION, "-f", str(folder / "mill.md"))
    streamed = (await rlmctl.well("ask", QUESTION, "-c", "mill", "--events", "--limit", "turns=3")).splitlines()
    facts = [json.loads(line) for line in streamed]
    assert (facts[0]["type"], facts[-1]["type"]) == ("run_started", "run_ended")
    assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))
    asked = json.loads(await rlmctl.well("ask", QUESTION, "-c", "mill", "--json", "--session", "s"))
    assert asked["citations"][0]["verified"]
    assert asked["run"]["run_id"][:8] in await rlmctl.well("run", "list")
    assert "1912" in await rlmctl.well("run", "show", asked["run"]["run_id"])
    assert "7" in await rlmctl.well("exec", "print(3 + 4)", "--session", "s", "-c", "mill")
    assert "s" in await rlmctl.well("session", "list")
    await rlmctl.well("session", "drop", "s")
    assert "one" in await rlmctl.well("host", "list")
    await rlmctl.well("status")
    await rlmctl.well("doctor")
    await rlmctl.well("context", "drop", "notes")
    ended = await rlmctl("context", "info", "notes")
    assert ended.status != 0
    assert "notes" in ended.err


async def test_its_rlmctl_with_this_daemon(
    release: Path, folders: Folders, model: FakeOllama, start_daemon: StartDaemon
) -> None:
    configure(folders, model)
    await start_daemon()
    await work_of_a_day(Shell(folders, release), folders)


@pytest.mark.timeout(900)  # two dozen commands, each a process of its own
async def test_this_rlmctl_with_its_daemon(release: Path, folders: Folders, model: FakeOllama) -> None:
    """What it does not know yet is an error that says so, and nothing else fails."""
    configure(folders, model)
    daemon = Daemon(folders, PYTHONPATH=str(release))
    try:
        await daemon.ready()
        rlmctl = Shell(folders, ROOT)
        async with daemon.connect() as client:
            assert "context/update" not in (await client.call("initialize"))["methods"], "this is not that release"
        await work_of_a_day(rlmctl, folders)
        for command in (
            ("context", "update", "mill"),
            ("context", "load", "-", "--name", "x", "--ephemeral"),
            ("gc", "--dry-run"),
        ):
            ended = await rlmctl(*command, stdin=b"a text")
            assert ended.status != 0, command
            assert "Traceback" not in ended.err
            assert ended.err.startswith("error: "), ended.err
        assert "x" not in [
            one["name"] for one in json.loads(await rlmctl.well("context", "list", "--json"))["contexts"]
        ]
    finally:
        await daemon.stop()


def emacs(release: Path, wanted: str) -> dict[str, str]:
    """Runs tests of its rlm.el, with its own Lisp, on this daemon; what became of each."""
    # Its tests start `python -m rlmd` in the folder above theirs: there this release's package is found.
    here = release / "as-installed"
    if not here.exists():
        here.mkdir()
        shutil.copytree(release / "elisp", here / "elisp")
        for name in ("rlmd", "tests", "docs"):
            (here / name).symlink_to(ROOT / name)
    ran = subprocess.run(
        [
            "emacs", "-Q", "--batch", "-L", "elisp", "-L", "elisp/test", "-l", "elisp/test/rlm-daemon-test.el",
            "--eval", f"(ert-run-tests-batch-and-exit {json.dumps(wanted)})",
        ],
        cwd=here,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": "/nonexistent", "LANG": "C.UTF-8",
            "RLM_TEST_PYTHON": sys.executable,
        },
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", timeout=600, check=False,
    )  # fmt: skip
    print(ran.stdout)
    return {name: told for told, name in re.findall(r"^ +(passed|FAILED) +\d+/\d+ +(\S+)", ran.stdout, re.MULTILINE)}


@pytest.mark.timeout(660)
def test_its_emacs_with_this_daemon(release: Path) -> None:
    told = emacs(release, rf"\`rlm-daemon-\({'|'.join(FEW)}\)\'".replace("|", r"\|"))
    assert told == {f"rlm-daemon-{name}": "passed" for name in FEW}


@pytest.mark.full
@pytest.mark.timeout(660)
def test_all_that_its_emacs_promised(release: Path) -> None:
    told = emacs(release, r"\`rlm-daemon-")
    assert len(told) == 20
    assert {name for name, result in told.items() if result != "passed"} <= CHANGED
