"""One daemon a socket and a state folder: folders of our own, locks, and a socket file taken over when stale.

A lock is an flock(2) on a file that holds the owner's process id; the kernel frees it however the owner ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from rlmd.config import Paths
from rlmd.errors import ConfigInvalid, DiskFull, RlmdError

#: sun_path has 108 bytes, the last one NUL.
MAX_SOCKET_PATH = 107


class AlreadyRunning(RlmdError):
    """Another daemon has this socket or this state folder."""

    code, kind = 1011, "already_running"


class Claim:
    """What this process holds: the state folder always, the socket when no service manager made it.

    Made by ``Claim.of``; ``release`` when everything that uses the folders is closed.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._locks: list[int] = []
        self._bound: tuple[int, int] | None = None

    @classmethod
    def of(cls, paths: Paths) -> Claim:
        """Makes the folders and takes the state folder. Raises ``AlreadyRunning``, ``ConfigInvalid``."""
        for folder in (paths.state, paths.cache):
            _own_folder(folder, may_link=True)
        for folder in (paths.runtime, paths.spool):
            _own_folder(folder, may_link=False)
        claim = cls(paths)
        claim._lock(paths.state / "lock", f"the state folder {paths.state}")
        return claim

    def bind(self) -> socket.socket:
        """The listening socket at our path, mode 0600. Raises ``AlreadyRunning``, ``ConfigInvalid``."""
        path = self._paths.socket
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise ConfigInvalid(
                f"The socket's path has {len(os.fsencode(path))} bytes; {MAX_SOCKET_PATH} are possible: {path}",
                hint="Set XDG_RUNTIME_DIR to a shorter path, or use --socket.",
            )
        self._lock(path.with_name(path.name + ".lock"), f"the socket {path}")
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind_private(listener, path)
            listener.listen(512)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            raise ConfigInvalid(f"Cannot listen at {path}: {error.strerror}.", hint="Check its folder.") from error
        status = path.stat()
        self._bound = (status.st_dev, status.st_ino)
        return listener

    def withdraw(self) -> None:
        """Removes the socket file if it is still ours; before the listener closes, while its inode is its own."""
        if self._bound is not None:
            with contextlib.suppress(FileNotFoundError):
                status = self._paths.socket.lstat()
                if (status.st_dev, status.st_ino) == self._bound:
                    self._paths.socket.unlink()
            self._bound = None

    def release(self) -> None:
        """Withdraws, and frees the locks."""
        self.withdraw()
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()

    def _lock(self, file: Path, what: str) -> None:
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigInvalid(f"Cannot open {file}: {error.strerror}.", hint="Check its folder.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            self.release()
            raise AlreadyRunning(
                f"Another rlmd (process {owner}) has {what}.",
                hint="Use that one (rlmctl status), or stop it: systemctl --user stop rlmd, or kill it.",
            ) from error
        except OSError as error:
            os.close(lock)
            self.release()
            raise ConfigInvalid(
                f"{file} cannot be locked: {error.strerror}.",
                hint="A network file system without locks? Point XDG_STATE_HOME and XDG_CACHE_HOME to a local disk.",
            ) from error
        self._locks.append(lock)
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            self.release()
            raise DiskFull(
                f"Nothing can be written to {file.parent}: {error.strerror}.",
                hint="Free some space, and start it again.",
            ) from error


def _own_folder(folder: Path, *, may_link: bool) -> None:
    """Makes a folder that only we can enter; one that others could enter is closed to them.

    A link to a larger disk is fine below the home, but below /tmp (no XDG_RUNTIME_DIR) anybody may have put it there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat() if may_link else folder.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigInvalid(f"{folder} is not a folder.", hint="Move it out of the way.")
        if status.st_uid != os.getuid():
            raise ConfigInvalid(
                f"{folder} belongs to user {status.st_uid}, not to you ({os.getuid()}).",
                hint="Remove it, or set XDG_RUNTIME_DIR, XDG_STATE_HOME or XDG_CACHE_HOME to a folder of your own.",
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigInvalid(f"Cannot make the folder {folder}: {error.strerror}.", hint="Check its parent.") from error


def _remove_stale(path: Path) -> None:
    """Removes a socket file that nobody listens at."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigInvalid(f"{path} exists and is not a socket.", hint="Move it out of the way.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(os.fspath(path))
    if answer in (0, errno.EAGAIN):
        raise AlreadyRunning(
            f"Something listens at {path} already.",
            hint="Use it (rlmctl status), or stop it: systemctl --user stop rlmd.",
        )
    path.unlink(missing_ok=True)


def _bind_private(listener: socket.socket, path: Path) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(before)
