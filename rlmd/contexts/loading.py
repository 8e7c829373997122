"""Reading sources into a pack: one temporary blob that holds every new or changed document of a load.

Runs in a thread, in pieces that hold the GIL for under a millisecond; knows files and blobs, not the catalogue.
A load is described wholly (``Loaded``) before anything is published; closing its pack leaves nothing behind.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from rlmd.contexts.blobs import BlobFolder, translated
from rlmd.contexts.catalogue import KnownDocument
from rlmd.contexts.records import (
    FileIdentity,
    InlineSource,
    Kind,
    LoadedDocument,
    PathSource,
    PinnedDocument,
    Segment,
    Skipped,
    SpoolSource,
)
from rlmd.contexts.scanning import Scanner, Tally, printable
from rlmd.contexts.text import BOM_UTF8, CHUNK, SNIFF_BYTES, Meter, encode, is_binary, wide_encoding
from rlmd.errors import InvalidParams, NotText, NotVisible, RlmdError, SourceMissing, SourceUnreadable

#: A file in a directory above this is skipped: it is data, not a document. Given by name, it is loaded.
MAX_DOCUMENT_BYTES = 1 << 30
#: How often a file that changes under the reader is read again.
_ATTEMPTS = 3
#: Of a path in an error's sentence; a path may have 4,096 bytes.
SHOWN_CHARS = 300


class LoadCancelled(Exception):
    """The load was given up between two pieces."""


class ChangedWhileRead(Exception):
    """The file is being written to."""


@dataclass(slots=True)
class Loaded:
    """What a source holds now, next to what is known of it.

    ``kept`` are rows whose document is as it was, ``touched`` those whose text is the same under another identity.
    """

    kind: Kind
    fresh: list[LoadedDocument] = field(default_factory=list)
    kept: dict[str, KnownDocument] = field(default_factory=dict)
    touched: list[tuple[int, FileIdentity | None]] = field(default_factory=list)
    skipped: tuple[Skipped, ...] = ()
    notes: list[str] = field(default_factory=list)

    def documents(self) -> list[PinnedDocument]:
        """All documents in the order of their names."""
        everything = [loaded.document for loaded in self.fresh] + [known.document for known in self.kept.values()]
        return sorted(everything, key=lambda d: d.name)


class Pack:
    """One temporary blob that documents are appended to. A dry run counts and writes nothing."""

    def __init__(self, blobs: BlobFolder, *, dry_run: bool, cancelled: Event) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        #: Where the document that is being written begins. The first one's own hash is the pack's so far.
        self._begin = 0
        self._cancelled = cancelled
        self._fd = -1
        self._path: Path | None = None
        if not dry_run:
            self._fd, self._path = blobs.create_temporary()

    def check(self) -> None:
        """Raises ``LoadCancelled`` when the load was given up."""
        if self._cancelled.is_set():
            raise LoadCancelled

    def write(self, data: bytes) -> None:
        self.check()
        if self._begin:
            self._hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        while self._fd >= 0 and view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise translated(error, "storing the context") from error

    def begin(self) -> tuple[int, hashlib._Hash]:
        """Begins a document; returns what ``rewind`` needs to take it back."""
        self._begin = self.size
        return self.size, self._hash.copy()

    def end(self, document: hashlib._Hash) -> None:
        """Ends a document of this hash."""
        if not self._begin:
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

    def publish(self, blobs: BlobFolder) -> tuple[str, int] | None:
        """Gives the blob its name; an empty one is not kept."""
        if self._path is None or not self.size:
            return None
        blobs.publish(self._path, self.digest, self.size)
        self._path = None
        return self.digest, self.size

    def close(self) -> None:
        """Removes the temporary file unless it was published."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


