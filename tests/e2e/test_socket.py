"""The daemon's life on its socket: two framings, stale files, one daemon a place, a clean stop, an idle size."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

from tests.conftest import StartDaemon
from tests.harness import Client, Daemon, Folders, rss_bytes

STATUS = {"jsonrpc": "2.0", "id": 1, "method": "daemon/status"}
#: What an idle daemon may hold; the aim that the design names.
IDLE_BYTES = 90 << 20


def netcat(path: Path, line: str) -> dict[str, object]:
    """What ``nc -U`` gives for one line, as a person would type it."""
    told = subprocess.run(
        ["nc", "-N", "-U", str(path)], input=line + "\n", capture_output=True, text=True, timeout=30, check=True
    )
    answer: dict[str, object] = json.loads(told.stdout)
    return answer


async def test_netcat_and_content_length_are_answered_by_the_same_socket(daemon: Daemon) -> None:
    answer = await asyncio.to_thread(netcat, daemon.folders.socket, json.dumps(STATUS))
    assert answer["id"] == 1
    assert answer["result"]["pid"] == daemon.pid  # type: ignore[index]
    async with daemon.connect(headers=True) as emacs, daemon.connect() as shell:
        from_emacs, from_shell = await asyncio.gather(emacs.call("daemon/status"), shell.call("daemon/status"))
    assert from_emacs["pid"] == from_shell["pid"] == daemon.pid
    assert from_emacs["socket"] == str(daemon.folders.socket)


async def test_socat_that_closes_its_side_first_still_gets_every_answer(daemon: Daemon) -> None:
    lines = "".join(json.dumps({**STATUS, "id": number}) + "\n" for number in range(50))
    told = await asyncio.to_thread(
        subprocess.run,
        ["socat", "-t", "30", "-", f"UNIX-CONNECT:{daemon.folders.socket}"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert sorted(json.loads(line)["id"] for line in told.stdout.splitlines()) == list(range(50))


async def test_socket_and_folders_are_for_their_owner_alone(daemon: Daemon) -> None:
    folders = daemon.folders
    for path in (folders.socket, folders.socket.parent, folders.spool, folders.state / "rlmd", folders.cache / "rlmd"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"
    loose = [p for p in (folders.state / "rlmd").rglob("*") if stat.S_IMODE(p.lstat().st_mode) & 0o077]
    assert not loose


async def test_a_stale_socket_file_is_taken_over(folders: Folders, start_daemon: StartDaemon) -> None:
    folders.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(folders.socket))
    assert folders.socket.is_socket()
    daemon = await start_daemon()
    async with daemon.connect() as client:
        assert (await client.call("daemon/status"))["pid"] == daemon.pid


async def test_a_second_daemon_is_refused_and_the_first_lives_on(daemon: Daemon) -> None:
    second = Daemon(daemon.folders)
    status = await asyncio.to_thread(second.process.wait, 30)
    assert status == 3
    assert str(daemon.pid) in second.stderr()
    async with daemon.connect() as client:
        assert (await client.call("daemon/status"))["pid"] == daemon.pid


async def test_another_socket_does_not_make_a_second_daemon_of_the_same_state(daemon: Daemon) -> None:
    """The state folder admits one daemon, by whatever socket a second one would be reached."""
    second = Daemon(daemon.folders, "--socket", str(daemon.folders.root / "other.sock"))
    status = await asyncio.to_thread(second.process.wait, 30)
    assert status == 3
    async with daemon.connect() as client:
        assert (await client.call("daemon/status"))["pid"] == daemon.pid


async def test_after_kill_nine_the_next_daemon_starts_in_its_place(folders: Folders, start_daemon: StartDaemon) -> None:
    first = await start_daemon()
    await first.kill()
    assert folders.socket.is_socket()
    second = await start_daemon()
    async with second.connect() as client:
        assert (await client.call("daemon/status"))["pid"] == second.pid


async def test_sigterm_stops_cleanly_with_clients_attached(start_daemon: StartDaemon) -> None:
    daemon = await start_daemon()
    async with daemon.connect() as idle, daemon.connect() as busy:
        await idle.call("initialize", {})
        await busy.call("daemon/status")
        assert await daemon.stop(signal.SIGTERM) == 0
    assert not daemon.folders.socket.exists()
    assert "Traceback" not in daemon.stderr()


async def test_a_signal_during_the_start_is_not_lost(folders: Folders) -> None:
    """Stopping within the first moments must end the process, whatever it was just doing."""
    for delay in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4):
        daemon = Daemon(folders)
        await asyncio.sleep(delay)
        await daemon.stop(signal.SIGTERM)


async def test_an_idle_daemon_is_small(client: Client, daemon: Daemon) -> None:
    await client.call("initialize", {})
    own = rss_bytes(daemon.pid)
    helpers = {one.command: rss_bytes(one.pid) for one in daemon.look() if one.alive()}
    print(f"idle: {own >> 20} MB, and {helpers} started by it")
    assert own < IDLE_BYTES


async def test_no_descriptor_stays_open_for_a_client_that_left(daemon: Daemon) -> None:
    def count() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    async with daemon.connect() as last:
        while not (await last.call("daemon/status"))["workers"]:  # the spare worker has descriptors of its own
            await asyncio.sleep(0.02)
        before = count()
        for _ in range(50):
            async with daemon.connect() as one:
                await one.call("daemon/status")
        for _ in range(200):  # the daemon learns of the last ends when its loop comes round
            await last.call("daemon/status")
            if count() <= before:
                break
        assert count() <= before
