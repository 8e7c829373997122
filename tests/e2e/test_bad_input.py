"""What a client, a file system or a model can get wrong: each an error of ours that helps, and the daemon lives on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from rlmd.errors import RlmdError
from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import (
    Client,
    Daemon,
    Folders,
    Host,
    Json,
    RpcFailure,
    config_of,
    load_path,
    load_text,
    new_run,
    rss_bytes,
    start_run,
)


def kinds(error: type[RlmdError] = RlmdError) -> dict[str, int]:
    """Every kind of error of ours with its code."""
    found = {error.kind: error.code}
    for below in error.__subclasses__():
        found |= kinds(below)
    return found


def assert_helps(code: int, message: str, data: Json) -> None:
    """A code of ours, a sentence, a hint."""
    assert kinds().get(data["kind"]) == code, (code, data)
    assert message[0].isupper() or not message[0].isalpha() or "/" in message.split()[0], message
    assert message.endswith((".", "!", "?")), message
    assert len(message) < 500
    assert data["hint"], message


async def refused(client: Client, method: str, params: Json | None = None) -> RpcFailure:
    """The error that answers a request, checked to be of use; afterwards the connection answers as before."""
    with pytest.raises(RpcFailure) as caught:
        await client.call(method, params)
    assert_helps(caught.value.code, caught.value.message, caught.value.data)
    assert (await client.call("daemon/status"))["pid"]
    return caught.value


# ── the protocol ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Wrong:
    method: str
    params: Json
    code: int
    says: str = ""


RUN = str(uuid.uuid4())
REQUESTS = [
    Wrong("context/lod", {}, -32601, "context/load"),
    Wrong("nothing/like/it", {}, -32601),
    Wrong("context/load", {"name": "x"}, -32602, "source"),
    Wrong("context/load", {"nmae": "x", "source": {"kind": "inline", "text": "t"}}, -32602, "name"),
    Wrong("context/load", {"source": {"kind": "carrier pigeon"}}, -32602, "kind"),
    Wrong("context/load", {"source": {"kind": "path", "paths": ["relative/path"]}}, -32602, "absolute"),
    Wrong("context/peek", {"name": "x", "start": -1}, -32602, "start"),
    Wrong("context/peek", {"name": "no such"}, 1001, "no such"),
    Wrong("context/info", {"name": "x", "documents_from": 2**63}, -32602, "documents_from"),
    Wrong("context/search", {"name": "no such", "query": "q"}, 1001),
    Wrong("context/drop", {"name": "no such"}, 1001),
    Wrong("context/load", {"source": {"kind": "spool", "file": "../../../etc/passwd"}}, -32602),
    Wrong("context/load", {"source": {"kind": "spool", "file": "nothing-there"}}, 1005),
    Wrong("context/load", {"source": {"kind": "inline", "text": "a" * 300_000}}, 1004, "262144"),
    Wrong("run/start", {"run_id": "not a uuid", "question": "q", "contexts": ["x"]}, -32602, "run_id"),
    Wrong("run/start", {"run_id": RUN, "question": "", "contexts": ["x"]}, -32602, "question"),
    Wrong("run/start", {"run_id": RUN, "question": "q", "contexts": []}, -32602, "contexts"),
    Wrong("run/start", {"run_id": RUN, "question": "q", "contexts": ["no such"]}, 1001, "no such"),
    Wrong("run/show", {"run_id": RUN}, 1001),
    Wrong("run/attach", {"run_id": RUN}, 1001),
    Wrong("run/cancel", {"run_id": RUN}, 1001),
    Wrong("run/fetch", {"run_id": RUN, "from_seq": 1}, 1001),
    Wrong("session/drop", {"name": "no such"}, 1001),
    Wrong("host/remove", {"name": "no such"}, 1001),
    Wrong("initialize", {"protocol": 0}, -32602),
]


@pytest.mark.parametrize("headers", [False, True], ids=["lines", "headers"])
async def test_wrong_requests(daemon: Daemon, headers: bool) -> None:
    async with daemon.connect(headers=headers) as client:
        wrong = []
        for case in REQUESTS:
            try:
                error = await refused(client, case.method, case.params)
                assert error.code == case.code, error
                assert case.says in error.message + error.data["hint"], error
            except (AssertionError, pytest.fail.Exception) as failure:
                wrong.append(f"{case.method} {str(case.params)[:80]}: {str(failure)[:300]}")
        assert not wrong, "\n".join(wrong)


async def raw(path: Path, data: bytes, answers: int) -> list[Json]:
    """Sends bytes as they are; reads so many lines."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
    writer.write(data)
    got = [json.loads(await asyncio.wait_for(reader.readline(), 60)) for _ in range(answers)]
    writer.close()
    await writer.wait_closed()
    return got