class Loader:
    """Reads one source.

    Args:
        pack: Takes the text of new and changed documents. Their segments name the blob ``""`` until it is published.
        known: The documents of the context's newest revision, by name.
        spool_folder: Where spool files lie.
    """

    def __init__(self, pack: Pack, known: Mapping[str, KnownDocument], spool_folder: Path) -> None:
        self._pack = pack
        self._known = known
        self._spool = spool_folder

    def load(self, source: InlineSource | PathSource | SpoolSource) -> Loaded:
        if isinstance(source, InlineSource):
            return self._inline(source)
        if isinstance(source, SpoolSource):
            return self._spooled(source)
        return self._paths(source)

    def _inline(self, source: InlineSource) -> Loaded:
        loaded = Loaded("text")
        data = encode(source.text)
        intake = _Intake(self._pack)
        for at in range(0, len(data), CHUNK):
            intake.verbatim(data[at : at + CHUNK])
        self._settle(loaded, intake, name_of(source.origin), source.origin, None)
        return loaded

    def _spooled(self, source: SpoolSource) -> Loaded:
        """A spool file is taken as it is, mark and all: its offsets are those of the client's buffer."""
        loaded = Loaded("text")
        fd = open_spool(self._spool, source.file)
        try:
            self._read_file(loaded, fd, name_of(source.origin), source.origin, raw=True)
        finally:
            os.close(fd)
        return loaded

    def _paths(self, source: PathSource) -> Loaded:
        roots = list(dict.fromkeys(os.path.abspath(p) for p in source.paths))
        if len(roots) == 1 and not os.path.isdir(roots[0]):
            loaded = Loaded("text")
            self._named_file(loaded, roots[0], os.path.basename(printable(roots[0])), source.identity)
            return loaded
        loaded = Loaded("collection")
        tally = Tally()
        prefixes = _prefixes(roots)
        for root in roots:
            if os.path.isdir(root):
                self._folder(loaded, root, prefixes[root], source, tally)
            else:
                self._named_file(loaded, root, prefixes[root].rstrip("/"), None)
        loaded.skipped = tally.report()
        return loaded

    def _named_file(self, loaded: Loaded, path: str, name: str, identity: FileIdentity | None) -> None:
        fd = _open_named(path, identity)
        try:
            self._read_file(loaded, fd, name, printable(path))
        finally:
            os.close(fd)

    def _folder(self, loaded: Loaded, root: str, prefix: str, source: PathSource, tally: Tally) -> None:
        for found in Scanner(root, source.include, source.exclude, tally).files():
            name = prefix + found.name
            self._pack.check()
            try:
                fd = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
            except OSError:
                tally.skip("unreadable", name)
                continue
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_DOCUMENT_BYTES:
                    tally.skip("too_large" if stat.S_ISREG(status.st_mode) else "special", name)
                    continue
                self._read_file(loaded, fd, name, printable(found.path))
            except NotText:
                tally.skip("binary", name)
            except SourceUnreadable:
                tally.skip("unreadable", name)
            finally:
                os.close(fd)

    def _read_file(self, loaded: Loaded, fd: int, name: str, origin: str | None, *, raw: bool = False) -> None:
        """Reads an open file unless its identity says that it is as it was."""
        identity = None if raw else identity_of(os.fstat(fd))
        known = self._known.get(name)
        if known and identity and (identity, origin) == (known.identity, known.document.origin):
            loaded.kept[name] = known
            return
        start = self._pack.begin()
        for attempt in range(1, _ATTEMPTS + 1):
            before = os.fstat(fd)
            try:
                intake = _read_once(self._pack, fd, before, raw=raw)
                break
            except ChangedWhileRead as error:
                self._pack.rewind(start)
                if attempt == _ATTEMPTS:
                    raise SourceUnreadable(
                        "The file kept changing while it was read.", hint="Load it again when its writer is done."
                    ) from error
            except BaseException:
                self._pack.rewind(start)
                raise
        if intake.note:
            loaded.notes.append(f"{name}: {intake.note}")
        self._settle(loaded, intake, name, origin, None if raw else identity_of(before))

    def _settle(
        self, loaded: Loaded, intake: _Intake, name: str, origin: str | None, identity: FileIdentity | None
    ) -> None:
        """Files what was read as fresh, or takes it back when the text is the one already known."""
        document = intake.document(name, origin)
        known = self._known.get(name)
        if known is not None and (known.document.digest, known.document.origin) == (document.digest, origin):
            self._pack.rewind(intake.mark)
            loaded.kept[name] = known
            if identity != known.identity:
                loaded.touched.append((known.row, identity))
        else:
            loaded.fresh.append(LoadedDocument(document, identity))


