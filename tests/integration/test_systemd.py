"""The units under systemd itself: verified, and run by a real user manager for an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import DIES_WITH_US, Host, config_of

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
#: An id that no ordinary machine gives to anybody.
UID = 47_113
#: Bounds a hang; what is waited for takes a second or three.
PATIENCE = 60.0
CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE, "check": False}


def test_units_are_clean(tmp_path: Path) -> None:
    """Verified as a user's, with rlmd installed where the unit looks for it."""
    program = tmp_path / "home/.local/share/rlmd/venv/bin/rlmd"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    (tmp_path / "run").mkdir(mode=0o700)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--user", UNITS / "rlmd.socket", UNITS / "rlmd.service"],
        env={"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_units_hold_no_path_of_one_machine() -> None:
    for unit in UNITS.iterdir():
        assert "/home/" not in unit.read_text()
        assert "/usr/local" not in unit.read_text()


def test_the_exposure_of_the_service_is_bounded(tmp_path: Path) -> None:
    """By systemd's own reckoning, of 100; it reckons with root and its capabilities unless told that there are none."""
    judged = tmp_path / "rlmd.service"
    unit = (UNITS / "rlmd.service").read_text()
    judged.write_text(unit.replace("[Service]\n", "[Service]\nUser=nobody\nCapabilityBoundingSet=\n"))
    analysed = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=45", judged], **CAPTURED)
    print(analysed.stdout.strip().splitlines()[-1])
    assert analysed.returncode == 0, analysed.stdout + analysed.stderr


class UserManager:
    """A user manager in namespaces of its own, with our units installed for its user."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.home, self.runtime = work / "home", work / "run"
        for folder in (work, self.home, self.runtime):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        self._install()
        self._log = open(work / "manager.log", "w+")  # noqa: SIM115  closed by end()
        self._process = subprocess.Popen(
            [*privileged(), str(Path(__file__).with_name("user_manager.sh")), str(work), str(UID), *exposed()],
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    @property
    def socket(self) -> Path:
        return self.runtime / "rlmd" / "rlmd.sock"

    def _install(self) -> None:
        units = self.home / ".config/systemd/user"
        units.mkdir(parents=True)
        for name in ("rlmd.socket", "rlmd.service"):
            shutil.copy(UNITS / name, units)
        drop_in = units / "rlmd.service.d/program.conf"
        drop_in.parent.mkdir()
        drop_in.write_text(
            f"[Service]\nExecStart=\nExecStart={sys.executable} -m rlmd\nEnvironment=PYTHONPATH={ROOT}\n"
        )
        subprocess.run(["chown", "-R", f"{UID}:{UID}", self.home], check=True)

    def command(self, *command: str) -> list[str]:
        """``command`` as the manager's user, inside the manager's namespaces."""
        environment = [f"HOME={self.home}", f"XDG_RUNTIME_DIR={self.runtime}", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"]
        enter = [*privileged(), "nsenter", "-t", str(self._process.pid), "-m", "-C"]
        become = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"]
        return [*enter, *become, "env", "-i", *environment, *command]

    def run(self, *command: str, check: bool = True, stdin: str = "") -> str:
        done = subprocess.run(self.command(*command), input=stdin, **CAPTURED)
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()}")
        return done.stdout

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        return self.run("systemctl", "--user", *arguments, check=check).strip()

    def show(self, unit: str, field: str) -> str:
        return self.systemctl("show", "--value", f"--property={field}", unit)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One request over the socket, as a shell user sends it."""
        request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        answer = self.run("nc", "-N", "-U", str(self.socket), stdin=request + "\n")
        assert answer, f"no answer to {method}\n{self.log()}"
        return dict(json.loads(answer))

    def log(self) -> str:
        """What a person would look at when something fails."""
        states = subprocess.run(
            self.command("systemctl", "--user", "status", "rlmd.socket", "rlmd.service"), **CAPTURED
        )
        logs = [file.read_text() for file in (self.work / "manager.log", self.home / "daemon.log") if file.exists()]
        return "\n".join([states.stdout, *logs])

    def wait_up(self) -> None:
        """Until the manager answers. Its private socket appears with it."""
        deadline = time.monotonic() + PATIENCE
        while self.systemctl("is-system-running", check=False) not in ("running", "degraded"):
            assert self._process.poll() is None, f"the manager ended: {self.log()}"
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        end_cgroup(next(p for p in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if p.is_dir()))
        self._process.wait(PATIENCE)
        self._log.close()


def end_cgroup(root: Path) -> None:
    """Kills what is left in the manager's cgroup and removes it."""
    group = root / f"rlmd-test-{UID}"
    (group / "cgroup.kill").write_text("1")
    for _ in range(200):
        with contextlib.suppress(OSError):
            for folder in sorted(group.rglob("*"), key=lambda p: -len(p.parts)):
                if folder.is_dir():
                    folder.rmdir()
            group.rmdir()
            return
        time.sleep(0.05)
    raise AssertionError(f"{group} does not go away")


def privileged() -> list[str]:
    """Namespaces and another user's process take root."""
    return [] if os.getuid() == 0 else ["sudo", "-n"]


def exposed() -> list[str]:
    """``HIDDEN:PATH`` of each folder that the daemon needs and an ordinary user cannot reach here."""
    found = []
    for path in {ROOT, Path(sys.prefix), Path(sys.base_prefix)}:
        for ancestor in reversed(path.resolve().parents):
            if not ancestor.stat().st_mode & stat.S_IXOTH:
                found.append(f"{ancestor}:{path.resolve()}")
                break
    return found


@pytest.fixture(scope="module")
def manager() -> Iterator[UserManager]:
    # /tmp and not pytest's folder: that one is closed to other users.
    with tempfile.TemporaryDirectory(prefix="rlmd-") as work:
        made = UserManager(Path(work))
        try:
            made.wait_up()
            made.systemctl("daemon-reload")
            made.systemctl("enable", "--now", "rlmd.socket")
            yield made
        finally:
            made.end()


def test_the_first_connect_starts_it(manager: UserManager) -> None:
    assert manager.show("rlmd.service", "ActiveState") == "inactive"
    status = manager.ask("daemon/status")["result"]
    assert status["socket"] == str(manager.socket)
    assert str(status["pid"]) == manager.show("rlmd.service", "MainPID")
    assert manager.show("rlmd.service", "ActiveState") == "active"
    assert manager.show("rlmd.service", "StatusText").startswith("rlmd ")
    assert manager.run("stat", "-c", "%a %F", str(manager.socket)).strip() == "600 socket"


def test_connect_after_stop_starts_it_again(manager: UserManager) -> None:
    before = manager.ask("daemon/status")["result"]["pid"]
    manager.systemctl("stop", "rlmd.service")
    assert manager.show("rlmd.service", "Result") == "success"
    after = manager.ask("daemon/status")["result"]["pid"]
    assert after != before


def test_connect_after_restart_and_what_was_loaded_is_there(manager: UserManager) -> None:
    manager.ask("context/load", name="kept", source={"kind": "inline", "text": "over the hills"})
    before = manager.ask("daemon/status")["result"]["pid"]
    manager.systemctl("restart", "rlmd.service")
    assert manager.ask("daemon/status")["result"]["pid"] != before
    assert manager.ask("context/peek", name="kept")["result"]["text"] == "over the hills"


def test_the_doctor_finds_nothing_amiss_under_the_hardening(manager: UserManager) -> None:
    """Folders are writable, and the cage stands, inside all that the unit forbids."""
    checks = manager.ask("daemon/doctor")["result"]["checks"]
    amiss = {check["name"]: check["message"] for check in checks if not check["ok"]}
    assert not amiss


def test_workers_make_their_own_namespaces_under_the_hardening(manager: UserManager) -> None:
    """Without bubblewrap; the doctor then misses bubblewrap alone."""
    config = manager.home / ".config/rlmd/config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text("[repl]\nbubblewrap = false\n")
    manager.systemctl("restart", "rlmd.service")
    try:
        checks = {check["name"]: check for check in manager.ask("daemon/doctor")["result"]["checks"]}
        assert {name for name, check in checks.items() if not check["ok"]} == {"cage: bubblewrap"}, checks
        assert "names of files: refused" in checks["cage: namespaces"]["message"]
    finally:
        config.unlink()
        manager.systemctl("restart", "rlmd.service")


def test_a_daemon_that_hangs_is_replaced(manager: UserManager) -> None:
    """The watchdog is fed from the loop, as often as the unit asks; a process that stands still goes hungry."""
    drop_in = manager.home / ".config/systemd/user/rlmd.service.d/impatient.conf"
    drop_in.write_text("[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    manager.systemctl("daemon-reload")
    manager.systemctl("restart", "rlmd.service")
    hanging = manager.show("rlmd.service", "MainPID")
    manager.run("kill", "-STOP", hanging)
    try:
        assert manager.ask("daemon/status")["result"]["pid"] != int(hanging)
    finally:
        drop_in.unlink()
        manager.systemctl("daemon-reload")
    assert manager.show("rlmd.service", "NRestarts") == "1"


def test_the_socket_outlives_the_service(manager: UserManager) -> None:
    manager.ask("daemon/status")
    manager.systemctl("stop", "rlmd.service")
    assert manager.run("stat", "-c", "%F", str(manager.socket)).strip() == "socket"


def test_each_worker_has_a_control_group_of_its_own(manager: UserManager) -> None:
    """Whatever a worker might start is in it; the daemon is in another, and nobody is in what was divided."""
    pid = manager.ask("daemon/status")["result"]["pid"]
    executed = manager.ask("repl/execute", code="import os", run_id=str(uuid.uuid4()), session="grouped")
    assert executed["result"]["ok"], executed
    service = manager.show("rlmd.service", "ControlGroup")

    def processes(group: str) -> list[str]:
        return manager.run("cat", f"/sys/fs/cgroup{service}/{group}/cgroup.procs").split()

    workers = manager.run("ls", f"/sys/fs/cgroup{service}/workers").split()
    groups = [name for name in workers if name.startswith(f"{pid}-")]
    assert str(pid) in processes("daemon")
    assert processes("") == []
    assert groups
    for group in groups:
        assert len(processes(f"workers/{group}")) in (1, 2)  # the worker, and bubblewrap around it
    checks = {check["name"]: check for check in manager.ask("daemon/doctor")["result"]["checks"]}
    assert "by its control group" in checks["cage: watch"]["message"]


def test_the_group_of_a_worker_goes_with_it(manager: UserManager) -> None:
    manager.ask("repl/execute", code="1", run_id=str(uuid.uuid4()), session="ending")
    service = manager.show("rlmd.service", "ControlGroup")

    def groups() -> set[str]:
        return {n for n in manager.run("ls", f"/sys/fs/cgroup{service}/workers").split() if "-" in n}

    before = groups()
    ended = manager.ask("repl/execute", code="import os; os._exit(0)", run_id=str(uuid.uuid4()), session="ending")
    assert "lost" in ended["error"]["message"]
    deadline = time.monotonic() + PATIENCE
    while not before - groups():
        assert time.monotonic() < deadline, groups()
        time.sleep(0.05)


# ── runs over stops and crashes ─────────────────────────────────────────────────────────────────────────────────


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


def wait_for(condition: Callable[[], bool], story: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, story()
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_a_run_goes_on_after(manager: UserManager, slow_model: str, how: str) -> None:
    """A stop drains, and the next connection resumes; after a crash systemd starts the daemon, which resumes."""
    manager.ask("context/load", name="boiler", source={"kind": "inline", "text": "The boiler stands in the cellar."})
    run_id = str(uuid.uuid4())
    question = f"where, after a {how}?"  # what the other one was told is in the cache
    run = {"run_id": run_id, "question": question, "contexts": ["boiler"], "strategy": "direct", "attach": False}
    assert manager.ask("run/start", **run)["result"]["state"] == "running"
    wait_for(lambda: requests_at(slow_model) == 1, manager.log)
    before = manager.show("rlmd.service", "MainPID")
    if how == "stop":
        manager.systemctl("stop", "rlmd.service")
        assert manager.show("rlmd.service", "Result") == "success"
    else:
        manager.run("kill", "-KILL", before)
        wait_for(lambda: manager.show("rlmd.service", "MainPID") not in (before, "0"), manager.log)
    wait_for(lambda: manager.ask("run/show", run_id=run_id)["result"]["run"]["outcome"] is not None, manager.log)
    shown = manager.ask("run/show", run_id=run_id)["result"]
    assert (shown["run"]["outcome"], shown["answer"]) == ("answered", "In the cellar.")
    assert requests_at(slow_model) == 2
