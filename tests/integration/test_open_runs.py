"""A run that stays open for its client: one purse for all that is asked in it, and nothing of it outlives it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.fakes.serving import Scripted
from tests.harness import Client, Daemon, Folders, Host, RpcFailure, config_of, load_text, new_run

CELL = "print(llm_query('from the cell'))"


@pytest.fixture
async def model(folders: Folders) -> AsyncIterator[FakeOllama]:
    async with FakeOllama(slots=2) as fake:
        folders.write_config(config_of([Host("m40", fake.url, slots=2)], sub=("m40/sub",)))
        yield fake


async def opened(client: Client, **limits: float) -> str:
    run_id = str(uuid.uuid4())
    await client.call("run/open", {"run_id": run_id, "title": "a test", "limits": limits})
    return run_id


def cell_in(run_id: str, code: str = CELL) -> dict[str, object]:
    return {"run_id": str(uuid.uuid4()), "code": code, "within": run_id}


async def test_queries_and_cells_take_from_one_purse(model: FakeOllama, client: Client) -> None:
    run_id = await opened(client, sub_queries=2)
    told = await client.call("llm/query", {"run_id": run_id, "prompt": "asked alone"})
    assert (told["host"], told["model"], told["source"]) == ("m40", "sub", "model")
    assert told["reply"]
    assert (await client.call("repl/execute", cell_in(run_id)))["ok"]
    with pytest.raises(RpcFailure) as refused:
        await client.call("llm/query", {"run_id": run_id, "prompt": "one too many"})
    assert refused.value.data["kind"] == "limit_reached"
    over = await client.call("repl/execute", cell_in(run_id, "print(llm_query('and from a cell too'))"))
    assert "limit of 2 sub-queries" in over["output"] + str(over["error"])
    assert [seen.prompt for seen in model.seen] == ["asked alone", "from the cell"]


async def test_its_receipt_tells_what_all_of_it_took(model: FakeOllama, client: Client) -> None:
    run_id = await opened(client)
    await client.call("llm/query", {"run_id": run_id, "prompt": "asked alone"})
    await client.call("repl/execute", cell_in(run_id))
    closed = await client.call("run/close", {"run_id": run_id})
    assert (closed["state"], closed["outcome"]) == ("ended", "answered")
    receipt = (await client.call("run/show", {"run_id": run_id}))["receipt"]
    assert receipt["sub_queries"] == 2
    assert sum(use["calls"] for use in receipt["models"]) == 2


async def test_when_the_client_goes_all_of_it_ends_upstream_too(model: FakeOllama, daemon: Daemon) -> None:
    model.answer = lambda _: Scripted("never", fault="hang")
    async with daemon.connect() as watcher:
        async with daemon.connect() as client:
            run_id = await opened(client)
            cell = cell_in(run_id)
            asked = [
                asyncio.ensure_future(client.call("llm/query", {"run_id": run_id, "prompt": "alone"})),
                asyncio.ensure_future(client.call("repl/execute", cell)),
            ]
            await model.until(lambda: model.held == 2)
        for one in asked:
            with pytest.raises(ConnectionError):
                await one
        await model.until(lambda: model.held == 0)
        assert {seen.outcome for seen in model.seen} == {"aborted"}
        ended = await watcher.call("run/attach", {"run_id": run_id})
        await watcher.ended_run(run_id)
        assert ended["run_id"] == run_id
        within = await watcher.call("run/show", {"run_id": cell["run_id"]})
        assert within["run"]["outcome"] == "cancelled"


async def test_what_is_not_open_takes_nothing(model: FakeOllama, client: Client) -> None:
    run_id = await opened(client)
    await client.call("run/close", {"run_id": run_id})
    await load_text(client, "short", "a short text")
    ordinary = new_run("what?", "short", strategy="quote")
    await client.call("run/ask", ordinary)
    for closed in (run_id, ordinary["run_id"]):
        for method, params in (
            ("llm/query", {"run_id": closed, "prompt": "hello"}),
            ("repl/execute", cell_in(closed)),
            ("run/start", new_run("why?", "short", within=closed)),
        ):
            with pytest.raises(RpcFailure) as refused:
                await client.call(method, params)
            assert refused.value.data["kind"] == "conflict", method
    with pytest.raises(RpcFailure) as unknown:
        await client.call("llm/query", {"run_id": str(uuid.uuid4()), "prompt": "hello"})
    assert unknown.value.data["kind"] == "not_found"
    assert model.seen == []


async def test_it_does_not_outlive_the_daemon(model: FakeOllama, folders: Folders, start_daemon: StartDaemon) -> None:
    daemon = await start_daemon()
    async with daemon.connect() as client:
        run_id = await opened(client)
        await daemon.kill()
    daemon = await start_daemon()
    async with daemon.connect() as client:
        shown = await client.call("run/show", {"run_id": run_id})
        assert shown["run"]["state"] == "interrupted"
        with pytest.raises(RpcFailure):
            await client.call("llm/query", {"run_id": run_id, "prompt": "hello"})
    assert model.seen == []
