"""Many clients on one run: each is told every fact; one that does not read holds up nobody and costs little."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator

import pytest

from tests.harness import Client, Daemon, Folders, Json, load_text, new_run, rss_bytes

#: Facts that the run writes, at the least: one a line of a cell's output would be none, a sub-query is one.
CODE = "for n in range(150):\n    try: llm_query(f'nobody answers {n}')\n    except Exception: pass\n"
#: What a client's queue may hold (outbox.ROOM) is 4 MiB; a connection itself costs some 50 KB.
BYTES_A_CLIENT = 1 << 20


@contextlib.asynccontextmanager
async def followers(daemon: Daemon, count: int) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(daemon.connect()) for _ in range(count)]


async def all_facts(client: Client, run_id: str) -> list[Json]:
    """What a client was told, with what it had to fetch where it was told of a gap."""
    facts = {fact["seq"]: fact for fact in client.facts(run_id)}
    for note in client.notifications:
        if note["method"] == "run/gap":
            first, last = note["params"]["from_seq"], note["params"]["to_seq"]
            fetched = await client.call("run/fetch", {"run_id": run_id, "from_seq": first, "to_seq": last})
            facts |= {fact["seq"]: fact for fact in fetched["facts"]}
    return [facts[seq] for seq in sorted(facts)]


@pytest.mark.parametrize(
    "count", [60, pytest.param(498, marks=[pytest.mark.full, pytest.mark.timeout(900)])], ids=["few", "500"]
)
async def test_every_client_is_told_every_fact(daemon: Daemon, count: int) -> None:
    async with daemon.connect() as asking:
        await load_text(asking, "note", "something\n")
        before = rss_bytes(daemon.pid)
        run = new_run("?", "note", strategy="quote")
        cell = {"run_id": run["run_id"], "code": CODE, "contexts": ["note"]}
        async with followers(daemon, count) as clients:
            work = asyncio.create_task(asking.call("repl/execute", cell, timeout=600))
            while not (await asking.call("run/list"))["runs"]:
                await asyncio.sleep(0.01)
            await asyncio.gather(*(one.call("run/attach", {"run_id": run["run_id"]}, timeout=600) for one in clients))
            await work
            await asyncio.gather(*(one.ended_run(run["run_id"], timeout=600) for one in clients))
            last = (await asking.call("run/show", {"run_id": run["run_id"]}))["run"]["last_seq"]
            assert last > 150
            for one in clients:
                assert [fact["seq"] for fact in await all_facts(one, run["run_id"])] == list(range(1, last + 1))
            assert (rss_bytes(daemon.pid) - before) / count < BYTES_A_CLIENT


async def test_clients_that_stop_reading_cost_little(folders: Folders, daemon: Daemon) -> None:
    """They ask for 19 MB each and read nothing: others are answered, and memory is bounded. How fast others are
    answered meanwhile is measured by ``tests.benchmarks.bench_contexts``."""
    async with daemon.connect() as reader, contextlib.AsyncExitStack() as stack:
        await load_text(reader, "note", "x" * 200_000)
        peek = {"jsonrpc": "2.0", "id": 1, "method": "context/peek", "params": {"name": "note", "chars": 65_000}}
        for _ in range(20):
            deaf = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            deaf.connect(str(folders.socket))
            deaf.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                deaf.send((json.dumps(peek) + "\n").encode() * 300)
        for _ in range(60):
            await reader.call("daemon/status")
        assert rss_bytes(daemon.pid) < 400 << 20
