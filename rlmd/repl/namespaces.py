"""A root folder and namespaces of the worker's own, where there is no bubblewrap (child side, standard library alone).

The same as ``process.py`` asks of bubblewrap, without its program and without a second process: users, mounts, network,
IPC and host name are the worker's own, and its root folder is an empty one that shows what it may read, read-only.
The processes of the machine stay visible to signals, which the filter holds. A kernel that lets an ordinary user make
no user namespace refuses; the worker then goes without.

Source: user_namespaces(7), mount_namespaces(7), pivot_root(2), mount_setattr(2).
"""

from __future__ import annotations

import _thread
import os
from _ctypes import get_errno
from array import array

from rlmd.repl import cage

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

_NEW_MOUNTS, _NEW_HOST_NAME, _NEW_IPC, _NEW_USERS, _NEW_NETWORK = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x40000000,
)  # fmt: skip
_MS_BIND, _MS_REC, _MS_SLAVE, _MS_NOSUID, _MS_NODEV = 4096, 16384, 1 << 19, 2, 4
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442  # Linux 5.12
#: Where the new root folder is put together; mounted there and nowhere else, it is moved from it.
_WORKSHOP, _OLD = "/tmp", "/.old"  # noqa: S108  no file is made in it
HOST_NAME = b"repl"


def enter(readable: Sequence[str], machine: str) -> None:
    """Moves this process, which has one thread, into namespaces of its own.

    Args:
        readable: Files and folders that are all there is from now on.
        machine: x86_64 or aarch64.

    Raises:
        CageError: It cannot be done. The process must not run cells.
    """
    if _thread._count():
        raise cage.CageError("the process has more than one thread")  # the others would stay where they are
    if machine not in _PIVOT_ROOT:
        raise cage.CageError(f"no numbers of system calls for {machine}")
    shown = [(path, os.path.realpath(path), os.path.isdir(path)) for path in readable if os.path.exists(path)]
    links = {path: os.readlink(path) for path in readable if os.path.islink(path) and os.path.dirname(path) == "/"}
    user, group = os.geteuid(), os.getegid()
    try:
        _do("unshare", _NEW_USERS | _NEW_MOUNTS | _NEW_HOST_NAME | _NEW_IPC | _NEW_NETWORK)
        # Until they are mapped, ids mean nothing, and a group may only be mapped by one that cannot drop others.
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
        _do("sethostname", HOST_NAME, len(HOST_NAME))
        _empty_root(machine)
        for path, real, folder in shown:
            if path in links:
                _link(links[path], path)
            else:
                _show(path, real, folder=folder)
        _do("umount2", _OLD.encode(), _MNT_DETACH)
        os.rmdir(_OLD)
        _fix(b"/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    except OSError as error:
        raise cage.CageError(f"no namespaces of its own ({error})") from error


def _empty_root(machine: str) -> None:
    """A small folder in memory becomes the root; the whole of the old one hangs below it for a moment."""
    _do("mount", None, b"/", None, _MS_SLAVE | _MS_REC, None)  # nothing done here is seen outside
    _do("mount", b"tmpfs", _WORKSHOP.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"size=1M,mode=0755")
    os.chdir(_WORKSHOP)
    os.mkdir(f".{_OLD}")
    _do("syscall", _PIVOT_ROOT[machine], b".", f".{_OLD}".encode())
    os.chdir("/")


def _link(target: str, path: str) -> None:
    if not os.path.lexists(path):
        os.symlink(target, path)


def _show(path: str, real: str, *, folder: bool) -> None:
    """Shows what was at ``real`` at ``path``, with all that is mounted below it."""
    if folder:
        os.makedirs(path, exist_ok=True)
    elif not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    _do("mount", os.fsencode(_OLD + real), os.fsencode(path), None, _MS_BIND | _MS_REC, None)
    devices = 0 if path.startswith("/dev/") else _ATTR_NODEV
    _fix(os.fsencode(path), _ATTR_RDONLY | _ATTR_NOSUID | devices, _AT_RECURSIVE)


def _fix(path: bytes, attributes: int, flags: int = 0) -> None:
    """Takes rights from a mount for good: none of those who could give them back lives in this namespace."""
    wanted = array("Q", (attributes, 0, 0, 0)).tobytes()
    _do("syscall", _MOUNT_SETATTR, _AT_FDCWD, path, flags, wanted, len(wanted))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _do(name: str, *arguments: int | bytes | None) -> None:
    if cage.c_function(name)(*arguments) != 0:
        number = get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
