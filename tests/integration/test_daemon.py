"""The real daemon: hosts added and removed, the doctor, clients that vanish, privacy at the socket, the command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI
from tests.harness import Client, Daemon, Folders, Host, RpcFailure, config_of, load_text, new_run
from tests.shell import Ended, rlmctl


def command(folders: Folders, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlmd", *arguments],
        env=folders.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────


def test_check_says_what_is_wrong_and_starts_nothing(folders: Folders) -> None:
    assert command(folders, "--check").returncode == 0
    folders.write_config("[limits]\nturn = 3\n")
    done = command(folders, "--check")
    assert done.returncode == 78
    assert "limits.turn is not known. Did you mean turns?" in done.stderr
    assert not folders.socket.exists()
    assert command(folders).returncode == 78


def test_help_and_version(folders: Folders) -> None:
    assert "exit status:" in command(folders, "--help").stdout
    assert command(folders, "--version").stdout.startswith("rlmd ")
    assert command(folders, "--sokcet", "x").returncode == 2


def test_a_socket_path_that_is_too_long_or_taken(folders: Folders) -> None:
    done = command(folders, "--socket", f"/tmp/{'x' * 120}")
    assert (done.returncode, "107 are possible" in done.stderr) == (78, True)
    ordinary = folders.root / "file"
    ordinary.write_text("precious")
    done = command(folders, "--socket", str(ordinary))
    assert (done.returncode, "is not a socket" in done.stderr) == (78, True)
    assert ordinary.read_text() == "precious"


def test_a_folder_that_cannot_be_made(folders: Folders) -> None:
    (folders.state / "rlmd").write_text("a file where a folder belongs")
    done = command(folders)
    assert done.returncode == 78
    assert str(folders.state / "rlmd") in done.stderr


async def test_sigint_stops_as_cleanly_as_sigterm(start_daemon: StartDaemon) -> None:
    daemon = await start_daemon()
    assert await daemon.stop(signal.SIGINT) == 0
    assert not daemon.folders.socket.exists()


async def test_systemds_socket_is_used_and_left(folders: Folders, tmp_path: Path) -> None:
    """As the socket unit does it, by systemd's own tool; the file must be there for the next start."""
    path = tmp_path / "activated.sock"
    process = subprocess.Popen(
        ["systemd-socket-activate", "-l", str(path), "--fdname=rlmd", sys.executable, "-m", "rlmd"],
        env=folders.environment(),
        stderr=subprocess.DEVNULL,
    )
    try:
        while not path.exists():
            await asyncio.sleep(0.01)
        async with Client.connected(path) as client:
            assert (await client.call("daemon/status"))["pid"] == process.pid
        assert not folders.socket.exists()
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, 60) == 0
    assert path.exists()


# ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_host_is_added_used_kept_and_removed(folders: Folders, start_daemon: StartDaemon) -> None:
    async with FakeOllama(["qwen2.5-coder:32b", "small"]) as fake:
        daemon = await start_daemon()
        async with daemon.connect() as client:
            added = await client.call("host/add", {"name": "m40", "url": fake.url, "models": ["small"], "slots": 3})
            assert [model["name"] for model in added["host"]["models"]] == ["small"]
            assert (added["host"]["state"], added["host"]["slots"], added["host"]["trust"]) == ("ok", 3, "mine")
            file = Path(added["file"])
            written = tomllib.loads(file.read_text())["hosts"]["m40"]
            assert (written["url"], written["slots"], list(written["models"])) == (fake.url, 3, ["small"])
            assert file.stat().st_mode & 0o777 == 0o600
            checks = (await client.call("daemon/doctor"))["checks"]
            assert {check["name"]: check["ok"] for check in checks}["host m40"]
            assert next(check for check in checks if check["name"] == "config")["ok"]
            with pytest.raises(RpcFailure) as caught:
                await client.call("host/add", {"name": "m40", "url": fake.url})
            assert caught.value.code == 1002
        await daemon.stop()

        daemon = await start_daemon()
        async with daemon.connect() as client:
            assert [host["name"] for host in (await client.call("host/list"))["hosts"]] == ["m40"]
            await client.call("host/remove", {"name": "m40"})
            assert (await client.call("host/list"))["hosts"] == []
            assert not file.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "x" * 65])
async def test_a_hosts_name_is_no_path(client: Client, name: str) -> None:
    with pytest.raises(RpcFailure) as caught:
        await client.call("host/add", {"name": name, "url": "http://127.0.0.1:1"})
    assert caught.value.code == -32602


