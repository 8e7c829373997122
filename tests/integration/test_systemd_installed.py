"""What ``rlmctl install`` puts there, started by a real user manager: the launcher, below the unit's hardening."""

from __future__ import annotations

import sys

from tests.harness import ROOT
from tests.user_manager import UserManager


def test_the_installed_unit_starts_reloads_and_answers_through_the_launcher(manager: UserManager) -> None:
    units = manager.home / ".config/systemd/user"
    manager.systemctl("disable", "--now", "rlmd.socket", "rlmd.service", check=False)
    manager.run("rm", "-r", *(str(units / f"rlmd.{end}") for end in ("service", "socket", "service.d")))
    bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path={manager.runtime}/bus"
    (units / "rlmd.service.d").mkdir()
    manager.drop_in("checkout", f"Environment=PYTHONPATH={ROOT}")
    program = ["env", f"PYTHONPATH={ROOT}", bus, sys.executable, "-P", "-m", "rlmd.ctl.main"]
    manager.run(*program, "install", "--yes")

    status = manager.ask("daemon/status")["result"]
    pid = manager.show("rlmd.service", "MainPID")
    assert str(status["pid"]) == pid
    assert f"{manager.home}/.local/share/rlmd/launcher.py" in manager.run("cat", f"/proc/{pid}/cmdline").split("\0")

    manager.systemctl("reload", "rlmd.service")
    assert manager.show("rlmd.service", "MainPID") == pid
    rlmctl = ["env", f"PYTHONPATH={ROOT}", bus, str(manager.home / ".local/bin/rlmctl")]
    answer = manager.run(
        *rlmctl, "ask", "--stdin", "Where is the key?", stdin="The key lies below the third flower pot."
    )
    assert "third flower pot" in answer
    checks = manager.ask("daemon/doctor")["result"]["checks"]
    assert [check for check in checks if check["name"].startswith("cage") and not check["ok"]] == []
    manager.systemctl("stop", "rlmd.socket", "rlmd.service")
    assert manager.show("rlmd.service", "Result") == "success", manager.log()
