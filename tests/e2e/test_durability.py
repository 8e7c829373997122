"""``kill -9`` at any moment: what was acknowledged is there byte for byte, what was told is in the journal."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama, Scripted, Seen
from tests.harness import Client, Folders, Host, Json, config_of, load_path, load_text, new_run, start_run

#: Kills in each test; the full tier has the count that convinces.
FEW, MANY = 4, 30

kills = pytest.mark.parametrize(
    "times", [FEW, pytest.param(MANY, marks=[pytest.mark.full, pytest.mark.timeout(1800)])], ids=["few", "many"]
)


def text_of(chance: random.Random, chars: int) -> str:
    """Text with every width of UTF-8 and every kind of line end."""
    words = ["apple", "żółw", "日本", "🐢", "é", "\r\n", "\n", "\t", "x" * 30, " "]
    return "".join(chance.choice(words) + str(chance.randrange(1000)) for _ in range(chars // 7))[:chars]


async def read_whole(client: Client, name: str) -> str:
    """A one-document context by ``context/peek``, piece by piece."""
    pieces, start = [], 0
    while True:
        peeked = await client.call("context/peek", {"name": name, "start": start, "chars": 65_536})
        pieces.append(peeked["text"])
        start = peeked["end"]
        if start >= peeked["document_chars"]:
            return "".join(pieces)


@kills
async def test_acknowledged_contexts_survive(folders: Folders, start_daemon: StartDaemon, times: int) -> None:
    chance = random.Random(20)
    acknowledged: dict[str, str] = {}
    refreshed: dict[str, list[str]] = {}

    async def keep_loading(client: Client, lane: int) -> None:
        for number in range(10_000):
            name = f"lane{lane}-{number % 5}"
            text = text_of(chance, chance.randrange(1, 60_000))
            refreshed.setdefault(name, []).append(text)
            await load_text(client, name, text)
            acknowledged[name] = text
            refreshed[name] = [text]

    for _ in range(times):
        daemon = await start_daemon()
        async with daemon.connect() as client, daemon.connect() as other:
            for name, text in acknowledged.items():
                stored = await read_whole(client, name)
                assert stored in [text, *refreshed[name]], f"{name} came back as something that was never sent"
                acknowledged[name] = stored
                refreshed[name] = [stored]
            lanes = [asyncio.create_task(keep_loading(one, lane)) for lane, one in enumerate((client, other))]
            done, before = set(acknowledged.items()), len(acknowledged)
            while len(set(acknowledged.items()) - done) < 1 + chance.randrange(20) or len(acknowledged) < before:
                await asyncio.sleep(0.001)
                assert not any(lane.done() for lane in lanes), [lane.exception() for lane in lanes if lane.done()]
            await daemon.kill()
            for lane in lanes:
                with contextlib.suppress(ConnectionError, BrokenPipeError):
                    await lane


def make_tree(folder: Path, files: int, chance: random.Random) -> dict[str, str]:
    """A folder of small files; returns the SHA-256 of each by name."""
    digests = {}
    for number in range(files):
        path = folder / f"part{number % 50}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text_of(chance, chance.randrange(10, 4000)).encode()
        path.write_bytes(data)
        digests[f"part{number % 50}/file{number}.txt"] = hashlib.sha256(data).hexdigest()
    return digests


@kills
async def test_killed_in_the_middle_of_a_load(folders: Folders, start_daemon: StartDaemon, times: int) -> None:
    """A folder is loaded wholly or not at all, and what was there before stays as it was."""
    chance = random.Random(21)
    tree = folders.home / "tree"
    digests = make_tree(tree, 1500, chance)
    kept = text_of(chance, 50_000)
    daemon = await start_daemon()
    async with daemon.connect() as client:
        await load_text(client, "kept", kept)
        began = asyncio.get_running_loop().time()
        await load_path(client, "measured", tree)
        whole_load = asyncio.get_running_loop().time() - began
        await client.call("context/drop", {"name": "measured"})
    await daemon.stop()
    seen: set[bool] = set()
    for kill in range(times):
        daemon = await start_daemon()
        async with daemon.connect() as client:
            names = {one["name"] for one in (await client.call("context/list"))["contexts"]}
            assert "kept" in names
            assert await read_whole(client, "kept") == kept
            if f"tree{kill - 1}" in names:
                listed = await client.call("context/info", {"name": f"tree{kill - 1}", "documents_limit": 10_000})
                stored = {one["name"]: one["origin_digest"] for one in listed["documents"]}
                assert {name.split("tree/")[-1]: digest for name, digest in stored.items()} == digests
            elif kill:
                seen.add(False)
            load = asyncio.create_task(load_path(client, f"tree{kill}", tree))
            await asyncio.sleep(whole_load * (kill + 0.5) / times)
            await daemon.kill()
            with contextlib.suppress(ConnectionError):
                await load
                seen.add(True)
    assert False in seen, "no kill came before the load's end: the test tests nothing"
    daemon = await start_daemon()
    async with daemon.connect() as client:
        await load_path(client, "at last", tree)
        assert await read_whole(client, "kept") == kept


BATCH = """```repl
parts = [f"piece {number}" for number in range(30)]
replies = llm_query_batched(parts)
print(len(ok(replies)))
```"""


def hold_after(count: int) -> Scripted | object:
    """Answers so many sub-queries, then holds every other for ever."""
    answered = 0

    def reply(prompt: str) -> str | Scripted:
        nonlocal answered
        answered += 1
        return f"reply to {prompt[-20:]}" if answered <= count else Scripted(latency=3600.0)

    return reply


async def until_facts(client: Client, run_id: str, kind: str, count: int) -> None:
    await client.until(lambda: len(client.facts(run_id, kind)) >= count)


async def output_comes(client: Client, run_id: str, text: str) -> None:
    await client.until(lambda: any(text in delta["text"] for delta in client.deltas(run_id)))


async def facts_of(client: Client, run_id: str, to: int) -> list[Json]:
    fetched = await client.call("run/fetch", {"run_id": run_id, "from_seq": 1, "to_seq": to})
    facts: list[Json] = fetched["facts"]
    return facts


async def test_killed_in_the_middle_of_a_run(folders: Folders, start_daemon: StartDaemon) -> None:
    """Every fact that a client was told is in the journal as it was told; the run goes on, and asks no reply again."""
    async with FakeOllama(["root", "sub"], slots=4) as fake:
        fake.script("root", ["```repl\nprint(len(context))\n```", BATCH, "FINAL(never reached)"])
        fake.answer = hold_after(10)  # type: ignore[assignment]
        host = Host("one", fake.url, slots=4, models={"root": 8192, "sub": 8192})
        folders.write_config(config_of([host], root=("one/root",), sub=("one/sub",)))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "note", "some text\n" * 500)
            run = new_run("What is it?", "note", strategy="rlm")
            await client.call("run/start", run)
            await until_facts(client, run["run_id"], "subquery_replied", 10)
            told = client.facts(run["run_id"])
            await daemon.kill()
        await fake.until(lambda: fake.held == 0)
        fake.script("root", ["FINAL(done)"])
        fake.answer = lambda prompt: f"reply to {prompt[-20:]}"
        before = len(fake.prompts("sub"))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            listed = await client.call("run/list")
            mine = next(one for one in listed["runs"] if one["run_id"] == run["run_id"])
            assert mine["state"] in ("running", "ended")
            assert mine["question"]["text"] == "What is it?"
            await client.call("run/attach", {"run_id": run["run_id"], "from_seq": len(told) + 1})
            ended = await client.ended_run(run["run_id"])
            assert (ended["outcome"], ended["answer"]["text"]) == ("answered", "done")
            kept = await facts_of(client, run["run_id"], ended["seq"])
            assert [fact["seq"] for fact in kept] == list(range(1, ended["seq"] + 1))
            assert kept[: len(told)] == told
            assert [fact["type"] for fact in kept].count("run_resumed") == 1
            replied = [fact["prompt_digest"] for fact in kept if fact["type"] == "subquery_replied"]
            assert len(replied) == len(set(replied)) == 30
            assert len(fake.prompts("sub")) - before == 20


async def test_sigterm_in_the_middle_of_a_run(folders: Folders, start_daemon: StartDaemon) -> None:
    """A stop is no crash, but it interrupts too: the client is told, upstream is let go; the next start goes on."""
    async with FakeOllama(["root", "sub"], slots=4) as fake:
        fake.script("root", [BATCH, "FINAL(never reached)"])
        fake.answer = hold_after(5)  # type: ignore[assignment]
        host = Host("one", fake.url, slots=4, models={"root": 8192, "sub": 8192})
        folders.write_config(config_of([host], root=("one/root",), sub=("one/sub",)))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "note", "some text\n" * 500)
            run = new_run("What is it?", "note", strategy="rlm")
            await client.call("run/start", run)
            await until_facts(client, run["run_id"], "subquery_replied", 5)
            await fake.until(lambda: fake.serving == 4)
            stop = asyncio.create_task(daemon.stop())
            await client.until(lambda: client.facts(run["run_id"], "run_interrupted"))
            assert await stop == 0
        await fake.until(lambda: fake.held == 0)
        fake.script("root", ["FINAL(done)"])
        fake.answer = lambda prompt: f"reply to {prompt[-20:]}"
        before = len(fake.prompts("sub"))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await client.call("run/attach", {"run_id": run["run_id"]})
            assert (await client.ended_run(run["run_id"]))["answer"]["text"] == "done"
            kinds = [fact["type"] for fact in client.facts(run["run_id"])]
            assert (kinds.count("run_interrupted"), kinds.count("run_resumed")) == (1, 1)
            assert len(fake.prompts("sub")) - before == 25


async def test_cancel_frees_the_hosts_and_is_answered(folders: Folders, start_daemon: StartDaemon) -> None:
    """Cancelled while a batch waits on hosts and the cell waits on the batch."""
    async with FakeOllama(["root", "sub"], slots=4) as fake:
        fake.script("root", [BATCH])
        fake.answer = lambda _: Scripted(latency=3600.0)
        host = Host("one", fake.url, slots=4, models={"root": 8192, "sub": 8192})
        folders.write_config(config_of([host], root=("one/root",), sub=("one/sub",)))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "note", "some text\n" * 500)
            run = new_run("What is it?", "note", strategy="rlm")
            await client.call("run/start", run)
            await fake.until(lambda: fake.serving == 4)
            cancelled = await client.call("run/cancel", {"run_id": run["run_id"]})
            assert cancelled["state"] == "cancelled"
            await fake.until(lambda: fake.held == 0)
            ended = await client.ended_run(run["run_id"])
            assert ended["outcome"] == "cancelled"
            fake.script("root", ["```repl\nprint(context[:9])\n```", "FINAL(alive)"])
            assert (await start_run(client, new_run("Alive?", "note", strategy="rlm")))["outcome"] == "answered"


async def test_a_busy_loop_in_a_cell_is_cancelled_too(folders: Folders, start_daemon: StartDaemon) -> None:
    loops = (
        "while True: pass",
        "while True:\n  try:\n    while True: pass\n  except KeyboardInterrupt: pass",
        "sum(range(10**12))",
    )
    for loop in loops:
        began = asyncio.Event()

        def reply(_: Seen, loop: str = loop, began: asyncio.Event = began) -> str:
            began.set()
            return f"```repl\nprint('begun', flush=True)\n{loop}\n```"

        async with FakeOllama(["root"]) as fake:
            fake.script("root", [reply])
            folders.write_config(config_of([Host("one", fake.url, models={"root": 8192})], root=("one/root",)))
            daemon = await start_daemon()
            async with daemon.connect() as client:
                await load_text(client, "note", "some text\n")
                run = new_run("What is it?", "note", strategy="rlm")
                await client.call("run/start", run)
                await output_comes(client, run["run_id"], "begun")
                cancelled = await client.call("run/cancel", {"run_id": run["run_id"]})
                assert cancelled["state"] == "cancelled"
                assert (await client.call("daemon/status"))["runs_active"] == 0
            await daemon.stop()