async def test_what_cannot_be_added_leaves_nothing(client: Client, folders: Folders) -> None:
    async with FakeOllama(["small"]) as fake:
        for params, code, says in (
            ({"url": "http://127.0.0.1:1"}, 1102, "127.0.0.1:1"),
            ({"url": "no url"}, 1009, ""),
            ({"url": fake.url, "models": ["smal"]}, 1001, "small"),
            ({"url": fake.url, "api_key_env": "NO_SUCH_VARIABLE"}, 1009, "NO_SUCH_VARIABLE"),
            ({"url": fake.url, "api_key_file": str(folders.config / "no.key")}, 1009, "no.key"),
        ):
            with pytest.raises(RpcFailure) as caught:
                await client.call("host/add", {"name": "x", **params})
            assert caught.value.code == code, params
            assert says in caught.value.message + caught.value.data["hint"]
    assert (await client.call("host/list"))["hosts"] == []
    assert not list(folders.config.rglob("*.toml"))


async def test_a_key_in_a_file_is_used_and_written_nowhere(client: Client, folders: Folders, tmp_path: Path) -> None:
    key = tmp_path / "cloud.key"
    key.write_text("sk-held-in-a-file\n")
    async with FakeOpenAI(["sub"], api_key="sk-held-in-a-file") as fake:
        with pytest.raises(RpcFailure):
            await client.call("host/add", {"name": "cloud", "url": fake.url})
        added = await client.call("host/add", {"name": "cloud", "url": fake.url, "api_key_file": str(key)})
        (file,) = folders.config.rglob("host-cloud.toml")
        assert tomllib.loads(file.read_text())["hosts"]["cloud"]["api_key_file"] == str(key)
        assert "sk-held" not in file.read_text() + str(added)
        await client.call("host/remove", {"name": "cloud"})


