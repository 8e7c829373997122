"""The helper process: answers searching requests over its standard input and output until that closes.

Reads the catalogue and the blobs, never writes them; writes index files in the cache folder. Its parent is ``helper``.
Nothing of a text or a query is ever printed: errors go back as a kind and a sentence of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rlmd.contexts import comparing, matching, ranking
from rlmd.contexts.index import Index
from rlmd.contexts.shelf import Shelf, Volume
from rlmd.errors import RlmdError

_PR_SET_PDEATHSIG = 1


class Operations:
    """One method an operation; parameters and results are JSON."""

    def __init__(
        self, contexts_folder: Path | None, index_folder: Path | None, say: Callable[[dict[str, Any]], None]
    ) -> None:
        self._shelf = Shelf(contexts_folder)
        self._indexes = index_folder
        #: Indexes of ephemeral contexts, which are nowhere else.
        self._in_memory: dict[int, Index] = {}
        self._say = say

    def see(self, *, version: int, catalogue: str, blobs: dict[str, str]) -> None:
        """Before an operation on what is in the daemon's memory."""
        self._shelf.see(version, catalogue, blobs)

    def find(
        self, *, context: int, revision: int, quote: str, near: list[Any] | None, limit: int
    ) -> list[matching.Place]:
        volume = self._shelf.volume(context, revision)
        hint = None if near is None else (str(near[0]), int(near[1]), int(near[2]))
        return matching.find_exact(self._shelf, volume, quote, hint, limit)

    def find_normalised(self, *, context: int, revision: int, quote: str, limit: int) -> list[matching.Place]:
        return matching.find_normalised(self._shelf, self._shelf.volume(context, revision), quote, limit)

    def regex(
        self, *, context: int, revision: int, query: str, limit: int, within: float, start: list[int] | None
    ) -> dict[str, Any]:
        """What it found in so many seconds, and how far it came; with ``start``, a page from there on."""
        volume = self._shelf.volume(context, revision)
        end = time.monotonic() + within
        progress = matching.Progress(lambda: time.monotonic() > end)
        begin = matching.START if start is None else (start[0], start[1])
        page = start is not None
        hits, rest = matching.regex_hits(self._shelf, volume, query, limit, progress, begin, page=page)
        told = {"hits": hits, "complete": rest is None, "late": progress.stopped, "searched": progress.chars}
        return {**told, "rest": rest}

    def diff(self, *, context: int, before: int, after: int, start: int, limit: int) -> dict[str, Any]:
        old, new = self._shelf.volume(context, before), self._shelf.volume(context, after)
        return comparing.compare(self._shelf, old, new, start, limit)

    def index(self, *, context: int, revision: int) -> dict[str, int]:
        """Brings the context's index up to a revision; says how far it is."""
        with self._index(context) as index:
            return self._brought_up(index, self._shelf.volume(context, revision))

    def _brought_up(self, index: Index, volume: Volume) -> dict[str, int]:
        missing = index.missing(volume)
        total = sum(d.bytes for d in missing)
        index.add(self._shelf, missing, lambda done: self._say({"progress": {"done": done, "total": total}}))
        return {"documents": len(missing), "bytes": total}

    def rank(self, *, context: int, revision: int, query: str, limit: int) -> dict[str, Any]:
        volume = self._shelf.volume(context, revision)
        with self._index(context) as index:
            if self._indexes is None or (volume.documents and index.empty):
                self._brought_up(index, volume)  # an earlier process had it, or its file was deleted
            index.mark_used()
            ranked = ranking.rank(index, self._shelf, volume, query, limit)
        hits = [
            {
                "document": r.document.name,
                "start": r.start,
                "end": r.end,
                "text": r.text,
                "line": r.line,
                "score": r.score,
                "heading": r.heading,
                "matches": [],
            }
            for r in ranked
        ]
        return {"hits": hits, "complete": True}

    def forget(self, *, context: int) -> None:
        self._shelf.forget(context)
        if (index := self._in_memory.pop(context, None)) is not None:
            index.close()

    @contextlib.contextmanager
    def _index(self, context: int) -> Iterator[Index]:
        if self._indexes is None:
            if context not in self._in_memory:
                self._in_memory[context] = Index(None)
            yield self._in_memory[context]
            return
        index = Index(self._indexes / f"{context}.sqlite")
        try:
            yield index
        finally:
            index.close()


OPERATIONS = ("find", "find_normalised", "regex", "diff", "index", "rank", "forget")


def main(parent: int) -> None:
    """Serves requests from descriptor 0 to descriptor 1 as long as the process ``parent`` lives; arguments: contexts
    folder, index folder, or neither."""
    _end_with(parent)
    os.umask(0o077)
    requests, replies = os.fdopen(0, "rb"), os.fdopen(1, "wb")

    def say(reply: dict[str, Any]) -> None:
        data = json.dumps(reply).encode()
        replies.write(len(data).to_bytes(4, "big") + data)
        replies.flush()

    contexts, indexes = map(Path, sys.argv[1:]) if sys.argv[1:] else (None, None)
    operations = Operations(contexts, indexes, say)
    while (request := _next(requests)) is not None:
        say(_reply(operations, request))


def _next(requests: BinaryIO) -> dict[str, Any] | None:
    head = requests.read(4)
    if len(head) < 4:
        return None
    request: dict[str, Any] = json.loads(requests.read(int.from_bytes(head, "big")))
    return request


def _reply(operations: Operations, request: dict[str, Any]) -> dict[str, Any]:
    name = request.pop("operation")
    assert name in OPERATIONS
    try:
        if (held := request.pop("in_memory", None)) is not None:
            operations.see(**held)
        return {"result": getattr(operations, name)(**request)}
    except RlmdError as error:
        return {"error": error.kind, "message": error.message, "hint": error.hint}
    except (sqlite3.Error, OSError, ValueError, MemoryError) as error:
        # The error's own words may quote the text.
        return {"error": "internal", "message": f"searching failed ({type(error).__name__})"}


def _end_with(parent: int) -> None:
    """A daemon that is killed leaves no helper behind: neither one deep in a search, nor one that had only begun, and
    would still do what lies in its input."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the daemon's to handle
