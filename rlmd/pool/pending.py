"""Completions that are told and not yet in the database, in files only appended to; and which keys were seen.

A write to the page cache takes 20 µs and outlives ``kill -9``, as the database's own log does (WAL, synchronous
NORMAL); a transaction takes a thread's turn and 20 times as long, and one for many is as good as one for each. What a
killed daemon left in these files is put into the database when the next one opens the cache.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

#: Bytes that are written on the loop; more takes longer than the loop may be held.
INLINE_BYTES = 64 * 1024
#: Bytes of the key and of the value, which follow.
_HEAD = struct.Struct(">HI")
_PREFIX = "pending-"
#: Two are enough while the database works; what it could not take stays where it is for the next daemon.
_MOST_FILES = 16
#: 512 KB: of 100,000 keys that were never seen 7 pass for seen, of 1,000,000 every seventh.
_BITS = 22


class Pending:
    """Two files of records, by turns: while what is in one is stored in the database, the other takes what comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[Path, int] = {}
        self._free: list[Path] = []
        self._current: Path | None = None

    def append(self, key: str, data: bytes) -> bool:
        """Writes one record; whether it is there now. If not, the caller waits for the database instead."""
        name = key.encode()
        record = _HEAD.pack(len(name), len(data)) + name + data
        try:
            descriptor = self._descriptor()
            written = os.write(descriptor, record)
            if written < len(record):  # the disk is full; those before it stay whole
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
        except OSError:
            return False
        return written == len(record)

    def sealed(self) -> Path | None:
        """Ends the file: what is appended from now on goes into another. The file, to be emptied when what it holds is
        in the database; None when nothing was appended."""
        path, self._current = self._current, None
        return path

    def empty(self, path: Path | None) -> None:
        """Takes the records out of a sealed file of this or an earlier daemon."""
        if path in self._files:
            os.ftruncate(self._files[path], 0)
            self._free.append(path)
        elif path is not None:
            path.unlink(missing_ok=True)

    def left(self) -> Iterator[tuple[Path, list[tuple[str, bytes]]]]:
        """The files that a killed daemon left, with their whole records."""
        for path in sorted(self._folder.glob(_PREFIX + "*")):
            whole = stat.S_ISREG(path.lstat().st_mode)  # a link or a pipe is not of our making
            yield path, list(_records(path.read_bytes())) if whole else []

    def close(self) -> None:
        """Removes the files that are empty; the others are for the next daemon."""
        for path, descriptor in self._files.items():
            if not os.fstat(descriptor).st_size:
                path.unlink(missing_ok=True)
            os.close(descriptor)
        self._files.clear()

    def _descriptor(self) -> int:
        if self._current is None:
            self._current = self._free.pop() if self._free else self._begun()
        return self._files[self._current]

    def _begun(self) -> Path:
        if len(self._files) == _MOST_FILES:
            raise OSError("the database takes nothing")
        path = self._folder / f"{_PREFIX}{os.getpid()}-{len(self._files)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._files[path] = os.open(path, flags, 0o600)
        return path


def _records(data: bytes) -> Iterator[tuple[str, bytes]]:
    offset = 0
    while offset + _HEAD.size <= len(data):
        name, length = _HEAD.unpack_from(data, offset)
        start = offset + _HEAD.size + name
        offset = start + length
        if offset > len(data):
            return  # torn
        yield data[start - name : start].decode("utf-8", "replace"), data[start:offset]


class SeenKeys:
    """Which keys may be in the database (a Bloom filter): one that was never seen need not be looked for in a thread.

    Attributes:
        complete: Whether all keys of the database have been added; until then nothing is sure.
    """

    def __init__(self) -> None:
        self.complete = False
        self._bits = bytearray(1 << (_BITS - 3))

    def add(self, key: str) -> None:
        for place in _places(key):
            self._bits[place >> 3] |= 1 << (place & 7)

    def may_hold(self, key: str) -> bool:
        return not self.complete or all(self._bits[place >> 3] >> (place & 7) & 1 for place in _places(key))


def _places(key: str) -> list[int]:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return [place & (1 << _BITS) - 1 for place in struct.unpack("<4I", digest)]
