"""rlmctl and the real daemon: starting and stopping it, contexts, settings, and what it says when things are wrong."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.client import Client
from rlmd.client.start import daemon_environment, listens, log_file, start_detached
from rlmd.config import Paths
from rlmd.errors import NotConnected
from tests.harness import Folders, all_end, look_at, marked
from tests.shell import COMMAND, Ended, rlmctl


class Shell:
    """rlmctl in folders of its own."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.paths = Paths.from_environment(folders.environment())

    async def __call__(self, *arguments: str, stdin: bytes | None = None) -> Ended:
        return await rlmctl(self.folders.environment(), *arguments, stdin=stdin)

    async def good(self, *arguments: str, stdin: bytes | None = None) -> str:
        ended = await self(*arguments, stdin=stdin)
        assert ended.status == 0, ended.err
        return ended.out


@pytest.fixture
async def shell(folders: Folders) -> AsyncIterator[Shell]:
    """Whatever daemon a test starts is stopped after it, and surely gone."""
    made = Shell(folders)
    yield made
    if await listens(made.paths.socket):
        await made("daemon", "stop")
    log = log_file(made.paths)
    await all_end(lambda: marked(folders), lambda: log.read_text() if log.is_file() else "no log")


async def test_the_first_command_starts_a_daemon_that_outlives_it(shell: Shell) -> None:
    assert (await shell("status")).status == 5
    assert await shell.good("context", "list") == ""
    first = json.loads(await shell.good("status", "--json"))
    assert json.loads(await shell.good("status", "--json"))["pid"] == first["pid"]
    session = int(Path(f"/proc/{first['pid']}/stat").read_text().rpartition(")")[2].split()[3])
    assert session == first["pid"], "it must not die with the terminal that started it"
    log = log_file(shell.paths)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_the_daemon_gets_a_clean_environment(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**shell.folders.environment(), "SECRET_KEY": "x", "HTTPS_PROXY": "y", "PYTHONPATH": "/tmp"}
    await start_detached(shell.paths, environment)
    async with Client(shell.paths.socket) as client:
        pid = (await client.call("daemon/status")).pid
    told = dict(
        pair.split("=", 1) for pair in Path(f"/proc/{pid}/environ").read_text().strip("\0").split("\0") if "=" in pair
    )
    assert told == daemon_environment(environment)
    assert set(told) <= {"HOME", "PATH", "LANG", *(name for name in environment if name.startswith("XDG_"))}


async def test_many_first_commands_at_once_end_with_one_daemon(shell: Shell) -> None:
    ends = await asyncio.gather(*(shell("status", "--json") if n > 4 else shell("daemon", "start") for n in range(5)))
    assert [ended.status for ended in ends] == [0] * 5, [ended.err for ended in ends]
    pids = {ended.err.partition("process ")[2].partition(" ")[0] for ended in ends}
    assert len(pids) == 1


async def test_stop_returns_when_the_daemon_has_ended(shell: Shell) -> None:
    await shell.good("daemon", "start")
    pid = json.loads(await shell.good("status", "--json"))["pid"]
    await shell.good("daemon", "stop")
    assert not await listens(shell.paths.socket)
    assert look_at(pid) is None
    assert (await shell("daemon", "stop")).status == 5


async def test_a_daemon_that_cannot_start_is_told_with_its_log(shell: Shell) -> None:
    shell.folders.write_config("[limits]\nturn = 3\n")
    ended = await shell("context", "list")
    assert ended.status == 5
    assert "turn" in ended.err
    assert str(log_file(shell.paths)) in ended.err


async def test_a_log_that_cannot_be_written_is_told(shell: Shell) -> None:
    log_file(shell.paths).parent.mkdir(parents=True)
    log_file(shell.paths).mkdir()
    with pytest.raises(NotConnected, match=r"daemon\.log"):
        await start_detached(shell.paths, shell.folders.environment())


