"""From what was named on the command line to loaded contexts: files, directories, pipes, standard input.

A file goes by path with its identity, so that a daemon in another mount namespace notices that it sees another
one; then, and for all that has no path, the text goes through the daemon's spool folder. Only short text goes inline.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rlmd.client import Client, upload
from rlmd.ctl.terminal import Output, count, size
from rlmd.errors import DiskFull, InvalidParams, NotVisible, SourceMissing, SourceUnreadable
from rlmd.wire.methods import (
    INLINE_BYTES,
    FileIdentity,
    InlineSource,
    LoadParams,
    LoadResult,
    PathSource,
    Source,
    SpoolSource,
)

CHUNK = 1 << 20
STDIN = "-"
STDIN_ORIGIN = "stdin"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How sources are loaded; ``include`` and ``exclude`` are gitignore patterns for directories."""

    name: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    everything: bool = False
    raw: bool = False
    private: bool = False
    dry_run: bool = False
    ephemeral: bool = False

    def params(self, source: Source) -> LoadParams:
        return LoadParams(
            name=self.name, source=source, private=self.private, ephemeral=self.ephemeral, dry_run=self.dry_run
        )


async def load_source(client: Client, named: str, options: LoadOptions) -> LoadResult:
    """Loads one file, directory, pipe or ``-`` for standard input.

    Raises:
        SourceMissing, SourceUnreadable: This side cannot read it.
        NotText, TooLarge, Conflict: The daemon will not have it.
    """
    if named == STDIN:
        return await _load_stdin(client, options)
    path = _absolute(named)
    status = _status(path, named)
    if stat.S_ISDIR(status.st_mode):
        return await load_paths(client, (named,), options)
    if not stat.S_ISREG(status.st_mode) or not _speakable(path):
        return await _load_opened(client, path, options)
    source = PathSource(paths=(path,), convert=_converts(client, options), identity=identity_of(status))
    try:
        return await client.call("context/load", options.params(source))
    except (NotVisible, SourceUnreadable, SourceMissing):  # we see it: the daemon lives in another namespace
        return await _load_opened(client, path, options)


async def load_paths(client: Client, named: tuple[str, ...], options: LoadOptions) -> LoadResult:
    """Loads several files and directories as one collection."""
    paths = tuple(map(_absolute, named))
    for path, name in zip(paths, named, strict=True):
        _status(path, name)
        if not _speakable(path):
            raise InvalidParams(f"The name {path!a} is not UTF-8.", hint="Rename it, or load its files one by one.")
    source = PathSource(
        paths=paths,
        include=options.include,
        exclude=options.exclude,
        everything=options.everything,
        convert=_converts(client, options),
    )
    return await client.call("context/load", options.params(source))


async def _load_stdin(client: Client, options: LoadOptions) -> LoadResult:
    stream = sys.stdin.buffer
    head = stream.read(INLINE_BYTES + 1)
    if not head:
        raise InvalidParams("Standard input is empty.", hint="Name the text with -f PATH or -c NAME, or pipe it in.")
    return await load_stream(client, stream, STDIN_ORIGIN, options, head=head)


async def load_stream(
    client: Client,
    stream: BinaryIO,
    origin: str,
    options: LoadOptions,
    *,
    head: bytes | None = None,
    raw: bool = True,
) -> LoadResult:
    """Loads what a stream gives until its end: inline when it is short and clean, else by the spool folder, else in
    chunks.

    Args:
        head: What was read of it already.
        raw: Keep every byte; else it is decoded and converted as a file is.
    """
    head = stream.read(INLINE_BYTES + 1) if head is None else head
    if len(head) <= INLINE_BYTES and (text := _clean(head)) is not None:
        return await client.call("context/load", options.params(InlineSource(text=text, origin=origin)))
    if options.ephemeral:
        with _in_memory(head, stream) as held:
            return await _upload(client, held, origin, options, raw=raw)
    file = _written(Path(client.server.spool_folder), head, stream)
    try:
        source = SpoolSource(file=file.name, origin=origin, raw=raw)
        try:
            return await client.call("context/load", options.params(source))
        except (SourceMissing, SourceUnreadable):  # the daemon is elsewhere, behind a forwarded socket
            with open(file, "rb") as written:  # noqa: ASYNC230  nothing else happens in this process meanwhile
                return await _upload(client, written, origin, options, raw=raw)
    finally:
        file.unlink(missing_ok=True)  # the daemon consumes it; this is for when it did not come to that


