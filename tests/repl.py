"""Stand-ins for the REPL's neighbours in tests: a host that answers, contexts on disk, sessions in chosen cages."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rlmd.events import Pin
from rlmd.repl import CellReport, SearchPassage, SubQuery, SubQueryFailure, SubQueryReply
from rlmd.repl.process import CagePlan

WITH_BUBBLEWRAP = CagePlan(bubblewrap=True, landlock=1)
WITHOUT_BUBBLEWRAP = CagePlan(bubblewrap=False, landlock=1, namespaces=True)
WITHOUT_NAMESPACES = CagePlan(bubblewrap=False, landlock=1)
#: No protection at all: shows what an attack does where nothing holds it.
BARE = CagePlan(bubblewrap=False, landlock=0, seccomp=False, limits=False, watch=False)
CAGES = {"bubblewrap": WITH_BUBBLEWRAP, "namespaces": WITHOUT_BUBBLEWRAP, "landlock": WITHOUT_NAMESPACES}


#: Runs a cell's source: what the fixture ``run`` gives.
Run = Callable[..., Awaitable[CellReport]]


class Host:
    """Answers ``re:`` and the prompt; a prompt with FAIL fails. ``gate`` holds answers back until it is set."""

    def __init__(self, answer: Callable[[str], str] = lambda prompt: f"re:{prompt}") -> None:
        self.queries: list[SubQuery] = []
        self.batches: list[tuple[int, int]] = []
        self.printed = ""
        self.in_flight = self.most_in_flight = self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self._answer = answer
        self.passages: list[SearchPassage] = []

    def batch_started(self, batch: int, total: int) -> None:
        self.batches.append((batch, total))

    async def answer(self, query: SubQuery, *, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        self.queries.append(query)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.asked.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        if "FAIL" in query.prompt:
            return SubQueryFailure("host_failed", "the host went away")
        return SubQueryReply(self._answer(query.prompt))

    async def until_in_flight(self, count: int) -> None:
        """Waits until ``count`` sub-queries are here at once."""
        async with asyncio.timeout(60):
            while self.in_flight < count:
                self.asked.clear()
                await self.asked.wait()

    async def search(self, query: str, k: int) -> list[SearchPassage]:
        return self.passages[:k]

    def output(self, text: str) -> None:
        self.printed += text


@dataclass(frozen=True)
class Segment:
    blob: str
    offset: int
    length: int


@dataclass(frozen=True)
class Document:
    name: str
    origin: str | None
    chars: int
    bytes: int
    max_codepoint: int
    segments: tuple[Segment, ...]


class Context:
    """Documents (name → bytes) in one blob file, or each in one of its own (``apart``); ``cuts`` splits each into
    segments at these offsets."""

    def __init__(
        self,
        folder: Path,
        name: str,
        documents: dict[str, bytes],
        *,
        kind: str = "text",
        revision: int = 1,
        cuts: tuple[int, ...] = (),
        apart: bool = False,
    ) -> None:
        self._folder = folder
        self.opened = 0
        whole = digest = self._keep(b"".join(documents.values()))
        self.documents: list[Document] = []
        offset = 0
        for document, content in documents.items():
            if apart:
                digest, offset = self._keep(content), 0
            edges = [0, *(cut for cut in cuts if cut < len(content)), len(content)]
            segments = tuple(Segment(digest, offset + a, b - a) for a, b in itertools.pairwise(edges))
            text = content.decode("utf-8", "surrogateescape")
            highest = max(map(ord, text), default=0)
            self.documents.append(Document(document, None, len(text), len(content), highest, segments))
            offset += len(content)
        self.pin = Pin.model_validate(
            {"context": name, "revision": revision, "kind": kind, "private": False, "documents": len(documents),
             "chars": sum(d.chars for d in self.documents), "digest": whole}
        )  # fmt: skip

    def _keep(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (self._folder / digest).write_bytes(data)
        return digest

    def open_blob(self, blob: str) -> int:
        self.opened += 1
        return os.open(self._folder / blob, os.O_RDONLY | os.O_CLOEXEC)
