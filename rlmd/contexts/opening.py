"""Opening what a source names: files as the client sees them, spool files; and what is said when that fails."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from rlmd.contexts.memory import in_memory, path_of
from rlmd.contexts.records import FileIdentity, SpoolSource, UploadSource
from rlmd.contexts.scanning import printable
from rlmd.errors import InvalidParams, NotAllowed, NotVisible, RlmdError, SourceMissing, SourceUnreadable

#: Of a path in an error's sentence; a path may have 4,096 bytes.
SHOWN_CHARS = 300


def identity_of(status: os.stat_result) -> FileIdentity:
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def name_of(origin: str | None) -> str:
    """The document's name for a text that came without a file."""
    return os.path.basename((origin or "").rstrip("/")) or "text"


Opener = Callable[[str, int], int]

#: A part of a path that is on the way to another: to pass it one need not be able to read it.
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def opener(*, confined: bool) -> Opener:
    """How paths are opened: ``os.open``, or without following a link anywhere in the path."""
    return _open_straight if confined else os.open


def _open_straight(path: str, flags: int) -> int:
    """Each part is opened in the one before it, so that no exchange of a folder for a link, at whatever moment, leads
    elsewhere. Raises ``NotAllowed`` where a link is met."""
    parts = [part for part in os.path.abspath(path).split("/") if part]
    folder = os.open("/", _WAY)
    try:
        for part in parts[:-1]:
            below = os.open(part, _WAY, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(parts[-1] if parts else ".", flags | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotAllowed(
                f"{_shown(path)} leads through a symbolic link, which this client's paths may not.",
                hint="Name the file or folder itself.",
            ) from error
        raise
    finally:
        os.close(folder)


def open_named(path: str, identity: FileIdentity | None, opened: Opener = os.open) -> int:
    """Opens a file that the caller named; links are followed unless ``opened`` refuses them, fifos and devices refused.

    Raises:
        NotVisible: The client told the file's identity, and here is another or none.
        NotAllowed: There is a link, and ``opened`` follows none.
        SourceMissing, SourceUnreadable: No identity was told.
    """
    shown = _shown(path)
    try:
        fd = opened(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if identity is not None:
            raise _not_visible(shown) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise SourceMissing(f"{shown} does not exist.", hint="Check the path.") from error
        raise _unreadable(shown, error) from error
    status = os.fstat(fd)
    problem: RlmdError | None = None
    if identity is not None and identity_of(status) != identity:
        problem = _not_visible(shown)
    elif not stat.S_ISREG(status.st_mode):
        problem = SourceUnreadable(f"{shown} is not a regular file.", hint="Pipe its output in instead.")
    if problem is not None:
        os.close(fd)
        raise problem
    return fd


def check_folder(path: str, identity: FileIdentity, opened: Opener) -> None:
    """Raises ``NotVisible`` when the folder is another than the client told of: device and inode count, for what is in
    it may change."""
    try:
        fd = opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _not_visible(_shown(path)) from error
    here = identity_of(os.fstat(fd))
    os.close(fd)
    if (here.device, here.inode) != (identity.device, identity.inode):
        raise _not_visible(_shown(path))


def open_spool(folder: Path, file: str) -> int:
    """Opens a spool file: ours, regular, no link, no folder in its name."""
    if not file or file in (".", "..") or "/" in file or "\0" in file:
        raise InvalidParams("A spool file is named by its bare file name.", hint="Write it into the spool folder.")
    try:
        fd = os.open(folder / file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    except FileNotFoundError as error:
        raise SourceMissing("The spool file does not exist.", hint="Write it into the spool folder first.") from error
    except OSError as error:
        raise _unreadable("The spool file", error) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
        os.close(fd)
        raise SourceUnreadable("The spool file is not a regular file of ours.")
    return fd


def left_in_spool(folder: Path, before: float, *, dry_run: bool) -> list[int]:
    """Removes spool files of clients that went before they loaded them, or only counts them: the bytes of each.

    Args:
        folder: The spool folder.
        before: Those not written to since, in seconds since the epoch.
        dry_run: Only count.
    """
    found = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and status.st_mtime < before:
                if not dry_run:
                    os.unlink(entry.path)
                found.append(status.st_size)
    return found


@contextlib.contextmanager
def unlinked_spool(folder: Path, source: SpoolSource) -> Iterator[UploadSource]:
    """A spool file with ephemeral text, without its name: nothing is left of it, whatever happens.

    Raises:
        NotAllowed: The folder is on a disk, so that the text is there already. The file is removed all the same.
    """
    fd = open_spool(folder, source.file)
    try:
        (folder / source.file).unlink()
        if not in_memory(folder):
            raise NotAllowed(
                f"The spool folder {folder} is on a disk, where ephemeral text must not be; the file was removed.",
                hint="Send it by context/begin, or point XDG_RUNTIME_DIR to a folder in memory (tmpfs).",
            )
        yield UploadSource(path_of(fd), source.origin, source.raw)
    finally:
        os.close(fd)


def _not_visible(shown: str) -> NotVisible:
    return NotVisible(
        f"The daemon does not see {shown} as the client does.", hint="Send the text through the spool folder or inline."
    )


def _unreadable(shown: str, error: OSError) -> SourceUnreadable:
    reason = errno.errorcode.get(error.errno or 0, "error")
    denied = error.errno in (errno.EACCES, errno.EPERM)
    hint = "Check its owner and mode." if denied else "Check the path."
    return SourceUnreadable(f"{shown} cannot be read ({reason}).", hint=hint)


def _shown(path: str) -> str:
    """A path in an error's sentence: a very long one by its two ends."""
    shown = printable(path)
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[: SHOWN_CHARS // 2]}…{shown[-SHOWN_CHARS // 2 :]}"
