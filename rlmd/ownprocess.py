"""What the daemon asks of the kernel for its own process, and for those that it starts, which inherit it."""

from __future__ import annotations

import contextlib
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
