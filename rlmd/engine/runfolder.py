"""Where a run's journal and its long texts are: a folder on disk, or, for a run over ephemeral text, memory alone.

Bytes by name and place; what they mean is ``journal``'s. Written by one thread at a time, read by any.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rlmd.disksync import sync_file, sync_filesystem, sync_folder

JOURNAL = "journal.jsonl"


class Log(Protocol):
    """A journal that is appended to."""

    def append(self, line: bytes) -> None:
        """Wholly, or not at all. Raises ``OSError``."""
        ...

    def sync(self) -> None:
        """Brings it to the disk, if it has one."""
        ...

    def close(self) -> None:
        """May be called twice."""
        ...


class RunFolder(Protocol):
    """``name`` is the run's id."""

    @property
    def name(self) -> str: ...

    def child(self, run_id: str) -> RunFolder:
        """Where a child run's is."""
        ...

    def begun(self) -> bool:
        """Whether anything is in the journal."""
        ...

    def log(self) -> Log:
        """The journal, to be appended to; what is missing is made."""
        ...

    def size(self) -> int:
        """Bytes of the journal. Raises ``FileNotFoundError``."""
        ...

    def read(self, start: int, past: int) -> bytes:
        """A stretch of the journal. Raises ``FileNotFoundError``."""
        ...

    def lines(self, start: int = 0) -> Iterator[bytes]:
        """The journal's lines from a byte on, the last perhaps without its end. Raises ``FileNotFoundError``."""
        ...

    def cut(self, size: int) -> None:
        """Takes away what is behind the first ``size`` bytes of the journal."""
        ...

    def keep(self, digest: str, data: bytes) -> None:
        """Stores a long text. Raises ``OSError``."""
        ...

    def sync(self) -> None:
        """Brings the long texts that were stored, and all of its children, to the disk, if it has one."""
        ...

    def value(self, digest: str) -> bytes:
        """A long text. Raises ``FileNotFoundError``."""
        ...


#: Long texts that are brought to the disk one by one, which others' writing does not hold up; of more the whole file
#: system is, once.
_MOST_EACH = 16


class DiskFolder:
    """Args:
    path: The folder; its name is the run's id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: set[str] = set()

    @property
    def name(self) -> str:
        return self.path.name

    def child(self, run_id: str) -> DiskFolder:
        return DiskFolder(self.path / "children" / run_id)

    def begun(self) -> bool:
        return self._journal.exists() and self._journal.stat().st_size > 0

    def log(self) -> DiskLog:
        (self.path / "values").mkdir(mode=0o700, parents=True, exist_ok=True)
        return DiskLog(self._journal)

    def size(self) -> int:
        return self._journal.stat().st_size

    def read(self, start: int, past: int) -> bytes:
        with self._journal.open("rb") as file:
            file.seek(start)
            return file.read(max(0, past - start))

    def lines(self, start: int = 0) -> Iterator[bytes]:
        with self._journal.open("rb") as file:
            file.seek(start)
            yield from file

    def cut(self, size: int) -> None:
        os.truncate(self._journal, size)

    def keep(self, digest: str, data: bytes) -> None:
        path = self.path / "values" / digest
        self._kept.add(digest)  # also what is there, as far as anybody knows in memory alone
        if path.exists():
            return
        temporary = path.with_suffix(f".{threading.get_ident()}.new")  # two equal replies may come at once
        try:
            temporary.write_bytes(data)
            temporary.rename(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def sync(self) -> None:
        kept, self._kept = self._kept, set()
        if len(kept) > _MOST_EACH or (self.path / "children").exists():
            sync_filesystem(self.path)
            return
        for digest in kept:
            sync_file(self.path / "values" / digest)
        for folder in (self.path / "values", self.path, self.path.parent):
            sync_folder(folder)

    def value(self, digest: str) -> bytes:
        return (self.path / "values" / digest).read_bytes()

    @property
    def _journal(self) -> Path:
        return self.path / JOURNAL


class DiskLog:
    """An append goes to the page cache, which outlives ``kill -9``; ``sync`` brings it to the disk."""

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def append(self, line: bytes) -> None:
        try:
            if os.write(self._fd, line) != len(line):
                raise OSError(errno.ENOSPC, "short write")
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)

    def sync(self) -> None:
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def bytes_below(folder: Path) -> int:
    """Blocks that the files of a folder take; what goes meanwhile is not counted."""
    total = 0
    for where, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(where, file)).st_blocks * 512
            except OSError:
                continue
    return total


class MemoryFolder:
    """Gone with the process; nothing of it is ever written. It is its own log.

    Args:
        name: The run's id.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._journal = bytearray()
        self._values: dict[str, bytes] = {}
        self._children: dict[str, MemoryFolder] = {}

    @property
    def name(self) -> str:
        return self._name

    def child(self, run_id: str) -> MemoryFolder:
        return self._children.setdefault(run_id, MemoryFolder(run_id))

    def begun(self) -> bool:
        return bool(self._journal)

    def log(self) -> MemoryFolder:
        return self

    def size(self) -> int:
        return len(self._journal)

    def read(self, start: int, past: int) -> bytes:
        return bytes(self._journal[start:past])

    def lines(self, start: int = 0) -> Iterator[bytes]:
        while start < len(self._journal):
            past = self._journal.find(b"\n", start) + 1 or len(self._journal)
            yield bytes(self._journal[start:past])
            start = past

    def cut(self, size: int) -> None:
        del self._journal[size:]

    def append(self, line: bytes) -> None:
        self._journal += line

    def sync(self) -> None:
        return

    def close(self) -> None:
        return

    def keep(self, digest: str, data: bytes) -> None:
        self._values.setdefault(digest, data)

    def value(self, digest: str) -> bytes:
        try:
            return self._values[digest]
        except KeyError:
            raise FileNotFoundError(digest) from None
