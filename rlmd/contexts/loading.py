"""Reading sources into a pack: one temporary blob that holds every new or changed document of a load.

Runs in a thread, in pieces that hold the GIL for under a millisecond; knows files and blobs, not the catalogue.
A load is described wholly (``Loaded``) before anything is published; closing its pack leaves nothing behind.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlmd.contexts import encodings, sorting
from rlmd.contexts.catalogue import KnownDocument
from rlmd.contexts.converting import Converters, Unconvertible, converted
from rlmd.contexts.intake import ChangedWhileRead, Intake, NotGrown, Pack, read_converted, read_once
from rlmd.contexts.opening import Opener, check_folder, identity_of, name_of, open_named, open_spool, opener
from rlmd.contexts.records import (
    FileIdentity,
    InlineSource,
    Kind,
    LoadedDocument,
    PathSource,
    PinnedDocument,
    Skipped,
    SkipReason,
    Source,
    SpoolSource,
    UploadSource,
)
from rlmd.contexts.scanning import Scanner, Tally, printable
from rlmd.contexts.text import CHUNK, SNIFF_BYTES, encode, wide_encoding
from rlmd.errors import CageUnavailable, NotAllowed, NotText, SourceUnreadable, TooLarge

#: A file in a directory above this is skipped: it is data, not a document. Given by name, it is loaded.
MAX_DOCUMENT_BYTES = 1 << 30
#: A file that was at least so long, and grew, is looked at for the text that it had: only the rest is stored.
_GROWN_BYTES = 64 << 10
#: Pieces that a document lies in at most; one more, and it is stored anew.
_MOST_SEGMENTS = 8
#: How often a file that changes under the reader is read again.
_ATTEMPTS = 3


class MeantEphemeral(Exception):
    """A file is ephemeral by rule: nothing of it may be read into a pack on disk."""


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


class Loader:
    """Reads one source.

    Args:
        pack: Takes the text of new and changed documents. Their segments name the blob ``""`` until it is published.
        known: The documents of the context's newest revision, by name.
        spool_folder: Where spool files lie.
        converters: Make text of other formats.
    refused: Files that must not be read into this pack, by path: ``MeantEphemeral``.
    private: What a confined source does not have, by path.
    """

    def __init__(
        self,
        pack: Pack,
        known: Mapping[str, KnownDocument],
        spool_folder: Path,
        converters: Converters,
        refused: Callable[[str], bool] = lambda path: False,
        private: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self._refused = refused
        self._private = private
        self._converters = converters
        self._convert = False
        self._pack = pack
        self._known = known
        self._spool = spool_folder

    def load(self, source: Source) -> Loaded:
        if isinstance(source, InlineSource):
            return self._inline(source)
        if isinstance(source, SpoolSource):
            return self._handed_over(open_spool(self._spool, source.file), source.origin, raw=source.raw)
        if isinstance(source, UploadSource):
            fd = os.open(source.file, os.O_RDONLY | os.O_CLOEXEC)
            return self._handed_over(fd, source.origin, raw=source.raw)
        self._convert = source.convert
        return self._paths(source)

    def _inline(self, source: InlineSource) -> Loaded:
        loaded = Loaded("text")
        data = encode(source.text)
        intake = Intake(self._pack)
        for at in range(0, len(data), CHUNK):
            intake.verbatim(data[at : at + CHUNK])
        self._settle(loaded, intake, name_of(source.origin), source.origin, None)
        return loaded

    def _handed_over(self, fd: int, origin: str | None, *, raw: bool) -> Loaded:
        """Raw, a text is taken as it is, mark and all: its offsets are those of the client's buffer."""
        loaded = Loaded("text")
        self._convert = not raw
        try:
            self._read_file(loaded, fd, name_of(origin), origin, raw=raw, handed=True)
        finally:
            os.close(fd)
        return loaded

    def _paths(self, source: PathSource) -> Loaded:
        opened = opener(confined=source.confined)
        roots = list(dict.fromkeys(os.path.abspath(p) for p in source.paths))
        if len(roots) == 1 and not os.path.isdir(roots[0]):
            loaded = Loaded("text")
            self._named_file(loaded, roots[0], os.path.basename(printable(roots[0])), source.identity, opened)
            return loaded
        if source.identity is not None:
            check_folder(roots[0], source.identity, opened)
        loaded = Loaded("collection")
        tally = Tally()
        prefixes = _prefixes(roots)
        for root in roots:
            if os.path.isdir(root):
                self._folder(loaded, root, prefixes[root], source, tally)
            else:
                self._named_file(loaded, root, prefixes[root].rstrip("/"), None, opened)
        loaded.skipped = tally.report()
        return loaded

    def _named_file(self, loaded: Loaded, path: str, name: str, identity: FileIdentity | None, opened: Opener) -> None:
        if self._refused(path):
            raise MeantEphemeral
        fd = open_named(path, identity, opened)
        try:
            self._read_file(loaded, fd, name, printable(path))
        finally:
            os.close(fd)

    def _folder(self, loaded: Loaded, root: str, prefix: str, source: PathSource, tally: Tally) -> None:
        opened = opener(confined=source.confined)
        scanner = Scanner(root, source.include, source.exclude, tally, everything=source.everything, opened=opened)
        for found in scanner.files():
            name = prefix + found.name
            self._pack.check()
            if source.confined and self._private(found.path):
                continue  # for whom this is, it does not exist
            if self._refused(found.path):
                raise MeantEphemeral
            try:
                fd = opened(found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
            except (OSError, NotAllowed):
                tally.skip("unreadable", name)
                continue
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_DOCUMENT_BYTES:
                    tally.skip("too_large" if stat.S_ISREG(status.st_mode) else "special", name)
                    continue
                if not source.everything and (reason := self._unmeant(fd, name)):
                    tally.skip(reason, name)
                    continue
                self._read_file(loaded, fd, name, printable(found.path))
            except (Unconvertible, CageUnavailable) as error:
                tally.skip("unconverted", name)
                loaded.notes.append(f"{name}: {error.message} {error.hint}")
            except NotText:
                tally.skip("binary", name)
            except TooLarge:
                if self._pack.full:
                    raise
                tally.skip("too_large", name)
            except SourceUnreadable:
                tally.skip("unreadable", name)
            finally:
                os.close(fd)

    def _read_file(
        self, loaded: Loaded, fd: int, name: str, origin: str | None, *, raw: bool = False, handed: bool = False
    ) -> None:
        """Reads an open file unless its identity says that it is as it was; one that was handed over has none."""
        identity = None if handed else identity_of(os.fstat(fd))
        known = self._known.get(name)
        if known and identity and (identity, origin) == (known.identity, known.document.origin):
            loaded.kept[name] = known
            return
        intake, before = self._read_whole(fd, name, known, raw=raw)
        if intake.note:
            loaded.notes.append(f"{name}: {intake.note}")
        self._settle(loaded, intake, name, origin, None if handed else identity_of(before))

    def _unmeant(self, fd: int, name: str) -> SkipReason | None:
        """Why a file that is new here is no document; one that is known was looked at when it was new."""
        if name in self._known:
            return None
        return sorting.of_head(os.path.basename(name), os.pread(fd, SNIFF_BYTES, 0))

    def _read_whole(
        self, fd: int, name: str, known: KnownDocument | None, *, raw: bool
    ) -> tuple[Intake, os.stat_result]:
        """Reads a file, again if it changes meanwhile; of one that only grew, what is new is stored."""
        start = self._pack.begin()
        grown = known.document if known and _may_have_grown(known.document, os.fstat(fd).st_size) else None
        if grown is None:
            self._pack.check_room(os.fstat(fd).st_size)
        for attempt in range(1, _ATTEMPTS + 1):
            before = os.fstat(fd)
            try:
                return self._read(fd, name, before, raw, grown), before
            except ChangedWhileRead as error:
                self._pack.rewind(start)
                if attempt == _ATTEMPTS:
                    raise SourceUnreadable(
                        "The file kept changing while it was read.", hint="Load it again when its writer is done."
                    ) from error
            except BaseException:
                self._pack.rewind(start)
                raise
        raise AssertionError("unreachable")

    def _read(self, fd: int, name: str, before: os.stat_result, raw: bool, grown: PinnedDocument | None) -> Intake:
        """Reads a file as what it is: text, text of another encoding, or what a converter makes text of."""
        if raw:
            return _read_grown(self._pack, fd, before, raw, grown)
        head = os.pread(fd, SNIFF_BYTES, 0)
        converter = self._converters.of(name, head, convert=self._convert)
        if converter is not None:
            pieces = converted(converter, fd, self._pack.check)
            intake = read_converted(self._pack, fd, before, pieces, converter.name, paged=converter.pages)
            if converter.pages and intake.blank:
                raise Unconvertible(
                    "It is a scan: its pages have no text.", hint="ocrmypdf IN OUT recognises it; then load OUT."
                )
            return intake
        start = self._pack.begin()
        encoding = (encodings.without_mark(head) or "") if self._convert and wide_encoding(head) is None else ""
        if encoding:
            return read_once(self._pack, fd, before, raw=False, encoding=encoding)
        intake = _read_grown(self._pack, fd, before, raw, grown)
        if self._convert and intake.first_stray is not None and intake.encoding == "utf-8":
            sample = os.pread(fd, encodings.SAMPLE_BYTES, encodings.sample_around(intake.first_stray))
            found = encodings.of_sample(sample)
            if found is not None:
                self._pack.rewind(start)
                return read_once(self._pack, fd, before, raw=False, encoding=found)
            intake.note = intake.note or "some bytes are no UTF-8; they are kept as they are"
        return intake

    def _settle(
        self, loaded: Loaded, intake: Intake, name: str, origin: str | None, identity: FileIdentity | None
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


def _may_have_grown(known: PinnedDocument, size: int) -> bool:
    plain = known.digest == known.origin_digest and known.format == "text"  # stored as it was read, and not damaged
    return plain and _GROWN_BYTES <= known.bytes < size and len(known.segments) < _MOST_SEGMENTS


def _read_grown(pack: Pack, fd: int, before: os.stat_result, raw: bool, grown: PinnedDocument | None) -> Intake:
    if grown is not None:
        try:
            return read_once(pack, fd, before, raw=raw, grown=grown)
        except NotGrown:
            pass
    return read_once(pack, fd, before, raw=raw)


def _prefixes(roots: list[str]) -> dict[str, str]:
    """What comes before a document's name, so that names of several roots differ; nothing for one root."""
    if len(roots) == 1:
        return {roots[0]: ""}
    bases = [os.path.basename(root) for root in roots]
    return {
        root: (printable(root) if bases.count(base) > 1 or not base else printable(base)) + "/"
        for root, base in zip(roots, bases, strict=True)
    }
