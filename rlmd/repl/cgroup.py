"""Control groups for workers, where systemd delegated one to the daemon (parent side).

The daemon moves itself into a group of its own below the one that it was given, and each worker into another beside
it, with limits on memory and tasks that the kernel holds for the worker and whatever it may start. Without delegation
(no systemd, no ``Delegate=``, control groups of version 1) there are none, and ``watch.py`` looks instead.

Source: the kernel's Documentation/admin-guide/cgroup-v2.rst; systemd's CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from rlmd.repl.tree import Usage, usage_of

_ROOT = Path("/sys/fs/cgroup")
#: Where version 2 is when version 1 holds some controllers.
_HYBRID = _ROOT / "unified"
_CONTROLLERS = ("memory", "pids", "cpu")
#: What a worker's group may hold beside its address space: the stacks and tables that the kernel keeps for it.
_KERNEL_BYTES = 64 << 20


class WorkerGroups:
    """The daemon's delegated group: a leaf for the daemon, a leaf for each worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = 0
        self._ended: list[WorkerGroup] = []

    @classmethod
    def delegated(cls, *, total_bytes: int | None = None) -> WorkerGroups | None:
        """Takes charge of the group that systemd delegated to this process, if it did.

        Args:
            total_bytes: Memory of all workers together, at most.
        """
        own = _own_group()
        if own is None or not _is_delegated(own):
            return None
        try:
            groups = cls(own / "workers")
            _enter(own / "daemon", [os.getpid()])
            _enable(own)
            groups._folder.mkdir(exist_ok=True)
            groups._clear()
            if total_bytes is not None:
                _set(groups._folder / "memory.max", total_bytes)
            _enable(groups._folder)
        except OSError:
            return None  # the group is not ours to divide after all
        return groups

    def enclose(self, pids: Iterable[int], *, memory_bytes: int, tasks: int) -> WorkerGroup | None:
        """Moves a worker's processes, which have run no cell yet, into a group of their own."""
        self._ended = [group for group in self._ended if not group.remove()]
        self._numbers += 1
        folder = self._folder / f"{os.getpid()}-{self._numbers}"
        try:
            _enter(folder, pids)
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            return None
        _set(folder / "memory.max", memory_bytes + _KERNEL_BYTES)
        _set(folder / "memory.oom.group", 1)
        _set(folder / "pids.max", tasks)
        return WorkerGroup(folder, self._ended)

    def _clear(self) -> None:
        """Ends and removes what an earlier daemon left."""
        for folder in self._folder.iterdir():
            if folder.is_dir():
                WorkerGroup(folder, self._ended).end()


class WorkerGroup:
    """The group of one worker.

    Args:
        unremoved: Where it puts itself when it ended and could not be removed yet.
    """

    def __init__(self, folder: Path, unremoved: list[WorkerGroup]) -> None:
        self.folder = folder
        self._unremoved = unremoved

    def usage(self) -> Usage | None:
        """What the group takes; memory by the kernel's own count where its controller is there."""
        try:
            pids = list(map(int, (self.folder / "cgroup.procs").read_text().split()))
            threads = (self.folder / "cgroup.threads").read_text().count("\n")
        except OSError:
            return None
        seen = usage_of(pids)
        memory = _number(self.folder / "memory.current")
        return Usage(len(pids), threads, memory if memory is not None else seen.memory_bytes if seen else 0)

    def end(self) -> None:
        """SIGKILL to everything inside (Linux 5.14), and away with it."""
        _set(self.folder / "cgroup.kill", 1)
        if not self.remove():
            self._unremoved.append(self)

    def remove(self) -> bool:
        """Whether it is gone; it cannot go while a process in it is ending."""
        try:
            self.folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def _own_group() -> Path | None:
    """The group of this process in the tree of version 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    root = _HYBRID if _HYBRID.is_dir() else _ROOT
    return root / path.lstrip("/") if path is not None else None


def _is_delegated(group: Path) -> bool:
    """By the mark that systemd sets on what it delegates, or by the word of our unit."""
    if os.environ.get("RLMD_DELEGATED") == "1":
        return True
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _enter(folder: Path, pids: Iterable[int]) -> None:
    folder.mkdir(exist_ok=True)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (folder / "cgroup.procs").write_text(str(pid))


def _enable(folder: Path) -> None:
    for controller in _CONTROLLERS:  # one by one: a write that names one that is missing does nothing
        _set(folder / "cgroup.subtree_control", f"+{controller}")


def _set(file: Path, value: int | str) -> None:
    """Writes a limit; a kernel or a delegation without it has none to set."""
    with contextlib.suppress(OSError):
        file.write_text(str(value))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
