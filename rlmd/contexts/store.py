"""The contexts of this daemon: loading, listing, reading, searching, dropping; and who may know of which.

The room's front. What is kept is in ``vault``; the loop only waits. A load is acknowledged when its blob is synced and
its catalogue row committed.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from threading import Event

from rlmd.contexts.access import Access
from rlmd.contexts.blobs import FolderLock, make_private_folder
from rlmd.contexts.catalogue import ContextChange, ContextRow, KnownDocument
from rlmd.contexts.changes import (
    change_of,
    check_kind,
    checked,
    comparable,
    content_name,
    forecast,
    implicit_path_name,
    report,
)
from rlmd.contexts.converting import Converters
from rlmd.contexts.intake import Pack
from rlmd.contexts.loading import Loader
from rlmd.contexts.pinned import PinnedContext
from rlmd.contexts.privacy import PrivacyRules
from rlmd.contexts.records import (
    Collected,
    ContextInfo,
    Diff,
    DocumentInfo,
    Hit,
    LoadReport,
    PathSource,
    Peek,
    SearchMode,
    Source,
    SpoolSource,
    UploadSource,
)
from rlmd.contexts.retention import Retention, collect
from rlmd.contexts.threads import Threads
from rlmd.contexts.uploads import Announced, Uploads
from rlmd.contexts.vault import Vault
from rlmd.errors import Conflict, InvalidParams, NotFound, RlmdError, SourceMissing

MAX_PEEK_CHARS = 65_536
#: How long an upload that nobody appends to is kept: a client's machine may sleep over a night.
_UPLOAD_SECONDS = 86_400.0


class ContextStore:
    """Made by ``open``. All methods are called on the loop's thread."""

    #: What was found amiss at open, a sentence each, for the log and for ``daemon/doctor``.
    notices: tuple[str, ...]

    @classmethod
    async def open(
        cls,
        state_folder: Path,
        cache_folder: Path,
        spool_folder: Path,
        private: Sequence[str] = (),
        converters: Converters | None = None,
        retention: Retention | None = None,
    ) -> ContextStore:
        """Opens the store, making what is missing. ``private`` are patterns of paths that are private by rule.

        Raises:
            Unavailable: Another daemon uses the folder, or it belongs to someone else.
        """
        store = cls(
            state_folder,
            cache_folder,
            spool_folder,
            PrivacyRules(private),
            converters or Converters(),
            retention or Retention(),
        )
        try:
            await store._start()
        except BaseException:
            await store.close()
            raise
        return store

    def __init__(
        self,
        state_folder: Path,
        cache_folder: Path,
        spool_folder: Path,
        rules: PrivacyRules,
        converters: Converters,
        retention: Retention,
    ) -> None:
        self.notices = ()
        self._folder = state_folder / "contexts"
        self._cache_folder = cache_folder
        self._spool_folder = spool_folder
        self._rules = rules
        self._converters = converters
        self._retention = retention
        self._threads = Threads()
        self._loading: dict[str, tuple[asyncio.Lock, int]] = {}
        self._lock: FolderLock | None = None
        self._vault: Vault | None = None
        self._uploads: Uploads
        self._access: Access

    async def _start(self) -> None:
        for folder in (self._folder.parent, self._folder, self._cache_folder, self._spool_folder):
            make_private_folder(folder)
        self._lock = FolderLock(self._folder)
        self._uploads = Uploads(self._folder / "uploads", _UPLOAD_SECONDS)
        self._uploads.sweep()
        self._vault = await Vault.open(self._folder / "store", self._cache_folder / "index", self._threads)
        self._access = Access(self._vault.rows, self._rules)
        self.notices = self._vault.notices
        for row in list(self._vault.rows.values()):  # a rule may be newer than what it covers
            if not row.info.private and self._rules.cover(row.info.sources):
                await self._vault.set_private(row, True)

    async def close(self) -> None:
        """Waits for what is being committed, ends the helpers, lets go of the folder."""
        await self._threads.settle()
        if self._vault is not None:
            await self._vault.close()
            self._vault = None
        self._threads.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────

    def list(self, *, egress: bool = False) -> tuple[ContextInfo, ...]:
        """All contexts by name; for a client whose reading may leave the machine, the public ones."""
        infos = (row.info for row in self._kept.rows.values())
        return tuple(sorted((i for i in infos if not (egress and i.private)), key=lambda i: i.name))

    def is_private(self, name: str) -> bool:
        """Whether there is a context of that name and it is private."""
        return self._access.is_private(name)

    def real_name(self, name: str, *, egress: bool = False) -> str:
        """The name under which a client's context is kept. Raises ``NotFound``."""
        return self._row(name, egress).info.name

    def statistics(self) -> tuple[int, int]:
        """How many contexts, and the bytes of their texts."""
        rows = self._kept.rows.values()
        return len(rows), sum(row.info.bytes for row in rows)

    async def info(
        self, name: str, start: int = 0, limit: int = 100, *, egress: bool = False
    ) -> tuple[ContextInfo, tuple[DocumentInfo, ...]]:
        """A context and its documents from the ``start``-th on."""
        row = self._row(name, egress)
        catalogue = self._kept.catalogue
        documents = await self._threads.in_catalogue(catalogue.document_infos, row.id, row.info.revision, start, limit)
        return row.info, documents

    async def peek(
        self, name: str, document: str | None = None, start: int = 0, chars: int = 2000, *, egress: bool = False
    ) -> Peek:
        """A stretch of a document, which must be named when the context has several."""
        pinned = await self.pin(name, egress=egress)
        if document is None:
            if len(pinned.documents) != 1:
                raise InvalidParams(
                    f"Context {name!r} has {len(pinned.documents)} documents.", hint="Name the one to read."
                )
            document = pinned.documents[0].name
        size = pinned.document(document).chars
        start = min(start, size)
        text = pinned.read(document, start, start + min(chars, MAX_PEEK_CHARS))
        return Peek(document, start, start + len(text), text, size, pinned.line_of(document, start))

    async def pin(self, name: str, *, egress: bool = False) -> PinnedContext:
        """The context at its newest revision.

        Raises:
            NotFound: There is none, or none that this client may know of.
        """
        row = self._row(name, egress)
        await self._kept.touch(row)
        return await self._kept.pin(row)

    async def pin_revision(self, context: str, revision: int, *, egress: bool = False) -> PinnedContext:
        return await self._kept.pin(self._row(context, egress), revision)

    async def search(
        self,
        context: str | PinnedContext,
        query: str,
        mode: SearchMode = "bm25",
        limit: int = 10,
        *,
        egress: bool = False,
    ) -> tuple[builtins.list[Hit], bool]:
        """Places that match, and whether these are all.

        bm25 ranks passages for a question (and waits for the index); regex gives matching lines in order.
        """
        pinned = await self.pin(context, egress=egress) if isinstance(context, str) else context
        searcher = self._kept.searcher
        found, complete = await searcher.search(pinned.key, pinned.pin.revision, query, mode, limit)
        return [Hit(context=pinned.pin.context, label=f"{h['document']}:{h['line']}", **h) for h in found], complete

    async def try_search(self) -> None:
        """For ``daemon/doctor``: the search helper must start and answer. Raises ``Unavailable`` and its like."""
        with contextlib.suppress(NotFound):  # ids begin at 1
            await self._kept.searcher.search(0, 0, "x", "regex", 1)

    # ── loading ─────────────────────────────────────────────────────────────────────────────────────────────

    async def load(
        self,
        source: Source,
        *,
        name: str | None = None,
        implicit: bool = False,
        private: bool = False,
        dry_run: bool = False,
        unless_empty: bool = False,
        egress: bool = False,
    ) -> LoadReport:
        """Reads a source into a context; durable when it returns.

        Args:
            source: Where the text comes from.
            name: The context's; without one it is implicit, named by its paths, or by its content.
            implicit: It expires when it is not used, although it has a name.
            private: Marks the context; a load never takes the mark away.
            dry_run: Reads and reports, keeps nothing.
            unless_empty: A source without a document is an error.
            egress: What the asking client reads may leave the machine: it changes nothing private, and what it makes
                is called ``egress/NAME``.

        Raises:
            NotAllowed: A path is private, and ``egress``.
            Conflict: The name is that of a context of the other kind.
            SourceMissing, SourceUnreadable, NotText, NotVisible: The source's fault.
            DiskFull: Nothing was kept.
        """
        source = checked(source)
        implicit = implicit or name is None
        known_as = name or (implicit_path_name(source) if isinstance(source, PathSource) else None)
        if egress:
            self._access.check_paths(source)
        known_as = known_as and self._access.name_to_load(known_as, egress)
        async with self._name_locked(known_as):
            known = await self._comparable(known_as, source)
            cancelled = Event()
            pack = Pack(self._kept.blobs, dry_run=dry_run, cancelled=cancelled)
            loader = Loader(pack, known, self._spool_folder, self._converters)
            try:
                loaded = await self._threads.until_let_go(lambda: loader.load(source), cancelled)
                ruled = await self._threads.in_files(lambda: self._access.ruled(source, loaded))
                if egress and ruled:
                    raise self._access.refused()

                def described() -> ContextChange:
                    final = known_as or self._access.name_to_load(content_name(source, loaded), egress)
                    return change_of(final, loaded, known, source, private=private or ruled, implicit=implicit)

                change = await self._threads.in_files(described)
                before = self._kept.rows.get(change.name)
                check_kind(change, before)
                if unless_empty and not change.documents:
                    raise SourceMissing(f"nothing is left at {', '.join(change.sources)}", hint="Is its disk mounted?")
                if dry_run:
                    return forecast(before, change, loaded)
                row, verdict = await self._kept.publish(pack, change)
            finally:
                pack.close()
        if isinstance(source, SpoolSource):
            with contextlib.suppress(OSError):
                (self._spool_folder / source.file).unlink()
        return report(verdict, row.info, change, loaded)

    async def begin_upload(self, announced: Announced) -> tuple[str, int]:
        """Begins an upload, or finds the one that was begun: its id, and the bytes that are there."""
        return await self._threads.in_files(lambda: self._uploads.begin(announced))

    async def append_upload(self, upload_id: str, offset: int, data: bytes) -> int:
        """Adds a chunk; the bytes that are there now. Of one upload, one chunk after the other."""
        async with self._name_locked(f"\0{upload_id}"):
            return await self._threads.in_files(lambda: self._uploads.append(upload_id, offset, data))

    async def commit_upload(self, upload_id: str) -> LoadReport:
        """Makes a whole upload a context, as ``load`` does; it is gone then."""
        async with self._name_locked(f"\0{upload_id}"):
            announced, file = await self._threads.in_files(lambda: self._uploads.finished(upload_id))
            source = UploadSource(str(file), announced.origin, announced.raw)
            report = await self.load(source, name=announced.name, private=announced.private, egress=announced.egress)
            await self._threads.in_files(lambda: self._uploads.forget(upload_id))
            return report

    async def update(
        self, name: str, *, dry_run: bool = False, unless_empty: bool = False, egress: bool = False
    ) -> LoadReport:
        """Looks through the paths that a context came from again, as they were named.

        Args:
            name: The context's.
            dry_run: Only report.
            unless_empty: Where nothing is left, that is an error, and the context stays as it is.
            egress: What the asking client reads may leave the machine.

        Raises:
            Conflict: It came from no paths: whoever brought the text must bring it again.
            SourceMissing, SourceUnreadable: They are gone; the context stays as it is.
        """
        row = self._row(name, egress)
        roots = await self._kept.roots(row) if row.info.roots else None
        if roots is None:
            raise Conflict(
                f"Context {name!r} was not loaded from paths.", hint="Load its text again under the same name."
            )
        return await self.load(
            roots,
            name=name,
            implicit=row.info.implicit,
            dry_run=dry_run,
            unless_empty=unless_empty,
            egress=egress,
        )

    async def refresh(self, name: str, *, egress: bool = False) -> str:
        """Before a question: a context of paths is brought up to date. What it says why that could not be done.

        The question is then asked of what is there, which beats none; a folder that is there and empty is taken for a
        disk that is not mounted.
        """
        row = self._row(name, egress)
        if not row.info.roots:
            return ""
        try:
            await self.update(name, unless_empty=True, egress=egress)
        except RlmdError as error:
            return f"context {name!r} is as it was: {error.message}"
        return ""

    async def diff(
        self, name: str, before: int | None = None, after: int | None = None, limit: int = 100, *, egress: bool = False
    ) -> Diff:
        """What changed between two revisions, by default the last two."""
        row = self._row(name, egress)
        after = row.info.revision if after is None else after
        before = max(1, after - 1) if before is None else before
        return await self._kept.diff(row, before, after, limit)

    async def set_private(self, name: str, private: bool) -> ContextInfo:
        """Marks a context private, or takes the mark away. Sessions and runs that held it stay private.

        Raises:
            Conflict: It is private by rule.
        """
        row = self._row(name, False)
        if not private:
            known = await self._kept.known(name)
            origins = [*row.info.sources, *(one.document.origin for one in known.values())]
            if await self._threads.in_files(lambda: self._rules.cover(origins)):
                raise Conflict(
                    f"{name!r} is private by a rule of the settings.", hint="See private in [privacy] of the config."
                )
        return (await self._kept.set_private(row, private)).info

    async def collect(
        self, held: Collection[str], pins: Collection[tuple[str, int]], *, dry_run: bool = False
    ) -> builtins.list[Collected]:
        """Removes what has expired, or says what would be: see ``retention.collect``."""
        return await collect(self._kept, self._uploads, self._retention, held, pins, time.time(), dry_run=dry_run)

    async def drop(self, name: str, *, egress: bool = False) -> None:
        """Erases a context: its rows, the blobs that are only its own, its index."""
        await self._kept.drop(self._row(name, egress))

    async def _comparable(self, name: str | None, source: Source) -> dict[str, KnownDocument]:
        known = await self._kept.known(name)
        row = self._kept.rows.get(name) if name is not None else None
        before = await self._kept.roots(row) if row is not None and row.info.roots else None
        return comparable(known, before, source)

    # ── the inside ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _kept(self) -> Vault:
        assert self._vault is not None, "the store is closed"
        return self._vault

    def _row(self, name: str, egress: bool) -> ContextRow:
        return self._access.row(name, egress)

    @contextlib.asynccontextmanager
    async def _name_locked(self, name: str | None) -> AsyncIterator[None]:
        """Loads of one name go one after the other; a load that has no name yet waits for none."""
        if name is None:
            yield
            return
        lock, users = self._loading.get(name, (asyncio.Lock(), 0))
        self._loading[name] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._loading[name]
            if users == 1:
                del self._loading[name]
            else:
                self._loading[name] = lock, users - 1
