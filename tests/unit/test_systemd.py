"""The protocols of the service manager: what is told to it, what is taken from it, and silence without one."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rlmd.systemd import ServiceManager, inherited_listener


@pytest.fixture
def told(tmp_path: Path) -> socket.socket:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "notify"))
    receiver.settimeout(20)
    yield receiver
    receiver.close()


def test_what_is_told_arrives_and_the_variable_is_gone(told: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": told.getsockname(), "OTHER": "x"}
    ServiceManager(environment).tell(READY=1, STATUS="rlmd at home")
    assert told.recv(1000) == b"READY=1\nSTATUS=rlmd at home"
    assert environment == {"OTHER": "x"}


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0rlmd-test-{os.getpid()}")
        receiver.settimeout(20)
        ServiceManager({"NOTIFY_SOCKET": f"@rlmd-test-{os.getpid()}"}).tell(STOPPING=1)
        assert receiver.recv(1000) == b"STOPPING=1"


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    ServiceManager({}).tell(READY=1)
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).tell(READY=1)


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_or_off(variables: dict[str, str], seconds: float | None) -> None:
    environment = {"NOTIFY_SOCKET": "/x", **variables}
    assert ServiceManager(environment).watchdog == seconds
    assert environment == {}


async def test_it_pings_well_before_the_manager_gives_up(told: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ping that is late by as much again is in time still."""
    slept: list[float] = []

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr("rlmd.systemd.asyncio.sleep", noted)
    manager = ServiceManager({"NOTIFY_SOCKET": str(told.getsockname()), "WATCHDOG_USEC": "60000000"})
    with pytest.raises(asyncio.CancelledError):
        await manager.feed_watchdog()
    assert told.recv(100) == b"WATCHDOG=1"
    assert slept[0] <= 30


async def test_the_watchdog_is_fed_from_the_loop(told: socket.socket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": told.getsockname(), "WATCHDOG_USEC": "30000"})
    feeding = asyncio.create_task(manager.feed_watchdog())
    told.setblocking(False)
    for _ in range(3):
        assert await asyncio.get_running_loop().sock_recv(told, 100) == b"WATCHDOG=1"
    feeding.cancel()


# ── sockets handed over ─────────────────────────────────────────────────────────────────────────────────────

_CHILD = """
import os, socket, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from rlmd.systemd import inherited_listener
try:
    listener = inherited_listener()
except ValueError as error:
    sys.exit(f"refused: {error}")
if listener is None:
    sys.exit("none")
assert "LISTEN_FDS" not in os.environ
assert not os.get_inheritable(listener.fileno())
listener.setblocking(True)
connected, _ = listener.accept()
connected.sendall(b"hello")
"""


def child(given: socket.socket, count: str) -> subprocess.Popen[str]:
    """A process that has ``given`` as descriptor 3, as a manager starts it."""

    def place() -> None:
        os.dup2(given.fileno(), 3)

    return subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        env={**os.environ, "LISTEN_FDS": count, "LISTEN_FDNAMES": "rlmd"},
        preexec_fn=place,
        pass_fds=(3,),
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_socket_handed_over_is_used(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        process = child(listener, "1")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            assert client.recv(100) == b"hello"
        assert process.wait(30) == 0
        process.communicate()


@pytest.mark.parametrize(
    ("family", "kind", "count", "why"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM, "1", "not a listening Unix stream socket"),  # not listening
        (socket.AF_UNIX, socket.SOCK_DGRAM, "1", "not a listening Unix stream socket"),
        (socket.AF_INET, socket.SOCK_STREAM, "1", "not a listening Unix stream socket"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "2", "2 sockets were handed over"),
        (socket.AF_UNIX, socket.SOCK_STREAM, "0", "none"),
    ],
)
def test_another_kind_of_socket_is_refused(family: int, kind: int, count: str, why: str) -> None:
    with socket.socket(family, kind) as given:
        if family == socket.AF_INET:
            given.bind(("127.0.0.1", 0))
            given.listen()
        _, said = child(given, count).communicate(timeout=30)
    assert why in said


def test_variables_meant_for_another_process_are_ignored_and_removed() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    assert inherited_listener(environment) is None
    assert environment == {}
