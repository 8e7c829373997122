"""One document's way into a pack: read in pieces, freed of byte order marks, measured, hashed, written.

Runs in a thread, in pieces that hold the GIL for under a millisecond. Knows descriptors and blobs, not sources.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import itertools
import os
import sys
from array import array
from collections.abc import Iterator
from threading import Event

from rlmd.contexts.blobs import Blobs, Temporary, translated
from rlmd.contexts.records import PinnedDocument, Segment
from rlmd.contexts.text import BOM_UTF8, CHUNK, SNIFF_BYTES, Meter, hint_for, is_binary, wide_encoding
from rlmd.errors import NotText, SourceUnreadable, TooLarge


class LoadCancelled(Exception):
    """The load was given up between two pieces."""


class ChangedWhileRead(Exception):
    """The file is being written to."""


class NotGrown(Exception):
    """The file does not begin with the text that it had."""


class Pack:
    """One temporary blob that documents are appended to. A dry run counts and writes nothing.

    ``most``: bytes that the client will have.
    """

    def __init__(self, blobs: Blobs, *, dry_run: bool, cancelled: Event, most: int | None = None) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        #: The document that is being written is all there is in the pack: its own hash is the pack's so far.
        self._alone = True
        self._cancelled = cancelled
        self._room = blobs.room
        self._most = most
        #: The client will have no more: whatever is left, the load is over.
        self.full = False
        self._temporary: Temporary | None = None if dry_run else blobs.create_temporary()
        self._fd = -1 if self._temporary is None else self._temporary.fd

    def check(self) -> None:
        """Raises ``LoadCancelled`` when the load was given up."""
        if self._cancelled.is_set():
            raise LoadCancelled

    def write(self, data: bytes) -> None:
        self.check()
        if not self._alone:
            self._hash.update(data)
        self.check_room(len(data))
        if self._most is not None and self.size + len(data) > self._most:
            self.full = True
            raise TooLarge(
                f"There are more than the {self._most:,} bytes of text that this client takes.",
                hint="Name a part of it, or leave out what is not needed.",
                limit=self._most,
            )
        self.size += len(data)
        view = memoryview(data)
        while self._fd >= 0 and view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise translated(error, "storing the context") from error

    def check_room(self, size: int) -> None:
        """Raises ``TooLarge`` when so many bytes more are more than there is room for."""
        if self._room is not None and self.size + size > self._room:
            raise TooLarge(
                f"The text takes more than the {self._room} bytes of memory that are left for ephemeral texts.",
                hint="Drop other ephemeral contexts, load less, or load it as a private one, on disk.",
                limit=self._room,
            )

    def begin(self, *, partial: bool = False) -> tuple[int, hashlib._Hash]:
        """Begins a document, of which only a part comes in if ``partial``; returns what ``rewind`` needs."""
        self._alone = not self.size and not partial
        return self.size, self._hash.copy()

    def end(self, document: hashlib._Hash) -> None:
        """Ends a document of this hash."""
        if self._alone:
            self._hash = document.copy()

    def rewind(self, mark: tuple[int, hashlib._Hash]) -> None:
        """Takes back what was written since ``begin``."""
        self.size, self._hash = mark[0], mark[1].copy()
        if self._fd >= 0:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def publish(self, blobs: Blobs) -> tuple[str, int] | None:
        """Gives the blob its name; an empty one is not kept."""
        if self._temporary is None or not self.size:
            return None
        blobs.publish(self._temporary, self.digest, self.size)
        self._temporary = None
        return self.digest, self.size

    def close(self) -> None:
        """Removes the temporary file unless it was published."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._temporary is not None and self._temporary.path is not None:
            self._temporary.path.unlink(missing_ok=True)
        self._temporary = None


