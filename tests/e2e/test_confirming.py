"""What would take long is asked about, as a person meets it: on a terminal, in a script, after a kill."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import Folders, Host, config_of
from tests.shell import on_terminal, rlmctl

LINES = "".join(f"Entry {n}: the lamp number {n} is lit.\n" for n in range(5000))


@pytest.fixture
async def fake(folders: Folders) -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        server.answer = lambda prompt: f"found {prompt[:8]}"
        host = Host("box", server.url, slots=4, models={"root": 8192, "sub": 8192})
        folders.write_config(config_of([host], root=("box/root",), sub=("box/sub",), more="[confirm]\nsub_queries = 5"))
        yield server


@pytest.fixture
def lines(folders: Folders) -> Path:
    file = folders.home / "lines.txt"
    file.write_text(LINES)
    return file


def asked(file: Path, *more: str) -> tuple[str, ...]:
    return ("ask", "-f", str(file), "--strategy", "map", *more, "Which lamp?")


@pytest.mark.parametrize(
    ("typed", "status", "shown"),
    [("y\r", 0, "found"), ("n\r", 3, "it was refused"), ("quote\r", 0, "No language model was used")],
)
async def test_on_a_terminal_it_asks(
    folders: Folders, start_daemon: StartDaemon, fake: FakeOllama, lines: Path, typed: str, status: int, shown: str
) -> None:
    await start_daemon()
    with on_terminal(folders.environment(), *asked(lines)) as terminal:
        await terminal.wait_shown("Go on? y/n/rlm/quote")
        assert fake.seen == []
        terminal.type("perhaps\r")  # no answer: it goes on asking
        terminal.type(typed)
        assert await terminal.wait_ended() == status
        assert shown in terminal.screen
    assert bool(fake.seen) == (typed == "y\r")


async def test_a_script_is_told_and_the_run_waits_for_its_yes(
    folders: Folders, start_daemon: StartDaemon, fake: FakeOllama, lines: Path
) -> None:
    """Through a kill of the daemon too; nothing is sent before, and with ``--yes`` nobody is asked."""
    daemon = await start_daemon()
    environment = folders.environment()
    ended = await rlmctl(environment, *asked(lines))
    assert (ended.status, ended.out) == (6, "")
    assert "more than 5 sub-queries in all" in ended.err
    run_id = ended.err.partition("rlmctl run confirm ")[2].split()[0]
    await daemon.kill()
    await start_daemon()
    again = await rlmctl(environment, "run", "attach", run_id)
    assert again.status == 6
    listed = json.loads((await rlmctl(environment, "run", "list", "--state", "asking", "--json")).out)
    [run] = listed["runs"]
    assert (run["run_id"], run["asks"]["alternatives"]) == (run_id, ["rlm", "quote"])
    wrong = await rlmctl(environment, "run", "confirm", run_id, "--strategy", "direct")
    assert (wrong.status, "direct cannot be chosen" in wrong.err) == (2, True)
    assert fake.seen == []
    assert (await rlmctl(environment, "run", "confirm", run_id[:8])).status == 0
    done = await rlmctl(environment, "run", "attach", run_id)
    assert (done.status, done.out.split()[0]) == (0, "found")
    assert (await rlmctl(environment, "run", "confirm", run_id)).status == 1
    said = await rlmctl(environment, *asked(lines, "--yes", "--fresh"))
    assert said.status == 0
