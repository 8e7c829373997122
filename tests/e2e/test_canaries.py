"""Private text is marked with canaries, and every way out of the daemon is looked through for them.

What a client may see whose reading may leave the machine; what a host of others is sent; what is logged; and, after a
drop, every byte of the folders that the daemon writes.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import Client, Daemon, Folders, Host, Json, RpcFailure, config_of, new_run, start_run

CANARY = "Xanthippe7741"
SECRET = f"The safe of {CANARY} opens with four turns to the left, says {CANARY}.\n" + "Filler of the diary.\n" * 200
#: Names that tell of what is private, and must not be told themselves.
NAMES = ("zebrafish-diary", "quagga-session")
QUESTION = f"How does the safe of {CANARY} open, by okapi?"
MARKS = (CANARY, *NAMES, "okapi")
CODE = "print(context[:90]); found = llm_query('What does it say? ' + context[:300]); print(found)"


@contextlib.asynccontextmanager
async def fake_host() -> AsyncIterator[FakeOllama]:
    """Its sub-model quotes what it was given; its root reads, asks and answers."""
    async with FakeOllama(["root", "sub"], slots=4) as server:
        server.script("root", [f"```repl\n{CODE}\n```", f"FINAL(It opens so: The safe of {CANARY} opens)"])
        server.answer = lambda prompt: f"It says: {prompt[:200]}"
        yield server


@pytest.fixture
async def mine() -> AsyncIterator[FakeOllama]:
    async with fake_host() as server:
        yield server


@pytest.fixture
async def cloud_host() -> AsyncIterator[FakeOllama]:
    async with fake_host() as server:
        yield server


@pytest.fixture
async def daemon(folders: Folders, start_daemon: StartDaemon, mine: FakeOllama, cloud_host: FakeOllama) -> Daemon:
    models = {"root": 8192, "sub": 8192}
    hosts = [Host("cloud", cloud_host.url, 4, models), Host("mine", mine.url, 4, models)]
    text = config_of(hosts, ("cloud/root", "mine/root"), ("cloud/sub", "mine/sub"))
    more = f'[log]\nlevel = "debug"\n[privacy]\nprivate = ["{folders.home}/vault/", "*.gpg"]\n'
    folders.write_config(text.replace("[hosts.cloud]\n", '[hosts.cloud]\ntrust = "cloud"\n') + more)
    return await start_daemon()


async def work_privately(client: Client, folders: Folders) -> Json:
    """Loads, asks, runs cells: all that may leave traces. Returns the run of the question."""
    source = {"kind": "inline", "text": SECRET, "origin": str(folders.home / "zebrafish-diary.txt")}
    await client.call("context/load", {"name": NAMES[0], "private": True, "source": source})
    run = new_run(QUESTION, NAMES[0], strategy="rlm", session=NAMES[1])
    ended = await start_run(client, run)
    assert ended["outcome"] == "answered", ended
    quoted = new_run(f"Where is the safe of {CANARY}?", NAMES[0], strategy="quote")
    await start_run(client, quoted)
    cell = {"run_id": str(uuid.uuid4()), "code": "print(context)", "contexts": [NAMES[0]], "session": NAMES[1]}
    assert CANARY in (await client.call("repl/execute", cell))["output"]
    await client.call("context/search", {"name": NAMES[0], "query": f"safe {CANARY}"})
    again = {"run_id": str(uuid.uuid4()), "code": "x = context", "contexts": [NAMES[0]], "session": "reset"}
    await client.call("repl/execute", again)
    await client.call("session/reset", {"name": "reset"})
    return run


def holding(folder: Path, marks: tuple[str, ...] = MARKS) -> list[str]:
    """Files that hold a mark, in their name or in any of their bytes."""
    found = []
    for path in sorted(folder.rglob("*")):
        data = path.read_bytes() if path.is_file() and not path.is_socket() else b""
        told = [mark for mark in marks if mark.encode() in data or mark in path.name]
        found += [f"{path.relative_to(folder)}: {told}"] if told else []
    return found


def example(schema: Json, defs: Json, known: Json) -> object:
    """A value that fits a schema; where a name is known, that of something private."""
    if "$ref" in schema:
        return example(defs[schema["$ref"].rpartition("/")[2]], defs, known)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return example(schema[several][0], defs, known)
    match schema.get("type"):
        case "object":
            wanted = {*schema.get("required", ()), *known} & schema.get("properties", {}).keys()
            return {name: known.get(name, example(schema["properties"][name], defs, known)) for name in sorted(wanted)}
        case "array":
            return [example(schema["items"], defs, known)] if "items" in schema else []
        case "string":
            return known.get("name", "x")
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
    return None


async def calls_of_every_method(client: Client, run_id: str) -> Iterator[tuple[str, Json]]:
    """Each method of ``rpc.discover``, with parameters that name what is private wherever they can."""
    document = await client.call("rpc.discover")
    known: Json = {
        "name": NAMES[0], "run_id": run_id, "contexts": [NAMES[0]], "session": NAMES[1], "query": "safe opens",
        "question": "What?", "from_seq": 1, "code": "print(1)", "upload_id": "0" * 64, "digest": "0" * 64,
    }  # fmt: skip
    found = []
    for method in document["methods"]:
        defs = document["components"]["schemas"]
        schema = method["params"][0]["schema"] if method["params"] else {"type": "object", "properties": {}}
        params = example(schema, defs, known)
        found.append((method["name"], params if isinstance(params, dict) else {}))
    return iter(found)


async def test_no_canary_reaches_a_client_that_may_leak(
    daemon: Daemon, folders: Folders, cloud_host: FakeOllama, mine: FakeOllama
) -> None:
    async with daemon.connect() as client, daemon.connect() as leaky:
        await leaky.call("initialize", {"egress": True})
        run = await work_privately(client, folders)
        before = (await client.call("context/list"))["contexts"]
        for method, params in await calls_of_every_method(leaky, run["run_id"]):
            if method in ("host/add", "host/remove"):
                continue
            try:
                told = json.dumps(await leaky.call(method, params), ensure_ascii=False)
            except RpcFailure as refusal:
                told = f"{refusal.message} {refusal.data}"
            for word in (json.dumps(params), NAMES[0], NAMES[1]):  # what it said itself may be said back
                told = told.replace(word, "")
            assert not [mark for mark in MARKS if mark in told], f"{method}: {told}"
        assert not [mark for mark in (CANARY, "okapi") if mark in json.dumps(leaky.notifications)]
        for asking, private in ((leaky, 0), (client, 4)):
            listed = (await asking.call("run/list", {"limit": 1000}))["runs"]
            assert (await asking.call("daemon/status"))["runs"] == len(listed), "what cannot be listed is not counted"
            assert sum(one["private"] for one in listed) == private
        assert (await client.call("context/list"))["contexts"][: len(before)] == before
    assert not [one for one in cloud_host.prompts() if any(mark in one for mark in MARKS)]
    assert any(CANARY in one for one in mine.prompts()), "nothing private was asked at all"
    assert not [mark for mark in MARKS if mark in daemon.stderr()], "the log tells of what is private"


async def test_a_private_name_and_a_free_one_are_told_the_same(daemon: Daemon, folders: Folders) -> None:
    """Whoever may not know of a context cannot find out either by trying names."""
    async with daemon.connect() as client, daemon.connect() as leaky:
        await leaky.call("initialize", {"egress": True})
        await work_privately(client, folders)

        async def told(method: str, **params: object) -> str:
            try:
                answer = json.dumps(await leaky.call(method, params))
            except RpcFailure as refusal:
                answer = f"{refusal.code} {refusal.message} {refusal.data}"
            return answer

        free, run_id = "wildebeest-ideas", str(uuid.uuid4())
        for private, name in ((NAMES[0], free), (NAMES[1], "somebody-elses")):
            for method, params in (
                ("context/info", {"name": "?"}),
                ("context/load", {"name": "?", "dry_run": True, "source": {"kind": "inline", "text": "mine"}}),
                ("context/drop", {"name": "?"}),
                ("context/update", {"name": "?"}),
                ("context/diff", {"name": "?"}),
                ("session/drop", {"name": "?"}),
                ("run/start", {"run_id": run_id, "question": "What?", "contexts": ["?"]}),
                ("run/start", {"run_id": run_id, "question": "What?", "contexts": ["none"], "session": "?"}),
                ("repl/execute", {"run_id": run_id, "code": "1", "contexts": ["none"], "session": "?"}),
            ):
                with_name = [json.loads(json.dumps(params).replace("?", one)) for one in (private, name)]
                answers = [await told(method, **one) for one in with_name]
                assert answers[0].replace(private, "?") == answers[1].replace(name, "?"), method
        loaded = [
            (await leaky.call("context/load", {"name": one, "source": {"kind": "inline", "text": "mine"}}))["context"]
            for one in (NAMES[0], free)
        ]
        assert [one["name"] for one in loaded] == [f"egress/{NAMES[0]}", f"egress/{free}"]
        assert (await leaky.call("context/peek", {"name": NAMES[0]}))["text"] == "mine"
        assert (await client.call("context/peek", {"name": NAMES[0], "chars": 10}))["text"] == SECRET[:10]
        ran = {"run_id": str(uuid.uuid4()), "code": "print(found)", "contexts": [free], "session": NAMES[1]}
        done = await leaky.call("repl/execute", ran)
        assert not done["ok"]
        assert CANARY not in json.dumps(done)


async def test_what_held_private_text_stays_private_when_the_text_no_longer_is(
    daemon: Daemon, start_daemon: StartDaemon
) -> None:
    """Sessions and runs of that time, also when the session is begun anew, and after a restart of the daemon."""

    async def cell(client: Client, session: str, code: str) -> Json:
        params = {"run_id": str(uuid.uuid4()), "code": code, "contexts": ["plan"], "session": session}
        return await client.call("repl/execute", params)

    async def seen(running: Daemon) -> tuple[set[str], int]:
        async with running.connect() as leaky:
            await leaky.call("initialize", {"egress": True})
            told = json.dumps(await cell(leaky, "then", "print(globals().get('kept'))"))
            assert CANARY not in told
            sessions = (await leaky.call("session/list"))["sessions"]
            names = {one["name"] for one in sessions} - {"egress/then"}  # that of this very look
            runs = (await leaky.call("run/list", {"limit": 1000}))["runs"]
            return names, sum(one["session"] != "egress/then" for one in runs)

    async with daemon.connect() as client:
        await client.call(
            "context/load", {"name": "plan", "private": True, "source": {"kind": "inline", "text": SECRET}}
        )
        for session in ("then", "reset"):
            assert (await cell(client, session, "kept = context"))["ok"]
        await client.call("context/flags", {"name": "plan", "private": False})
        await client.call("session/reset", {"name": "reset"})
        assert await seen(daemon) == (set(), 0)
        assert (await cell(client, "now", "1 + 1"))["ok"]
        assert await seen(daemon) == ({"now"}, 1), "what began after is as public as the text is now"
    await daemon.stop()
    again = await start_daemon()
    assert await seen(again) == ({"now"}, 1)


async def test_what_is_private_by_rule_is_so_by_every_way(daemon: Daemon, folders: Folders) -> None:
    vault = folders.home / "vault" / "deep"
    vault.mkdir(parents=True)
    (vault / "a.txt").write_text(SECRET)
    mixed = folders.home / "mixed"
    mixed.mkdir()
    (mixed / "open.txt").write_text("public\n")
    (mixed / "letter.gpg").write_text(SECRET)
    (folders.home / "link").symlink_to(vault)
    ways = {
        "by path": {"kind": "path", "paths": [str(vault / "a.txt")]},
        "by folder": {"kind": "path", "paths": [str(vault)]},
        "by link": {"kind": "path", "paths": [str(folders.home / "link")]},
        "by one file of many": {"kind": "path", "paths": [str(mixed)]},
        "by origin": {"kind": "inline", "text": SECRET, "origin": str(vault / "a.txt")},
    }
    async with daemon.connect() as client, daemon.connect() as leaky:
        await leaky.call("initialize", {"egress": True})
        for name, source in ways.items():
            with pytest.raises(RpcFailure) as caught:
                await leaky.call("context/load", {"name": name, "source": source})
            assert caught.value.data["kind"] == "not_allowed", name
            assert (await client.call("context/load", {"name": name, "source": source}))["context"]["private"], name
            with pytest.raises(RpcFailure) as caught:
                await client.call("context/flags", {"name": name, "private": False})
            assert caught.value.data["kind"] == "conflict", name
        assert (await leaky.call("context/list"))["contexts"] == []


async def test_a_drop_erases_all_that_tells_of_it(daemon: Daemon, folders: Folders, start_daemon: StartDaemon) -> None:
    """Every file of the state, cache and runtime folders, byte for byte; what has nothing to do with it stays."""
    async with daemon.connect() as client:
        await client.call("context/load", {"name": "other", "source": {"kind": "inline", "text": "Another text.\n"}})
        kept = new_run("What is this?", "other", strategy="quote")
        await start_run(client, kept)
        await work_privately(client, folders)
        assert holding(folders.state)
        dropped = await client.call("context/drop", {"name": NAMES[0]})
        assert (dropped["runs"], dropped["sessions"]) == (4, 2)
        for folder in (folders.state, folders.cache, folders.runtime):
            assert holding(folder) == []
        assert [one["run_id"] for one in (await client.call("run/list"))["runs"]] == [kept["run_id"]]
        assert (await client.call("run/show", {"run_id": kept["run_id"]}))["answer"]
    await daemon.stop()
    for folder in (folders.state, folders.cache, folders.runtime):
        assert holding(folder) == []
    with sqlite3.connect(folders.state / "rlmd/contexts/store/catalogue.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
