"""A daemon of systemd's over its life: reloads, stops, crashes and hangs, with a run at work; keys that systemd hands
over, and the log that it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import DIES_WITH_US, ROOT, Host, config_of
from tests.user_manager import PATIENCE, UID, UserManager, wait_for


@pytest.fixture
def slow_model(manager: UserManager, tmp_path: Path) -> Iterator[str]:
    """A host whose first reply does not come, and whose second does; its address. The daemon is started with it."""
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"scripts": {"root": [{"text": "never", "latency": 3600}, "In the cellar."]}}))
    fake = subprocess.Popen(
        [*DIES_WITH_US, sys.executable, "-m", "tests.fakes.ollama", "--model", "root:32768", "--script", script],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert fake.stdout is not None
    url = fake.stdout.readline().split()[-1]
    config = manager.home / ".config/rlmd/config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(config_of([Host("m40", url, models={"root": 32_768})], root=("m40/root",), sub=("m40/root",)))
    manager.systemctl("stop", "rlmd.service")
    subprocess.run(["chown", "-R", f"{UID}:{UID}", config.parent], check=True)
    yield url
    fake.kill()
    fake.wait()
    fake.stdout.close()
    config.unlink()
    manager.systemctl("stop", "rlmd.service")


def requests_at(url: str) -> int:
    with urllib.request.urlopen(f"{url}/fake/seen", timeout=PATIENCE) as seen:
        return int(json.load(seen)["requests"])


@pytest.fixture
def hangs_on_usr2(manager: UserManager) -> Iterator[None]:
    """The daemon has a signal handler that blocks its loop for an hour, as a fault of ours could."""
    folder = manager.work / "hangs"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGUSR2, lambda *_: time.sleep(3600))\n"
    )
    drop_in = manager.drop_in("hangs", f"Environment=PYTHONPATH={ROOT}:{folder}", "WatchdogSec=5", "TimeoutAbortSec=1")
    yield
    drop_in.unlink()
    manager.systemctl("daemon-reload")


def start_run(manager: UserManager, host: str, question: str) -> str:
    """A run that waits for the host's first reply, which does not come; its id."""
    manager.ask("context/load", name="boiler", source={"kind": "inline", "text": "The boiler stands in the cellar."})
    run_id = str(uuid.uuid4())
    run = {"run_id": run_id, "question": question, "contexts": ["boiler"], "strategy": "direct", "attach": False}
    assert manager.ask("run/start", **run)["result"]["state"] == "running"
    wait_for(lambda: requests_at(host) == 1, manager.log)
    return run_id


def answer_of(manager: UserManager, run_id: str) -> str:
    """Waits for the run's end."""
    wait_for(lambda: manager.ask("run/show", run_id=run_id)["result"]["run"]["outcome"] is not None, manager.log)
    shown = manager.ask("run/show", run_id=run_id)["result"]
    assert shown["run"]["outcome"] == "answered", shown
    return str(shown["answer"])


@pytest.mark.parametrize("how", ["stop", "crash", "hang"])
def test_a_run_goes_on_after(manager: UserManager, slow_model: str, hangs_on_usr2: None, how: str) -> None:
    """A stop drains, and the next connection resumes; after a crash systemd starts the daemon, which resumes; one whose
    event loop stands still, though its process lives, is ended by the watchdog first."""
    run_id = start_run(manager, slow_model, f"where, after a {how}?")  # what the others were told is in the cache
    before = manager.show("rlmd.service", "MainPID")
    match how:
        case "stop":
            manager.systemctl("stop", "rlmd.service")
            assert manager.show("rlmd.service", "Result") == "success"
        case "crash":
            manager.run("kill", "-KILL", before)
            wait_for(lambda: manager.show("rlmd.service", "MainPID") not in (before, "0"), manager.log)
        case "hang":
            manager.run("kill", "-USR2", before)
            wait_for(lambda: manager.show("rlmd.service", "MainPID") not in (before, "0"), manager.log)
            assert "Watchdog timeout" in manager.log()
    assert answer_of(manager, run_id) == "In the cellar."
    assert requests_at(slow_model) == 2


