"""A canary in every text that passes through: none is ever in a log, in an error, or in a private client's view."""

from __future__ import annotations

import secrets
import uuid
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama, Scripted
from tests.harness import Daemon, Folders, Host, RpcFailure, config_of, load_text, new_run, start_run


def canary(where: str) -> str:
    return f"canary{where}{secrets.token_hex(8)}"


async def test_the_log_holds_no_text(folders: Folders, start_daemon: StartDaemon) -> None:
    """Good runs, failing ones, bad requests and a crash, at the most talkative level of the log."""
    birds = {where: canary(where) for where in ("context", "question", "code", "output", "reply", "prompt", "key")}
    async with FakeOllama(["root", "sub"]) as fake:
        cell = (
            f"# {birds['code']}\nprint(context[:100], {birds['output']!r})\n"
            f"print(llm_query({birds['prompt']!r}))\nraise ValueError({birds['output']!r})"
        )
        fake.script("root", [f"```repl\n{cell}\n```", f"FINAL({birds['reply']})"])
        fake.answer = lambda prompt: Scripted(birds["reply"], status=500) if "fail" in prompt else birds["reply"]
        host = Host("one", fake.url, 2, {"root": 8192, "sub": 8192})
        more = '[log]\nlevel = "debug"'
        folders.write_config(config_of([host], root=("one/root",), sub=("one/sub",), more=more))
        daemon = await start_daemon(SOME_API_KEY=birds["key"])
        async with daemon.connect() as client:
            await load_text(client, "note", f"A text with {birds['context']} in it.\n" * 20)
            ended = await start_run(client, new_run(birds["question"], "note", strategy="rlm"))
            assert ended["answer"]["text"] == birds["reply"]
            await start_run(client, new_run(birds["context"], "note", strategy="quote"))
            await client.call("context/search", {"name": "note", "query": birds["context"]})
            await client.call("context/peek", {"name": "note"})
            execute = {"contexts": ["note"], "run_id": str(uuid.uuid4())}
            await client.call("repl/execute", {**execute, "code": f"1/0  # {birds['code']}"})
            await client.send({"jsonrpc": "2.0", "id": 999, "method": birds["prompt"], "params": {"x": birds["code"]}})
            with pytest.raises(RpcFailure) as caught:
                await client.call("context/load", {"source": {"kind": "inline", "text": 7, "origin": birds["context"]}})
            assert birds["context"] not in str(caught.value)
            fake.script("root", [Scripted(birds["reply"], status=400)])
            await start_run(client, new_run(birds["question"] + "?", "note", strategy="rlm"))
        await daemon.stop()
        log = daemon.stderr()
        assert "ready" in log
        caged_birds = {where for where, bird in birds.items() if bird in log}
        assert not caged_birds, log


async def test_a_cell_sees_neither_keys_nor_home_nor_the_socket(folders: Folders, start_daemon: StartDaemon) -> None:
    key = canary("key")
    secret = folders.home / "secret.txt"
    secret.write_text(canary("home"))
    daemon = await start_daemon(SOME_API_KEY=key)
    attempts = {
        "environment": "import os; print(dict(os.environ))",
        "other processes": "import glob\nfor p in glob.glob('/proc/*/environ'):\n  print(open(p,'rb').read())",
        "home": f"print(open({str(secret)!r}).read())",
        "socket": f"import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect({str(folders.socket)!r})\nprint('in')",
        "network": "import socket\nsocket.create_connection(('127.0.0.1', 80), 2)\nprint('in')",
        "state": f"import os; print(os.listdir({str(folders.state)!r}))",
        "config": f"import os; print(os.listdir({str(folders.config)!r}))",
        "write": "open('/tmp/left-by-a-cell', 'w').write('x'); print('in')",
        "exec": "import subprocess; print(subprocess.run(['id'], capture_output=True).stdout, 'in')",
        "parent": "import os, signal; os.kill(os.getppid(), signal.SIGTERM); print('in')",
        "memory": f"print(open('/proc/{daemon.pid}/mem', 'rb').read(1), 'in')",
    }
    async with daemon.connect() as client:
        await load_text(client, "note", "text")
        for name, code in attempts.items():
            params = {"code": code, "run_id": str(uuid.uuid4()), "contexts": ["note"]}
            done = await client.call("repl/execute", params)
            told = done["output"] + str(done["error"])
            assert key not in told, name
            assert secret.read_text() not in told, name
            if name not in ("environment", "other processes"):
                assert not done["ok"], f"{name}: {told}"
        assert (await client.call("daemon/status"))["pid"] == daemon.pid