class Intake:
    """One document on its way into the pack: measured and hashed, with byte order marks taken off.

    Args:
        pack: Where its text goes.
        grown: What it was before: its text must come first, and is not stored a second time.
    """

    def __init__(self, pack: Pack, grown: PinnedDocument | None = None) -> None:
        self.mark = pack.begin(partial=grown is not None)
        self._grown = grown
        self._there = grown.bytes if grown else 0
        self.note = ""
        self.encoding = "utf-8"
        self.format = "text"
        self.paged = False
        #: Nothing but white space so far.
        self.blank = True
        self._pack = pack
        self._meter = Meter()
        self._stored = hashlib.sha256()
        self._origin: hashlib._Hash | None = None  # equal to that of the stored bytes unless a mark or encoding differs
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def first_stray(self) -> int | None:
        """Where in the stored text the first byte is that is no UTF-8."""
        return self._meter.first_stray

    def decode_from(self, encoding: str, head: bytes) -> None:
        """Takes what comes for text of this encoding; ``head`` are the bytes that come first."""
        self._origin = hashlib.sha256(head)
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self.encoding = encoding
        self.note = f"converted from {encoding.upper()}"

    def came_from(self, form: str, origin: hashlib._Hash, *, paged: bool) -> None:
        """The text was made from bytes of this hash, in another format."""
        self.format, self._origin, self.paged = form, origin, paged

    def begin(self, head: bytes) -> bytes:
        """Looks at a file's first bytes; returns what of them is text."""
        if self._decoder is not None:
            return head
        wide = wide_encoding(head)
        if wide is not None:
            encoding, skip = wide
            self.decode_from(encoding, head)
            self.note = self.note[:-3]  # the mark has told the order of the bytes
            return head[skip:]
        if head.startswith(BOM_UTF8):
            self._origin = hashlib.sha256(head)
            return head[len(BOM_UTF8) :]
        return head

    def feed(self, data: bytes, *, first: bool = False) -> None:
        if self._origin is not None and not first:
            self._origin.update(data)
        self.verbatim(self._decoder.decode(data).encode() if self._decoder else data)

    def finish(self) -> None:
        if self._decoder is not None:
            self.verbatim(self._decoder.decode(b"", final=True).encode())

    def verbatim(self, data: bytes) -> None:
        if self._there:
            there, data = data[: self._there], data[self._there :]
            self._measure(there)
            self._pack.check()
            self._there -= len(there)
            if not self._there and self._grown and self._stored.hexdigest() != self._grown.digest:
                raise NotGrown
        if data:
            self._measure(data)
            self._pack.write(data)

    def _measure(self, data: bytes) -> None:
        self.blank = self.blank and not data.strip()
        self._stored.update(data)
        self._meter.feed(data)

    @property
    def origin_digest(self) -> str:
        """Of the bytes as read, so far."""
        return (self._origin or self._stored).hexdigest()

    def document(self, name: str, origin: str | None) -> PinnedDocument:
        self._meter.finish()
        self._pack.end(self._stored)
        digest = self._stored.hexdigest()
        length = self._meter.bytes
        there = self._grown.bytes if self._grown else 0
        new = (Segment("", self.mark[0], length - there),) if length > there else ()
        return PinnedDocument(
            name=name,
            origin=origin,
            digest=digest,
            chars=self._meter.chars,
            bytes=length,
            max_codepoint=self._meter.max_codepoint,
            segments=(self._grown.segments if self._grown else ()) + new,
            origin_digest=self.origin_digest,
            marks=self._meter.marks,
            encoding=self.encoding,
            format=self.format,
            pages=self._pages(),
        )

    def _pages(self) -> bytes:
        if not self.paged:
            return b""
        pages = array("Q", [start for start in self._meter.pages if start < self._meter.chars or not start])
        if sys.byteorder == "big":  # pragma: no cover
            pages.byteswap()
        return pages.tobytes()


def read_once(
    pack: Pack, fd: int, before: os.stat_result, *, raw: bool, grown: PinnedDocument | None = None, encoding: str = ""
) -> Intake:
    """Reads the ``st_size`` bytes that the file had when it was opened, as text of an encoding if one is given.

    Raises:
        NotGrown: It does not begin with the text of ``grown``.
        NotText: It is binary.
        ChangedWhileRead: Its size or times differ afterwards, and so do the bytes read.
    """
    intake = Intake(pack, grown)
    try:
        head = os.pread(fd, SNIFF_BYTES, 0)
        binary = not encoding and is_binary(head) and (raw or wide_encoding(head) is None)
        if binary:
            raise NotText("The file is binary, not text.", hint=hint_for(head))
        position = 0
        while position < before.st_size:
            data = os.pread(fd, min(CHUNK, before.st_size - position), position)
            if not data:
                raise ChangedWhileRead
            if encoding and not position:
                intake.decode_from(encoding, data)
            rest = intake.begin(data) if not position and not raw else data
            intake.feed(rest, first=not position)
            position += len(data)
        intake.finish()
    except OSError as error:
        raise SourceUnreadable(f"Reading the file failed: {errno.errorcode.get(error.errno or 0, 'error')}.") from error
    if _state(os.fstat(fd)) != _state(before):
        if not _still_begins(fd, before.st_size, intake.origin_digest, pack):
            raise ChangedWhileRead
        intake.note = intake.note or f"it grew while it was read; loaded are its first {before.st_size} bytes"
    return intake


def read_converted(
    pack: Pack, fd: int, before: os.stat_result, pieces: Iterator[bytes], form: str, *, paged: bool
) -> Intake:
    """Takes what a converter makes of a file.

    Raises:
        NotText: It is binary all the same.
        ChangedWhileRead: The file was written to meanwhile.
    """
    intake = Intake(pack)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= SNIFF_BYTES:
            break
    if is_binary(head):
        raise NotText(f"What is in the {form} file is no text.", hint="Unpack it, and load the parts that are.")
    head = head.removeprefix(BOM_UTF8)
    for data in itertools.chain([head], pieces):
        for at in range(0, len(data), CHUNK):
            intake.verbatim(data[at : at + CHUNK])
    if _state(os.fstat(fd)) != _state(before):
        raise ChangedWhileRead
    intake.came_from(form, _hash_of(fd, before.st_size, pack), paged=paged)
    return intake


def _hash_of(fd: int, size: int, pack: Pack) -> hashlib._Hash:
    total, position = hashlib.sha256(), 0
    while position < size and (data := os.pread(fd, min(CHUNK, size - position), position)):
        pack.check()
        total.update(data)
        position += len(data)
    return total


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _still_begins(fd: int, size: int, digest: str, pack: Pack) -> bool:
    """Whether the first ``size`` bytes have this digest: a log that is only appended to is whole as far as we read."""
    return _hash_of(fd, size, pack).hexdigest() == digest
