"""A real user manager of systemd for an ordinary user, with our units installed: how it is started, asked and ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness import ROOT

UNITS = ROOT / "systemd"
#: An id that no ordinary machine gives to anybody.
UID = 47_113
#: Bounds a hang; what is waited for takes a second or three.
PATIENCE = 60.0
CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE, "check": False}


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
            [*privileged(), str(ROOT / "tests/integration/user_manager.sh"), str(work), str(UID), *exposed()],
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
            f"ExecReload=\nExecReload={sys.executable} -m rlmd.ctl.main daemon reload\n"
        )
        subprocess.run(["chown", "-R", f"{UID}:{UID}", self.home], check=True)

    def drop_in(self, name: str, *lines: str) -> Path:
        """Adds lines to the service's section, from its next start on; the file, to be removed."""
        file = self.home / f".config/systemd/user/rlmd.service.d/z-{name}.conf"  # after program.conf
        file.write_text("\n".join(["[Service]", *lines, ""]))
        self.systemctl("daemon-reload")
        return file

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
        return "\n".join([states.stdout, (self.work / "manager.log").read_text(), self.journal()])

    def journal(self, *arguments: str) -> str:
        """What journalctl shows, of the manager and of what it started."""
        enter = [*privileged(), "nsenter", "-t", str(self._process.pid), "-m"]
        shown = ["journalctl", "-D", "/run/log/journal", "--no-pager", f"_UID={UID}", *arguments]
        return subprocess.run([*enter, *shown], **CAPTURED).stdout

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


def wait_for(condition: Callable[[], bool], story: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, story()
        time.sleep(0.05)
