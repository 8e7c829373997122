"""Blobs: immutable files named by the SHA-256 of their bytes, and the lock that admits one daemon a folder.

Owns the folder ``blobs/`` alone: temp → rename; whoever publishes calls ``sync`` before telling the catalogue.
A file under a digest's name is whole, always; one that no catalogue row names is an orphan and swept at open.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, Protocol

from rlmd.disksync import sync_filesystem
from rlmd.errors import DiskFull, InternalError, NotFound, RlmdError, Unavailable

_TEMPORARY = "tmp"
#: What SQLite's log takes to forget a context of some hundred documents.
RESERVE_BYTES = 512 << 10


def translated(error: OSError, what: str) -> RlmdError:
    """An ``OSError`` of our own folders as an error that a user can act on."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"No space left while {what}.", hint="Free some space, or drop contexts, and try again.")
    reason = errno.errorcode.get(error.errno or 0, "unknown error")
    return InternalError(
        f"{what[:1].upper()}{what[1:]} failed: {reason}.", hint="Look at the state folder's owner and mode."
    )


def make_private_folder(folder: Path) -> None:
    """Makes a folder, mode 0700, and refuses one that belongs to another user."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Unavailable(f"{folder} belongs to another user.", hint="Remove it, or set the XDG folders to your own.")


class FolderLock:
    """An flock on ``folder/lock``, held until ``release`` or the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise Unavailable(
                f"Another rlmd (process {holder or 'unknown'}) uses {folder}.",
                hint="Stop it, or give this one its own XDG_STATE_HOME.",
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


class Temporary(NamedTuple):
    """A file that is being written: a blob when it is published. Without a path it has no name."""

    fd: int
    path: Path | None


class Blobs(Protocol):
    """What blobs are kept in: ``BlobFolder``, or memory."""

    @property
    def room(self) -> int | None:
        """Bytes that may be added; None: nobody has set a bound."""
        ...

    def open(self, digest: str) -> int: ...
    def create_temporary(self) -> Temporary: ...
    def publish(self, temporary: Temporary, digest: str, size: int) -> None: ...
    def sync(self) -> None: ...
    def remove(self, digests: Collection[str]) -> None: ...
    def reserve(self) -> None: ...
    def give_reserve(self) -> None: ...


class BlobFolder:
    room: int | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._temporary = folder / _TEMPORARY
        make_private_folder(self._temporary)

    def path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest

    def open(self, digest: str) -> int:
        """A new read-only descriptor; the caller closes it.

        Raises:
            NotFound: The blob is not there (dropped, or the folder was tampered with).
        """
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise NotFound("The context's text is no longer stored.", hint="Load the context again.") from error
        except OSError as error:
            raise translated(error, "opening stored text") from error

    def create_temporary(self) -> Temporary:
        path = self._temporary / secrets.token_hex(16)
        return Temporary(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path)

    def publish(self, temporary: Temporary, digest: str, size: int) -> None:
        """Gives a finished temporary file its final name; not durable before ``sync``.

        A file of that name and size is kept: it holds the same bytes. One of another size was damaged from outside,
        and the good bytes take its place.
        """
        assert temporary.path is not None
        target = self.path(digest)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            known = target.lstat()
        except FileNotFoundError:
            known = None
        if known is not None and stat.S_ISREG(known.st_mode) and known.st_size == size:
            temporary.path.unlink()
            return
        temporary.path.chmod(0o400)
        temporary.path.rename(target)

    def sync(self) -> None:
        """Brings everything published so far to the disk: one call for a load of any number of files."""
        sync_filesystem(self.folder)

    def remove(self, digests: Collection[str]) -> None:
        for digest in digests:
            self.path(digest).unlink(missing_ok=True)

    def reserve(self) -> None:
        """Keeps some room for the moment at which the disk is full; none if there is none."""
        file = self.folder.with_name("reserve")
        with contextlib.suppress(OSError), file.open("ab") as reserved:
            reserved.write(bytes(max(0, RESERVE_BYTES - reserved.tell())))

    def give_reserve(self) -> None:
        self.folder.with_name("reserve").unlink(missing_ok=True)

    def sweep(self, wanted: Collection[str]) -> int:
        """Removes temporary files and blobs that nobody names; only while no load is under way. Returns how many."""
        removed = 0
        for leftover in self._temporary.iterdir():
            leftover.unlink(missing_ok=True)
            removed += 1
        for shard in self.folder.iterdir():
            if shard.name == _TEMPORARY or not shard.is_dir():
                continue
            for blob in shard.iterdir():
                if blob.name not in wanted:
                    blob.unlink(missing_ok=True)
                    removed += 1
        return removed

    def holds(self, digest: str, size: int) -> bool:
        try:
            return self.path(digest).lstat().st_size == size
        except OSError:
            return False
