"""How a daemon is started: systemd's word first, whatever it is; a process of our own only when it has none."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rlmd.client import start
from rlmd.client.start import start_daemon
from rlmd.config import Paths
from rlmd.errors import NotConnected
from tests.harness import Folders


class Manager:
    """A systemctl that tells what a test wants and writes down what it was asked."""

    def __init__(self, folders: Folders, load_state: str, start_status: int = 0) -> None:
        self.asked = folders.root / "asked"
        script = folders.root / "bin" / "systemctl"
        script.parent.mkdir()
        script.write_text(
            f'#!/bin/sh\necho "$@" >> {self.asked}\ncase "$2" in\n'
            f"  show) echo {load_state};;\n  start) echo no luck; exit {start_status};;\nesac\n"
        )
        script.chmod(stat.S_IRWXU)
        (folders.runtime / "systemd").mkdir()
        self.environment = folders.environment(PATH=f"{script.parent}:/usr/bin:/bin")

    def commands(self) -> list[str]:
        return self.asked.read_text().splitlines() if self.asked.exists() else []


@pytest.fixture
def detached(monkeypatch: pytest.MonkeyPatch) -> list[Paths]:
    """Daemons that would have been started as processes of their own."""
    made: list[Paths] = []

    async def note(paths: Paths, _environment: object) -> None:
        made.append(paths)

    monkeypatch.setattr(start, "start_detached", note)
    return made


async def test_the_socket_unit_is_started_where_there_is_one(folders: Folders, detached: list[Paths]) -> None:
    manager = Manager(folders, "loaded")
    await start_daemon(Paths.from_environment(manager.environment), manager.environment)
    assert manager.commands()[-1] == "--user start rlmd.socket"
    assert detached == []


async def test_without_the_unit_a_process_is_started(folders: Folders, detached: list[Paths]) -> None:
    manager = Manager(folders, "not-found")
    await start_daemon(Paths.from_environment(manager.environment), manager.environment)
    assert not any("start rlmd" in command for command in manager.commands())
    assert len(detached) == 1


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [("masked", 0, "masked"), ("loaded", 1, "systemd could not start rlmd.socket: no luck")],
)
async def test_a_unit_that_may_not_or_cannot_start_is_not_gone_around(
    folders: Folders, detached: list[Paths], state: str, status: int, said: str
) -> None:
    manager = Manager(folders, state, status)
    with pytest.raises(NotConnected, match=said) as caught:
        await start_daemon(Paths.from_environment(manager.environment), manager.environment)
    assert "systemctl --user" in caught.value.hint
    assert detached == []


async def test_another_socket_is_not_systemds_business(folders: Folders, detached: list[Paths], tmp_path: Path) -> None:
    manager = Manager(folders, "loaded")
    paths = Paths.from_environment(manager.environment, socket=tmp_path / "own.sock")
    await start_daemon(paths, manager.environment)
    assert manager.commands() == []
    assert detached == [paths]
