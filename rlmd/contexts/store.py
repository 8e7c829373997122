"""The contexts of this daemon: loading, listing, reading, searching, dropping.

Puts the room's parts together. The catalogue runs on one thread, file work on a few others, searching in helper
processes; the loop only waits. A load is acknowledged when its blob is synced and its catalogue row committed.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import dataclasses
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from rlmd.contexts import blobs as blobs_module
from rlmd.contexts.blobs import BlobFolder, FolderLock, make_private_folder
from rlmd.contexts.catalogue import Catalogue, CatalogueUnreadable, ContextChange, ContextRow, KnownDocument
from rlmd.contexts.changes import change_of, checked, content_name, implicit_path_name, placed, report
from rlmd.contexts.intake import Pack
from rlmd.contexts.loading import Loaded, Loader
from rlmd.contexts.pinned import PinnedContext
from rlmd.contexts.records import (
    Change,
    ContextInfo,
    DocumentInfo,
    Hit,
    LoadReport,
    PathSource,
    Peek,
    SearchMode,
    Source,
    SpoolSource,
)
from rlmd.contexts.searching import Searcher
from rlmd.errors import Conflict, InvalidParams, NotAllowed, NotFound
from rlmd.events import Pin

T = TypeVar("T")

MAX_PEEK_CHARS = 65_536
_PINS_KEPT = 16


class ContextStore:
    """Made by ``open``. All methods are called on the loop's thread."""

    #: What was found amiss at open, a sentence each, for the log and for ``daemon/doctor``.
    notices: tuple[str, ...]

    @classmethod
    async def open(cls, state_folder: Path, cache_folder: Path, spool_folder: Path) -> ContextStore:
        """Opens the store, making what is missing.

        Raises:
            Unavailable: Another daemon uses the folder, or it belongs to someone else.
        """
        store = cls(state_folder, cache_folder, spool_folder)
        try:
            await store._start()
        except BaseException:
            await store.close()
            raise
        return store

    def __init__(self, state_folder: Path, cache_folder: Path, spool_folder: Path) -> None:
        self.notices = ()
        self._folder = state_folder / "contexts"
        self._cache_folder = cache_folder
        self._spool_folder = spool_folder
        self._catalogue_thread = ThreadPoolExecutor(1, thread_name_prefix="catalogue")
        self._file_threads = ThreadPoolExecutor(2, thread_name_prefix="contexts")
        self._rows: dict[str, ContextRow] = {}
        self._pins: OrderedDict[tuple[int, int], PinnedContext] = OrderedDict()
        self._publishing = asyncio.Lock()
        self._loading: dict[str, tuple[asyncio.Lock, int]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        #: Blobs found missing or cut at open.
        self._damaged: set[str] = set()
        self._lock: FolderLock | None = None
        self._catalogue: Catalogue | None = None
        self._searcher: Searcher | None = None
        self._blobs: BlobFolder

    async def _start(self) -> None:
        for folder in (self._folder.parent, self._folder, self._cache_folder, self._spool_folder):
            make_private_folder(folder)
        self._lock = FolderLock(self._folder)
        self.notices, store_id, rows = await self._in_catalogue_thread(self._open_catalogue)
        self._rows = {row.info.name: row for row in rows}
        self._searcher = Searcher(self._folder / "store", self._cache_folder / "index", store_id)
        self._searcher.sweep({row.id for row in rows})

    def _open_catalogue(self) -> tuple[tuple[str, ...], str, list[ContextRow]]:
        """Opens catalogue and blobs; sets them aside when the catalogue cannot be read."""
        notices = []
        folder = self._folder / "store"
        make_private_folder(folder)
        try:
            self._catalogue = Catalogue(folder / "catalogue.sqlite")
        except CatalogueUnreadable as error:
            aside = folder.with_name(f"store.unreadable-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}")
            folder.rename(aside)
            notices.append(f"the catalogue of contexts could not be read ({error}); it was set aside as {aside}")
            make_private_folder(folder)
            self._catalogue = Catalogue(folder / "catalogue.sqlite")
        self._blobs = BlobFolder(folder / "blobs")
        wanted = self._catalogue.blobs()
        self._blobs.sweep(wanted)
        self._damaged = {digest for digest, size in wanted.items() if not self._blobs.holds(digest, size)}
        if self._damaged:
            notices.append(f"{len(self._damaged)} stored texts are missing or cut; load their contexts again")
        return tuple(notices), self._catalogue.store_id(), self._catalogue.contexts()

    async def close(self) -> None:
        """Waits for what is being committed, ends the helpers, lets go of the folder."""
        for task in list(self._tasks):
            with contextlib.suppress(Exception):
                await asyncio.shield(task)
        if self._searcher is not None:
            await self._searcher.close()
        if self._catalogue is not None:
            await self._in_catalogue_thread(self._catalogue.close)
            self._catalogue = None
        self._catalogue_thread.shutdown()
        self._file_threads.shutdown()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────

    def list(self, *, egress: bool = False) -> tuple[ContextInfo, ...]:
        """All contexts by name; for a client whose reading may leave the machine, the public ones."""
        infos = (row.info for row in self._rows.values())
        return tuple(sorted((i for i in infos if not (egress and i.private)), key=lambda i: i.name))

    def is_private(self, name: str) -> bool:
        """Whether there is a context of that name and it is private."""
        row = self._rows.get(name)
        return row is not None and row.info.private

    def statistics(self) -> tuple[int, int]:
        """How many contexts, and the bytes of their texts."""
        return len(self._rows), sum(row.info.bytes for row in self._rows.values())

    async def info(
        self, name: str, start: int = 0, limit: int = 100, *, egress: bool = False
    ) -> tuple[ContextInfo, tuple[DocumentInfo, ...]]:
        """A context and its documents from the ``start``-th on."""
        row = self._row(name, egress)
        documents = await self._in_catalogue_thread(
            self._open_one.document_infos, row.id, row.info.revision, start, limit
        )
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
        return await self._pinned(self._row(name, egress))

    async def pin_revision(self, context: str, revision: int, *, egress: bool = False) -> PinnedContext:
        return await self._pinned(self._row(context, egress), revision)

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
        assert self._searcher is not None
        found, complete = await self._searcher.search(pinned.key, pinned.pin.revision, query, mode, limit)
        return [Hit(context=pinned.pin.context, label=f"{h['document']}:{h['line']}", **h) for h in found], complete

    async def try_search(self) -> None:
        """For ``daemon/doctor``: the search helper must start and answer. Raises ``Unavailable`` and its like."""
        assert self._searcher is not None
        with contextlib.suppress(NotFound):  # ids begin at 1
            await self._searcher.search(0, 0, "x", "regex", 1)

    # ── loading ─────────────────────────────────────────────────────────────────────────────────────────────

    async def load(
        self,
        source: Source,
        *,
        name: str | None = None,
        private: bool = False,
        dry_run: bool = False,
        egress: bool = False,
    ) -> LoadReport:
        """Reads a source into a context; durable when it returns.

        Args:
            source: Where the text comes from.
            name: The context's; without one it is implicit, named by its paths, or by its content.
            private: Marks the context; a load never takes the mark away.
            dry_run: Reads and reports, keeps nothing.
            egress: What the asking client reads may leave the machine: it changes nothing private.

        Raises:
            NotAllowed: The name, given or found, is that of a private context, and ``egress``.
            Conflict: The name is that of a context of the other kind.
            SourceMissing, SourceUnreadable, NotText, NotVisible: The source's fault.
            DiskFull: Nothing was kept.
        """
        source = checked(source)
        implicit = name is None
        known_as = name or (implicit_path_name(source) if isinstance(source, PathSource) else None)
        async with self._name_locked(known_as):
            if egress and known_as is not None:
                self._refuse_private(known_as)
            known = await self._known(known_as)
            cancelled = Event()
            pack = Pack(self._blobs, dry_run=dry_run, cancelled=cancelled)
            loader = Loader(pack, known, self._spool_folder)
            try:
                loaded = await self._in_file_thread(lambda: loader.load(source), cancelled)
                change = await self._described(known_as, loaded, known, source, private=private, implicit=implicit)
                if egress:
                    self._refuse_private(change.name)
                if dry_run:
                    return self._forecast(change, loaded)
                row, verdict = await self._whole(self._publish(pack, change))
            finally:
                pack.close()
        if isinstance(source, SpoolSource):
            with contextlib.suppress(OSError):
                (self._spool_folder / source.file).unlink()
        assert self._searcher is not None
        self._searcher.index_soon(row.id, row.info.revision)
        return report(verdict, row.info, change, loaded)

    def _refuse_private(self, name: str) -> None:
        if self.is_private(name):
            raise NotAllowed(
                "This client may not load into that context: what it reads may leave the machine.",
                hint="Load it with rlmctl or from Emacs, or choose another name.",
            )

    async def drop(self, name: str, *, egress: bool = False) -> None:
        """Erases a context: its rows, the blobs that are only its own, its index."""
        await self._whole(self._drop(self._row(name, egress)))

    async def _drop(self, row: ContextRow) -> None:
        assert self._searcher is not None
        async with self._publishing:
            orphans = await self._in_catalogue_thread(self._open_one.drop, row.id)
            self._rows.pop(row.info.name, None)
            for key in [k for k in self._pins if k[0] == row.id]:
                del self._pins[key]
            await self._run(self._file_threads, lambda: self._blobs.remove(orphans))
        await self._searcher.forget(row.id)

    async def _publish(self, pack: Pack, change: ContextChange) -> tuple[ContextRow, Change]:
        """Blob, sync, catalogue: in this order; a drop cannot come between."""
        async with self._publishing:
            if change.fresh:
                change = await self._run(self._file_threads, lambda: self._stored(pack, change))
            row, verdict = await self._in_catalogue_thread(self._open_one.apply, change, time.time())
            self._rows[row.info.name] = row
            return row, verdict

    def _stored(self, pack: Pack, change: ContextChange) -> ContextChange:
        """Publishes the pack; the change with its documents in it."""
        try:
            blob = pack.publish(self._blobs)
            self._blobs.sync()
        except OSError as error:
            raise blobs_module.translated(error, "storing the context") from error
        fresh = [placed(document, pack.digest) for document in change.fresh]
        return dataclasses.replace(change, blob=blob, fresh=fresh)

    async def _known(self, name: str | None) -> dict[str, KnownDocument]:
        row = self._rows.get(name) if name is not None else None
        if row is None:
            return {}
        known = await self._in_catalogue_thread(self._open_one.known, row.id)
        return {name: self._unless_damaged(document) for name, document in known.items()} if self._damaged else known

    def _unless_damaged(self, known: KnownDocument) -> KnownDocument:
        """A document whose blob is lost equals nothing, so that loading it again stores it again."""
        if self._damaged.isdisjoint(s.blob for s in known.document.segments):
            return known
        return dataclasses.replace(known, identity=None, document=dataclasses.replace(known.document, digest=""))

    async def _described(
        self,
        name: str | None,
        loaded: Loaded,
        known: dict[str, KnownDocument],
        source: Source,
        *,
        private: bool,
        implicit: bool,
    ) -> ContextChange:
        def describe() -> ContextChange:
            final = name or content_name(source, loaded)
            return change_of(final, loaded, known, source, private=private, implicit=implicit)

        change = await self._run(self._file_threads, describe)
        before = self._rows.get(change.name)
        if before is not None and before.info.kind != loaded.kind:
            raise Conflict(
                f"{change.name!r} is a {before.info.kind}, the source a {loaded.kind}.",
                hint="Choose another name, or drop it.",
            )
        return change

    def _forecast(self, change: ContextChange, loaded: Loaded) -> LoadReport:
        before = self._rows.get(change.name)
        verdict: Change = "created" if before is None else "updated" if change.fresh or change.gone else "unchanged"
        return report(verdict, None, change, loaded)

    # ── the inside ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _open_one(self) -> Catalogue:
        assert self._catalogue is not None, "the store is closed"
        return self._catalogue

    def _row(self, name: str, egress: bool) -> ContextRow:
        row = self._rows.get(name)
        if row is None or (egress and row.info.private):
            raise NotFound(f"There is no context {name!r}.", hint="context/list shows those that there are.")
        return row

    async def _pinned(self, row: ContextRow, revision: int | None = None) -> PinnedContext:
        revision = row.info.revision if revision is None else revision
        key = (row.id, revision)
        kept = self._pins.get(key)
        if kept is None or kept.pin.private != row.info.private:
            kept = await self._in_catalogue_thread(self._read_pin, row, revision)
            self._pins[key] = kept
            while len(self._pins) > _PINS_KEPT:
                self._pins.popitem(last=False)
        self._pins.move_to_end(key)
        return kept

    def _read_pin(self, row: ContextRow, revision: int) -> PinnedContext:
        known = self._open_one.revision(row.id, revision)
        if known is None:
            raise NotFound(
                f"Context {row.info.name!r} has no revision {revision}.", hint="It was dropped and made anew."
            )
        digest, count, chars = known
        documents = self._open_one.documents(row.id, revision)
        pin = Pin(
            context=row.info.name, revision=revision, kind=row.info.kind, private=row.info.private,
            documents=count, chars=chars, digest=digest,
        )  # fmt: skip
        assert self._searcher is not None
        return PinnedContext(pin, documents, row.id, {d.name: d for d in documents}, self._blobs, self._searcher)

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

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs work that a cancellation must not tear: it is finished first."""
        task = asyncio.get_running_loop().create_task(work, name="contexts: commit")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _until_done(task)
            raise

    async def _in_file_thread(self, work: Callable[[], T], cancelled: Event) -> T:
        """Runs work that looks at ``cancelled``; when this task is cancelled, waits until it has let go."""
        future = asyncio.get_running_loop().run_in_executor(self._file_threads, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            cancelled.set()
            await _until_done(future)
            raise

    async def _in_catalogue_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await self._run(self._catalogue_thread, lambda: work(*arguments))

    @staticmethod
    async def _run(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)


async def _until_done(future: asyncio.Future[Any]) -> None:
    """Waits, however often the waiting task is cancelled meanwhile: what the future uses must not be taken away."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # it was looked at
