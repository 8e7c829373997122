"""What the REPL gives to and needs of its neighbours: plain data and Protocols, no behaviour.

Positions are code points of the stored text, sizes are bytes, times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rlmd.events import Pin, Span


class SegmentLike(Protocol):
    """A stretch of bytes of one blob."""

    @property
    def blob(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...


class DocumentLike(Protocol):
    """One document of a pinned context, as the store describes it."""

    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> str | None: ...
    @property
    def chars(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def max_codepoint(self) -> int: ...
    @property
    def segments(self) -> Sequence[SegmentLike]: ...


class ContextSource(Protocol):
    """A pinned context: its documents, and read-only descriptors of the blobs that hold them."""

    @property
    def pin(self) -> Pin: ...
    @property
    def documents(self) -> Sequence[DocumentLike]: ...
    def open_blob(self, blob: str) -> int: ...


@dataclass(frozen=True, slots=True)
class SubQuery:
    """A prompt that a cell asked. ``spans`` is the worker's hint where its text came from: verify before trusting.

    ``schema`` is JSON, whether of a schema is for the host to see; the reply's text is then JSON that fits it.
    """

    prompt: str
    model: str | None = None
    spans: tuple[Span, ...] = ()
    schema: str | None = None


@dataclass(frozen=True, slots=True)
class ChildQuery:
    """A question that a cell asked of a run of its own, about stretches of its contexts and texts that it made, in
    this order; None: about the contexts themselves."""

    question: str
    given: tuple[Span | str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SubQueryReply:
    text: str


@dataclass(frozen=True, slots=True)
class SubQueryFailure:
    """``kind`` is an ``RlmdError.kind``; the message reaches the cell."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class SearchPassage:
    context: str
    document: str
    start: int
    end: int
    text: str
    score: float
    line: int


class CellHost(Protocol):
    """What a cell may ask of the engine; one object a cell."""

    def batch_started(self, batch: int, total: int) -> None:
        """A cell asks ``total`` sub-queries at once; ``batch`` counts from 1 within the cell."""

    async def answer(self, query: SubQuery | ChildQuery, *, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        """Answers one slot (from 0). Called concurrently, at most ``CREDIT`` at once. An exception ends the cell."""

    async def search(self, query: str, k: int) -> list[SearchPassage]:
        """The best ``k`` passages of the session's contexts."""

    def output(self, text: str) -> None:
        """The cell's output as it comes; bounded, coalesced, replaced by ``CellReport.output``."""


@dataclass(frozen=True, slots=True)
class Final:
    """An answer that a cell handed over by calling, or by setting ``answer["ready"]``."""

    text: str
    via: Literal["FINAL", "FINAL_VAR", "SUBMIT", "answer"]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Name:
    """A variable of the user: ``type`` is its class, ``size`` a few words such as "list of 40"."""

    name: str
    type: str
    size: str


@dataclass(frozen=True, slots=True)
class CellReport:
    """How a cell ended.

    Attributes:
        output: Head and tail of the merged stdout and stderr, tracebacks and the echoed last expression included.
        cut: Characters between head and tail that are not in ``output``.
        digest: SHA-256 (hex) of all output bytes.
        error: Such as "ZeroDivisionError: division by zero"; the traceback is in ``output``.
        answer: ``answer["content"]`` as it stands, if it is set.
        seconds: The cell's own time: waiting for sub-queries counts only as far as the process computed meanwhile.
        interrupted: The cell was stopped by a deadline, the CPU cap or SIGINT.
        lost: The worker had to be killed; its names are gone and the session is no longer alive.
    """

    ok: bool
    output: str
    cut: int
    digest: str
    error: str | None
    final: Final | None
    answer: str | None
    names: tuple[Name, ...]
    seconds: float
    interrupted: bool = False
    lost: bool = False
