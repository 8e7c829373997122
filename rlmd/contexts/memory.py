"""Texts that are never on a disk: blobs as files in memory that have no name anywhere and go with the process.

The one place that knows how that is done (memfd_create(2), sealed), and how to tell whether a folder is in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from rlmd.contexts.blobs import Temporary
from rlmd.errors import NotFound

#: What all of it together may take: a share of the machine's memory, so that a text too large is an error to its
#: client and not the end of the daemon.
_SHARE = 4
_IN_MEMORY = {"tmpfs", "ramfs"}
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def memory_file() -> int:
    """A new file in memory, empty; gone when its last descriptor is closed."""
    return os.memfd_create("rlmd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def reopened(fd: int) -> int:
    """A read-only descriptor of a file in memory, with a position of its own."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def path_of(fd: int) -> str:
    """Where another process of ours finds a file in memory, as long as it is held here (proc(5))."""
    return f"/proc/{os.getpid()}/fd/{fd}"


class MemoryBlobs:
    """Blobs in memory; the interface is that of ``BlobFolder``."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, int]] = {}
        self._limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _SHARE

    @property
    def room(self) -> int | None:
        """Bytes that may be added."""
        return max(0, self._limit - self.size)

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return sum(size for _, size in self._held.values())

    def open(self, digest: str) -> int:
        try:
            return reopened(self._held[digest][0])
        except KeyError as error:
            raise NotFound("The context's text is no longer there.", hint="Load the context again.") from error

    def where(self) -> dict[str, str]:
        """The path of each blob, for a helper process."""
        return {digest: path_of(fd) for digest, (fd, _) in self._held.items()}

    def create_temporary(self) -> Temporary:
        return Temporary(memory_file(), None)

    def publish(self, temporary: Temporary, digest: str, size: int) -> None:
        if digest in self._held:
            return
        fcntl.fcntl(temporary.fd, fcntl.F_ADD_SEALS, _SEALS)
        self._held[digest] = fcntl.fcntl(temporary.fd, fcntl.F_DUPFD_CLOEXEC, 3), size

    def sync(self) -> None:
        """There is no disk."""

    def remove(self, digests: Collection[str]) -> None:
        for digest in digests:
            if digest in self._held:
                os.close(self._held.pop(digest)[0])

    def reserve(self) -> None:
        """There is no disk."""

    def give_reserve(self) -> None:
        """There is no disk."""

    def close(self) -> None:
        self.remove(list(self._held))


class Snapshot:
    """Bytes that helper processes read, always whole: each writing makes another file in memory."""

    def __init__(self) -> None:
        self._fd = -1
        self.version = 0

    def write(self, data: bytes) -> None:
        fd = memory_file()
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        self.close()
        self._fd, self.version = fd, self.version + 1

    @contextlib.contextmanager
    def shown(self) -> Iterator[dict[str, object]]:
        """Where it stands; what was shown stays there, whatever is written meanwhile."""
        fd = os.dup(self._fd)
        try:
            yield {"version": self.version, "catalogue": path_of(fd)}
        finally:
            os.close(fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def in_memory(folder: Path) -> bool:
    """Whether what is written into a folder stays in memory: a tmpfs (which may be swapped, as all memory may)."""
    with contextlib.suppress(OSError, ValueError):
        device = folder.stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0] in _IN_MEMORY
    return False
