"""What a worker's tree may take, and all workers together, where no control group holds them to it (parent side)."""

from __future__ import annotations

import os

from rlmd.repl.process import MOST_THREADS
from rlmd.repl.tree import Usage

#: Seconds between two looks at a worker whose cell runs; one look takes about 0.05 ms.
WATCH_SECONDS = 0.1


def excess(usage: Usage, *, processes: int, memory_bytes: int) -> str | None:
    """What the tree has too much of, in words, or None.

    Args:
        processes: Those that belong to a worker: itself, and bubblewrap where it is used.
        memory_bytes: For all of them together.
    """
    if usage.processes > processes:
        return f"processes: {usage.processes - processes} started by the cell"
    if usage.threads > MOST_THREADS + processes:
        return f"threads: {usage.threads}, at most {MOST_THREADS}"
    if usage.memory_bytes > memory_bytes:
        return f"memory: {usage.memory_bytes >> 20:,} MiB, at most {memory_bytes >> 20:,} MiB"
    return None


def most_for_all() -> int:
    """Memory of all workers together by default: three quarters of the machine's, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 * 3
