"""Ephemeral text is on no disk, ever: not as itself, not as anything made of it, not after ``kill -9``.

Marked with canaries, it goes every way that there is (loading, searching, asking, cells, children, sessions, exports);
then every byte of the folders that the daemon may write is looked through, and while it works the kernel tells which
files were opened for writing.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.e2e.test_canaries import holding
from tests.fakes.ollama import FakeOllama, Scripted
from tests.harness import Client, Daemon, Folders, Host, RpcFailure, config_of, load_text, new_run, start_run

CANARY = "Xanthippe7741"
NAMES = ("zebrafish-diary", "quagga-session")
MARKS = (CANARY, "okapi", *NAMES)
SECRET = f"The safe of {CANARY} opens with four turns to the left, says {CANARY}.\n" + "Filler of the diary.\n" * 20_000
QUESTION = f"How does the safe of {CANARY} open, by okapi?"
CODE = (
    "kept = context[:90]; print(kept); found = llm_query('What does it say? ' + context[:9000]); print(found)\n"
    "print(search('safe opens')[0][:80]); below = rlm_query('okapi, what is in it?', context[:200]); print(below)"
)


@pytest.fixture
async def mine() -> AsyncIterator[FakeOllama]:
    """Its sub-model quotes what it was given, at length; its root reads, asks and answers."""
    async with FakeOllama(["root", "sub"], slots=4) as server:
        answers = [f"```repl\n{CODE}\n```", f"FINAL(The child says {CANARY})", f"FINAL(It opens so: {CANARY} opens)"]
        server.script("root", answers)
        server.answer = lambda prompt: f"It says: {prompt[:9000]}"
        yield server


@pytest.fixture
async def daemon(folders: Folders, start_daemon: StartDaemon, mine: FakeOllama) -> Daemon:
    host = Host("mine", mine.url, 4, {"root": 65_536, "sub": 65_536})
    more = '[log]\nlevel = "debug"\n[limits]\ndepth = 1\n'
    folders.write_config(config_of([host], ("mine/root",), ("mine/sub",), more))
    return await start_daemon(TMPDIR=str(folders.home))


async def upload(client: Client, name: str, text: str) -> None:
    data = text.encode()
    announced = {"digest": hashlib.sha256(data).hexdigest(), "bytes": len(data), "name": name, "ephemeral": True}
    begun = await client.call("context/begin", announced)
    for at in range(0, len(data), begun["chunk_bytes"]):
        piece = base64.b64encode(data[at : at + begun["chunk_bytes"]]).decode()
        await client.call("context/append", {"upload_id": begun["upload_id"], "offset": at, "data": piece})
    loaded = await client.call("context/commit", {"upload_id": begun["upload_id"]})
    assert (loaded["context"]["ephemeral"], loaded["context"]["private"]) == (True, True)


async def work(client: Client) -> str:
    """All that may leave traces. Returns the id of the run that was asked."""
    await upload(client, NAMES[0], SECRET)
    inline = {"kind": "inline", "text": f"Short: {CANARY}", "origin": f"/home/{NAMES[0]}.txt"}
    await client.call("context/load", {"source": inline, "ephemeral": True})
    run = new_run(QUESTION, NAMES[0], strategy="rlm", session=NAMES[1])
    ended = await start_run(client, run)
    assert ended["outcome"] == "answered", ended
    assert client.facts(run["run_id"], "child_ended")[0]["outcome"] == "answered"
    assert client.facts(run["run_id"], "subquery_replied")
    assert any("memory" in fact["text"] for fact in client.facts(run["run_id"], "note")), "it was not said"
    await start_run(client, new_run(f"Where is the safe of {CANARY}?", NAMES[0], strategy="quote"))
    for pattern in (f"safe of {CANARY}", "okapi"):
        await client.call("context/search", {"name": NAMES[0], "query": pattern, "mode": "regex"})
    assert (await client.call("context/search", {"name": NAMES[0], "query": "how does the safe open"}))["hits"]
    assert CANARY in (await client.call("context/peek", {"name": NAMES[0]}))["text"]
    # The session held it: what follows in it, of texts on disk, is ephemeral too.
    await load_text(client, "other", "Another text, that may be on disk.\n")
    cell = {"run_id": str(uuid.uuid4()), "code": "print(kept * 200)", "contexts": ["other"], "session": NAMES[1]}
    assert CANARY in (await client.call("repl/execute", cell))["output"]
    shown = await client.call("run/show", {"run_id": cell["run_id"]})
    assert (shown["run"]["ephemeral"], shown["run"]["private"]) == (True, True)
    for form in ("jsonl", "html"):
        assert CANARY in (await client.call("run/export", {"run_id": run["run_id"], "form": form}))["text"]
    await client.call("context/load", {"name": NAMES[0], "source": {"kind": "inline", "text": f"{CANARY} anew"}})
    assert (await client.call("context/diff", {"name": NAMES[0]}))["changed"] + 1
    await client.call("session/reset", {"name": NAMES[1]})
    return str(run["run_id"])


def traces(folders: Folders) -> list[str]:
    folders_written = (folders.state, folders.cache, folders.runtime, folders.home)
    return [found for folder in folders_written for found in holding(folder, MARKS)]


@pytest.mark.parametrize("end", [None, signal.SIGTERM, signal.SIGKILL])
async def test_no_byte_of_it_is_on_a_disk(
    daemon: Daemon, folders: Folders, mine: FakeOllama, start_daemon: StartDaemon, end: signal.Signals | None
) -> None:
    async with daemon.connect() as client:
        run_id = await work(client)
        assert traces(folders) == []
        assert any(CANARY in one for one in mine.prompts()), "nothing was asked at all"
        assert not [mark for mark in MARKS if mark in daemon.stderr()], "the log tells of it"
        if end is None:
            dropped = await client.call("context/drop", {"name": NAMES[0]})
            assert dropped["runs"] == 3
            with pytest.raises(RpcFailure):
                await client.call("run/show", {"run_id": run_id})
            return
    await daemon.stop(end)
    assert traces(folders) == []
    later = await start_daemon()
    async with later.connect() as client:
        assert [one["name"] for one in (await client.call("context/list"))["contexts"]] == ["other"]
        assert (await client.call("run/list"))["runs"] == []
        with pytest.raises(RpcFailure) as caught:
            await client.call("run/attach", {"run_id": run_id})
        assert "ephemeral" in caught.value.data["hint"], "it is gone, and nothing says why"
    assert traces(folders) == []


async def test_a_run_that_goes_on_ends_with_the_daemon(
    daemon: Daemon, folders: Folders, mine: FakeOllama, start_daemon: StartDaemon
) -> None:
    """It is told as ended for good, not as one that will be taken up again."""
    mine.script("root", [Scripted("late", until=asyncio.Event())])
    async with daemon.connect() as client:
        await client.call(
            "context/load", {"name": NAMES[0], "ephemeral": True, "source": {"kind": "inline", "text": SECRET[:2000]}}
        )
        run = new_run(QUESTION, NAMES[0], strategy="direct")
        await client.call("run/start", run)
        await client.until(lambda: client.facts(run["run_id"], "turn_started"))
        daemon.process.send_signal(signal.SIGTERM)
        await client.until(lambda: client.facts(run["run_id"], "run_interrupted"))
        assert not client.facts(run["run_id"], "run_interrupted")[0]["resumable"]
    await daemon.stop()
    assert traces(folders) == []


@pytest.mark.full
async def test_no_write_of_it_goes_to_a_file(daemon: Daemon, tmp_path: Path) -> None:
    """Every byte that the daemon and its children hand to the kernel, by where it goes: what is written and removed
    again leaves no trace in a folder, and would be on the disk all the same."""
    calls = "trace=write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,openat,memfd_create"
    out = tmp_path / "calls"
    tracer = await asyncio.create_subprocess_exec(
        "strace", "-f", "-y", "-s", "1000000", "-e", calls, "-o", str(out), "-p", str(daemon.pid),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert tracer.stderr is not None
        async with asyncio.timeout(60):
            while b"attached" not in await tracer.stderr.readline():
                pass
        async with daemon.connect() as client:
            await work(client)
        await daemon.stop()
    finally:
        with contextlib.suppress(ProcessLookupError):
            tracer.terminate()
        await tracer.wait()
    lines = out.read_text(errors="replace").splitlines()
    telling = [line for line in lines if any(mark in line for mark in MARKS)]
    assert [line for line in telling if "<socket:" in line], "nothing was seen"
    ways = ("<socket:", "<UNIX", "<pipe:", "</memfd:")
    to_files = [line[:200] for line in telling if not any(way in line.split(",")[0] for way in ways)]
    assert to_files == []