BROKEN = {
    "not JSON": (b"{oops}\n", -32700),
    "cut": (b'{"jsonrpc": "2.0", "id": 1,\n', -32700),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}\n', -32700),
    "NaN": (b'{"jsonrpc":"2.0","id":1,"method":"daemon/status","params":{"a":NaN}}\n', -32700),
    "lone surrogate": (b'{"jsonrpc":"2.0","id":1,"method":"daemon/status","params":{"a":"\\ud800"}}\n', -32700),
    "NUL": (b'{"jsonrpc":"2.0","id":1,"method":"daemon/status","params":{"a":"\\u0000"}}\n', None),
    "deep": (b'{"jsonrpc":"2.0","id":1,"method":"x","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", -32700),
    "huge integer": (b'{"jsonrpc":"2.0","id":' + b"9" * 30 + b',"method":"daemon/status"}\n', None),
    "no version": (b'{"id":1,"method":"daemon/status"}\n', -32600),
    "array": (b"[1,2,3]\n", -32600),
    "empty array": (b"[]\n", -32600),
    "id is a list": (b'{"jsonrpc":"2.0","id":[],"method":"daemon/status"}\n', -32600),
    "method is a number": (b'{"jsonrpc":"2.0","id":1,"method":7}\n', -32600),
    "params is text": (b'{"jsonrpc":"2.0","id":1,"method":"daemon/status","params":"x"}\n', -32600),
    "positional params": (b'{"jsonrpc":"2.0","id":1,"method":"daemon/status","params":[1]}\n', -32602),
}


async def test_broken_messages_are_answered_and_the_connection_goes_on(daemon: Daemon) -> None:
    good = b'{"jsonrpc":"2.0","id":"after","method":"daemon/status","params":null}\n'
    for name, (line, code) in BROKEN.items():
        answer, after = await raw(daemon.folders.socket, line + good, 2)
        told = answer[0] if isinstance(answer, list) else answer
        assert "error" in told, name
        assert code is None or told["error"]["code"] == code, (name, told)
        assert_helps(told["error"]["code"], told["error"]["message"], told["error"]["data"])
        assert after["id"] == "after", name
        assert after["result"]["pid"] == daemon.pid


async def test_a_line_of_200_megabytes(daemon: Daemon) -> None:
    """It is refused while it comes; the daemon holds none of it, and goes on with the next line."""
    reader, writer = await asyncio.open_unix_connection(str(daemon.folders.socket))
    before = rss_bytes(daemon.pid)
    writer.write(b'{"jsonrpc":"2.0","id":1,"method":"context/load","params":{"source":{"kind":"inline","text":"')
    highest = 0
    for _ in range(200):
        writer.write(b"a" * 1_000_000)
        await writer.drain()
        highest = max(highest, rss_bytes(daemon.pid))
    writer.write(b'"}}}\n{"jsonrpc":"2.0","id":2,"method":"daemon/status"}\n')
    answers = [json.loads(await asyncio.wait_for(reader.readline(), 60)) for _ in range(2)]
    writer.close()
    assert {answer["id"] for answer in answers} == {1, 2}
    error = next(answer["error"] for answer in answers if answer["id"] == 1)
    assert error["code"] == 1004
    assert_helps(error["code"], error["message"], error["data"])
    assert highest - before < 64 << 20, f"grew by {(highest - before) >> 20} MB"


