"""While runs are at work, and when they have ended: the machine stays awake, the desktop and a command are told. On a
real bus, with the services of a desktop that write down what they are asked."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.fakes.serving import Scripted
from tests.harness import DIES_WITH_US, PATIENCE, ROOT, Client, Folders, Host, Json, config_of, load_text, new_run


class Desktop:
    """A bus with the services of a desktop; ``told``: what they were asked."""

    def __init__(self, address: str, book: Path) -> None:
        self.address = address
        self._book = book
        self.environment = {"DBUS_SESSION_BUS_ADDRESS": address, "DBUS_SYSTEM_BUS_ADDRESS": address}

    def told(self) -> list[Json]:
        return [json.loads(line) for line in self._book.read_text().splitlines()] if self._book.exists() else []

    async def until(self, number: int) -> list[Json]:
        """Waits for so many entries."""
        return await until(self.told, number)


async def until(told: object, number: int) -> list[Json]:
    assert callable(told)
    async with asyncio.timeout(PATIENCE):
        while len(told()) < number:
            await asyncio.sleep(0.02)
    entries: list[Json] = told()
    return entries


@pytest.fixture
async def desktop(folders: Folders) -> AsyncIterator[Desktop]:
    bus = await asyncio.create_subprocess_exec(
        *DIES_WITH_US, "dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1",
        f"--address=unix:path={folders.root}/bus", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert bus.stdout is not None
    address = (await bus.stdout.readline()).decode().strip()
    book = folders.root / "told"
    services = await asyncio.create_subprocess_exec(
        *DIES_WITH_US, sys.executable, "-m", "tests.fakes.desktop", address, book,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert services.stdout is not None
    assert await services.stdout.readline() == b"READY\n"
    yield Desktop(address, book)
    for process in (services, bus):
        process.kill()
        await process.wait()


@pytest.fixture
async def model() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root"]) as made:
        yield made


def config(model: FakeOllama, more: str) -> str:
    return config_of(
        [Host("m40", model.url, models={"root": 32_768})], root=("m40/root",), sub=("m40/root",), more=more
    )


async def ask(client: Client, question: str, context: str = "boiler") -> Json:
    params = new_run(question, context, strategy="direct")
    await client.call("run/start", params)
    return await client.ended_run(params["run_id"]) | {"run_id": params["run_id"]}


async def test_the_machine_stays_awake_while_a_run_is_at_work_and_no_longer(
    folders: Folders, start_daemon: StartDaemon, desktop: Desktop, model: FakeOllama
) -> None:
    """The lock is let go at the run's end; and when the daemon is killed, with it."""
    released = asyncio.Event()
    model.answer = lambda _: Scripted(text="In the cellar.", until=released)
    folders.write_config(config(model, "[power]\nkeep_awake = true\n"))
    daemon = await start_daemon(**desktop.environment)
    async with daemon.connect() as client:
        await load_text(client, "boiler", "The boiler stands in the canary-cellar.")
        asking = asyncio.create_task(ask(client, "Where?"))
        assert await desktop.until(1) == [
            {"inhibited": "idle:sleep", "who": "rlmd", "why": "A question is being answered", "mode": "block"}
        ]
        released.set()
        await asking
        assert "not_kept_awake" not in daemon.stderr()
        assert (await desktop.until(2))[1] == {"released": "idle:sleep"}
        released.clear()
        await client.call("run/start", new_run("And why?", "boiler", strategy="direct"))
        await desktop.until(3)
    await daemon.kill()
    assert (await desktop.until(4))[3] == {"released": "idle:sleep"}


async def test_nothing_is_kept_awake_unasked(
    folders: Folders, start_daemon: StartDaemon, desktop: Desktop, model: FakeOllama
) -> None:
    """Asked for by a reload, while the run is at work, it is from the next run on."""
    released = asyncio.Event()
    model.answer = lambda _: Scripted(text="In the cellar.", until=released)
    folders.write_config(config(model, ""))
    daemon = await start_daemon(**desktop.environment)
    async with daemon.connect() as client:
        await load_text(client, "boiler", "The boiler stands in the cellar.")
        first = asyncio.create_task(ask(client, "Where?"))
        await model.until(lambda: bool(model.seen))
        folders.write_config(config(model, "[power]\nkeep_awake = true\n"))
        await client.call("daemon/reload")
        assert desktop.told() == []
        second = asyncio.create_task(ask(client, "And why?"))
        await desktop.until(1)
        released.set()
        await asyncio.gather(first, second)
        assert [*map(list, await desktop.until(2))] == [["inhibited", "who", "why", "mode"], ["released"]]


