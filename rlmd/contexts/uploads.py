"""Texts that come in chunks from clients that share no folder with the daemon (``ssh -L``): begun, appended, committed.

An upload is a file named by the digest of what was announced, so that who begins the same again goes on where it
stopped, also after a restart of the daemon. It is no context before its commit, and it expires. Runs on a thread; one
upload is written by one caller at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rlmd.contexts.blobs import make_private_folder, translated
from rlmd.contexts.memory import memory_file, path_of
from rlmd.errors import Conflict, InvalidParams, NotFound, TooLarge, TooManyRequests

#: Uploads that may be under way, and bytes of one: a bound for clients gone wild, not for people.
MOST_UPLOADS = 100
MAX_BYTES = 8 << 30
#: Bytes of one chunk, decoded.
MAX_CHUNK = 1 << 20
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Announced:
    """What a client says that it will send. ``raw``: take it as it is, so that its offsets are the client's."""

    digest: str
    bytes: int
    name: str | None
    origin: str | None
    private: bool
    raw: bool
    egress: bool
    #: It is kept in memory, and does not survive the daemon.
    ephemeral: bool = False

    @property
    def upload_id(self) -> str:
        told = {name: value for name, value in asdict(self).items() if name != "ephemeral" or value}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class Uploads:
    """Args:
    folder: Theirs alone.
    keep_seconds: How long one that nobody appends to is kept.
    """

    def __init__(self, folder: Path, keep_seconds: float) -> None:
        make_private_folder(folder)
        self._folder = folder
        self._keep_seconds = keep_seconds
        self._announced: dict[str, Announced] = {}
        #: Descriptors of those that are ephemeral.
        self._in_memory: dict[str, int] = {}

    def begin(self, announced: Announced) -> tuple[str, int]:
        """Begins an upload, or finds the one that was begun: its id, and the bytes that are there.

        Raises:
            TooLarge, TooManyRequests, DiskFull
        """
        if announced.bytes > MAX_BYTES:
            raise TooLarge(
                f"The text has {announced.bytes} bytes; {MAX_BYTES} may be uploaded.",
                hint="Load it in parts, as several contexts.",
                limit=MAX_BYTES,
            )
        self.sweep()
        upload_id = announced.upload_id
        if upload_id not in self._announced and len(self._announced) >= MOST_UPLOADS:
            raise TooManyRequests(
                f"{len(self._announced)} uploads are under way; {MOST_UPLOADS} may be.", hint="Commit or wait."
            )
        try:
            fd = self._made(upload_id, ephemeral=announced.ephemeral)
        except OSError as error:
            raise translated(error, "beginning the upload") from error
        try:
            received = os.fstat(fd).st_size
        finally:
            os.close(fd)
        self._announced[upload_id] = announced
        return upload_id, received

    def append(self, upload_id: str, offset: int, data: bytes) -> int:
        """Adds a chunk; one that is there already, wholly or in part, is passed over. The bytes that are there now.

        Raises:
            NotFound: No such upload was begun since the daemon started, or it has expired.
            Conflict: The chunk does not join on; ``received`` in the details says where to go on.
            TooLarge, DiskFull: Nothing of the chunk was kept.
        """
        announced = self.announced(upload_id)
        fd = os.open(self._path(upload_id), os.O_WRONLY | os.O_CLOEXEC)
        try:
            received = os.fstat(fd).st_size
            if offset > received:
                raise Conflict(
                    f"The chunk begins at byte {offset}, but {received} bytes are there.",
                    hint="Go on from there.",
                    received=received,
                )
            if offset + len(data) > announced.bytes:
                raise TooLarge(
                    f"With this chunk the upload has {offset + len(data)} bytes; {announced.bytes} were announced.",
                    hint="Begin again with the right size.",
                    limit=announced.bytes,
                )
            _write_at(fd, received, data[received - offset :])
            return max(received, offset + len(data))
        finally:
            os.close(fd)

    def finished(self, upload_id: str) -> tuple[Announced, Path]:
        """A whole upload, for its commit.

        Raises:
            NotFound: As ``append``.
            Conflict: Bytes are missing; ``received`` says how many are there.
            InvalidParams: What came is not what was announced: it is thrown away.
        """
        announced = self.announced(upload_id)
        path = self._path(upload_id)
        received = path.stat().st_size
        if received < announced.bytes:
            raise Conflict(
                f"{received} of {announced.bytes} bytes are there.", hint="Append the rest.", received=received
            )
        if _digest(path) != announced.digest:
            self.forget(upload_id)
            raise InvalidParams(
                "What was uploaded does not have the digest that was announced; it was thrown away.",
                hint="The text changed meanwhile, or a chunk was damaged: begin again.",
            )
        return announced, path

    def announced(self, upload_id: str) -> Announced:
        announced = self._announced.get(upload_id)
        if announced is None or not self._path(upload_id).exists():
            raise NotFound("There is no such upload, or it has expired.", hint="Begin it again: what is there is kept.")
        return announced

    def forget(self, upload_id: str) -> None:
        self._announced.pop(upload_id, None)
        if (fd := self._in_memory.pop(upload_id, None)) is not None:
            os.close(fd)
        else:
            self._path(upload_id).unlink(missing_ok=True)

    def close(self) -> None:
        """Those in memory are gone."""
        for upload_id in list(self._in_memory):
            self.forget(upload_id)

    def expired(self) -> list[int]:
        """Bytes of each upload that nobody appended to for long."""
        before = time.time() - self._keep_seconds
        return [status.st_size for one in self._all() if (status := self._path(one).stat()).st_mtime < before]

    def sweep(self) -> int:
        """Removes uploads that nobody appended to for long; how many."""
        removed = 0
        before = time.time() - self._keep_seconds
        for upload_id in self._all():
            if self._path(upload_id).stat().st_mtime < before:
                self.forget(upload_id)
                removed += 1
        return removed

    def _all(self) -> list[str]:
        return [*(file.name for file in self._folder.iterdir()), *self._in_memory]

    def _made(self, upload_id: str, *, ephemeral: bool) -> int:
        """A new descriptor of the upload's file, which is made if it is not there."""
        if ephemeral:
            if upload_id not in self._in_memory:
                self._in_memory[upload_id] = memory_file()
            return os.dup(self._in_memory[upload_id])
        return os.open(self._path(upload_id), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _path(self, upload_id: str) -> Path:
        if len(upload_id) != 64 or not upload_id.isalnum():
            raise NotFound("There is no such upload.", hint="context/begin gives its id.")
        if (fd := self._in_memory.get(upload_id)) is not None:
            return Path(path_of(fd))
        return self._folder / upload_id


def _write_at(fd: int, size: int, data: bytes) -> None:
    view, offset = memoryview(data), size
    try:
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written
    except OSError as error:
        os.ftruncate(fd, size)
        raise translated(error, "keeping the upload") from error


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    return total.hexdigest()
