"""What the daemon asks of the kernel for its own process, and for those that it starts, which inherit it."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

#: Clients, workers' channels, mapped texts; a shell often allows 1,024.
_DESCRIPTORS = 65_536


def keep_memory_out_of_core_dumps() -> None:
    """A fault of ours must not write the texts of others to a disk.

    The limit keeps the kernel from writing a file; the empty filter (core(5)) leaves nothing to write where a program
    such as systemd-coredump takes the dump, which the limit does not keep from it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # a kernel without it
        Path("/proc/self/coredump_filter").write_text("0")


def allow_many_descriptors() -> None:
    """As many as we may have, within reason: each ephemeral text is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def has_terminal() -> bool:
    """Whether a terminal controls this process, so that SIGHUP says that it was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def swapped_to() -> list[str]:
    """Disks to which the kernel may write this process's memory: proc(5), cgroup-v2 ``memory.swap.max``."""
    try:
        lines = Path("/proc/swaps").read_text().splitlines()[1:]
    except OSError:
        return []
    disks = [line.split()[0] for line in lines if not line.startswith("/dev/zram")]
    return [] if disks and _swap_forbidden() else disks


def _swap_forbidden() -> bool:
    try:
        group = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        folder = Path("/sys/fs/cgroup") / group.removeprefix("0::/")
        return (folder / "memory.swap.max").read_text().strip() == "0"
    except (OSError, StopIteration):
        return False
