"""Looking at contexts: which there are, what they hold, where something stands in them; and who may know of which.

Half of the room's front; the other half, which changes them, is ``store``.
"""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator

from rlmd.contexts.access import Access
from rlmd.contexts.catalogue import ContextRow
from rlmd.contexts.pinned import PinnedContext
from rlmd.contexts.records import ContextInfo, Diff, DocumentInfo, Found, Hit, Peek, SearchMode, Statistics
from rlmd.contexts.threads import Threads
from rlmd.contexts.vaults import Vaults
from rlmd.errors import InvalidParams, NotFound

MAX_PEEK_CHARS = 65_536
#: Of a regex, unless the client gives another time; below the time at which the helper is taken for lost.
SEARCH_SECONDS = 30.0


class Reading:
    """All methods are called on the loop's thread.

    Args:
        vaults: What is kept.
        access: Who may know of what.
        threads: Where the work is done.
    """

    def __init__(self, vaults: Vaults, access: Access, threads: Threads) -> None:
        self._vaults = vaults
        self._access = access
        self._threads = threads

    def list(self, *, egress: bool = False) -> tuple[ContextInfo, ...]:
        """All contexts by name; for a client whose reading may leave the machine, the public ones."""
        return tuple(sorted(self._shown(egress), key=lambda info: info.name))

    def is_private(self, name: str) -> bool:
        """Whether there is a context of that name and it is private."""
        return self._access.is_private(name)

    def real_name(self, name: str, *, egress: bool = False) -> str:
        """The name under which a client's context is kept. Raises ``NotFound``."""
        return self._row(name, egress).info.name

    def statistics(self, *, egress: bool = False) -> Statistics:
        """How many contexts there are for this client, and how large they are."""
        count = total = in_memory = 0
        for vault in self._vaults:
            before = total
            for row in vault.rows.values():
                if not (egress and row.info.private):
                    count += 1
                    total += row.info.bytes
            in_memory += total - before if vault is self._vaults.memory else 0
        return Statistics(count, total, in_memory)

    def _shown(self, egress: bool) -> Iterator[ContextInfo]:
        """Vault by vault: of all together thousands would be looked up by their names."""
        infos = (row.info for vault in self._vaults for row in vault.rows.values())
        return (info for info in infos if not (egress and info.private))

    async def info(
        self, name: str, start: int = 0, limit: int = 100, *, egress: bool = False
    ) -> tuple[ContextInfo, tuple[DocumentInfo, ...]]:
        """A context and its documents from the ``start``-th on."""
        row = self._row(name, egress)
        catalogue = self._vaults.of(row).catalogue
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
                    f"Context {name!r} has {len(pinned.documents)} documents.",
                    hint="Name the one to read; context/info lists them.",
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
        vault = self._vaults.of(row)
        await vault.touch(row)
        return await vault.pin(row)

    async def pin_revision(self, context: str, revision: int, *, egress: bool = False) -> PinnedContext:
        row = self._row(context, egress)
        return await self._vaults.of(row).pin(row, revision)

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
        found = await self.search_within(pinned, query, mode, limit)
        return builtins.list(found.hits), found.complete

    async def search_within(
        self,
        pinned: PinnedContext,
        query: str,
        mode: SearchMode,
        limit: int,
        seconds: float = SEARCH_SECONDS,
        start: tuple[int, int] | None = None,
    ) -> Found:
        """The same, with how far it came: a regex that meets its deadline gives what it has found by then.

        With ``start`` (the number of a document, a code point of it) a regex answers as soon as it has ``limit`` hits
        from there on, and says where it goes on.
        """
        searcher = (self._vaults.memory if pinned.pin.ephemeral else self._vaults.disk).searcher
        reply = await searcher.search(pinned.key, pinned.pin.revision, query, mode, limit, seconds, start)
        hits = tuple(Hit(context=pinned.pin.context, label=f"{h['document']}:{h['line']}", **h) for h in reply["hits"])
        searched = reply.get("searched", pinned.pin.chars)
        rest = reply.get("rest")
        return Found(
            hits,
            bool(reply["complete"]),
            searched,
            pinned.pin.chars,
            bool(reply.get("late")),
            None if rest is None else (rest[0], rest[1]),
        )

    async def try_search(self) -> None:
        """For ``daemon/doctor``: the search helper must start and answer. Raises ``Unavailable`` and its like."""
        with contextlib.suppress(NotFound):  # ids begin at 1
            await self._vaults.disk.searcher.search(0, 0, "x", "regex", 1, SEARCH_SECONDS)

    async def diff(
        self,
        name: str,
        before: int | None = None,
        after: int | None = None,
        start: int = 0,
        limit: int = 100,
        *,
        egress: bool = False,
    ) -> Diff:
        """What changed between two revisions, by default the last two; documents from the ``start``-th on."""
        row = self._row(name, egress)
        after = row.info.revision if after is None else after
        before = max(1, after - 1) if before is None else before
        return await self._vaults.of(row).diff(row, before, after, start, limit)

    def _row(self, name: str, egress: bool) -> ContextRow:
        return self._access.row(name, egress)
