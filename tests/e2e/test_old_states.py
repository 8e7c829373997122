"""State that an earlier release left behind: it is read, carried forward, and worked on; what cannot be is set aside.

``tests/states/VERSION.tar.xz`` is the state folder of a daemon of that release. It is never made anew.
"""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.harness import Folders, load_text

STATES = Path(__file__).resolve().parents[1] / "states"
RUN = "0f0e0d0c-0b0a-4908-8706-050403020100"


def unpack(version: str, folders: Folders) -> None:
    with tarfile.open(STATES / f"{version}.tar.xz") as archive:
        archive.extractall(folders.state, filter="data")


@pytest.mark.parametrize("version", sorted(path.name.removesuffix(".tar.xz") for path in STATES.glob("*.tar.xz")))
async def test_the_state_of_an_earlier_release(version: str, folders: Folders, start_daemon: StartDaemon) -> None:
    unpack(version, folders)
    daemon = await start_daemon()
    async with daemon.connect() as client:
        listed = {one["name"]: one for one in (await client.call("context/list"))["contexts"]}
        assert {name: one["revision"] for name, one in listed.items()} == {
            "notes": 2, "diary": 1, "tree": 2, "x.txt-a24ae000": 1,
        }  # fmt: skip
        assert [name for name, one in listed.items() if one["private"]] == ["diary"]
        assert [name for name, one in listed.items() if one["implicit"]] == ["x.txt-a24ae000"]
        peeked = await client.call("context/peek", {"name": "notes"})
        assert peeked["text"] == "One żółw 🐢.\r\nThe second revision says that turtles are slow.\n"
        changed = await client.call("context/peek", {"name": "tree", "document": "a.txt"})
        assert changed["text"] == "alpha, changed\n"
        found = await client.call("context/search", {"name": "tree", "query": "beta"})
        assert found["hits"][0]["document"] == "sub/b.md"
        shown = await client.call("run/show", {"run_id": RUN})
        assert "turtles are slow" in shown["answer"]
        report = await load_text(client, "notes", "A third revision.\n")
        assert (report["change"], report["context"]["revision"]) == ("updated", 3)
        await client.call("context/drop", {"name": "tree"})
    await daemon.stop()
    again = await start_daemon()
    async with again.connect() as client:
        assert {one["name"] for one in (await client.call("context/list"))["contexts"]} == {
            "notes", "diary", "x.txt-a24ae000",
        }  # fmt: skip


@pytest.mark.parametrize("damage", ["a later release's", "no database"])
async def test_a_catalogue_that_cannot_be_read_is_set_aside(
    damage: str, folders: Folders, start_daemon: StartDaemon
) -> None:
    """Byte for byte as it was: whoever has the release that wrote it can have it back."""
    unpack("0.1.0", folders)
    store = folders.state / "rlmd" / "contexts" / "store"
    if damage == "no database":
        (store / "catalogue.sqlite").write_bytes(b"not a database" * 1000)
    else:
        with sqlite3.connect(store / "catalogue.sqlite") as db:
            db.execute("PRAGMA user_version = 999")
        db.close()
    before = {path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    daemon = await start_daemon()
    async with daemon.connect() as client:
        assert (await client.call("context/list"))["contexts"] == []
        checks = (await client.call("daemon/doctor"))["checks"]
        assert any("set aside" in check["message"] for check in checks)
        await load_text(client, "notes", "new\n")
    (aside,) = store.parent.glob("store.unreadable-*")
    assert {path.relative_to(aside): path.read_bytes() for path in aside.rglob("*") if path.is_file()} == before
