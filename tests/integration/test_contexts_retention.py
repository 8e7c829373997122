"""What nobody uses goes by rule, and is told before; what has a name, or is named by a run, stays."""

from __future__ import annotations

import sqlite3
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
