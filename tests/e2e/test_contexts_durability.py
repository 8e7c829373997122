"""``kill -9`` under mixed work, and a disk that is full: what was acknowledged is there, and the store is whole."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.harness import Client, Folders, Json, RpcFailure, load_path, load_text, new_run, start_run


def store(folders: Folders) -> Path:
    return folders.state / "rlmd" / "contexts" / "store"


def check_store(folders: Folders) -> None:
    """The catalogue is sound, and each blob on disk is one that it names, of the size and digest that it says."""
    with sqlite3.connect(f"file:{store(folders)}/catalogue.sqlite?mode=ro", uri=True) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        named = dict(db.execute("SELECT digest, bytes FROM blobs"))
    db.close()
    blobs = {path.name: path for path in (store(folders) / "blobs").rglob("*") if path.is_file()}
    assert blobs.keys() == named.keys()
    for digest, path in blobs.items():
        data = path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (named[digest], digest)


class Work:
    """What one client does until the daemon dies, and what it was told."""

    def __init__(self, folders: Folders, lane: int, chance: random.Random) -> None:
        self.chance = chance
        self.name = f"lane{lane}"
        self.file = folders.home / f"{self.name}.log"
        self.file.write_text("begin\n" * 20_000)
        #: Digests that each context may have: what was acknowledged, and what was asked for since.
        self.may_be: dict[str, set[str | None]] = {}
        self.answered: dict[str, str] = {}
        self.done = 0

    async def go_on(self, client: Client) -> None:
        steps = [self.load, self.grow, self.ask, self.collect, self.drop]
        while True:
            await self.chance.choices(steps, weights=[4, 4, 1, 1, 1])[0](client)
            self.done += 1

    async def load(self, client: Client) -> None:
        name, text = (
            f"{self.name}-{self.chance.randrange(4)}",
            str(self.chance.random()) * self.chance.randrange(1, 500),
        )
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.may_be.setdefault(name, {None}).add(digest)
        await load_text(client, name, text)
        self.may_be[name] = {digest}

    async def grow(self, client: Client) -> None:
        with self.file.open("a") as file:
            file.write(f"{self.chance.random()}\n" * self.chance.randrange(1, 50))
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        self.may_be.setdefault(self.name, {None}).add(digest)
        await load_path(client, self.name, self.file)
        self.may_be[self.name] = {digest}

    async def ask(self, client: Client) -> None:
        await self.grow(client)
        run = new_run("Where does it begin?", self.name, strategy="quote")
        await start_run(client, run)
        self.answered[run["run_id"]] = (await client.call("run/show", {"run_id": run["run_id"]}))["answer"]

    async def collect(self, client: Client) -> None:
        await client.call("daemon/gc")

    async def drop(self, client: Client) -> None:
        name = f"{self.name}-{self.chance.randrange(4)}"
        if name in self.may_be:
            self.may_be[name].add(None)
            with contextlib.suppress(RpcFailure):
                await client.call("context/drop", {"name": name})
            self.may_be[name] = {None}

    async def check(self, client: Client) -> None:
        listed = {one["name"]: one for one in (await client.call("context/list"))["contexts"]}
        for name, digests in self.may_be.items():
            there = listed[name]["digest"] if name in listed else None
            assert there in digests, f"{name} came back as something else"
            self.may_be[name] = {there}
        for run_id, answer in self.answered.items():
            assert (await client.call("run/show", {"run_id": run_id}))["answer"] == answer


@pytest.mark.parametrize(
    "times", [3, pytest.param(200, marks=[pytest.mark.full, pytest.mark.timeout(3600)])], ids=["few", "many"]
)
async def test_killed_under_mixed_work(folders: Folders, start_daemon: StartDaemon, times: int) -> None:
    folders.write_config("[retention]\nrevisions = 3\n")
    chance = random.Random(55)
    lanes = [Work(folders, lane, random.Random(lane)) for lane in range(3)]
    for _ in range(times):
        daemon = await start_daemon()
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(daemon.connect()) for _ in lanes]
            for work, client in zip(lanes, clients, strict=True):
                await work.check(client)
            check_store(folders)
            tasks = [asyncio.create_task(work.go_on(client)) for work, client in zip(lanes, clients, strict=True)]
            enough = sum(work.done for work in lanes) + chance.randrange(10, 40)
            while sum(work.done for work in lanes) < enough:
                await asyncio.sleep(0.001)
                assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
            await daemon.kill()
            for task in tasks:
                with contextlib.suppress(ConnectionError, BrokenPipeError, AssertionError):
                    await task


def takes_connections(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


async def test_a_full_disk_is_an_error_and_no_harm(folders: Folders) -> None:
    """On a file system of 4 MB: what does not fit is refused, what was there stays, and room helps at once."""
    script = f"mount -t tmpfs -o size=4m none {folders.state} && exec {sys.executable} -m rlmd"
    process = await asyncio.create_subprocess_exec(
        "setpriv", "--pdeathsig", "KILL", "--", "unshare", "-rm", "sh", "-c", script, env=folders.environment()
    )
    try:
        while not takes_connections(folders.socket):
            assert process.returncode is None
            await asyncio.sleep(0.01)
        async with Client.connected(folders.socket) as client:
            await load_text(client, "small", "It was there before.\n")
            big = folders.home / "big"
            refused = None
            for number in range(40):
                big.write_text(f"{number} {'x' * 79}\n" * 5000)
                try:
                    await load_path(client, f"big{number}", big)
                except RpcFailure as failure:
                    refused = refused or failure
            assert refused is not None
            assert refused.data["kind"] == "disk_full"
            assert refused.data["hint"]
            contexts: list[Json] = (await client.call("context/list"))["contexts"]
            assert "small" in {one["name"] for one in contexts}
            for one in contexts:
                assert (await client.call("context/peek", {"name": one["name"]}))["text"]
            for one in contexts:
                if one["name"] != "small":
                    await client.call("context/drop", {"name": one["name"]})
            assert (await load_path(client, "big", big))["change"] == "created"
            assert (await client.call("context/peek", {"name": "small"}))["text"] == "It was there before.\n"
    finally:
        process.terminate()
        await process.wait()