async def test_no_process_but_the_daemon_itself_holds_its_keys(folders: Folders, start_daemon: StartDaemon) -> None:
    """Not the one that searches, nor one that runs cells: neither needs them."""
    key = canary("key").encode()
    daemon = await start_daemon(SOME_API_KEY=key.decode())
    async with daemon.connect() as client:
        await load_text(client, "note", "A lamp is lit.\n" * 50)
        await client.call("context/search", {"name": "note", "query": "lamp"})
        cell = {"code": "x = 1", "run_id": str(uuid.uuid4()), "contexts": ["note"], "session": "kept"}
        await client.call("repl/execute", cell)
        ours = daemon.look()
        assert any("helper_child" in one.command for one in ours), ours
        for pid, command in [*((one.pid, one.command) for one in ours), (daemon.pid, "the daemon")]:
            try:
                held = key in Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue  # a sealed worker's cannot be read
            assert held == (pid == daemon.pid), command


async def test_clients_that_may_leak_change_nothing_private(daemon: Daemon, folders: Folders) -> None:
    """A context without a given name is found by its path: loading the folder again would update it."""
    (folders.home / "letters").mkdir()
    (folders.home / "letters" / "a.txt").write_text("one\n")
    source = {"kind": "path", "paths": [str(folders.home / "letters")]}
    async with daemon.connect() as mine, daemon.connect() as cloud:
        await cloud.call("initialize", {"egress": True})
        before = (await mine.call("context/load", {"source": source, "private": True}))["context"]
        (folders.home / "letters" / "a.txt").write_text("two\n")
        for params in (
            {"source": source},
            {"source": source, "name": before["name"]},
            {"source": source} | {"dry_run": True},
        ):
            with pytest.raises(RpcFailure) as caught:
                await cloud.call("context/load", params)
            assert caught.value.code == 1012
        assert (await mine.call("context/list"))["contexts"] == [before]


async def test_private_contexts_do_not_exist_for_clients_that_may_leak(daemon: Daemon) -> None:
    async with daemon.connect() as mine, daemon.connect() as cloud:
        await cloud.call("initialize", {"egress": True})
        source = {"kind": "inline", "text": "A private matter.\n"}
        await mine.call("context/load", {"name": "diary", "private": True, "source": source})
        await load_text(mine, "open", "A public matter.\n")
        run = new_run("What matter?", "diary", strategy="quote")
        await start_run(mine, run)

        assert [one["name"] for one in (await cloud.call("context/list"))["contexts"]] == ["open"]
        assert (await cloud.call("run/list"))["runs"] == []
        requests = {
            "context/info": {"name": "diary"},
            "context/peek": {"name": "diary"},
            "context/search": {"name": "diary", "query": "matter"},
            "context/drop": {"name": "diary"},
            "run/start": new_run("What?", "diary"),
            "run/show": {"run_id": run["run_id"]},
            "run/attach": {"run_id": run["run_id"]},
            "run/fetch": {"run_id": run["run_id"], "from_seq": 1, "to_seq": 2},
            "run/cancel": {"run_id": run["run_id"]},
            "repl/execute": {"code": "print(context)", "contexts": ["diary"], "run_id": str(uuid.uuid4())},
        }
        for method, params in requests.items():
            with pytest.raises(RpcFailure) as caught:
                await cloud.call(method, params)
            assert caught.value.code == 1001, method
            assert "rivate" not in caught.value.message + caught.value.data["hint"], method
        assert {one["name"] for one in (await mine.call("context/list"))["contexts"]} == {"diary", "open"}


async def test_a_context_marked_private_in_the_middle_of_a_run_is_taken_from_the_cloud(
    folders: Folders, start_daemon: StartDaemon
) -> None:
    """What is in flight is aborted there; what waits goes to the host of mine."""
    ask_both = (
        "```repl\nreplies = llm_query_batched([f'{n}: {context}' for n in range(6)])\nprint(len(ok(replies)))\n```"
    )
    async with FakeOllama(["sub"], slots=2) as cloud, FakeOllama(["root", "sub"]) as mine:
        cloud.answer = lambda _: Scripted("partial", fault="hang", after=3)
        mine.script("root", [ask_both, "FINAL(done)"])
        hosts = [Host("cloud", cloud.url, 2), Host("mine", mine.url, 1, {"root": 8192, "sub": 8192})]
        config = config_of(
            hosts, root=("mine/root",), sub=("cloud/sub", "mine/sub"), more="[budget]\noverflow_after = 0"
        )
        folders.write_config(config.replace("slots = 2", 'slots = 2\ntrust = "cloud"', 1))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "note", canary("context"))
            run = new_run("What is it?", "note", strategy="rlm")
            await client.call("run/start", run)
            await cloud.until(lambda: cloud.serving == 2)
            seen = len(cloud.seen)
            await client.call("context/flags", {"name": "note", "private": True})
            ended = await client.ended_run(run["run_id"])
            assert ended["outcome"] == "answered", ended["why"]
            await cloud.until(lambda: cloud.aborted == 2)
            assert len(cloud.seen) == seen
            assert len(mine.prompts("sub")) >= 4
            assert not client.facts(run["run_id"], "subquery_failed")