HEADERS: dict[str, bytes] = {
    "negative length": b"Content-Length: -5\r\n\r\n{}",
    "no number": b"Content-Length: many\r\n\r\n{}",
    "endless header": b"X" * 1_000_000,
    "another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "absurd length": b"Content-Length: 99999999999999999999\r\n\r\n{}",
    "cut in the body": b"Content-Length: 100\r\n\r\n{",
    "nothing": b"",
    "blanks": b"   \r\n\r\n  ",
}


@pytest.mark.parametrize("name", HEADERS)
async def test_framing_that_cannot_be_followed_ends_that_connection_alone(daemon: Daemon, name: str) -> None:
    async with daemon.connect() as bystander:
        reader, writer = await asyncio.open_unix_connection(str(daemon.folders.socket))
        with contextlib.suppress(ConnectionError):  # closed on what it did not read: that is a reset
            writer.write(HEADERS[name])
            writer.write_eof()
            told = await asyncio.wait_for(reader.read(), 60)
            assert b"Traceback" not in told
        writer.close()
        assert (await bystander.call("daemon/status"))["pid"] == daemon.pid


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def make_binary(folder: Path) -> Path:
    path = folder / "program"
    path.write_bytes(bytes(range(256)) * 200)
    return path


def make_fifo(folder: Path) -> Path:
    import os

    path = folder / "pipe"
    os.mkfifo(path)
    return path


def make_socket(folder: Path) -> Path:
    path = folder / "sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    return path


def make_loop(folder: Path) -> Path:
    path = folder / "loop"
    path.symlink_to(path)
    return path


FILES: dict[str, tuple[Callable[[Path], Path], set[int]]] = {
    "missing": (lambda folder: folder / "not-there.txt", {1005}),
    "binary": (make_binary, {1007}),
    "fifo": (make_fifo, {1006, 1007}),
    "socket": (make_socket, {1006, 1007}),
    "device": (lambda _: Path("/dev/zero"), {1006, 1007}),
    "symlink to itself": (make_loop, {1005, 1006}),
    "a file as a folder": (lambda folder: make_binary(folder) / "below", {1005, 1006}),
    "NUL in the name": (lambda folder: folder / "a\0b", {-32700, -32602, 1005}),
    "a name too long": (lambda folder: folder / ("n" * 5000), {-32602, 1005, 1006}),
}


@pytest.mark.parametrize("name", FILES)
async def test_files_that_cannot_be_loaded(client: Client, folders: Folders, name: str) -> None:
    make, codes = FILES[name]
    path = make(folders.home)
    source = {"kind": "path", "paths": [str(path)]}
    error = await refused(client, "context/load", {"name": "x", "source": source})
    assert error.code in codes, error
    assert (await client.call("context/list"))["contexts"] == []


async def test_a_file_that_only_the_client_sees(client: Client, folders: Folders) -> None:
    """The same path may be another file in the client's mount namespace: its identity tells."""
    path = folders.home / "notes.txt"
    path.write_text("what the daemon sees\n")
    seen = path.stat()
    identity = {
        "device": str(seen.st_dev),
        "inode": str(seen.st_ino),
        "size": str(seen.st_size),
        "mtime_ns": str(seen.st_mtime_ns),
    }
    for field in identity:
        other = {**identity, field: str(int(identity[field]) + 1)}
        source = {"kind": "path", "paths": [str(path)], "identity": other}
        error = await refused(client, "context/load", {"name": "x", "source": source})
        assert error.code == 1008, field
        assert "spool" in error.data["hint"]
    loaded = await client.call(
        "context/load", {"name": "x", "source": {"kind": "path", "paths": [str(path)], "identity": identity}}
    )
    assert loaded["change"] == "created"


