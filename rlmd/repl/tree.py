"""What a worker and all its descendants take of the machine, by the kernel's count (parent side).

Read from /proc, or from the control group that holds the worker (``cgroup.py``), never from the worker. Where neither
tells (``hidepid`` and no group) nothing is known, and the limits that the kernel itself holds are all there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

#: Processes, and threads of one, that are looked at; a tree beyond either is over its limit anyway.
_MOST_PROCESSES = _MOST_THREADS = 64
_PROC = Path("/proc")


class Usage(NamedTuple):
    """Of a tree of processes at one moment.

    Attributes:
        memory_bytes: What is resident or swapped out; pages that several share count for each.
    """

    processes: int
    threads: int
    memory_bytes: int


def usage_of(pids: Iterable[int]) -> Usage | None:
    """What these processes take together, None when not one of them can be seen."""
    seen = [found for pid in pids if (found := _status(pid)) is not None]
    return Usage(len(seen), sum(t for t, _ in seen), sum(m for _, m in seen)) if seen else None


def tree_of(pid: int) -> Iterator[int]:
    """The process and its descendants, as far as they can be seen."""
    waiting, seen = [pid], 0
    while waiting and seen < _MOST_PROCESSES:
        one = waiting.pop()
        seen += 1
        yield one
        waiting += _children(one)


def machine_threads() -> int | None:
    """Threads of the whole machine, all users'."""
    try:
        return int((_PROC / "loadavg").read_text().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in islice((_PROC / str(pid) / "task").iterdir(), _MOST_THREADS):
            found += map(int, (task / "children").read_text().split())
    except (OSError, ValueError):  # it ended meanwhile, or is hidden
        pass
    return found


def _status(pid: int) -> tuple[int, int] | None:
    """Threads and bytes of one process; None when it is gone or hidden."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    memory = sum(int(fields.get(name, "0 kB").split()[0]) for name in ("VmRSS", "VmSwap"))
    return int(fields.get("Threads", "1")), memory << 10