async def test_a_long_log_is_set_aside(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlmd.client.start.MAX_LOG", 10)
    log = log_file(shell.paths)
    log.parent.mkdir(parents=True)
    log.write_text("an old log that is long\n")
    await start_detached(shell.paths, shell.folders.environment())
    assert log.with_suffix(".log.1").read_text() == "an old log that is long\n"
    assert "an old log" not in log.read_text()


async def test_contexts_from_loading_to_dropping(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.txt").write_text("The mill burned down in 1804.\n")
    (folder / "two.txt").write_text("A new mill was built of stone.\n")
    (folder / "image.bin").write_bytes(b"\0" * 256)
    dry = await shell.good("context", "load", str(folder), "--name", "notes", "--dry-run")
    assert dry.startswith("2 documents, 61 characters (61 B), created\n  1 file skipped, binary: image.bin")
    assert await shell.good("context", "list") == ""
    loaded = json.loads(await shell.good("context", "load", str(folder), "--name", "notes", "--json"))
    assert (loaded["change"], loaded["context"]["documents"]) == ("created", 2)
    assert (await shell.good("context", "list")).startswith("notes\tcollection\t2\t61\t61 B\t")
    again = await shell.good("context", "load", str(folder), "--name", "notes")
    assert again.splitlines()[0].endswith(", unchanged")
    assert "two.txt\t31\t" in await shell.good("context", "info", "notes")
    assert await shell.good("context", "peek", "notes", "one.txt", "--start", "4", "--chars", "4") == "mill\n"
    assert await shell.good("context", "search", "notes", "-e", "m.ll") != ""
    found = await shell.good("context", "search", "notes", "stone mill")
    assert "A new mill was built of stone." in found.partition("one.txt")[0]
    nothing = await shell("context", "search", "notes", "-e", "windmill")
    assert (nothing.status, nothing.out) == (3, "")
    await shell.good("context", "drop", "notes")
    gone = await shell("context", "info", "notes")
    assert (gone.status, gone.out) == (4, "")


async def test_large_standard_input_survives_the_daemon(shell: Shell) -> None:
    text = "".join(f"line {number} of many\n" for number in range(30_000)).encode()
    await shell.good("context", "load", "-", "--name", "many", stdin=text)
    await shell.good("daemon", "stop")
    start = str(text.index(b"line 29999"))
    assert await shell.good("context", "peek", "many", "--start", start, "--chars", "10") == "line 29999\n"


async def test_settings_are_checked_without_a_daemon(shell: Shell) -> None:
    assert await shell.good("config", "show") == ""
    assert "turns = 30" in await shell.good("config", "show", "--effective")
    assert (await shell("config", "check")).status == 0
    file = shell.folders.write_config("[limits]\nturn = 3\nseconds = -1\n")
    wrong = await shell("config", "check")
    assert wrong.status == 1
    assert str(file) in wrong.out
    assert "turns" in wrong.out
    assert len(wrong.out.splitlines()) == 2
    assert (await shell("config", "show")).status == 1
    shell.folders.write_config("[limits]\nturns = 3\n")
    assert await shell.good("config", "show") == "[limits]\nturns = 3\n"
    assert not await listens(shell.paths.socket)


@pytest.mark.parametrize("arguments", [("--help",), ("ask", "--help"), ("context", "load", "--help"), ("--version",)])
async def test_help_and_version_need_no_daemon(shell: Shell, arguments: tuple[str, ...]) -> None:
    out = await shell.good(*arguments)
    assert out
    assert "\x1b" not in out
    assert not await listens(shell.paths.socket)


async def test_the_version_loads_nothing(shell: Shell) -> None:
    code = "import sys; sys.argv = ['rlmctl', '--version']; from rlmd.ctl.main import main; main(); print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=shell.folders.environment()
    )
    out, _ = await process.communicate()
    loaded = set(out.decode().split())
    assert not loaded & {"typer", "pydantic", "rich", "asyncio", "rlmd.wire.methods"}


async def test_no_command_loads_the_daemon(shell: Shell) -> None:
    code = "import sys, rlmd.ctl.app, rlmd.client, rlmd.ctl.following; print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=shell.folders.environment()
    )
    out, _ = await process.communicate()
    loaded = set(out.decode().split())
    assert "rlmd.wire.methods" in loaded
    heavy = {
        "uvloop",
        "structlog",
        "jsonrpcserver",
        "httpx",
        "aiohttp",
        "diskcache",
        "re2",
        "rlmd.engine",
        "rlmd.daemon",
    }
    assert not loaded & heavy