async def test_the_end_is_told_on_the_desktop_without_text(
    folders: Folders, start_daemon: StartDaemon, desktop: Desktop, model: FakeOllama
) -> None:
    """Names of contexts, but not of private ones; what is quick, cancelled or a single cell is not worth a word."""
    model.answer = lambda _: "In the canary-cellar."
    folders.write_config(config(model, "[finish]\nnotify = true\nafter = 0\n"))
    daemon = await start_daemon(**desktop.environment)
    async with daemon.connect() as client:
        await load_text(client, "boiler <b>", "The boiler stands in the canary-cellar.")
        source = {"kind": "inline", "text": "Dear canary-diary."}
        await client.call("context/load", {"name": "diary", "source": source, "private": True})
        await client.call("repl/execute", {"run_id": str(uuid.uuid4()), "code": "1"})
        plain = await ask(client, "Where is the canary-boiler?", "boiler <b>")
        await desktop.until(1)
        secret = await ask(client, "What does the canary-diary say?", "diary")
        told = await desktop.until(2)
        assert told[0]["notified"].startswith("rlmd: answered after ")
        assert told[0]["body"] == f"boiler &lt;b&gt; rlmctl run show {plain['run_id'][:8]}"
        assert told[1]["body"] == f"rlmctl run show {secret['run_id'][:8]}"
        assert "canary" not in json.dumps(told)
        folders.write_config(config(model, "[finish]\nnotify = true\nafter = 3600\n"))
        await client.call("daemon/reload")
        await ask(client, "How hot?", "boiler <b>")
    await daemon.stop()
    assert len(desktop.told()) == 2


async def test_a_command_is_run_at_the_end(folders: Folders, start_daemon: StartDaemon, model: FakeOllama) -> None:
    """It is told by its environment; one that fails is in the log, by name and status alone."""
    model.answer = lambda _: "In the canary-cellar."
    told = folders.home / "told"
    hook = folders.home / "done.sh"
    hook.write_text('#!/bin/sh\nenv | grep ^RLMD_ | sort >"$1"; mv "$1" ~/told; exit 7\n')
    hook.chmod(0o700)
    folders.write_config(config(model, f"[finish]\nafter = 0\ncommand = ['~/done.sh', '{folders.home}/part']\n"))
    daemon = await start_daemon()
    async with daemon.connect() as client:
        await load_text(client, "boiler", "The boiler stands in the canary-cellar.")
        checks = {check["name"]: check for check in (await client.call("daemon/doctor"))["checks"]}
        assert checks["finish.command"]["ok"], checks
        ended = await ask(client, "Where is the canary-boiler?")
        async with asyncio.timeout(PATIENCE):
            while "finish_not_told" not in daemon.stderr():
                await asyncio.sleep(0.02)
    lines = dict(line.split("=", 1) for line in told.read_text().splitlines())
    assert lines.pop("RLMD_SECONDS").isdigit()
    assert lines == {
        "RLMD_RUN_ID": ended["run_id"], "RLMD_OUTCOME": "answered", "RLMD_PRIVATE": "0", "RLMD_CONTEXTS": "boiler",
    }  # fmt: skip
    assert "it ended with status 7" in daemon.stderr()
    assert "canary" not in daemon.stderr()


async def test_where_there_is_no_desktop_runs_go_on(
    folders: Folders, start_daemon: StartDaemon, model: FakeOllama
) -> None:
    """Neither bus nor command: told in the log and by the doctor, and nothing else happens."""
    model.answer = lambda _: "In the cellar."
    more = "[power]\nkeep_awake = true\n[finish]\nnotify = true\nafter = 0\ncommand = ['/nowhere/hook']\n"
    folders.write_config(config(model, more))
    nowhere = f"unix:path={folders.root}/no-bus"
    daemon = await start_daemon(DBUS_SESSION_BUS_ADDRESS=nowhere, DBUS_SYSTEM_BUS_ADDRESS=nowhere)
    async with daemon.connect() as client:
        await load_text(client, "boiler", "The boiler stands in the cellar.")
        assert (await ask(client, "Where?"))["outcome"] == "answered"
        released = asyncio.Event()
        model.answer = lambda _: Scripted(text="In the cellar.", until=released)
        asking = asyncio.create_task(ask(client, "And why?"))
        async with asyncio.timeout(PATIENCE):
            while "not_kept_awake" not in daemon.stderr():
                await asyncio.sleep(0.02)
        released.set()
        assert (await asking)["outcome"] == "answered"
        async with asyncio.timeout(PATIENCE):
            while daemon.stderr().count("finish_not_told") < 4:
                await asyncio.sleep(0.02)
        checks = {check["name"]: check for check in (await client.call("daemon/doctor"))["checks"]}
        assert not checks["finish.command"]["ok"]
        assert "/nowhere/hook is not there" in checks["finish.command"]["message"]
