"""Every method of the protocol has its command: each is seen on the wire when the command is run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.wire.methods import METHODS
from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import ROOT, Client, Folders, Host, config_of, new_run
from tests.shell import rlmctl

#: A method where it is called: ``call("run/show", …)``.
NAMED = re.compile(r'(?:call|call_raw|call_json|request)\(\s*"([a-z]+[/.][a-z]+|initialize)"')


class Tap:
    """A socket before the daemon's: passes all on, and notes which methods were called. Clients are told of a spool
    folder that is not there, as over a forwarded socket."""

    def __init__(self, daemon: Path) -> None:
        self.daemon = daemon
        self.called: set[str] = set()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(self.daemon, limit=1 << 26)

        async def up() -> None:
            while line := await reader.readline():
                self.called.add(json.loads(line).get("method", ""))
                inner_writer.write(line)
                await inner_writer.drain()
            inner_writer.close()

        async def down() -> None:
            while line := await inner_reader.readline():
                writer.write(re.sub(rb'"spool_folder": ?"[^"]*"', b'"spool_folder":"/nonexistent"', line))
                await writer.drain()
            writer.close()

        with contextlib.suppress(ConnectionError):
            await asyncio.gather(up(), down())


@pytest.fixture
async def tap(folders: Folders, start_daemon: StartDaemon) -> AsyncIterator[Tap]:
    inner = folders.root / "inner.sock"
    folders.socket.parent.mkdir(mode=0o700, exist_ok=True)
    made = Tap(inner)
    server = await asyncio.start_unix_server(made.pass_on, folders.socket, limit=1 << 26)
    yield made
    server.close()


def test_every_method_is_called_by_rlmctl_or_its_client() -> None:
    """The quick one: the names stand in their source."""
    sources = [*(ROOT / "rlmd" / "ctl").rglob("*.py"), *(ROOT / "rlmd" / "client").glob("*.py")]
    named = {name for file in sources if file.name != "calls.py" for name in NAMED.findall(file.read_text())}
    assert set(METHODS) - named == set()


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_every_method_has_its_command(folders: Folders, tap: Tap, start_daemon: StartDaemon) -> None:
    text = folders.root / "text.txt"
    text.write_text("The boiler stands in the cellar.\n")
    (folders.root / "q.jsonl").write_text('{"question": "boiler"}\n')
    big = ("word " * 100_000).encode()
    async with FakeOllama(["root"]) as model:
        model.answer = lambda _: "x" * 5000
        host = Host("m40", model.url, models={"root": 32_768})
        folders.write_config(config_of([host], root=("m40/root",), sub=("m40/root",)))
        daemon = await start_daemon("--socket", str(tap.daemon), XDG_RUNTIME_DIR=str(folders.root))
        while not tap.daemon.exists():  # what ``ready`` saw was the tap
            assert daemon.process.poll() is None, daemon.stderr()
            await asyncio.sleep(0.01)
        async with Client.connected(tap.daemon) as client:
            run = new_run("boiler", "text", strategy="rlm")
            digest = ""

            async def ctl(*arguments: str, status: int = 0, stdin: bytes | None = None) -> str:
                ended = await rlmctl(folders.environment(), *arguments, stdin=stdin)
                assert ended.status == status, (arguments, ended)
                return ended.out

            await ctl("rpc")
            await ctl("program", "list")
            await ctl("context", "load", str(text), "--name", "text")
            await ctl("context", "load", "-", "--name", "big", stdin=big)
            await ctl("context", "update", "text", "--json")
            await ctl("context", "flags", "text", "--public")
            await ctl("context", "list")
            await ctl("context", "info", "text")
            await ctl("context", "peek", "text")
            await ctl("context", "search", "text", "boiler")
            await ctl("ask", "-c", "text", "--session", "s", "--strategy", "quote", "boiler")
            await ctl("ask", "-c", "text", "--strategy", "direct", "boiler")
            await ctl("batch", str(folders.root / "q.jsonl"), "-c", "text")
            await ctl("query", "hello")
            await ctl("exec", "-c", "text", "--session", "s", "print('y' * 6000)")
            runs = json.loads(await ctl("run", "list", "--json"))["runs"]
            cell = next(one["run_id"] for one in runs if one["strategy"] == "execute")
            facts = [json.loads(line) for line in (await ctl("run", "show", cell, "--events")).splitlines()]
            digest = next(fact["output"]["digest"] for fact in facts if fact["type"] == "cell_ended")
            assert (await ctl("run", "fetch", cell, digest)).startswith("yyy")
            await ctl("run", "export", cell)
            await ctl("run", "confirm", cell, status=1)  # it asked nothing
            await ctl("run", "continue", cell, "--turns", "1", "--detach", status=1)  # no limit ended it
            await ctl("budget", "allow", cell, "--json")
            await ctl("session", "list")
            await ctl("session", "show", "s")
            await ctl("session", "reset", "s", "--json")
            await ctl("session", "drop", "s", "--json")
            model.hanging = True
            await client.call("run/start", {**run, "attach": False})
            await ctl("run", "show", run["run_id"], "--events")
            await ctl("run", "cancel", run["run_id"], "--json")
            await ctl("run", "attach", run["run_id"], status=130)
            await ctl("run", "delete", run["run_id"], "--json")
            text.write_text("The boiler stands in the attic.\n")
            await ctl("context", "update", "text")
            await ctl("context", "diff", "text")
            await ctl("context", "drop", "text", "--json")
            model.hanging = False
            await ctl("host", "add", "again", model.url)
            await ctl("setup", "--yes", model.url, "--dry-run")
            await ctl("host", "list")
            await ctl("host", "calibrate", "again")
            await ctl("host", "pause", "again", "--json")
            await ctl("host", "resume", "again", "--json")
            await ctl("host", "wake", "again", status=1)  # nothing is known that wakes it
            await ctl("rpc", "host/subscribe")
            await ctl("host", "remove", "again", "--json")
            await ctl("budget")
            await ctl("cache", "stats")
            await ctl("cache", "clear", "--json")
            await ctl("status")
            await ctl("gc")
            await ctl("daemon", "reload")
            await ctl("doctor", "--json")
            known = {one["name"] for one in (await client.call("rpc.discover"))["methods"]}
    assert known - tap.called == set()
