"""Ephemeral contexts are contexts: loaded by every way, searched, revised, read by cells; and their own rules."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.e2e.test_canaries import holding
from tests.harness import Client, Daemon, Folders, RpcFailure, descendants, load_path, load_text, new_run, start_run
from tests.integration.test_contexts_upload import TEXT, announcement, chunk
from tests.shell import rlmctl

WORD = "Xanthippe7741"


async def load(client: Client, name: str | None, text: str, **more: object) -> dict:
    params = {"source": {"kind": "inline", "text": text}, "ephemeral": True, **({"name": name} if name else {}), **more}
    return await client.call("context/load", params)


@pytest.fixture
def folders_in_memory() -> Iterator[Folders]:
    made = Folders(Path("/dev/shm"))
    yield made
    made.remove()


async def test_it_is_a_context_like_others(client: Client, folders: Folders) -> None:
    """Loaded by path and in chunks, listed, revised, compared, searched both ways, read by a cell, dropped."""
    folder = folders.home / "notes"
    folder.mkdir()
    (folder / "a.md").write_text(f"# Birds\n\nThe zebrafish is no bird, says {WORD}.\n")
    (folder / "b.md").write_text("# Fish\n\nThe quagga is no fish.\n")
    source = {"kind": "path", "paths": [str(folder)]}
    loaded = (await client.call("context/load", {"name": "notes", "source": source, "ephemeral": True}))["context"]
    assert (loaded["ephemeral"], loaded["private"], loaded["documents"]) == (True, True, 2)
    hits = (await client.call("context/search", {"name": "notes", "query": "which one is no bird?"}))["hits"]
    assert WORD in hits[0]["text"]
    (folder / "c.md").write_text("# Trees\n\nThe okapi is no tree.\n")
    updated = (await client.call("context/update", {"name": "notes"}))["context"]
    assert (updated["ephemeral"], updated["revision"]) == (True, 2)
    hits = (await client.call("context/search", {"name": "notes", "query": "okapi tree"}))["hits"]
    assert "okapi" in hits[0]["text"], "the index in memory does not follow"
    assert (await client.call("context/diff", {"name": "notes"}))["added"] == 1
    found = await client.call("context/search", {"name": "notes", "query": r"no \w+", "mode": "regex"})
    assert [hit["document"] for hit in found["hits"]] == ["a.md", "b.md", "c.md"]
    cell = {
        "run_id": str(uuid.uuid4()),
        "code": "print([one.name for one in documents])",
        "contexts": ["notes"],
        "session": "s",
    }
    assert "c.md" in (await client.call("repl/execute", cell))["output"]
    ended = await start_run(client, new_run("Which one is no fish?", "notes", strategy="quote"))
    assert "quagga" in ended["answer"]["text"]
    dropped = await client.call("context/drop", {"name": "notes"})
    assert (dropped["runs"], dropped["sessions"]) == (2, 1)
    assert (await client.call("context/list"))["contexts"] == []


async def test_an_upload_of_it_is_in_memory(daemon: Daemon, folders: Folders) -> None:
    """It goes on after a lost connection; not after the daemon's end, which is told by ``received``."""
    async with daemon.connect() as client:
        begun = await client.call("context/begin", announcement(TEXT, ephemeral=True))
        await client.call("context/append", chunk(begun["upload_id"], TEXT, 0, 500_000))
    assert not any((folders.state / "rlmd/contexts/uploads").iterdir())
    async with daemon.connect() as client:
        begun = await client.call("context/begin", announcement(TEXT, ephemeral=True))
        assert begun["received"] == 500_000
        for at in range(500_000, len(TEXT), 1 << 20):
            await client.call("context/append", chunk(begun["upload_id"], TEXT, at, min(at + (1 << 20), len(TEXT))))
        loaded = await client.call("context/commit", {"upload_id": begun["upload_id"]})
        assert (loaded["bytes"], loaded["context"]["ephemeral"]) == (len(TEXT), True)
        peeked = await client.call("context/peek", {"name": "up", "start": 400_000, "chars": 50})
        assert peeked["text"] == TEXT.decode(errors="surrogateescape")[400_000:400_050]


