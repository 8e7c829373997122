"""The units under systemd itself: verified, and run by a real user manager for an ordinary user."""

from __future__ import annotations

import os
import re
import subprocess
import time
import uuid
from pathlib import Path

from tests.user_manager import CAPTURED, PATIENCE, UNITS, UserManager


def test_units_are_clean(tmp_path: Path) -> None:
    """Verified as a user's, with rlmd installed where the unit looks for it."""
    programs = tmp_path / "home/.local/share/rlmd/venv/bin"
    programs.mkdir(parents=True)
    for name in ("rlmd", "rlmctl"):
        (programs / name).symlink_to("/bin/true")
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


def test_the_exposure_of_the_service_is_bounded_and_what_is_left_has_a_reason(tmp_path: Path) -> None:
    """By systemd's own reckoning, of 100; it reckons with root and its capabilities unless told that there are none.
    Each protection that it misses is named in the unit, set to less or left out with a reason."""
    judged = tmp_path / "rlmd.service"
    unit = (UNITS / "rlmd.service").read_text()
    judged.write_text(unit.replace("[Service]\n", "[Service]\nUser=nobody\nCapabilityBoundingSet=\n"))
    analysed = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=45", judged], **CAPTURED)
    print(analysed.stdout.strip().splitlines()[-1])
    assert analysed.returncode == 0, analysed.stdout + analysed.stderr
    missed = [line.split()[1] for line in analysed.stdout.splitlines() if line.startswith("✗")]
    assert len(missed) > 20
    for name in missed:
        option, _, group = name.partition("/")[0].partition("=")
        assert re.search(rf"\b{option}\b", unit), option
        if group.startswith("~@"):
            assert group[1:] in unit, group


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


def test_stopped_and_asked_by_turns_it_is_started_each_time(manager: UserManager) -> None:
    """More often than systemd's usual limit, at which it would end the socket too."""
    seen = set()
    for _ in range(7):
        seen.add(manager.ask("daemon/status")["result"]["pid"])
        manager.systemctl("stop", "rlmd.service")
    assert len(seen) == 7
    assert manager.show("rlmd.socket", "ActiveState") == "active"


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
    (linger,) = [check for check in checks if check["name"] == "linger"]
    assert "loginctl enable-linger" in linger["hint"]  # this user does not linger


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
