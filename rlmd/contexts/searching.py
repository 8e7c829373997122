"""The loop's side of searching: two helper processes, and which index is up to date.

One helper answers searches, the other builds indexes, so that a regex does not wait behind a new 60 MB folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from rlmd.contexts.blobs import make_private_folder
from rlmd.contexts.helper import Helper
from rlmd.contexts.records import SearchMode

#: One search, one quote: re2 goes through 1 GB in some seconds.
_SEARCH_SECONDS = 60.0
#: Between two words of an index build.
_INDEX_SECONDS = 120.0
#: How long after a load its index is made, unless a search asks for it before. A helper's start takes 12 ms of the
#: loop and 60 ms of a processor, and right after a load a question waits for its first word.
_INDEX_AFTER = 1.0


#: Where the daemon holds what is in its memory alone, as long as a helper may look there; None: on disk.
Held = Callable[[], AbstractContextManager[dict[str, Any] | None]]


class IndexFile(NamedTuple):
    """An index on disk: of which context, its bytes, and when it was last searched or written."""

    context: int
    bytes: int
    used: float


class IndexFolder:
    """Where the index files of one store are.

    Args:
        root: Where those of all stores are.
        store_id: Of this store's catalogue; indexes of another are removed.
    """

    def __init__(self, root: Path, store_id: str) -> None:
        self._root = root
        self.folder = root / store_id
        make_private_folder(self.folder)

    def sweep(self, contexts: Collection[int]) -> None:
        """Removes index files of other stores and of contexts that are no more."""
        for other in self._root.iterdir():
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        for file in self.folder.iterdir():
            number = file.name.split(".", 1)[0]
            if not number.isdecimal() or int(number) not in contexts:
                file.unlink(missing_ok=True)

    def all(self) -> list[IndexFile]:
        """What is there, on a thread."""
        found = []
        for file in self.folder.glob("*.sqlite"):
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append(IndexFile(int(file.stem), status.st_size, status.st_mtime))
        return found

    def remove(self, context: int) -> None:
        for suffix in ("", "-wal", "-shm"):
            (self.folder / f"{context}.sqlite{suffix}").unlink(missing_ok=True)


class Searcher:
    """Finds text in contexts.

    Args:
        search: Answers searches.
        build: Builds indexes; the same one, where an index is in its memory.
        remove: Erases a context's index file.
        held: For contexts in memory.
    """

    def __init__(
        self,
        search: Helper,
        build: Helper,
        remove: Callable[[int], None] = lambda context: None,
        held: Held = contextlib.nullcontext,
    ) -> None:
        self._search, self._build = search, build
        self._remove, self._held = remove, held
        #: The build under way or done for a context's revision; one that failed is made anew when asked for.
        self._builds: dict[tuple[int, int], asyncio.Task[None]] = {}
        #: Builds that are yet to begin, by context: of its newest revision.
        self._planned: dict[int, asyncio.TimerHandle] = {}
        self._progress: dict[int, tuple[int, int]] = {}

    @classmethod
    def of_disk(cls, store_folder: Path, indexes: IndexFolder) -> Searcher:
        """Of catalogue and blobs in a folder, with indexes in another."""
        folders = (str(store_folder), str(indexes.folder))
        search, build = Helper("search", folders, idle_seconds=300), Helper("index", folders, idle_seconds=20)
        return cls(search, build, indexes.remove)

    @classmethod
    def of_memory(cls, held: Held) -> Searcher:
        """Of ephemeral contexts: their indexes are in the helper's own memory."""
        helper = Helper("search", (), idle_seconds=300)
        return cls(helper, helper, held=held)

    def progress(self, context: int) -> tuple[int, int] | None:
        """Bytes indexed of bytes to index, while a build is under way."""
        return self._progress.get(context)

    def index_soon(self, context: int, revision: int) -> None:
        """Has an index brought up to date in a while, also if nobody searches."""
        self._forget_plan(context)
        loop = asyncio.get_running_loop()
        self._planned[context] = loop.call_later(_INDEX_AFTER, self.index_now, context, revision)

    def _forget_plan(self, context: int) -> None:
        if (planned := self._planned.pop(context, None)) is not None:
            planned.cancel()

    def index_now(self, context: int, revision: int) -> asyncio.Task[None]:
        """Starts bringing an index up to date, unless that is done or under way."""
        task = self._builds.get((context, revision))
        if task is None or _failed(task):
            task = asyncio.get_running_loop().create_task(
                self._index(context, revision), name=f"index context {context} revision {revision}"
            )
            task.add_done_callback(_failed)  # its error is raised to whoever searches
            self._builds[context, revision] = task
        return task

    async def search(
        self,
        context: int,
        revision: int,
        query: str,
        mode: SearchMode,
        limit: int,
        seconds: float,
        start: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """``hits``, ``complete``, of a regex ``late``, ``searched`` and ``rest``: see ``helper_child.Operations``."""
        asked: dict[str, Any] = {"context": context, "revision": revision, "query": query, "limit": limit}
        if mode == "bm25":
            operation = "rank"
            await asyncio.shield(self.index_now(context, revision))
        else:
            operation = "regex"
            asked |= {"within": seconds, "start": start}
        reply: dict[str, Any] = await self._ask(operation, **asked)
        for hit in reply["hits"]:
            hit["matches"] = tuple((start, end) for start, end in hit["matches"])
        return reply

    async def find(
        self, context: int, revision: int, quote: str, near: tuple[str, int, int] | None, limit: int
    ) -> list[Any]:
        places: list[Any] = await self._ask(
            "find", context=context, revision=revision, quote=quote, near=near, limit=limit
        )
        return places

    async def find_normalised(self, context: int, revision: int, quote: str, limit: int) -> list[Any]:
        places: list[Any] = await self._ask(
            "find_normalised", context=context, revision=revision, quote=quote, limit=limit
        )
        return places

    async def diff(self, context: int, before: int, after: int, start: int, limit: int) -> dict[str, Any]:
        """What differs between two revisions, as ``comparing.compare`` tells it."""
        told: dict[str, Any] = await self._ask(
            "diff", context=context, before=before, after=after, start=start, limit=limit
        )
        return told

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        with self._held() as held:
            return await self._search.ask(operation, seconds=_SEARCH_SECONDS, in_memory=held, **arguments)

    async def forget(self, context: int) -> None:
        """Erases a dropped context's index."""
        self._forget_plan(context)
        for key in [key for key in self._builds if key[0] == context]:
            await _ended(self._builds.pop(key))
        for helper in {self._search, self._build}:
            if helper.pid is not None:
                await helper.ask("forget", seconds=_SEARCH_SECONDS, context=context)
        self._remove(context)

    async def close(self) -> None:
        for context in list(self._planned):
            self._forget_plan(context)
        for task in list(self._builds.values()):
            await _ended(task)
        self._builds.clear()
        await self._search.close()
        await self._build.close()

    async def _index(self, context: int, revision: int) -> None:
        try:
            with self._held() as held:
                await self._build.ask(
                    "index",
                    seconds=_INDEX_SECONDS,
                    on_progress=lambda p: self._progress.__setitem__(context, (p["done"], p["total"])),
                    in_memory=held,
                    context=context,
                    revision=revision,
                )
        finally:
            self._progress.pop(context, None)


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
