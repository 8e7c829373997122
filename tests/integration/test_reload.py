"""Other settings while the daemon runs: what is taken at once, what waits, what a mistake does, what goes on."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.fakes.serving import Scripted
from tests.harness import PATIENCE, Client, Daemon, Folders, Host, RpcFailure, config_of, load_path, load_text, new_run
from tests.shell import rlmctl


async def test_settings_are_taken_and_those_that_cannot_be_are_told(client: Client, folders: Folders) -> None:
    folders.write_config("[limits]\nturns = 7\n[repl]\nmax_workers = 3\ncell_seconds = 9\n")
    told = await client.call("daemon/reload")
    assert told == {"applied": ["limits.turns", "repl.cell_seconds"], "restart": ["repl.max_workers"]}
    await load_text(client, "text", "The boiler stands in the cellar.")
    run = new_run("Where does the boiler stand?", "text", strategy="quote")
    await client.call("run/start", run)
    await client.ended_run(run["run_id"])
    assert client.facts(run["run_id"], "run_started")[0]["limits"]["turns"] == 7
    checks = {check["name"]: check for check in (await client.call("daemon/doctor"))["checks"]}
    assert "repl.max_workers" in checks["config"]["message"]
    assert "limits.turns" not in checks["config"]["message"]
    assert (await client.call("daemon/reload")) == {"applied": [], "restart": ["repl.max_workers"]}


async def test_a_mistake_changes_nothing(client: Client, folders: Folders) -> None:
    folders.write_config("[retention]\nrevisions = 3\n[limits]\nturn = 7\n")
    with pytest.raises(RpcFailure, match="Did you mean turns"):
        await client.call("daemon/reload")
    assert (await client.call("daemon/status"))["revisions_kept"] == 10
    ended = await rlmctl(folders.environment(), "daemon", "reload")
    assert ended.status == 1
    assert "limits.turn is not known" in ended.err


async def test_a_client_that_may_leave_the_machine_changes_nothing(daemon: Daemon, folders: Folders) -> None:
    folders.write_config("[retention]\nrevisions = 3\n")
    async with daemon.connect() as leaky:
        await leaky.call("initialize", {"client": {"name": "leaky", "version": "1"}, "egress": True})
        with pytest.raises(RpcFailure, match="may not change settings"):
            await leaky.call("daemon/reload")
        assert (await leaky.call("daemon/status"))["revisions_kept"] == 10


async def test_sighup_reloads(daemon: Daemon, client: Client, folders: Folders) -> None:
    """A mistake first, of which nothing must be left to do."""
    folders.write_config("[retention]\nrevisions = 0\n")
    daemon.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(PATIENCE):
        while "not_reloaded" not in daemon.stderr():
            await asyncio.sleep(0.02)
        folders.write_config("[retention]\nrevisions = 3\n")
        daemon.process.send_signal(signal.SIGHUP)
        while (await client.call("daemon/status"))["revisions_kept"] != 3:
            await asyncio.sleep(0.02)


async def test_the_level_of_the_log_changes(daemon: Daemon, client: Client, folders: Folders) -> None:
    folders.write_config('[log]\nlevel = "error"\n')
    await client.call("daemon/reload")
    before = daemon.stderr()
    folders.write_config("[retention]\nrevisions = 3\n")
    await client.call("daemon/reload")  # what it logs is of the new level
    assert daemon.stderr().count("reloaded") == before.count("reloaded") + 1
    assert "reloaded" not in before


async def test_a_new_rule_makes_private_what_is_there(daemon: Daemon, client: Client, folders: Folders) -> None:
    diary = folders.home / "diary"
    diary.mkdir()
    (diary / "monday.txt").write_text("Rain.")
    await load_path(client, "diary", diary)
    async with daemon.connect() as leaky:
        await leaky.call("initialize", {"client": {"name": "leaky", "version": "1"}, "egress": True})
        assert [one["name"] for one in (await leaky.call("context/list"))["contexts"]] == ["diary"]
        folders.write_config(f'[privacy]\nprivate = ["{diary}/"]\n')
        assert (await client.call("daemon/reload"))["applied"] == ["privacy.private"]
        assert (await leaky.call("context/list"))["contexts"] == []


async def test_a_new_rule_recalls_what_a_cloud_is_being_asked(start_daemon: StartDaemon, folders: Folders) -> None:
    async with FakeOllama(["root"]) as cloud:
        cloud.answer = lambda _: Scripted(text="Rain.", until=asyncio.Event())
        host = config_of([Host("cloud", cloud.url, models={"root": 32_768})], root=("cloud/root",), sub=("cloud/root",))
        host = host.replace("[hosts.cloud]\n", '[hosts.cloud]\ntrust = "cloud"\n')
        folders.write_config(host)
        diary = folders.home / "diary"
        diary.mkdir()
        (diary / "monday.txt").write_text("Rain.")
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_path(client, "diary", diary)
            await client.call("run/start", new_run("What was on monday?", "diary", strategy="direct"))
            async with asyncio.timeout(PATIENCE):
                await cloud.until(lambda: bool(cloud.seen))
                folders.write_config(host + f'[privacy]\nprivate = ["{diary}/"]\n')
                await client.call("daemon/reload")
                await cloud.until(lambda: cloud.aborted == 1)


async def test_what_is_in_flight_at_a_host_that_changes_ends_there(start_daemon: StartDaemon, folders: Folders) -> None:
    """Nothing is asked twice; a new host helps, one that is gone gets nothing more, and roles are those of now."""
    async with FakeOllama(["root"]) as m40, FakeOllama(["root"]) as rtx, FakeOllama(["root"]) as p100:
        released = asyncio.Event()
        m40.answer = lambda _: Scripted(text="In the cellar.", until=released)
        hosts = [Host("m40", m40.url, models={"root": 32_768}), Host("rtx", rtx.url, models={"root": 32_768})]
        folders.write_config(config_of(hosts, root=("m40/root",), sub=("m40/root",)))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "text", "The boiler stands in the cellar.")
            first = new_run("Where does it stand?", "text", strategy="direct")
            await client.call("run/start", first)
            async with asyncio.timeout(PATIENCE):
                await m40.until(lambda: bool(m40.seen))
            new = [
                Host("m40", m40.url, slots=2, models={"root": 16_384}),
                Host("p100", p100.url, models={"root": 8192}),
            ]
            folders.write_config(config_of(new, root=("p100/root",), sub=("p100/root",)))
            told = await client.call("daemon/reload")
            assert told["applied"] == ["hosts.m40", "hosts.rtx", "hosts.p100", "roles.root", "roles.sub"]
            listed = {host["name"]: host["slots"] for host in (await client.call("host/list"))["hosts"]}
            assert listed == {"m40": 2, "p100": 1}
            second = new_run("And where is the lamp?", "text", strategy="direct")
            await client.call("run/start", second)
            await client.ended_run(second["run_id"])
            released.set()
            ended = await client.ended_run(first["run_id"])
            assert ended["outcome"] == "answered", ended
        assert (len(m40.seen), len(rtx.seen), len(p100.seen)) == (1, 0, 1)