class _Intake:
    """One document on its way into the pack: measured and hashed, with byte order marks taken off."""

    def __init__(self, pack: Pack) -> None:
        self.mark = pack.begin()
        self.note = ""
        self._pack = pack
        self._meter = Meter()
        self._stored = hashlib.sha256()
        self._origin: hashlib._Hash | None = None  # equal to that of the stored bytes unless a mark or encoding differs
        self._decoder: codecs.IncrementalDecoder | None = None

    def begin(self, head: bytes) -> bytes:
        """Looks at a file's first bytes; returns what of them is text."""
        wide = wide_encoding(head)
        if wide is not None:
            encoding, skip = wide
            self._origin = hashlib.sha256(head)
            self._decoder = codecs.getincrementaldecoder(encoding)("replace")
            self.note = f"converted from {encoding.upper()[:-3]}"
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
        self._stored.update(data)
        self._meter.feed(data)
        self._pack.write(data)

    @property
    def origin_digest(self) -> str:
        """Of the bytes as read, so far."""
        return (self._origin or self._stored).hexdigest()

    def document(self, name: str, origin: str | None) -> PinnedDocument:
        self._meter.finish()
        self._pack.end(self._stored)
        digest = self._stored.hexdigest()
        length = self._meter.bytes
        return PinnedDocument(
            name=name,
            origin=origin,
            digest=digest,
            chars=self._meter.chars,
            bytes=length,
            max_codepoint=self._meter.max_codepoint,
            segments=(Segment("", self.mark[0], length),) if length else (),
            origin_digest=self.origin_digest,
            marks=self._meter.marks,
        )


def _read_once(pack: Pack, fd: int, before: os.stat_result, *, raw: bool) -> _Intake:
    """Reads the ``st_size`` bytes that the file had when it was opened.

    Raises:
        NotText: It is binary.
        ChangedWhileRead: Its size or times differ afterwards, and so do the bytes read.
    """
    intake = _Intake(pack)
    try:
        head = os.pread(fd, SNIFF_BYTES, 0)
        binary = is_binary(head) and (raw or wide_encoding(head) is None)
        if binary:
            raise NotText("The file is binary, not text.", hint="Convert it to text first.")
        position = 0
        while position < before.st_size:
            data = os.pread(fd, min(CHUNK, before.st_size - position), position)
            if not data:
                raise ChangedWhileRead
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


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _still_begins(fd: int, size: int, digest: str, pack: Pack) -> bool:
    """Whether the first ``size`` bytes have this digest: a log that is only appended to is whole as far as we read."""
    total = hashlib.sha256()
    position = 0
    while position < size:
        pack.check()
        data = os.pread(fd, min(CHUNK, size - position), position)
        if not data:
            return False
        total.update(data)
        position += len(data)
    return total.hexdigest() == digest


def identity_of(status: os.stat_result) -> FileIdentity:
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def name_of(origin: str | None) -> str:
    """The document's name for a text that came without a file."""
    return os.path.basename((origin or "").rstrip("/")) or "text"


def _open_named(path: str, identity: FileIdentity | None) -> int:
    """Opens a file that the caller named; links are followed, fifos and devices refused.

    Raises:
        NotVisible: The client told the file's identity, and here is another or none.
        SourceMissing, SourceUnreadable: No identity was told.
    """
    shown = _shown(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
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


def _prefixes(roots: list[str]) -> dict[str, str]:
    """What comes before a document's name, so that names of several roots differ; nothing for one root."""
    if len(roots) == 1:
        return {roots[0]: ""}
    bases = [os.path.basename(root) for root in roots]
    return {
        root: (printable(root) if bases.count(base) > 1 or not base else printable(base)) + "/"
        for root, base in zip(roots, bases, strict=True)
    }
