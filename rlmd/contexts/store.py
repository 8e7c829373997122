"""The contexts of this daemon: loading, listing, reading, searching, dropping; and who may know of which.

The room's front. What is kept is in ``vault``; the loop only waits. A load is acknowledged when its blob is synced and
its catalogue row committed.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import dataclasses
import functools
import time
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from threading import Event

from rlmd.contexts.access import Access
from rlmd.contexts.blobs import FolderLock, make_private_folder
from rlmd.contexts.catalogue import ContextChange, KnownDocument
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
from rlmd.contexts.loading import Loaded, Loader, MeantEphemeral
from rlmd.contexts.opening import left_in_spool, unlinked_spool
from rlmd.contexts.privacy import PrivacyRules
from rlmd.contexts.reading import Reading
from rlmd.contexts.records import (
    Collected,
    ContextInfo,
    LoadReport,
    Notice,
    PathSource,
    Source,
    SpoolSource,
    UploadSource,
)
from rlmd.contexts.retention import Retention, collect
from rlmd.contexts.threads import Threads
from rlmd.contexts.uploads import Announced, Uploads
from rlmd.contexts.vault import Vault
from rlmd.contexts.vaults import Vaults
from rlmd.errors import Conflict, RlmdError, SourceMissing

#: How long an upload that nobody appends to is kept: a client's machine may sleep over a night.
_UPLOAD_SECONDS = 86_400.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Wanted:
    """What a client asked to be loaded; ``name`` is that under which it is kept, if there is one already."""

    source: Source
    name: str | None
    implicit: bool
    private: bool
    dry_run: bool
    unless_empty: bool
    egress: bool
    max_bytes: int | None


class ContextStore(Reading):
    """Made by ``open``.

    Attributes:
        notices: What was found amiss at open, for the log and for ``daemon/doctor``.
    """

    _spool_folder: Path
    _converters: Converters
    #: What is to be closed.
    _opened: contextlib.AsyncExitStack

    @classmethod
    async def open(
        cls,
        state_folder: Path,
        cache_folder: Path,
        spool_folder: Path,
        rules: PrivacyRules | None = None,
        converters: Converters | None = None,
        retention: Retention | None = None,
    ) -> ContextStore:
        """Opens the store, making what is missing.

        Raises:
            Unavailable: Another daemon uses the folder, or it belongs to someone else.
        """
        folder = state_folder / "contexts"
        for one in (state_folder, folder, cache_folder, spool_folder):
            make_private_folder(one)
        threads = Threads()
        async with contextlib.AsyncExitStack() as opened:
            opened.callback(FolderLock(folder).release)
            opened.callback(threads.close)
            vaults = await Vaults.open(folder / "store", cache_folder / "index", threads)
            opened.push_async_callback(vaults.close)
            opened.push_async_callback(threads.settle)
            rules = rules or PrivacyRules()
            uploads = Uploads(folder / "uploads", _UPLOAD_SECONDS)
            opened.callback(uploads.close)
            uploads.sweep()
            store = cls(vaults, rules, uploads, retention or Retention(), threads)
            store._spool_folder, store._converters = spool_folder, converters or Converters()
            await store._mark_ruled()
            store._opened = opened.pop_all()
        return store

    def __init__(
        self,
        vaults: Vaults,
        rules: PrivacyRules,
        uploads: Uploads,
        retention: Retention,
        threads: Threads,
    ) -> None:
        super().__init__(vaults, Access(vaults.rows, rules), threads)
        self.notices = vaults.disk.notices
        self._rules = rules
        self._uploads = uploads
        self._retention = retention
        self._loading: dict[str, tuple[asyncio.Lock, int]] = {}

    async def use(
        self, private: Sequence[str], ephemeral: Sequence[str], converters: Converters, retention: Retention
    ) -> None:
        """Other rules from now on. What a new rule covers is private when this returns; what no rule covers any more
        stays private until somebody says otherwise."""
        self._rules.use(private, ephemeral)
        self._converters, self._retention = converters, retention
        await self._mark_ruled()

    async def _mark_ruled(self) -> None:
        """A rule may be newer than what it covers."""
        for name, row in list(self._vaults.rows.items()):
            covers = functools.partial(self._rules.cover, row.info.sources)
            if row.info.private or not await self._threads.in_files(covers):
                continue
            if (now := self._vaults.rows.get(name)) is not None:  # it may have been loaded anew, or dropped
                await self._vaults.of(now).set_private(now, True)
        disk = self._vaults.disk
        sources = [row.info.sources for row in disk.rows.values()]
        count = await self._threads.in_files(lambda: sum(map(self._rules.cover_as_ephemeral, sources)))
        late = Notice(f"{count} contexts that a rule makes ephemeral are on disk", "Drop them.")
        self.notices = (*disk.notices, *[late] * bool(count))

    async def close(self) -> None:
        """Waits for what is being committed, ends the helpers, lets go of the folder."""
        await self._opened.aclose()

    # ── loading ─────────────────────────────────────────────────────────────────────────────────────────────

    async def load(
        self,
        source: Source,
        *,
        name: str | None = None,
        implicit: bool = False,
        private: bool = False,
        ephemeral: bool = False,
        dry_run: bool = False,
        unless_empty: bool = False,
        egress: bool = False,
        max_bytes: int | None = None,
    ) -> LoadReport:
        """Reads a source into a context; durable when it returns.

        Args:
            source: Where the text comes from.
            name: The context's; without one it is implicit, named by its paths, or by its content.
            implicit: It expires when it is not used, although it has a name.
            private: Marks the context; a load never takes the mark away.
            ephemeral: It is private, and in memory alone; once it is so it stays so.
            dry_run: Reads and reports, keeps nothing.
            unless_empty: A source without a document is an error.
            egress: What the asking client reads may leave the machine: it changes nothing private, and what it makes
                is called ``egress/NAME``.
            max_bytes: Of what must be read; where it is more, nothing is kept.

        Raises:
            NotAllowed: A path is private, and ``egress``; or what is ephemeral came by a folder on disk.
            Conflict: The name is that of a context of the other kind, or of one on disk, and ``ephemeral``.
            SourceMissing, SourceUnreadable, NotText, NotVisible: The source's fault.
            TooLarge: It is more than ``max_bytes``, or than there is room for.
            DiskFull: Nothing was kept.
        """
        source = checked(source)
        implicit = implicit or name is None
        known_as = name or (implicit_path_name(source) if isinstance(source, PathSource) else None)
        if egress:
            self._access.check_paths(source)
        known_as = known_as and self._access.kept_name(known_as, egress)
        ruled = await self._threads.in_files(lambda: self._access.ruled_ephemeral(source))
        wanted = _Wanted(source, known_as, implicit, private, dry_run, unless_empty, egress, max_bytes)
        async with self._name_locked(known_as):
            try:
                return await self._load(wanted, ephemeral=ephemeral or ruled)
            except MeantEphemeral:
                return await self._load(wanted, ephemeral=True)

    async def _load(self, wanted: _Wanted, *, ephemeral: bool) -> LoadReport:
        """Raises ``MeantEphemeral`` before anything is written that must not be on disk."""
        source, known_as, egress = wanted.source, wanted.name, wanted.egress
        vault = self._vaults.to_load(known_as, ephemeral=ephemeral)
        ephemeral = vault is self._vaults.memory
        known = await self._comparable(vault, known_as, source)
        cancelled = Event()
        pack = Pack(vault.blobs, dry_run=wanted.dry_run, cancelled=cancelled, most=wanted.max_bytes)
        loader = Loader(
            pack,
            known,
            self._spool_folder,
            self._converters,
            lambda path: not ephemeral and self._rules.cover_as_ephemeral([path]),
            self._access.left_out(),
        )

        def read() -> Loaded:
            if not ephemeral or not isinstance(source, SpoolSource):
                return loader.load(source)
            with unlinked_spool(self._spool_folder, source) as nameless:
                return loader.load(nameless)

        try:
            loaded = await self._threads.until_let_go(read, cancelled)
            ruled = await self._threads.in_files(lambda: self._access.ruled(source, loaded))
            if egress and ruled:
                raise self._access.refused()

            def described() -> ContextChange:
                final = known_as or self._access.kept_name(content_name(source, loaded, ephemeral), egress)
                hidden = wanted.private or ruled or ephemeral
                return change_of(final, loaded, known, source, private=hidden, implicit=wanted.implicit)

            change = await self._threads.in_files(described)
            before = self._vaults.rows.get(change.name)
            check_kind(change, before)
            if wanted.unless_empty and not change.documents:
                raise SourceMissing(f"nothing is left at {', '.join(change.sources)}", hint="Is its disk mounted?")
            told = forecast(before, change, loaded)
            if not wanted.dry_run:
                row, verdict = await vault.publish(pack, change)
                told = report(verdict, row.info, change, loaded)
            await self._threads.emptied(loaded.fresh, loaded.kept, known)
        finally:
            pack.close()
        if wanted.dry_run:
            return told
        if isinstance(source, SpoolSource) and not ephemeral:
            with contextlib.suppress(OSError):
                (self._spool_folder / source.file).unlink()
        return told

    async def begin_upload(self, announced: Announced) -> tuple[str, int]:
        """Begins an upload, or finds the one that was begun: its id, and the bytes that are there."""
        if await self._threads.in_files(lambda: self._rules.cover_as_ephemeral([announced.origin])):
            announced = dataclasses.replace(announced, ephemeral=True)
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
            report = await self.load(
                source,
                name=announced.name,
                private=announced.private,
                ephemeral=announced.ephemeral,
                egress=announced.egress,
            )
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
        roots = await self._vaults.of(row).roots(row) if row.info.roots else None
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

    async def set_private(self, name: str, private: bool) -> ContextInfo:
        """Marks a context private, or takes the mark away. Sessions and runs that held it stay private.

        Raises:
            Conflict: It is private by rule, or ephemeral.
        """
        row = self._row(name, False)
        vault = self._vaults.of(row)
        if not private:
            if row.info.ephemeral:
                raise Conflict(f"{name!r} is ephemeral, and so private.", hint="Load it under another name.")
            known = await vault.known(name)
            origins = [*row.info.sources, *(one.document.origin for one in known.values())]
            if await self._threads.in_files(lambda: self._rules.cover(origins)):
                raise Conflict(
                    f"{name!r} is private by a rule of the settings.", hint="See private in [privacy] of the config."
                )
        return (await vault.set_private(row, private)).info

    async def collect(
        self, held: Collection[str], pins: Collection[tuple[str, int]], *, dry_run: bool = False
    ) -> builtins.list[Collected]:
        """Removes what has expired, or says what would be: see ``retention.collect``."""
        now = time.time()
        found = await collect(self._vaults, self._uploads, self._retention, held, pins, now, dry_run=dry_run)
        left = await self._threads.in_files(
            lambda: left_in_spool(self._spool_folder, now - _UPLOAD_SECONDS, dry_run=dry_run)
        )
        if left:
            found.append(Collected("uploads", "", sum(left), f"{len(left)} in the spool folder that nobody loaded"))
        return found

    async def drop(self, name: str, *, egress: bool = False) -> None:
        """Erases a context: its rows, the blobs that are only its own, its index."""
        row = self._row(name, egress)
        await self._vaults.of(row).drop(row)

    async def _comparable(self, vault: Vault, name: str | None, source: Source) -> dict[str, KnownDocument]:
        known = await vault.known(name)
        row = vault.rows.get(name) if name is not None else None
        before = await vault.roots(row) if row is not None and row.info.roots else None
        return comparable(known, before, source)

    # ── the inside ──────────────────────────────────────────────────────────────────────────────────────────

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