async def test_binaries_in_a_folder_are_skipped_and_counted(client: Client, folders: Folders) -> None:
    (folders.home / "tree").mkdir()
    (folders.home / "tree" / "a.txt").write_text("text\n")
    make_binary(folders.home / "tree")
    make_fifo(folders.home / "tree")
    loaded = await load_path(client, "tree", folders.home / "tree")
    assert loaded["documents"] == 1
    assert {one["reason"]: one["count"] for one in loaded["skipped"]} == {"binary": 1, "special": 1}


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_same_run_id_with_another_question(client: Client) -> None:
    await load_text(client, "note", "The answer is 42.\n")
    run = new_run("What is the answer?", "note", strategy="quote")
    await start_run(client, run)
    again = await client.call("run/start", run)
    assert again["run_id"] == run["run_id"]
    error = await refused(client, "run/start", {**run, "question": "Another one?"})
    assert error.code == 1002


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_no_host_reachable(folders: Folders, start_daemon: StartDaemon) -> None:
    host = Host("gone", f"http://127.0.0.1:{unused_port()}", models={"root": 8192})
    folders.write_config(config_of([host], root=("gone/root",), sub=("gone/root",)))
    daemon = await start_daemon()
    async with daemon.connect() as client:
        await load_text(client, "note", "The answer is 42.\n" * 100)
        for strategy in ("rlm", "direct"):
            params = new_run("What is the answer?", "note", strategy=strategy, limits={"waiting": 1.0})
            ended = await start_run(client, params)
            assert ended["outcome"] in ("failed", "none"), ended
            assert_helps(ended["error"]["code"], ended["error"]["message"], ended["error"])
            assert ended["error"]["code"] // 100 == 11, ended["error"]
        quoted = await start_run(client, new_run("What is the answer?", "note", strategy="quote"))
        assert quoted["outcome"] == "answered"


async def test_candidates_that_are_none(folders: Folders, start_daemon: StartDaemon) -> None:
    async with FakeOllama(["root"]) as fake:
        folders.write_config(config_of([Host("one", fake.url, models={"root": 8192})], root=("one/root",)))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "note", "The answer is 42.\n")
            for role in ("root", "sub"):
                error = await refused(client, "run/start", new_run("What?", "note", **{role: ["nobody/nothing"]}))
                assert (error.code, "one/root" in error.message) == (1001, True)
            added = {"name": "two", "url": fake.url, "api_key_env": "NOT_SET"}
            assert (await refused(client, "host/add", added)).code == 1009


async def test_a_worker_that_dies(folders: Folders, start_daemon: StartDaemon) -> None:
    """A cell that ends its process costs the run its names, not its life."""
    async with FakeOllama(["root"]) as fake:
        fake.script(
            "root",
            [
                "```repl\nkept = 'before'\nprint(kept)\n```",
                "```repl\nimport os\nos._exit(3)\n```",
                "```repl\nprint('kept' in globals(), len(context))\n```",
                "FINAL(the worker came back)",
            ],
        )
        folders.write_config(config_of([Host("one", fake.url, models={"root": 8192})], root=("one/root",)))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "note", "x" * 1234)
            run = new_run("Does it live?", "note", strategy="rlm")
            ended = await start_run(client, run)
            assert ended["outcome"] == "answered", ended
            assert ended["answer"]["text"] == "the worker came back"
            cells = client.facts(run["run_id"], "cell_ended")
            assert [cell["ok"] for cell in cells] == [True, False, True]
            assert cells[1]["names_lost"]
            assert cells[1]["error"]
            assert "False 1234" in cells[2]["output"]["text"]
            assert len(client.facts(run["run_id"], "session_started")) == 2
            told = json.dumps(fake.seen[2].messages)
            assert "kept" in told, "the model must be told which names are lost"


async def test_a_worker_that_dies_under_execute(client: Client) -> None:
    for code in ("import os; os._exit(3)", "import ctypes; ctypes.string_at(0)", "import os, signal; os.abort()"):
        error = await refused(client, "repl/execute", {"code": code, "run_id": str(uuid.uuid4())})
        assert error.code == 1303, code
    done = await client.call("repl/execute", {"code": "6 * 7", "run_id": str(uuid.uuid4())})
    assert done["ok"]
    assert "42" in done["output"]
