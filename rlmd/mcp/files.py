"""Files and folders that an MCP client may name: those beneath its roots, opened here.

Each part of the path is opened beneath the one before it and no symbolic link is followed, so that no exchange of a
folder for a link, before or meanwhile, leads elsewhere. A file is handed on by its descriptor; a folder by its path
without links and by what it is, so that the daemon can tell whether it opened the same. Knows no daemon.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from rlmd.errors import NotAllowed, SourceMissing, SourceUnreadable, TooLarge

#: The spool folder is in memory on most machines.
MAX_BYTES = 256 << 20
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Opened(NamedTuple):
    """``descriptor`` is the caller's to close.

    Attributes:
        shown: The absolute name, as a person knows it.
        path: The same place without a link in its path.
        status: As it was when it was opened.
    """

    descriptor: int
    shown: str
    path: str
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def roots_of(uris: Iterable[str]) -> tuple[Path, ...]:
    """The folders of ``file:`` URIs, as MCP's roots are; others name nothing that can be opened."""
    split = (urlsplit(uri) for uri in uris)
    return tuple(Path(unquote(one.path)) for one in split if one.scheme == "file" and one.path.startswith("/"))


def open_beneath(roots: Sequence[Path], named: str) -> Opened:
    """Opens a regular file, a folder, or a root itself. A relative name is one below the first root.

    Raises:
        NotAllowed: It is not beneath a root, or leads through a symbolic link.
        SourceMissing, SourceUnreadable, TooLarge: As of any file.
    """
    root, parts = _placed(roots, named)
    shown = str(root.joinpath(*parts))
    try:
        real = root.resolve()
        descriptor = _opened(real, parts)
    except FileNotFoundError:
        raise SourceMissing(f"There is no file or folder {shown!a}.", hint="Name one beneath a root.") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotAllowed(
                f"{shown!a} leads through a symbolic link or is no file; links are not followed here.",
                hint="Name the file itself, beneath a root.",
            ) from None
        raise SourceUnreadable(f"{shown!a} cannot be read: {error.strerror}.") from None
    try:
        status = os.fstat(descriptor)
        _check(status, shown)
    except BaseException:
        os.close(descriptor)
        raise
    return Opened(descriptor, shown, str(real.joinpath(*parts)), status)


def _placed(roots: Sequence[Path], named: str) -> tuple[Path, tuple[str, ...]]:
    """The root and the parts of the path below it. Nothing on the disk is looked at but the roots."""
    if not roots:
        raise NotAllowed(
            "This client has no roots, so no file may be named.",
            hint="Start the server with --root FOLDER, or give the text as content.",
        )
    if "\0" in named:
        raise NotAllowed("A path holds no NUL.")
    path = Path(os.path.normpath(roots[0] / named))
    for root in roots:
        for form in (Path(os.path.normpath(root)), root.resolve()):
            if path.is_relative_to(form):
                return form, path.relative_to(form).parts
    listed = ", ".join(str(root) for root in roots)
    raise NotAllowed(f"{str(path)!a} is not beneath a root of this client.", hint=f"The roots are: {listed}")


def _opened(root: Path, parts: Sequence[str]) -> int:
    folder = os.open(root, _WAY)
    try:
        for part in parts[:-1]:
            below = os.open(part, _WAY, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(parts[-1] if parts else ".", _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _check(status: os.stat_result, shown: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        return
    if not stat.S_ISREG(status.st_mode):
        raise NotAllowed(f"{shown!a} is no regular file and no folder.")
    if status.st_size > MAX_BYTES:
        raise TooLarge(
            f"{shown!a} has {status.st_size:,} bytes; {MAX_BYTES:,} may be loaded here.",
            hint="A person loads it with: rlmctl context load FILE --name NAME. Then it is among list_contexts.",
            limit=MAX_BYTES,
        )