async def test_a_name_stays_what_it_is(client: Client) -> None:
    """What is on disk does not become ephemeral, and what is ephemeral does not come to the disk."""
    await load_text(client, "written", "a text on disk\n")
    with pytest.raises(RpcFailure) as caught:
        await load(client, "written", "another")
    assert caught.value.data["kind"] == "conflict"
    await load(client, "secret", "a text")
    again = await load_text(client, "secret", "another text, loaded without saying so")
    assert (again["change"], again["context"]["ephemeral"], again["context"]["revision"]) == ("updated", True, 2)
    with pytest.raises(RpcFailure) as caught:
        await client.call("context/flags", {"name": "secret", "private": False})
    assert caught.value.data["kind"] == "conflict"
    same = "one text, twice\n"
    names = [(await load(client, None, same))["context"]["name"], (await load(client, None, same))["context"]["name"]]
    on_disk = await client.call("context/load", {"source": {"kind": "inline", "text": same}})
    assert names[0] == names[1] != on_disk["context"]["name"]
    assert not on_disk["context"]["ephemeral"]


async def test_clients_that_may_leak_know_nothing_of_it(daemon: Daemon) -> None:
    async with daemon.connect() as client, daemon.connect() as leaky:
        await leaky.call("initialize", {"egress": True})
        await load(client, "secret", WORD)
        assert (await leaky.call("context/list"))["contexts"] == []
        for call in (
            ("context/peek", {"name": "secret"}),
            ("context/load", {"name": "x", "ephemeral": True, "source": {"kind": "inline", "text": "x"}}),
            ("context/begin", announcement(b"x", ephemeral=True)),
        ):
            with pytest.raises(RpcFailure) as caught:
                await leaky.call(*call)
            assert caught.value.data["kind"] in ("not_found", "not_allowed"), call


async def test_a_spool_folder_on_a_disk_is_refused(client: Client, folders: Folders) -> None:
    """With the remedy; and the file does not stay there."""
    assert not (await client.call("initialize"))["spool_in_memory"]
    file = folders.spool / "secret.txt"
    file.write_text(WORD)
    with pytest.raises(RpcFailure) as caught:
        await client.call(
            "context/load", {"name": "s", "ephemeral": True, "source": {"kind": "spool", "file": file.name}}
        )
    assert caught.value.data["kind"] == "not_allowed"
    assert "context/begin" in caught.value.data["hint"]
    assert not file.exists()


async def test_a_spool_folder_in_memory_will_do(folders_in_memory: Folders) -> None:
    """The file has no name any more when it is read, so that nothing remains whatever happens."""
    daemon = await Daemon(folders_in_memory).ready()
    try:
        async with daemon.connect() as client:
            assert (await client.call("initialize"))["spool_in_memory"]
            file = folders_in_memory.spool / "secret.txt"
            file.write_bytes(TEXT)
            source = {"kind": "spool", "file": file.name}
            loaded = await client.call("context/load", {"name": "s", "ephemeral": True, "source": source})
            assert loaded["bytes"] == len(TEXT)
            assert not file.exists()
    finally:
        await daemon.stop()


async def test_a_helper_that_died_has_its_indexes_made_anew(daemon: Daemon, client: Client) -> None:
    await load(client, "secret", f"The okapi knows {WORD}.\n" * 30)
    query = {"name": "secret", "query": "who knows?"}
    before = (await client.call("context/search", query))["hits"]
    helpers = [one for one in descendants(daemon.pid) if "helper_child" in one.command]
    assert len(helpers) == 1, "one process, and the index in it"
    os.kill(helpers[0].pid, signal.SIGKILL)
    assert (await client.call("context/search", query))["hits"] == before


