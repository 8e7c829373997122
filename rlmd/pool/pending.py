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
#: 512 KB: of 100,000 keys that were never seen 7 pass for seen, of 1,000,000 every seventh.
_BITS = 22


class Pending:
    """Files of records. Nothing raises but ``left``: who is told no waits for the database instead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: tuple[Path, int] | None = None
        self._numbers = 0

    def append(self, key: str, data: bytes) -> bool:
        """Writes one record; whether it is there now."""
        name = key.encode()
        record = _HEAD.pack(len(name), len(data)) + name + data
        try:
            self._file = self._file or self._begun()
            written = os.write(self._file[1], record)
            if written < len(record):  # the disk is full; those before it stay whole
                os.ftruncate(self._file[1], os.fstat(self._file[1]).st_size - written)
        except OSError:
            return False
        return written == len(record)

    def sealed(self) -> Path | None:
        """Ends the file: what is appended from now on goes into another. The file, to be dropped when what it holds is
        in the database; None when nothing was appended."""
        if self._file is None:
            return None
        (path, descriptor), self._file = self._file, None
        os.close(descriptor)
        return path

    def drop(self, path: Path | None) -> None:
        """Removes a sealed file."""
        if path is not None:
            path.unlink(missing_ok=True)

    def left(self) -> Iterator[tuple[Path, list[tuple[str, bytes]]]]:
        """The files that a killed daemon left, with their whole records."""
        for path in sorted(self._folder.glob(_PREFIX + "*")):
            whole = stat.S_ISREG(path.lstat().st_mode)  # a link or a pipe is not of our making
            yield path, list(_records(path.read_bytes())) if whole else []

    def _begun(self) -> tuple[Path, int]:
        self._numbers += 1
        path = self._folder / f"{_PREFIX}{os.getpid()}-{self._numbers}"
        return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


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
