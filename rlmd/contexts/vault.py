"""What is kept: the catalogue, the blobs that it names, the indexes made of them, and the newest row of each context.

Writes in one order (blob, sync, catalogue) and one at a time, so that what is acknowledged is whole. Knows nothing of
sources, of who asks, or of what a load means.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rlmd.contexts import blobs as blobs_module
from rlmd.contexts.blobs import BlobFolder, Blobs, make_private_folder
from rlmd.contexts.catalogue import Catalogue, ContextChange, ContextRow, KnownDocument
from rlmd.contexts.changes import placed
from rlmd.contexts.intake import Pack
from rlmd.contexts.memory import MemoryBlobs, Snapshot
from rlmd.contexts.pinned import PinnedContext
from rlmd.contexts.records import Change, Diff, DocumentChange, Notice, PathSource
from rlmd.contexts.schema import CatalogueUnreadable
from rlmd.contexts.searching import IndexFile, IndexFolder, Searcher
from rlmd.contexts.threads import Threads
from rlmd.errors import DiskFull, NotFound
from rlmd.events import Pin

_PINS_KEPT = 16
_TOUCH_SECONDS = 3600.0


class Vault:
    """Made by ``open``. All methods are called on the loop's thread.

    Attributes:
        rows: Each context at its newest revision, by name.
        notices: What was found amiss at open.
    """

    blobs: Blobs
    searcher: Searcher
    catalogue: Catalogue
    #: What helpers read of a catalogue in memory.
    _snapshot: Snapshot | None = None
    #: Where indexes are; None: in the helper's memory.
    _indexes: IndexFolder | None = None

    @classmethod
    async def open(cls, folder: Path, index_folder: Path, threads: Threads) -> Vault:
        """Opens the vault in ``folder``, making what is missing; one that cannot be read is set aside."""
        vault = cls(threads)
        store_id, rows = await threads.in_catalogue(vault._open, folder)
        vault.rows.update((row.info.name, row) for row in rows)
        vault._indexes = indexes = IndexFolder(index_folder, store_id)
        indexes.sweep({row.id for row in rows})
        vault.searcher = Searcher.of_disk(folder, indexes)
        return vault

    @classmethod
    async def in_memory(cls, threads: Threads) -> Vault:
        """A vault of ephemeral contexts: nothing of it is ever on a disk, and it is gone when it is closed."""
        vault = cls(threads)
        vault.catalogue = await threads.in_catalogue(Catalogue, None)
        vault.blobs = blobs = MemoryBlobs()
        vault._snapshot = snapshot = Snapshot()

        @contextlib.contextmanager
        def held() -> Iterator[dict[str, Any]]:
            with snapshot.shown() as shown:
                yield {**shown, "blobs": blobs.where()}

        vault.searcher = Searcher.of_memory(held)
        return vault

    def __init__(self, threads: Threads) -> None:
        self.notices: tuple[Notice, ...] = ()
        self.rows: dict[str, ContextRow] = {}
        self._threads = threads
        self._pins: OrderedDict[tuple[int, int], PinnedContext] = OrderedDict()
        self._publishing = asyncio.Lock()
        #: Blobs found missing or cut at open.
        self._damaged: set[str] = set()

    def _open(self, folder: Path) -> tuple[str, list[ContextRow]]:
        notices = []
        make_private_folder(folder)
        try:
            self.catalogue = Catalogue(folder / "catalogue.sqlite")
        except CatalogueUnreadable as error:
            aside = folder.with_name(f"store.unreadable-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}")
            folder.rename(aside)
            text = f"the catalogue of contexts could not be read ({error}); it was set aside as {aside}"
            notices.append(
                Notice(text, "Load those contexts again, or open that folder with the release that wrote it.")
            )
            make_private_folder(folder)
            self.catalogue = Catalogue(folder / "catalogue.sqlite")
        self.blobs = blobs = BlobFolder(folder / "blobs")
        wanted = self.catalogue.blobs()
        blobs.sweep(wanted)
        blobs.reserve()
        self._damaged = {digest for digest, size in wanted.items() if not blobs.holds(digest, size)}
        if self._damaged:
            notices.append(
                Notice(f"{len(self._damaged)} stored texts are missing or cut", "Load their contexts again.")
            )
        self.notices = tuple(notices)
        return self.catalogue.store_id(), self.catalogue.contexts()

    async def close(self) -> None:
        """Ends the helpers and closes the catalogue."""
        await self.searcher.close()
        await self._threads.in_catalogue(self.catalogue.close)
        if self._snapshot is not None:
            self._snapshot.close()
        if isinstance(self.blobs, MemoryBlobs):
            self.blobs.close()

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────

    async def pin(self, row: ContextRow, revision: int | None = None) -> PinnedContext:
        """The context at a revision, by default its newest.

        Raises:
            NotFound: There is no such revision.
        """
        revision = row.info.revision if revision is None else revision
        key = (row.id, revision)
        kept = self._pins.get(key)
        if kept is None or kept.pin.private != row.info.private:
            kept = await self._threads.in_catalogue(self._read_pin, row, revision)
            self._pins[key] = kept
            while len(self._pins) > _PINS_KEPT:
                self._pins.popitem(last=False)
        self._pins.move_to_end(key)
        return kept

    def _read_pin(self, row: ContextRow, revision: int) -> PinnedContext:
        known = self.catalogue.revision(row.id, revision)
        if known is None:
            raise NotFound(
                f"Context {row.info.name!r} has no revision {revision}.", hint="It was dropped and made anew."
            )
        digest, count, chars = known
        documents = self.catalogue.documents(row.id, revision)
        pin = Pin(
            context=row.info.name, revision=revision, kind=row.info.kind, private=row.info.private,
            documents=count, chars=chars, digest=digest, ephemeral=row.info.ephemeral,
        )  # fmt: skip
        pinned = PinnedContext(pin, documents, row.id, {d.name: d for d in documents}, self.blobs, self.searcher)
        # Runs and sessions hold it as long as they like; whose thread lets go of it last must not free it all at once.
        weakref.finalize(pinned, self._threads.free_soon, documents).atexit = False
        return pinned

    async def known(self, name: str | None) -> dict[str, KnownDocument]:
        """The documents of a context's newest revision, by name; of no context, none."""
        row = self.rows.get(name) if name is not None else None
        if row is None:
            return {}
        known = await self._threads.in_catalogue(self.catalogue.known, row.id)
        return {name: self._unless_damaged(document) for name, document in known.items()} if self._damaged else known

    def _unless_damaged(self, known: KnownDocument) -> KnownDocument:
        """A document whose blob is lost equals nothing, so that loading it again stores it again."""
        if self._damaged.isdisjoint(s.blob for s in known.document.segments):
            return known
        return dataclasses.replace(known, identity=None, document=dataclasses.replace(known.document, digest=""))

    async def indexes(self) -> list[IndexFile]:
        """The search indexes on disk."""
        return await self._threads.in_files(self._indexes.all) if self._indexes is not None else []

    async def roots(self, row: ContextRow) -> PathSource | None:
        return await self._threads.in_catalogue(self.catalogue.roots, row.id)

    async def diff(self, row: ContextRow, before: int, after: int, start: int, limit: int) -> Diff:
        """What changed from one revision to another.

        Raises:
            NotFound: One of them is not kept.
        """
        for revision in (before, after):
            await self.pin(row, revision)
        told = await self.searcher.diff(row.id, before, after, start, limit)
        documents = tuple(DocumentChange(**one) for one in told.pop("documents"))
        return Diff(before, after, documents=documents, **told)

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────

    async def publish(self, pack: Pack, change: ContextChange) -> tuple[ContextRow, Change]:
        """Commits a load wholly, also when the caller is cancelled meanwhile.

        Raises:
            DiskFull: Nothing was kept.
        """
        return await self._threads.whole(self._publish(pack, change))

    async def _publish(self, pack: Pack, change: ContextChange) -> tuple[ContextRow, Change]:
        """Blob, sync, catalogue: in this order; a drop cannot come between."""
        async with self._publishing:
            if change.fresh:
                change = await self._threads.in_files(lambda: self._stored(pack, change))
            row, verdict = await self._threads.in_catalogue(self._applied, change)
            self.rows[row.info.name] = row
        self.searcher.index_soon(row.id, row.info.revision)
        self._threads.free_soon(change.fresh)
        return row, verdict

    def _applied(self, change: ContextChange) -> tuple[ContextRow, Change]:
        row, verdict = self.catalogue.apply(change, time.time())
        if verdict != "unchanged":
            self._show()
        return row, verdict

    def _show(self) -> None:
        """What is in memory alone is shown to the helper anew."""
        if self._snapshot is not None:
            self._snapshot.write(self.catalogue.snapshot())

    def _stored(self, pack: Pack, change: ContextChange) -> ContextChange:
        """Publishes the pack; the change with its documents in it."""
        try:
            blob = pack.publish(self.blobs)
            self.blobs.sync()
        except OSError as error:
            raise blobs_module.translated(error, "storing the context") from error
        fresh = [placed(document, pack.digest) for document in change.fresh]
        return dataclasses.replace(change, blob=blob, fresh=fresh)

    async def touch(self, row: ContextRow) -> None:
        """Keeps in mind that a context was used; to the hour, so that reading does not mean writing."""
        now = time.time()
        if now - row.info.used > _TOUCH_SECONDS:
            self.rows[row.info.name] = ContextRow(row.id, dataclasses.replace(row.info, used=now))
            await self._threads.in_catalogue(self.catalogue.touch, row.id, now)

    async def set_private(self, row: ContextRow, private: bool) -> ContextRow:
        async with self._publishing:
            changed = await self._threads.in_catalogue(self.catalogue.set_private, row.id, private)
            self.rows[changed.info.name] = changed
        return changed

    async def prune(self, row: ContextRow, keep: Collection[int], *, dry_run: bool) -> tuple[int, int]:
        """Forgets revisions that are not to be kept: how many, and the bytes that are free then."""
        return await self._threads.whole(self._prune(row, keep, dry_run))

    async def _prune(self, row: ContextRow, keep: Collection[int], dry_run: bool) -> tuple[int, int]:
        async with self._publishing:
            count, orphans = await self._threads.in_catalogue(
                lambda: self.catalogue.prune(row.id, keep, dry_run=dry_run)
            )
            if not dry_run:
                for key in [k for k in self._pins if k[0] == row.id and k[1] not in keep]:
                    del self._pins[key]
                await self._threads.in_files(lambda: self.blobs.remove(orphans))
        return count, sum(orphans.values())

    async def drop(self, row: ContextRow) -> None:
        """Erases a context: its rows, the blobs that are only its own, its index."""
        await self._threads.whole(self._drop(row))

    async def _forgotten(self, row: ContextRow) -> list[str]:
        """Takes a context out of the catalogue, on a full disk too: what frees room must not fail for want of it."""
        try:
            return await self._threads.in_catalogue(self._dropped, row)
        except DiskFull:
            await self._threads.in_files(self.blobs.give_reserve)
            return await self._threads.in_catalogue(self._dropped, row)

    def _dropped(self, row: ContextRow) -> list[str]:
        orphans = self.catalogue.drop(row.id)
        self._show()
        return orphans

    async def expire(self, row: ContextRow) -> bool:
        """Erases a context unless it was loaded or used since the row was looked at; whether it did."""
        return await self._threads.whole(self._drop(row, only_as_it_is=True))

    async def _drop(self, row: ContextRow, *, only_as_it_is: bool = False) -> bool:
        async with self._publishing:
            if only_as_it_is and self.rows.get(row.info.name) is not row:
                return False
            orphans = await self._forgotten(row)
            self.rows.pop(row.info.name, None)
            for key in [k for k in self._pins if k[0] == row.id]:
                del self._pins[key]
            await self._threads.in_files(lambda: self.blobs.remove(orphans))
            await self._threads.in_catalogue(self.catalogue.empty_log)  # needs the room that the blobs had
            await self._threads.in_files(self.blobs.reserve)
        await self.searcher.forget(row.id)
        return True