def test_a_reload_keeps_the_run_and_takes_the_settings(manager: UserManager, slow_model: str) -> None:
    """``systemctl reload`` returns when the settings are in use, and fails with the reason when they are wrong."""
    run_id = start_run(manager, slow_model, "where, over a reload?")
    before = manager.show("rlmd.service", "MainPID")
    config = manager.home / ".config/rlmd/config.toml"
    good = config.read_text()
    config.write_text(good + "[retention]\nrevisions = 3\n")
    manager.systemctl("reload", "rlmd.service")
    assert manager.ask("daemon/status")["result"]["revisions_kept"] == 3
    config.write_text(good + "[retention]\nrevision = 4\n")
    manager.systemctl("reload", "rlmd.service", check=False)
    assert "retention.revision is not known" in manager.log()
    assert manager.show("rlmd.service", "ReloadResult") == "exit-code"
    config.write_text(good)
    assert manager.ask("daemon/status")["result"]["revisions_kept"] == 3
    assert manager.show("rlmd.service", "MainPID") == before
    assert manager.show("rlmd.service", "ActiveState") == "active"
    assert manager.ask("run/show", run_id=run_id)["result"]["run"]["state"] == "running"
    assert requests_at(slow_model) == 1
    manager.ask("run/cancel", run_id=run_id)


def test_a_key_that_systemd_hands_over(manager: UserManager) -> None:
    """``LoadCredential``: the config holds the credential's name alone, and no log or check the key."""
    fake = subprocess.Popen(
        [*DIES_WITH_US, sys.executable, "-m", "tests.fakes.openai", "--model", "chat", "--api-key", "sk-canary-7"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert fake.stdout is not None
    url = fake.stdout.readline().split()[-1]
    key = manager.home / ".config/rlmd/keys/deepseek"
    key.parent.mkdir(parents=True)
    key.write_text("sk-canary-7\n")
    config = manager.home / ".config/rlmd/config.toml"
    config.write_text(f'[hosts.deepseek]\nurl = "{url}"\nprovider = "openai"\napi_key_file = "deepseek"\n')
    drop_in = manager.drop_in("key", "LoadCredential=deepseek:%h/.config/rlmd/keys/deepseek")
    try:
        manager.systemctl("restart", "rlmd.service")
        manager.ask("context/load", name="lamp", source={"kind": "inline", "text": "The lamp hangs in the hall."})
        run = {"run_id": str(uuid.uuid4()), "question": "Where?", "contexts": ["lamp"], "strategy": "direct"}
        assert "result" in manager.ask("run/start", **run, attach=False)
        answer = answer_of(manager, run["run_id"])
        assert answer.startswith("digest"), answer
        assert "sk-canary" not in manager.log()
        assert "sk-canary" not in json.dumps(manager.ask("daemon/doctor"))
    finally:
        drop_in.unlink()
        config.unlink()
        manager.systemctl("daemon-reload")
        manager.systemctl("stop", "rlmd.service")
        fake.kill()
        fake.wait()
        fake.stdout.close()


def test_the_log_has_fields(manager: UserManager, slow_model: str) -> None:
    """A reader of the journal picks entries by run and host, and sees where they come from; no text of anybody's."""
    run_id = start_run(manager, slow_model, "where is the canary-question?")
    manager.ask("run/cancel", run_id=run_id)
    wait_for(lambda: bool(manager.journal(f"RUN_ID={run_id}", "-q")), manager.log)
    (ended,) = [
        json.loads(line) for line in manager.journal(f"RUN_ID={run_id}", "EVENT=run ended", "-o", "json").splitlines()
    ]
    assert ended["OUTCOME"] == "cancelled"
    assert ended["PRIORITY"] == "6"
    assert ended["SYSLOG_IDENTIFIER"] == "rlmd"
    assert ended["_TRANSPORT"] == "journal"
    assert ended["CODE_FILE"].endswith(".py")
    assert ended["CODE_LINE"].isdigit()
    assert ended["MESSAGE"].startswith(f"run ended run_id={run_id}")
    assert "host_asked" in manager.journal("HOST=m40")
    assert "canary" not in manager.journal("-o", "verbose")
    assert "The boiler" not in manager.journal("-o", "verbose")


def test_a_command_at_the_end_leaves_the_sandbox_by_systemd_run(manager: UserManager, slow_model: str) -> None:
    """A unit of the user's own, which the unit's protections do not bind."""
    told = manager.home / "told"
    config = manager.home / ".config/rlmd/config.toml"
    leaves = ["systemd-run", "--user", "--quiet", "--collect", "--setenv=RLMD_RUN_ID", "--setenv=RLMD_OUTCOME"]
    command = [*leaves, "sh", "-c", f'echo "$RLMD_RUN_ID $RLMD_OUTCOME" >{told}']
    config.write_text(f"{config.read_text()}\n[finish]\nafter = 0\ncommand = {json.dumps(command)}\n")
    manager.ask("context/load", name="lamp", source={"kind": "inline", "text": "The lamp hangs in the hall."})
    run = {"run_id": str(uuid.uuid4()), "question": "the lamp", "contexts": ["lamp"], "strategy": "quote"}
    assert "result" in manager.ask("run/start", **run, attach=False)
    wait_for(lambda: manager.run("cat", str(told), check=False) == f"{run['run_id']} answered\n", manager.log)
