"""One daemon a socket and a state folder; folders that are ours alone; socket files of the dead taken over."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from rlmd.claim import AlreadyRunning, Claim
from rlmd.config import Paths
from rlmd.errors import ConfigInvalid, DiskFull


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_a_claim_makes_closed_folders_and_a_socket_and_leaves_no_socket(paths: Paths) -> None:
    claim = Claim.of(paths)
    listener = claim.bind()
    assert connects(paths.socket)
    assert paths.socket.stat().st_mode & 0o777 == 0o600
    for folder in (paths.state, paths.cache, paths.runtime, paths.spool):
        assert folder.stat().st_mode & 0o777 == 0o700
    claim.withdraw()
    listener.close()
    claim.release()
    assert not paths.socket.exists()


def test_open_folders_are_closed(paths: Paths) -> None:
    paths.state.mkdir(parents=True, mode=0o755)
    Claim.of(paths).release()
    assert paths.state.stat().st_mode & 0o777 == 0o700


def test_the_second_is_refused_by_name_and_the_third_after_the_first_is_not(paths: Paths) -> None:
    first = Claim.of(paths)
    with pytest.raises(AlreadyRunning) as caught:
        Claim.of(paths)
    assert str(os.getpid()) in caught.value.message
    first.release()
    Claim.of(paths).release()


def test_a_file_system_without_locks_is_told_as_such(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS without its lock daemon: nobody else has it."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(ConfigInvalid, match="cannot be locked: No locks available") as caught:
        Claim.of(paths)
    assert "local disk" in caught.value.hint


def test_a_full_disk_is_told_as_such(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.pwrite", refuse)
    with pytest.raises(DiskFull, match="No space left"):
        Claim.of(paths)
    monkeypatch.undo()
    Claim.of(paths).release()


def test_two_states_do_not_share_a_socket(paths: Paths, tmp_path: Path) -> None:
    other = Paths.from_environment({"HOME": str(tmp_path / "other"), "XDG_RUNTIME_DIR": str(tmp_path)})
    first, second = Claim.of(paths), Claim.of(other)
    with first.bind():
        with pytest.raises(AlreadyRunning) as caught:
            second.bind()
        assert str(paths.socket) in caught.value.message
        assert connects(paths.socket)
    first.release()


def test_a_socket_that_somebody_else_listens_at_is_left(paths: Paths) -> None:
    claim = Claim.of(paths)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(paths.socket))
        stranger.listen()
        with pytest.raises(AlreadyRunning):
            claim.bind()
        assert connects(paths.socket)
    claim.release()


def test_a_stale_socket_is_taken_over(paths: Paths) -> None:
    claim = Claim.of(paths)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(paths.socket))
    with claim.bind():
        assert connects(paths.socket)
    claim.release()


def test_another_daemons_socket_is_not_removed_at_the_end(paths: Paths) -> None:
    claim = Claim.of(paths)
    with claim.bind():
        paths.socket.unlink()
        paths.socket.write_text("not ours")
        claim.withdraw()
    claim.release()
    assert paths.socket.read_text() == "not ours"


def test_a_runtime_folder_that_is_a_link_is_refused_and_a_state_folder_is_not(paths: Paths, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    paths.state.parent.mkdir(parents=True)
    paths.state.symlink_to(elsewhere)
    Claim.of(paths).release()
    bait = tmp_path / "bait"
    bait.mkdir(mode=0o755)
    paths.spool.rmdir()
    (paths.runtime / "rlmd.sock.lock").unlink(missing_ok=True)
    paths.runtime.rmdir()
    paths.runtime.symlink_to(bait)
    with pytest.raises(ConfigInvalid):
        Claim.of(paths)
    assert bait.stat().st_mode & 0o777 == 0o755


def test_a_folder_of_somebody_else_is_refused(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    Claim.of(paths).release()
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.raises(ConfigInvalid) as caught:
        Claim.of(paths)
    assert "belongs to user" in caught.value.message
