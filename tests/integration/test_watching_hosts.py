"""``host/subscribe``: who watches the hosts is told how they stand, whenever they differ, and no more than it reads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from rlmd.client import connect
from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import Client, Daemon, Folders, Host, Json, config_of
from tests.shell import rlmctl


@pytest.fixture
async def model() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root"]) as server:
        yield server


@pytest.fixture
async def daemon(folders: Folders, model: FakeOllama, start_daemon: StartDaemon) -> Daemon:
    folders.write_config(config_of([Host("box", model.url, models={"root": 8192})], root=("box/root",)))
    return await start_daemon()


def told(client: Client) -> list[Json]:
    return [note["params"] for note in client.notifications if note["method"] == "host/changed"]


def state(hosts: Json) -> str:
    return str(hosts["hosts"][0]["state"])


async def up(client: Client, **params: object) -> Json:
    """Subscribes when the host is known to be up."""
    now = await client.call("host/subscribe", {"seconds": 0.1, **params})
    if state(now) != "ok":
        await client.until(lambda: told(client) and state(told(client)[-1]) == "ok")
        now = told(client)[-1]
    client.notifications.clear()
    return now


async def test_a_change_is_told_to_those_who_watch(daemon: Daemon) -> None:
    async with daemon.connect() as watcher, daemon.connect() as other:
        await up(watcher)
        await other.call("host/pause", {"name": "box"})
        await watcher.until(lambda: told(watcher) and state(told(watcher)[-1]) == "paused")
        await other.call("host/resume", {"name": "box"})
        await watcher.until(lambda: state(told(watcher)[-1]) == "ok")
        assert not told(other)
        # Ended, it is told nothing; the answer says how things stand.
        watcher.notifications.clear()
        assert state(await watcher.call("host/subscribe", {"on": False})) == "ok"
        await other.call("host/pause", {"name": "box"})
        await asyncio.sleep(0.5)
        assert not told(watcher)


async def test_many_changes_are_told_as_few(daemon: Daemon) -> None:
    """A second subscription takes the place of the first, and what comes between two looks is told once."""
    async with daemon.connect() as watcher, daemon.connect() as other:
        await up(watcher)
        await watcher.call("host/subscribe", {"seconds": 0.5})
        for _ in range(50):
            await other.call("host/pause", {"name": "box"})
            await other.call("host/resume", {"name": "box"})
        await other.call("host/pause", {"name": "box"})
        await watcher.until(lambda: told(watcher) and state(told(watcher)[-1]) == "paused")
        assert len(told(watcher)) < 50


async def test_a_client_of_protocol_1_is_told_states_that_it_knows(
    folders: Folders, model: FakeOllama, start_daemon: StartDaemon
) -> None:
    host = config_of([Host("box", model.url, models={"root": 8192})], root=("box/root",))
    away = f'\n[hosts.far]\nurl = "http://127.0.0.1:9"\nprovider = "ollama"\nwake = ["{sys.executable}"]\n'
    folders.write_config(host + away + "[hosts.far.models.root]\nwindow = 8192\n")
    daemon = await start_daemon()

    async def states(client: Client) -> dict[str, str]:
        return {one["name"]: one["state"] for one in (await client.call("host/subscribe"))["hosts"]}

    async with daemon.connect() as old, daemon.connect() as new:
        assert (await new.call("initialize", {"protocol": 2}))["protocol"] == 2
        assert (await states(new))["far"] == "asleep"
        assert (await states(old))["far"] == "down"


async def test_the_client_watches_over_a_restart(folders: Folders, daemon: Daemon, start_daemon: StartDaemon) -> None:
    async with connect(folders.socket, start=False) as client, asyncio.timeout(60):
        hosts = client.watch_hosts(0.1)
        assert [host.name for host in (await anext(hosts)).hosts] == ["box"]
        await daemon.stop()
        await start_daemon()
        async for now in hosts:
            if now.hosts[0].state == "ok":
                break
        await hosts.aclose()


async def test_top_shows_them(folders: Folders, daemon: Daemon) -> None:
    shown = await rlmctl(folders.environment(), "top", "--once")
    assert shown.status == 0
    assert "box" in shown.out