async def _upload(client: Client, file: BinaryIO, origin: str, options: LoadOptions, *, raw: bool) -> LoadResult:
    if options.dry_run:
        raise InvalidParams("What has to be uploaded cannot be looked at only.", hint="Load it without --dry-run.")
    return await upload(
        client,
        file,
        name=options.name,
        origin=origin,
        private=options.private,
        ephemeral=options.ephemeral,
        raw=raw,
    )


def _converts(client: Client, options: LoadOptions) -> bool:
    """Whether files are to be decoded and converted; a daemon of 0.1.0, which cannot, must not be asked."""
    return not options.raw and "context/update" in client.server.methods


def describe(result: LoadResult) -> Iterator[str]:
    """What was loaded, and what was not, for people."""
    name = f"{result.context.name}: " if result.context else ""
    what = f"{count(result.documents, 'document')}, {count(result.chars, 'character')} ({size(result.bytes)})"
    yield f"{name}{what}, {result.change}"
    for skipped in result.skipped:
        examples = ", ".join(skipped.examples[:3])
        yield f"  {count(skipped.count, 'file')} skipped, {skipped.reason.replace('_', ' ')}: {examples}"
    yield from (f"  {note}" for note in result.notes)


def remark_load(output: Output, result: LoadResult) -> None:
    """One line, where loading is only the way to an answer."""
    what = next(describe(result))
    skipped = sum(one.count for one in result.skipped)
    output.remark(f"{what} ({count(skipped, 'file')} skipped)" if skipped else what)


def _absolute(named: str) -> str:
    """Absolute, symbolic links kept: citations show the name that the user knows."""
    return os.path.abspath(os.path.expanduser(named))


def _status(path: str, named: str) -> os.stat_result:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceMissing(f"There is no file or directory {named!a}.", hint="A context goes by -c NAME.") from None
    except (OSError, ValueError) as error:
        raise SourceUnreadable(f"{named!a} cannot be read: {error}.", hint="See its owner and mode.") from None


def identity_of(status: os.stat_result) -> FileIdentity:
    return FileIdentity(
        device=str(status.st_dev),
        inode=str(status.st_ino),
        size=str(status.st_size),
        mtime_ns=str(status.st_mtime_ns),
    )


def _speakable(path: str) -> bool:
    """Whether JSON can carry the path: a name that is not UTF-8 holds lone surrogates here."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _load_opened(client: Client, path: str, options: LoadOptions) -> LoadResult:
    raw = not _converts(client, options)
    try:
        with open(path, "rb") as file:  # noqa: ASYNC230  nothing else happens in this process meanwhile
            return await load_stream(client, file, os.fsencode(path).decode(errors="replace"), options, raw=raw)
    except OSError as error:
        raise SourceUnreadable(f"{path!a} cannot be read: {error.strerror}.", hint="See its owner and mode.") from None


def _clean(data: bytes) -> str | None:
    """The text when JSON can carry it unchanged, else None."""
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _written(folder: Path, head: bytes, stream: BinaryIO) -> Path:
    """A file with what the stream gives: in the spool folder, or in a temporary one where there is none."""
    file = (folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())) / f"rlmctl-{uuid.uuid4().hex}"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as target:
            chunk = head
            while chunk:
                _write_all(target, chunk)
                chunk = stream.read(CHUNK)
    except OSError as error:
        file.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"The folder {file.parent} is full.",
                hint="It is in memory on most machines: save the text to a file and use -f.",
            ) from None
        raise SourceUnreadable(f"The text could not be handed over: {error.strerror}.") from None
    return file


@contextlib.contextmanager
def _in_memory(head: bytes, stream: BinaryIO) -> Iterator[BinaryIO]:
    """What the stream gives, on no disk and in no folder."""
    with open(os.memfd_create("rlmctl"), "w+b", buffering=0) as file:
        chunk = head
        while chunk:
            _write_all(file, chunk)
            chunk = stream.read(CHUNK)
        yield file


def _write_all(target: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]
