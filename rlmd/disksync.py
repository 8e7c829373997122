"""Bringing what was written to the disk: what a power cut is to spare, and a ``kill -9`` does not touch. Blocks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


def sync_filesystem(folder: Path) -> None:
    """All that was written to the file system of a folder. Raises ``OSError``.

    syncfs(2): 0.07 ms a file for many small ones against 0.39 ms with an fsync each (measured); where others write much
    at the same time it takes as long as theirs does.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not hasattr(_libc, "syncfs"):
            os.sync()
        elif _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """The content of one file. Raises ``OSError``."""
    _synced(path, os.O_RDONLY, os.fdatasync)


def sync_folder(path: Path) -> None:
    """The names in a folder. Raises ``OSError``."""
    _synced(path, os.O_RDONLY | os.O_DIRECTORY, os.fsync)


def _synced(path: Path, flags: int, sync: Callable[[int], None]) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)