async def test_a_key_that_a_command_prints_is_asked_for_by_that_command_alone(
    folders: Folders, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """From the shell: no shell reads it, what is written down is the command, and one that fails adds nothing."""
    await start_daemon()
    key = tmp_path / "the key"
    key.write_text("sk-that-a-store-has\n")
    async with FakeOpenAI(["sub"], api_key="sk-that-a-store-has") as fake:

        async def add(*options: str) -> Ended:
            return await rlmctl(folders.environment(), "host", "add", "cloud", fake.url, *options)

        for wrong, says in (("false", "gave no key"), ("'open", "--api-key-command is no command"), ("", "no command")):
            ended = await add("--api-key-command", wrong)
            assert ended.status
            assert says in " ".join(ended.err.replace("│", " ").split())
        assert (await add("--api-key-command", "x", "--api-key-env", "Y")).status == 2
        assert not list(folders.config.rglob("host-cloud.toml"))
        added = await add("--api-key-command", f"/bin/cat '{key}'")
        assert (added.status, "sub" in added.out) == (0, True), added.err
        (file,) = folders.config.rglob("host-cloud.toml")
        assert tomllib.loads(file.read_text())["hosts"]["cloud"]["api_key_command"] == ["/bin/cat", str(key)]
        assert "sk-that" not in file.read_text() + added.out + added.err


async def test_one_name_added_twice_at_once_is_one_host(client: Client) -> None:
    async with FakeOllama(["small"]) as fake:
        params = {"name": "twin", "url": fake.url}
        results = await asyncio.gather(*(client.call("host/add", params) for _ in range(2)), return_exceptions=True)
        assert sorted(isinstance(result, RpcFailure) for result in results) == [False, True]
        (host,) = (await client.call("host/list"))["hosts"]
        await client.call("host/remove", {"name": host["name"]})


async def test_a_host_that_the_config_names_elsewhere_stays(folders: Folders, start_daemon: StartDaemon) -> None:
    async with FakeOllama(["small"]) as fake:
        folders.write_config(config_of([Host("mine", fake.url, 1, {"small": 8192})]))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            with pytest.raises(RpcFailure) as caught:
                await client.call("host/remove", {"name": "mine"})
            assert caught.value.code == 1002
            assert "config.toml" in caught.value.data["hint"]


async def test_a_client_that_may_leak_changes_no_hosts(daemon: Daemon) -> None:
    """It could make its own server a trusted one, and have private text sent there."""
    async with FakeOllama(["small"]) as fake, daemon.connect() as cloud:
        await cloud.call("initialize", {"egress": True})
        await cloud.call("initialize", {"egress": False})  # what was said once holds
        for method, params in (("host/add", {"name": "x", "url": fake.url}), ("host/remove", {"name": "x"})):
            with pytest.raises(RpcFailure) as caught:
                await cloud.call(method, params)
            assert caught.value.data["kind"] == "not_allowed"


async def test_a_client_that_may_leak_does_not_learn_what_is_private_by_loading(daemon: Daemon) -> None:
    source = {"kind": "inline", "text": "A private matter.\n"}
    async with daemon.connect() as mine, daemon.connect() as cloud:
        await cloud.call("initialize", {"egress": True})
        await mine.call("context/load", {"name": "diary", "private": True, "source": source})
        other = {"kind": "inline", "text": "What the client thinks of it.\n"}
        loaded = [await cloud.call("context/load", {"name": name, "source": other}) for name in ("diary", "free")]
        assert [one["context"]["name"] for one in loaded] == ["egress/diary", "egress/free"]
        with pytest.raises(RpcFailure) as caught:
            await cloud.call("context/load", {"name": "new", "private": True, "source": source})
        assert caught.value.data["kind"] == "not_allowed"
        assert (await cloud.call("daemon/status"))["contexts"] == 2
        assert (await mine.call("context/peek", {"name": "diary"}))["text"] == source["text"]
        assert (await mine.call("context/info", {"name": "diary"}))["context"]["private"]


# ── the doctor ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_doctor_finds_what_is_amiss(folders: Folders, start_daemon: StartDaemon) -> None:
    folders.write_config(config_of([Host("gone", "http://127.0.0.1:1", 1, {"small": 8192})]))
    daemon = await start_daemon()
    async with daemon.connect() as client:
        os.chmod(folders.socket, 0o666)
        folders.write_config("[limits]\nturns = 7\n", "config.d/new.toml")
        told = await client.call("daemon/doctor")
        amiss = {check["name"]: check for check in told["checks"] if not check["ok"]}
        assert not told["ok"]
        assert {"config", "socket", "host gone"} <= amiss.keys()
        assert all(check["message"] and check["hint"] for check in amiss.values())


# ── clients that vanish ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("wish", "state"), [("cancel", "cancelled"), ("continue", "ended")])
async def test_a_run_ends_with_its_client_only_when_asked(
    folders: Folders, start_daemon: StartDaemon, wish: str, state: str
) -> None:
    async with FakeOllama(["root", "sub"]) as fake:
        fake.script("root", ["```repl\nimport time\nfor _ in range(10):\n  time.sleep(0.1)\n```", "FINAL(whole)"])
        folders.write_config(
            config_of([Host("one", fake.url, 2, {"root": 8192, "sub": 8192})], root=("one/root",), sub=("one/sub",))
        )
        daemon = await start_daemon()
        async with daemon.connect() as other:
            await load_text(other, "note", "text " * 100)
            run = new_run("q", "note", strategy="rlm") | {"on_disconnect": wish, "run_id": str(uuid.uuid4())}
            async with daemon.connect() as client:
                await client.call("run/start", run)
                await client.until(lambda: client.facts(run["run_id"], "cell_started"))
            await other.call("run/attach", {"run_id": run["run_id"]})
            ended = await other.ended_run(run["run_id"])
            assert (await other.call("run/show", {"run_id": run["run_id"]}))["run"]["state"] == state
            if wish == "continue":
                assert ended["answer"]["text"] == "whole"


# ── many runs ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_contexts_do_not_wait_until_all_runs_are_known(folders: Folders, start_daemon: StartDaemon) -> None:
    """A journal that is slow to read, as thousands on a cold disk are: what needs to know of all runs waits, and is
    answered then; what does not is answered at once."""
    slow = folders.state / "rlmd" / "runs" / "00000000-0000-4000-8000-000000000000" / "journal.jsonl"
    slow.parent.mkdir(parents=True)
    os.mkfifo(slow)
    daemon = await start_daemon()
    async with daemon.connect() as client:
        asked = ("daemon/status", "run/list", "session/list")
        waiting = [asyncio.create_task(client.call(method)) for method in asked]
        await client.call("initialize", {"client": {"name": "test"}, "protocol": 2})
        await load_text(client, "note", "Says it.\n")
        waiting.append(asyncio.create_task(client.call("run/ask", new_run("Says?", "note", strategy="quote"))))
        assert (await client.call("context/peek", {"name": "note"}))["text"] == "Says it.\n"
        assert (await client.call("host/list"))["hosts"] == []
        assert not any(task.done() for task in waiting)
        while not all(task.done() for task in waiting):
            # whoever reads it may have looked at it and gone, or come again
            with contextlib.suppress(OSError):
                pipe = os.open(slow, os.O_WRONLY | os.O_NONBLOCK)
                with open(pipe, "wb", buffering=0) as file:
                    file.write(b"nonsense\n")
            await asyncio.sleep(0.01)
        status, runs, sessions, answered = await asyncio.gather(*waiting)
        assert (status["contexts"], runs["runs"], sessions["sessions"]) == (1, [], [])
        assert answered["run"]["state"] == "ended"