# ── what whoever started it did to it ───────────────────────────────────────────────────────────────────────────


async def by_a_shell(shell: Shell, line: str) -> Ended:
    """A line of sh, in which ``$rlmctl`` is the command."""
    environment = shell.folders.environment(rlmctl=" ".join(COMMAND))
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", line, env=environment, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_standard_streams_may_be_closed(shell: Shell) -> None:
    """As cron and sloppy scripts do."""
    await shell.good("daemon", "start")
    assert await by_a_shell(shell, "$rlmctl status >&-") == Ended(0, "", "")
    assert (await by_a_shell(shell, "$rlmctl status 2>&-")).status == 0
    nothing = await by_a_shell(shell, "$rlmctl ask what? <&-")
    assert (nothing.status, nothing.err.splitlines()[0]) == (2, "error: Standard input is empty.")
    assert (await by_a_shell(shell, "$rlmctl context list <&- >&- 2>&-")).status == 0


async def test_a_result_that_cannot_be_written_is_an_error(shell: Shell) -> None:
    await shell.good("daemon", "start")
    for command in ("status", "status --json", "rpc context/list"):
        full = await by_a_shell(shell, f"$rlmctl {command} > /dev/full")
        assert full.status == 1, command
        assert full.err.startswith("error: The result cannot be written to standard output: No space left"), command
        assert "Traceback" not in full.err
    assert (await by_a_shell(shell, "$rlmctl rpc rpc.discover | head -1; true")).err == ""


async def test_what_is_no_text_is_wrong_usage(shell: Shell) -> None:
    odd = await rlmctl(shell.folders.environment(), "ask", "-f", __file__, b"caf\xe9")
    assert (odd.status, odd.err.splitlines()[-1]) == (2, "error: question: it is not UTF-8.")
    empty = await shell("context", "load", __file__, "--name", "")
    assert (empty.status, empty.err) == (2, "error: name: string should have at least 1 character.\n")


async def test_a_name_that_is_nearly_right_is_told(shell: Shell) -> None:
    folder = shell.folders.root / "notes"
    folder.mkdir()
    for name in ("kernel.txt", "shell.txt"):
        (folder / name).write_text("text")
    await shell.good("context", "load", str(folder), "--name", "linux-notes")
    for command, meant in (
        (("context", "info", "linux-note"), "Did you mean 'linux-notes'? rlmctl context list shows"),
        (("ask", "-c", "linx-notes", "what?"), "Did you mean 'linux-notes'?"),
        (("context", "peek", "linux-notes", "kernel.tx"), "Did you mean 'kernel.txt'? rlmctl context info lists"),
    ):
        refused = await shell(*command)
        assert refused.status == 4
        assert meant in refused.err, refused.err
    assert "Did you mean" not in (await shell("context", "info", "zzz")).err


async def test_restart(shell: Shell) -> None:
    none = await shell("daemon", "restart")
    assert none.status == 0
    assert "No daemon listens" in none.err
    first = json.loads(await shell.good("status", "--json"))["pid"]
    again = await shell("daemon", "restart")
    assert again.status == 0
    assert f"process {first}) has ended" in again.err
    assert json.loads(await shell.good("status", "--json"))["pid"] != first