async def test_rlmctl_brings_it_without_a_file(daemon: Daemon, folders: Folders) -> None:
    """From a pipe, longer than goes inline: not by the spool folder, and of runs and answers nothing remains."""
    text = f"The safe of {WORD} opens with four turns.\n" * 20_000
    environment = folders.environment(TMPDIR=str(folders.home))
    asked = await rlmctl(
        environment, "ask", "How does the safe open?", "--ephemeral", "--strategy", "quote", "--json", "--stdin",
        stdin=text.encode(),
    )  # fmt: skip
    assert asked.status == 0, asked.err
    assert WORD in asked.out
    listed = await rlmctl(environment, "context", "list")
    assert "ephemeral" in listed.out
    dry = await rlmctl(environment, "context", "load", "-", "--ephemeral", "--dry-run", stdin=text.encode())
    assert dry.status != 0
    await daemon.kill()
    for folder in (folders.home, folders.state, folders.cache, folders.runtime):
        assert holding(folder, (WORD,)) == []


async def test_more_than_memory_has_room_for_is_refused(daemon: Daemon, folders: Folders) -> None:
    """An error to who loads it; nothing of it stays, and what was there is as it was."""
    huge = folders.home / "huge.txt"
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with huge.open("wb") as file:
        file.write(b"a line\n" * 10_000)
        file.truncate(physical // 4 + 1)
    async with daemon.connect() as client:
        await load(client, "small", "a small text")
        source = {"kind": "path", "paths": [str(huge)]}
        with pytest.raises(RpcFailure) as caught:
            await client.call("context/load", {"name": "h", "source": source, "ephemeral": True})
        assert caught.value.data["kind"] == "too_large"
        assert (await client.call("context/peek", {"name": "small"}))["text"] == "a small text"


async def test_no_process_of_ours_dumps_its_memory(daemon: Daemon, client: Client) -> None:
    """Neither into a file nor into a program that takes dumps; helpers and workers neither."""
    await load(client, "secret", "a text")
    await client.call("context/search", {"name": "secret", "query": "text"})
    await client.call(
        "repl/execute", {"run_id": str(uuid.uuid4()), "code": "1", "contexts": ["secret"], "session": "s"}
    )
    pids = [daemon.pid, *(one.pid for one in descendants(daemon.pid) if "bwrap" not in one.command)]
    assert len(pids) >= 3
    for pid in pids:
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert next(line.split()[4:6] for line in limits.splitlines() if "core file" in line) == ["0", "0"]
        assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0


async def test_doctor_tells_of_swap(client: Client) -> None:
    checks = {one["name"]: one for one in (await client.call("daemon/doctor"))["checks"]}
    on_disk = [line for line in Path("/proc/swaps").read_text().splitlines()[1:] if "zram" not in line]
    assert checks["ephemeral"]["ok"] == (not on_disk)


async def test_an_open_run_on_disk_does_not_tell_of_one_within_it(daemon: Daemon, folders: Folders) -> None:
    async with daemon.connect() as client:
        await load(client, "zebrafish-diary", f"The safe of {WORD} opens with four turns.\n")
        opened = str(uuid.uuid4())
        await client.call("run/open", {"run_id": opened, "title": "somebody"})
        within = new_run(f"How does the safe of {WORD} open?", "zebrafish-diary", strategy="quote", within=opened)
        assert WORD in (await client.call("run/ask", within))["answer"]
        cell = {
            "run_id": str(uuid.uuid4()),
            "code": f"1/0  # {WORD}",
            "contexts": ["zebrafish-diary"],
            "within": opened,
        }
        await client.call("repl/execute", cell)
        await client.call("run/close", {"run_id": opened})
        assert len(client.facts(opened, "child_ended")) in (0, 2)
        assert (await client.call("run/show", {"run_id": opened}))["run"]["ephemeral"] is False
    for folder in (folders.state, folders.cache, folders.runtime):
        assert holding(folder, (WORD, "zebrafish-diary")) == []


async def test_status_tells_what_takes_how_much(client: Client, folders: Folders) -> None:
    """By part, as the files do; what is in memory alone is none of it."""
    await load_text(client, "written", "a text on disk\n" * 10_000)
    await load(client, "secret", "a text in memory\n" * 10_000)
    await client.call("context/search", {"name": "written", "query": "disk"})
    status = await client.call("daemon/status")
    blobs = [path for path in (folders.state / "rlmd/contexts/store").rglob("*") if path.is_file()]
    assert status["sizes"]["texts"] == sum(path.lstat().st_blocks * 512 for path in blobs)
    assert status["sizes"]["indexes"] > 0
    assert (status["sizes"]["journals"], status["sizes"]["uploads"]) == (0, 0)
    assert status["ephemeral_bytes"] == 170_000
    shown = await rlmctl(folders.environment(), "status")
    assert "ephemeral text" in shown.out
    assert "texts" in shown.out


RULE = '[privacy]\nephemeral = ["{home}/vault/", "*.gpg"]\n'


async def test_a_rule_makes_what_it_names_ephemeral(folders: Folders, start_daemon: StartDaemon) -> None:
    """By path, within a folder, through a link, by the origin that a client names; before a byte of it is on disk."""
    folders.write_config(RULE.format(home=folders.home))
    (folders.home / "vault").mkdir()
    (folders.home / "vault" / "diary.txt").write_text(f"{WORD} is in the vault.\n")
    (folders.home / "link.txt").symlink_to(folders.home / "vault" / "diary.txt")
    tree = folders.home / "tree"
    tree.mkdir()
    (tree / "a.txt").write_text("nothing of note\n" * 5000)
    (tree / "letter.gpg").write_text(f"{WORD} writes a letter.\n")
    daemon = await start_daemon()
    async with daemon.connect() as client:
        for name, path in (("file", "vault/diary.txt"), ("link", "link.txt"), ("tree", "tree")):
            source = {"kind": "path", "paths": [str(folders.home / path)]}
            loaded = (await client.call("context/load", {"name": name, "source": source}))["context"]
            assert (loaded["ephemeral"], loaded["private"]) == (True, True), name
        origin = f"{folders.home}/vault/other.txt"
        inline = {"kind": "inline", "text": f"{WORD} inline", "origin": origin}
        assert (await client.call("context/load", {"source": inline}))["context"]["ephemeral"]
        begun = await client.call("context/begin", announcement(TEXT, origin=origin))
        await client.call("context/append", chunk(begun["upload_id"], TEXT, 0, 1000))
        assert not any((folders.state / "rlmd/contexts/uploads").iterdir())
        assert len((await client.call("context/search", {"name": "tree", "query": WORD}))["hits"]) == 1
        (tree / "b.txt").write_text("more\n")
        assert (await client.call("context/update", {"name": "tree"}))["context"]["documents"] == 3
        plain = await load_text(client, "plain", "an ordinary text\n")
        assert (plain["context"]["ephemeral"], plain["context"]["private"]) == (False, False)
    await daemon.stop(signal.SIGKILL)
    for folder in (folders.state, folders.cache, folders.runtime):
        assert list(holding(folder, (WORD,))) == []


async def test_what_was_on_disk_before_the_rule_is_told(folders: Folders, start_daemon: StartDaemon) -> None:
    """It is private at once; only dropping it takes it off the disk. A folder that got such a file stays as it was."""
    vault, tree = folders.home / "vault", folders.home / "tree"
    for folder in (vault, tree):
        folder.mkdir()
        (folder / "a.txt").write_text(f"{folder.name} on disk\n")
    daemon = await start_daemon()
    async with daemon.connect() as client:
        for folder in (vault, tree):
            await load_path(client, folder.name, folder)
    await daemon.stop()
    folders.write_config(RULE.format(home=folders.home))
    daemon = await start_daemon()
    async with daemon.connect() as client:
        assert {one["name"]: one["private"] for one in (await client.call("context/list"))["contexts"]} == {
            "vault": True, "tree": False,
        }  # fmt: skip
        assert "1 contexts that a rule makes ephemeral are on disk" in daemon.stderr()
        told = [one for one in (await client.call("daemon/doctor"))["checks"] if one["name"] == "contexts"]
        assert [(one["ok"], "Drop" in one["hint"]) for one in told] == [(False, True)]
        (tree / "letter.gpg").write_text(f"{WORD} writes a letter.\n")
        with pytest.raises(RpcFailure) as caught:
            await client.call("context/update", {"name": "tree"})
        assert caught.value.data["kind"] == "conflict"
        assert "drop" in caught.value.data["hint"]
        await client.call("context/drop", {"name": "tree"})
        assert (await load_path(client, "tree", tree))["context"]["ephemeral"]
    assert list(holding(folders.state, (WORD,))) == []
