"""A run that stays open for its client: one purse for all that is asked in it, and nothing of it outlives it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.conftest import StartDaemon
from tests.e2e.test_canaries import holding
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


CANARY = "Xanthippe7741"
SECRET = f"The safe of {CANARY} opens with four turns.\n" * 40


async def test_one_within_which_private_text_was_read_is_private(
    folders: Folders, model: FakeOllama, start_daemon: StartDaemon
) -> None:
    """It may tell of it from then on, to hosts as to clients; also after the daemon was killed."""
    async with FakeOllama(slots=2) as cloud:
        hosts = [Host("cloud", cloud.url, slots=2), Host("m40", model.url, slots=2)]
        text = config_of(hosts, sub=("cloud/sub", "m40/sub"))
        folders.write_config(text.replace("[hosts.cloud]\n", '[hosts.cloud]\ntrust = "cloud"\n'))
        daemon = await start_daemon()
        async with daemon.connect() as client, daemon.connect() as leaky:
            await leaky.call("initialize", {"egress": True})
            await client.call(
                "context/load", {"name": "diary", "private": True, "source": {"kind": "inline", "text": SECRET}}
            )
            run_id = await opened(client)
            query = {"run_id": run_id, "sub": ["cloud"]}
            await client.call("llm/query", {**query, "prompt": "nothing is known yet"})
            assert len(cloud.seen) == 1, "the test tests nothing"
            await leaky.call("run/attach", {"run_id": run_id})
            await leaky.until(lambda: leaky.facts(run_id, "subquery_replied"))
            cell = {**cell_in(run_id, "print(context[:50])"), "contexts": ["diary"]}
            read = (await client.call("repl/execute", cell))["output"]
            with pytest.raises(RpcFailure) as refused:
                await client.call("llm/query", {**query, "prompt": read})
            assert refused.value.data["kind"] == "no_host"
            assert (await client.call("llm/query", {"run_id": run_id, "prompt": read}))["host"] == "m40"
            assert len(cloud.seen) == 1
            assert not leaky.facts(run_id, "child_started")
            assert len(leaky.facts(run_id, "subquery_replied")) == 1
            with pytest.raises(RpcFailure):
                await leaky.call("run/show", {"run_id": run_id})
            await daemon.kill()
        daemon = await start_daemon()
        async with daemon.connect() as client, daemon.connect() as leaky:
            await leaky.call("initialize", {"egress": True})
            assert (await leaky.call("run/list"))["runs"] == []
            assert (await client.call("run/show", {"run_id": run_id}))["run"]["private"]
            assert (await client.call("context/drop", {"name": "diary"}))["runs"] == 2


async def test_of_one_within_which_ephemeral_text_was_read_nothing_more_is_on_disk(
    folders: Folders, model: FakeOllama, start_daemon: StartDaemon
) -> None:
    model.answer = lambda prompt: f"It says: {prompt}"
    daemon = await start_daemon()
    async with daemon.connect() as client:
        await client.call(
            "context/load", {"name": "diary", "ephemeral": True, "source": {"kind": "inline", "text": SECRET}}
        )
        run_id = await opened(client)
        await client.call("llm/query", {"run_id": run_id, "prompt": "nothing is known yet"})
        cell = {**cell_in(run_id, "print(context[:800])"), "contexts": ["diary"]}
        read = (await client.call("repl/execute", cell))["output"]
        for prompt in (read[:300], read * 30):
            assert CANARY in (await client.call("llm/query", {"run_id": run_id, "prompt": prompt}))["reply"]
        closed = await client.call("run/close", {"run_id": run_id})
        assert (closed["outcome"], closed["private"]) == ("answered", True)
        assert (await client.call("run/show", {"run_id": run_id}))["receipt"]["sub_queries"] == 3
    await daemon.kill()
    for folder in (folders.state, folders.cache, folders.runtime):
        assert list(holding(folder, (CANARY, "diary"))) == []
    daemon = await start_daemon()
    async with daemon.connect() as client:
        assert (await client.call("run/show", {"run_id": run_id}))["run"]["private"]


async def test_a_named_session_is_ephemeral_once_it_saw_such_text(
    folders: Folders, model: FakeOllama, start_daemon: StartDaemon
) -> None:
    """What it did before is on disk, and comes back; nothing of what came then."""
    daemon = await start_daemon()

    async def cell(client: Client, code: str, *contexts: str) -> str:
        asked = {"run_id": str(uuid.uuid4()), "code": code, "session": "mine", "contexts": list(contexts)}
        told = await client.call("repl/execute", asked)
        assert told["ok"], told
        return str(told["output"])

    async with daemon.connect() as client:
        await load_text(client, "note", "an ordinary text\n")
        await client.call(
            "context/load", {"name": "diary", "ephemeral": True, "source": {"kind": "inline", "text": SECRET}}
        )
        await cell(client, "before = context", "note")
        await cell(client, "kept = context", "diary")
        assert CANARY in await cell(client, "print(kept + llm_query(kept[:200]))", "note")
        shown = await client.call("session/show", {"name": "mine"})
        assert (shown["session"]["ephemeral"], shown["session"]["private"]) == (True, True)
    await daemon.kill()
    for folder in (folders.state, folders.cache, folders.runtime):
        assert list(holding(folder, (CANARY, "diary"))) == []
    daemon = await start_daemon()
    async with daemon.connect() as client:
        assert await cell(client, "print(before, 'kept' in globals())") == "an ordinary text\n False\n"
