"""Contexts that follow their files: looked through again at each question, compared, marked, grown."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.harness import Client, Daemon, Folders, Json, RpcFailure, load_path, load_text, new_run, start_run


@pytest.fixture
def tree(folders: Folders) -> Path:
    root = folders.home / "project"
    write(root, "a.txt", "alpha is the first letter\n")
    write(root, "sub/b.txt", "beta\nis\nthe second letter\n")
    return root


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def texts(client: Client, name: str) -> dict[str, str]:
    listed = await client.call("context/info", {"name": name})
    return {
        one["name"]: (await client.call("context/peek", {"name": name, "document": one["name"]}))["text"]
        for one in listed["documents"]
    }


def blob_bytes(folders: Folders) -> int:
    blobs = folders.state / "rlmd" / "contexts" / "store" / "blobs"
    return sum(path.stat().st_size for path in blobs.rglob("*") if path.is_file())


async def test_each_question_is_asked_of_the_files_as_they_are(client: Client, tree: Path) -> None:
    await load_path(client, "project", tree)
    write(tree, "c.txt", "gamma is the third letter of the alphabet\n")
    (tree / "a.txt").unlink()
    run = new_run("Which is the third letter of the alphabet?", "project", strategy="quote")
    await start_run(client, run)
    shown = await client.call("run/show", {"run_id": run["run_id"]})
    assert shown["run"]["contexts"][0]["revision"] == 2
    assert "gamma is the third letter" in shown["answer"]
    assert set(await texts(client, "project")) == {"c.txt", "sub/b.txt"}


async def test_a_folder_that_is_gone_or_empty_leaves_the_context_as_it_was(client: Client, tree: Path) -> None:
    """A disk that is not mounted is no reason to forget; the run says that its text may be old."""
    await load_path(client, "project", tree)
    before = await texts(client, "project")
    shutil.rmtree(tree)
    for _ in ("gone", "empty"):
        run = new_run("What is the second letter?", "project", strategy="quote")
        await start_run(client, run)
        (note,) = [one["text"] for one in client.facts(run["run_id"], "note") if "as it was" in one["text"]]
        assert str(tree) in note
        assert await texts(client, "project") == before
        tree.mkdir(exist_ok=True)
    tree.rmdir()
    with pytest.raises(RpcFailure) as caught:
        await client.call("context/update", {"name": "project"})
    assert caught.value.data["kind"] == "source_missing"


async def test_update_keeps_the_patterns_of_the_load(client: Client, tree: Path) -> None:
    source = {"kind": "path", "paths": [str(tree)], "exclude": ["*.log"], "include": ["*.txt", "*.log"]}
    await client.call("context/load", {"name": "p", "source": source})
    for name in ("new.txt", "new.log", "new.md"):
        write(tree, name, f"{name}\n")
    foreseen = await client.call("context/update", {"name": "p", "dry_run": True})
    assert (foreseen["change"], foreseen["context"], foreseen["documents"]) == ("updated", None, 3)
    assert (await client.call("context/update", {"name": "p"}))["context"]["revision"] == 2
    assert set(await texts(client, "p")) == {"a.txt", "sub/b.txt", "new.txt"}
    assert (await client.call("context/update", {"name": "p"}))["change"] == "unchanged"
    await load_text(client, "note", "a text that a client brought")
    with pytest.raises(RpcFailure) as caught:
        await client.call("context/update", {"name": "note"})
    assert caught.value.data["kind"] == "conflict"


async def test_diff_tells_documents_and_lines(client: Client, tree: Path) -> None:
    await load_path(client, "project", tree)
    write(tree, "sub/b.txt", "beta\nwas\nthe second letter\nonce\n")
    write(tree, "c.txt", "one\ntwo\nthree")
    (tree / "a.txt").unlink()
    await client.call("context/update", {"name": "project"})
    told = await client.call("context/diff", {"name": "project"})
    assert told == {
        "from_revision": 1, "to_revision": 2, "added": 1, "removed": 1, "changed": 1,
        "documents": [
            {"name": "a.txt", "change": "removed", "lines_added": 0, "lines_removed": 1},
            {"name": "c.txt", "change": "added", "lines_added": 3, "lines_removed": 0},
            {"name": "sub/b.txt", "change": "changed", "lines_added": 2, "lines_removed": 1},
        ],
    }  # fmt: skip
    back = await client.call("context/diff", {"name": "project", "from_revision": 2, "to_revision": 1, "limit": 1})
    assert (back["added"], back["removed"], len(back["documents"])) == (1, 1, 1)
    with pytest.raises(RpcFailure) as caught:
        await client.call("context/diff", {"name": "project", "to_revision": 9})
    assert caught.value.data["kind"] == "not_found"


async def test_a_file_that_grows_stores_only_what_is_new(client: Client, folders: Folders) -> None:
    log = folders.home / "app.log"
    text = "".join(f"{number} żółw 🐢 {'x' * (number % 50)}\n" for number in range(20_000))
    log.write_text(text, encoding="utf-8")
    await load_path(client, "log", log)
    stored = blob_bytes(folders)
    for number in range(12):
        # An end within a character: what comes next completes it.
        more = f"appended {number} ends within a turtle 🐢".encode()
        with log.open("ab") as file:
            file.write(more[:-2] if number % 2 == 0 else b"\x90\xa2" + more)
        report = await client.call("context/update", {"name": "log"})
        assert (report["change"], report["context"]["revision"]) == ("updated", number + 2)
        if number == 5:
            assert blob_bytes(folders) - stored < 1000, "the text that was there is stored a second time"
    whole = log.read_bytes().decode("utf-8", "surrogateescape")
    info = (await client.call("context/info", {"name": "log"}))["context"]
    assert info["chars"] == len(whole)
    end = await client.call("context/peek", {"name": "log", "start": len(whole) - 500})
    assert end["text"] == whole[-500:]
    found = await client.call("context/search", {"name": "log", "query": "appended 11 ends", "mode": "regex"})
    assert len(found["hits"]) == 1
    assert found["hits"][0]["text"].endswith("turtle 🐢")
    assert (await client.call("context/diff", {"name": "log", "from_revision": 1}))["documents"][0]["lines_added"] == 1


async def test_a_file_that_was_written_anew_is_read_anew(client: Client, folders: Folders) -> None:
    """A rotated log is longer than the one before, and begins otherwise."""
    log = folders.home / "app.log"
    log.write_text("old\n" * 50_000)
    await load_path(client, "log", log)
    log.write_text("new\n" * 60_000)
    await client.call("context/update", {"name": "log"})
    assert (await client.call("context/peek", {"name": "log"}))["text"] == ("new\n" * 60_000)[:2000]
    assert (await client.call("context/search", {"name": "log", "query": "old", "mode": "regex"}))["hits"] == []


async def test_the_mark_private_goes_on_and_off(daemon: Daemon, client: Client) -> None:
    await load_text(client, "note", "something\n")
    async with daemon.connect() as cloud:
        await cloud.call("initialize", {"egress": True})

        async def seen() -> bool:
            return bool((await cloud.call("context/list"))["contexts"])

        assert (await client.call("context/flags", {"name": "note", "private": True}))["private"]
        assert not await seen()
        for name in ("note", "never made"):
            with pytest.raises(RpcFailure) as caught:
                await cloud.call("context/flags", {"name": name, "private": False})
            assert caught.value.data["kind"] == "not_allowed", name
        assert (await client.call("context/flags", {"name": "note"}))["private"]
        assert not (await client.call("context/flags", {"name": "note", "private": False}))["private"]
        assert await seen()


def skipped(report: Json) -> dict[str, list[str]]:
    return {one["reason"]: one["examples"] for one in report["skipped"]}


async def test_what_nobody_wrote_is_skipped_and_told(client: Client, folders: Folders) -> None:
    root = folders.home / "app"
    files = {
        "src/app.js": "function main() {\n  return 1;\n}\n",
        "src/app.min.js": "function main(){return 1}",
        "dist/bundle.js": "var a=1;" * 500 + "\n",
        "package-lock.json": "{}\n",
        "#notes.org#": "An autosave of Emacs.\n",
        "notes.org~": "Its backup.\n",
        "src/.main.el.swp": "And vim's.\n",
        "src/main.elc": ";ELC compiled\n",
        "notes.org": "* Notes\n",
        "api/types_pb2.py": "x = 1\n",
        "api/client.go": "// Code generated by protoc-gen-go. DO NOT EDIT.\npackage api\n",
        "api/model.py": "# @generated by a tool\nx = 1\n",
        "node_modules/left-pad/index.js": "x\n",
        "vendor/lib/lib.go": "package lib\n",
        "README.md": "Run make; files with the mark @generated at their top are skipped.\n",
    }
    for name, text in files.items():
        write(root, name, text)
    report = await load_path(client, "app", root)
    assert set(await texts(client, "app")) == {"src/app.js", "README.md", "notes.org"}
    assert skipped(report) == {
        "generated": ["#notes.org#", "api/client.go", "api/model.py", "api/types_pb2.py", "notes.org~"],
        "minified": ["dist/bundle.js", "src/app.min.js"],
        "vendored": ["node_modules", "vendor"],
    }
    everything = {"kind": "path", "paths": [str(root)], "everything": True}
    report = await client.call("context/load", {"name": "all", "source": everything})
    assert (report["documents"], report["skipped"]) == (len(files), [])
    named = {"kind": "path", "paths": [str(root)], "include": ["vendor/**", "package-lock.json"]}
    await client.call("context/load", {"name": "named", "source": named})
    assert set(await texts(client, "named")) == {"vendor/lib/lib.go", "package-lock.json"}
    await load_path(client, "inside", root / "node_modules")
    assert set(await texts(client, "inside")) == {"left-pad/index.js"}


async def test_a_file_that_is_named_is_loaded_whatever_it_is(client: Client, folders: Folders) -> None:
    lock = folders.home / "package-lock.json"
    lock.write_text("{}\n")
    assert (await load_path(client, "lock", lock))["documents"] == 1
    assert os.listdir(folders.home)
