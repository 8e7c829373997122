"""What nobody uses goes by rule, and is told before; what has a name, or is named by a run, stays."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
import uuid
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.harness import Client, Folders, Json, RpcFailure, load_text, new_run, start_run


def blobs(folders: Folders) -> set[str]:
    return {path.name for path in (folders.state / "rlmd/contexts/store/blobs").rglob("*") if path.is_file()}


def catalogue(folders: Folders) -> Path:
    return folders.state / "rlmd" / "contexts" / "store" / "catalogue.sqlite"


def age(folders: Folders, days: float) -> None:
    """As if nothing had been used for so long; while no daemon runs."""
    with sqlite3.connect(catalogue(folders)) as db:
        db.execute("UPDATE contexts SET used = used - ?", (days * 86_400,))
    db.close()


async def names(client: Client) -> set[str]:
    return {one["name"] for one in (await client.call("context/list"))["contexts"]}


async def load_implicit(client: Client, text: str) -> str:
    report = await client.call("context/load", {"source": {"kind": "inline", "text": text, "origin": "/x/a.txt"}})
    name: str = report["context"]["name"]
    return name


async def test_implicit_contexts_expire_and_named_ones_do_not(folders: Folders, start_daemon: StartDaemon) -> None:
    daemon = await start_daemon()
    async with daemon.connect() as client:
        await load_text(client, "named", "a text with a name\n")
        old = await load_implicit(client, "asked about once\n")
        run = new_run("What was asked?", old, strategy="quote")
        await start_run(client, run)
    await daemon.stop()
    age(folders, 40)
    daemon = await start_daemon()
    async with daemon.connect() as client:
        fresh = await load_implicit(client, "asked about today\n")
        everything: Json = await client.call("daemon/gc", {"dry_run": True})
        assert [(one["what"], one["name"]) for one in everything["collected"]] == [("context", old)]
        assert await names(client) == {"named", old, fresh}
        assert await client.call("daemon/gc") == everything
        assert await names(client) == {"named", fresh}
        assert (await client.call("daemon/gc"))["collected"] == []
        assert (await client.call("run/show", {"run_id": run["run_id"]}))["answer"], "what was answered stays"
        assert len(blobs(folders)) == 2
    async with daemon.connect() as leaky:
        await leaky.call("initialize", {"egress": True})
        with pytest.raises(RpcFailure) as caught:
            await leaky.call("daemon/gc")
        assert caught.value.data["kind"] == "not_allowed"


async def test_old_revisions_go_unless_a_run_names_them(folders: Folders, start_daemon: StartDaemon) -> None:
    folders.write_config("[retention]\nrevisions = 3\n")
    daemon = await start_daemon()
    async with daemon.connect() as client:
        for number in range(1, 9):
            await load_text(client, "note", f"The revision of the number {number}.\n")
            if number == 2:
                await start_run(client, new_run("Which revision?", "note", strategy="quote"))
        assert len(blobs(folders)) == 8
        would = await client.call("daemon/gc", {"dry_run": True})
        assert len(blobs(folders)) == 8
        done = await client.call("daemon/gc")
        assert done == would
        assert [one["what"] for one in done["collected"]] == ["revisions"]
        assert len(blobs(folders)) == 4
        told = await client.call("context/diff", {"name": "note", "from_revision": 2})
        assert told["changed"] == 1
        with pytest.raises(RpcFailure) as caught:
            await client.call("context/diff", {"name": "note", "from_revision": 4})
        assert caught.value.data["kind"] == "not_found"
        assert (await client.call("context/peek", {"name": "note"}))["text"].endswith("8.\n")
    await daemon.stop()
    with sqlite3.connect(catalogue(folders)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def end_days_ago(folders: Folders, run_id: str, days: float) -> None:
    """As if the run had ended so long ago; while no daemon runs."""
    journal = folders.state / "rlmd" / "runs" / run_id / "journal.jsonl"
    facts = [json.loads(line) for line in journal.read_text().splitlines()]
    for fact in facts:
        fact["time"] -= days * 86_400
    journal.write_text("".join(json.dumps(fact) + "\n" for fact in facts))


async def test_old_runs_go_with_what_they_alone_named(folders: Folders, start_daemon: StartDaemon) -> None:
    """Not those of a named session, which is woken from them; and not a blob is left that nobody names."""
    folders.write_config("[retention]\nrevisions = 1\nrun_days = 100\n")
    daemon = await start_daemon()
    async with daemon.connect() as client:
        await load_text(client, "note", "The first revision.\n")
        old, kept = new_run("Which?", "note", strategy="quote"), new_run("Which one?", "note", strategy="quote")
        await start_run(client, old)
        await load_text(client, "note", "The second revision.\n")
        await start_run(client, kept)
        cell = {"run_id": str(uuid.uuid4()), "code": "kept = context", "contexts": ["note"], "session": "mine"}
        await client.call("repl/execute", cell)
        await load_text(client, "note", "The third revision.\n")
    await daemon.stop()
    for run_id in (old["run_id"], cell["run_id"]):
        end_days_ago(folders, run_id, 101)
    end_days_ago(folders, kept["run_id"], 99)
    daemon = await start_daemon()
    async with daemon.connect() as client:
        would = await client.call("daemon/gc", {"dry_run": True})
        assert [(one["what"], one["name"]) for one in would["collected"]] == [
            ("run", old["run_id"]),
            ("revisions", "note"),
        ]
        assert len(blobs(folders)) == 3
        assert (await client.call("run/show", {"run_id": old["run_id"]}))["answer"]
        assert await client.call("daemon/gc") == would
        assert len(blobs(folders)) == 2
        with pytest.raises(RpcFailure):
            await client.call("run/show", {"run_id": old["run_id"]})
        assert (await client.call("run/show", {"run_id": kept["run_id"]}))["answer"]
        told = {"run_id": str(uuid.uuid4()), "code": "print(kept)", "session": "mine"}
        assert (await client.call("repl/execute", told))["output"] == "The second revision.\n\n"
        assert (await client.call("daemon/gc"))["collected"] == []
    assert not (folders.state / "rlmd" / "runs" / old["run_id"]).exists()


async def test_above_its_bytes_the_oldest_runs_go(folders: Folders, start_daemon: StartDaemon) -> None:
    folders.write_config("[retention]\nrun_bytes = 1048576\n")
    daemon = await start_daemon()
    async with daemon.connect() as client:
        cells = []
        for number in range(5):
            code = f"print('{number}' * 400_000)"
            limits = {"seconds": 100}
            cells.append({"run_id": str(uuid.uuid4()), "code": code, "limits": limits})
            await client.call("repl/execute", cells[-1])
            journal = folders.state / "rlmd" / "runs" / cells[-1]["run_id"] / "values" / ("0" * 64)
            journal.write_bytes(bytes(400_000))
        done = await client.call("daemon/gc")
        assert [one["name"] for one in done["collected"]] == [cell["run_id"] for cell in cells[:3]]
        left = {one["run_id"] for one in (await client.call("run/list"))["runs"]}
        assert left == {cell["run_id"] for cell in cells[3:]}


async def test_an_index_that_nobody_searches_goes_and_comes_back(folders: Folders, start_daemon: StartDaemon) -> None:
    daemon = await start_daemon()
    async with daemon.connect() as client:
        for name in ("idle", "busy"):
            await load_text(client, name, f"The turtle of {name} is slow.\n")
            assert (await client.call("context/search", {"name": name, "query": "slow turtle"}))["hits"]
        (folder,) = (folders.cache / "rlmd" / "index").iterdir()
        idle, busy = (folder / f"{number}.sqlite" for number in (1, 2))
        for file in (idle, busy):
            os.utime(file, (0, time.time() - 31 * 86_400))
        await client.call("context/search", {"name": "busy", "query": "turtle"})
        would = await client.call("daemon/gc", {"dry_run": True})
        assert [(one["what"], one["name"]) for one in would["collected"]] == [("index", "idle")]
        assert idle.exists()
        assert await client.call("daemon/gc") == would
        assert (idle.exists(), busy.exists()) == (False, True)
        assert (await client.call("context/search", {"name": "idle", "query": "slow turtle"}))["hits"]
        shutil.rmtree(folder)  # whoever empties the cache of a daemon that runs loses time, and no hit
        assert (await client.call("context/search", {"name": "busy", "query": "slow turtle"}))["hits"]
        status = await client.call("daemon/status")
        assert (status["run_days"], status["run_bytes"], status["index_days"]) == (365, 8 << 30, 30)


async def test_what_a_client_left_in_the_spool_folder_goes(client: Client, folders: Folders) -> None:
    for name, days in (("left", 2.0), ("fresh", 0.5)):
        file = folders.spool / name
        file.write_text("a text that was never loaded\n")
        os.utime(file, (0, time.time() - days * 86_400))
    would = await client.call("daemon/gc", {"dry_run": True})
    assert [(one["what"], one["bytes"]) for one in would["collected"]] == [("uploads", 29)]
    assert (folders.spool / "left").exists()
    assert await client.call("daemon/gc") == would
    assert [file.name for file in folders.spool.iterdir()] == ["fresh"]
