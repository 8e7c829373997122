"""What the engine needs of its neighbours, as Protocols with only the methods that it uses.

``daemon.py`` hands in the real ones of ``rlmd.contexts``, ``rlmd.pool`` and ``rlmd.repl``; ``Parts`` holds them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence, Set
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rlmd.config import Settings
from rlmd.contexts import Collected
from rlmd.engine.programs.own import OwnPrograms
from rlmd.engine.sessionlog import SessionLog
from rlmd.events import CellsOfRun, Pin, Span
from rlmd.pool import Candidate, CompletionRequest, Expected, HostWait, PooledCompletion
from rlmd.repl import CellHost, CellReport, ContextSource, Name

Role = Literal["root", "sub"]


class PinnedDocument(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def origin(self) -> str | None: ...
    @property
    def chars(self) -> int: ...


class PinnedContext(Protocol):
    """One context at one revision."""

    @property
    def pin(self) -> Pin: ...
    @property
    def documents(self) -> Sequence[PinnedDocument]: ...
    def document(self, name: str) -> PinnedDocument: ...
    def read(self, document: str, start: int, end: int) -> str: ...
    def line_of(self, document: str, start: int) -> int: ...
    def part_of(self, document: str, start: int) -> tuple[int | None, str | None]: ...
    async def find(self, quote: str, *, hint: Span | None, limit: int = 3) -> list[Span]: ...
    async def find_normalised(self, quote: str) -> list[Span]: ...


class Hit(Protocol):
    """A passage that a search found."""

    @property
    def context(self) -> str: ...
    @property
    def document(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def line(self) -> int: ...


class ContextsPart(Protocol):
    async def refresh(self, name: str, *, egress: bool) -> str: ...
    async def pin(self, name: str, *, egress: bool) -> PinnedContext: ...
    async def pin_revision(self, context: str, revision: int, *, egress: bool = False) -> PinnedContext: ...
    async def drop(self, name: str, *, egress: bool) -> None: ...
    async def collect(
        self, held: Collection[str], pins: Collection[tuple[str, int]], *, dry_run: bool
    ) -> Sequence[Collected]: ...
    def real_name(self, name: str, *, egress: bool) -> str: ...
    def is_private(self, name: str) -> bool: ...
    async def search(
        self, context: PinnedContext, query: str, mode: Literal["bm25"], limit: int
    ) -> tuple[Sequence[Hit], bool]: ...


class PoolPart(Protocol):
    def candidates(
        self, role: Role, *, private: bool = False, narrowed_to: tuple[str, ...] | None = None
    ) -> tuple[Candidate, ...]: ...
    async def find_default_host(self) -> object: ...
    async def forget(self, context: str) -> None: ...
    async def sum_up(self) -> None: ...
    async def holds(self, request: CompletionRequest) -> bool: ...
    def expect(
        self, role: Role, requests: int, chars: int, *, private: bool, narrowed_to: tuple[str, ...] | None
    ) -> Expected: ...
    def make_private(self, runs: Set[str]) -> None: ...
    def limit_spending(self, tree: str, dollars: float) -> None: ...
    def grant(self, tree: str, dollars: float) -> None: ...
    def watch(self, tree: str, told: Callable[[HostWait | None], None]) -> None: ...
    def unwatch(self, tree: str, told: Callable[[HostWait | None], None]) -> None: ...
    def awaited(
        self, role: Role, *, private: bool = False, narrowed_to: tuple[str, ...] | None = None
    ) -> tuple[str, ...]: ...
    async def wait_for_model(self, tree: str, awaited: Callable[[], tuple[str, ...]], seconds: float) -> None: ...
    async def complete(
        self, request: CompletionRequest, on_delta: Callable[[int, str], None] | None = None
    ) -> PooledCompletion: ...


class ReplPart(Protocol):
    """A session's worker."""

    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def hash_seed(self) -> int: ...
    @property
    def random_seed(self) -> int: ...
    @property
    def alive(self) -> bool: ...
    @property
    def next_cell(self) -> int: ...
    async def load_contexts(self, contexts: Sequence[ContextSource]) -> None: ...
    async def run_cell(
        self,
        source: str,
        host: CellHost,
        *,
        seconds: float,
        cpu_seconds: float | None,
        output_chars: int,
        number: int | None = None,
    ) -> CellReport: ...
    async def value_of(self, name: str) -> str | None: ...
    async def close(self) -> None: ...


class WorkersPart(Protocol):
    @property
    def waited_for(self) -> bool: ...
    def full(self, level: int = 0) -> bool: ...
    def deepen(self, depth: int) -> None: ...
    async def acquire(
        self,
        *,
        memory_bytes: int | None = None,
        hash_seed: int | None = None,
        random_seed: int | None = None,
        level: int = 0,
    ) -> ReplPart: ...


@dataclass(frozen=True, slots=True)
class Recalled:
    """A session as the journals of its runs tell it; ``exchanges`` are questions with their answers."""

    log: SessionLog
    names: tuple[Name, ...]
    exchanges: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Woken:
    """A worker with the names of its session, and what is not as it was.

    ``lost`` names are gone, ``older`` ones have the value that they had before the cells that were not run again.
    """

    repl: ReplPart
    contexts: tuple[PinnedContext, ...] = ()
    cells: tuple[CellsOfRun, ...] = ()
    names: tuple[Name, ...] = ()
    lost: tuple[str, ...] = ()
    older: tuple[str, ...] = ()
    why: str = ""


class WakerPart(Protocol):
    """Brings sessions back out of the journals of their runs."""

    async def recall(self, session_id: str) -> Recalled: ...
    async def wake(self, log: SessionLog, known: Sequence[PinnedContext] = (), level: int = 0) -> Woken: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """The collaborators of every run. ``now`` gives seconds since the epoch, ``monotonic`` seconds that never jump."""

    contexts: ContextsPart
    pool: PoolPart
    workers: WorkersPart
    settings: Settings
    threads: Executor
    now: Callable[[], float]
    monotonic: Callable[[], float]
    #: Ends the worker of a session that nobody uses, if there is one.
    make_room: Callable[[], Awaitable[None]]
    waker: WakerPart
    #: The user's programs.
    own_programs: OwnPrograms = field(default_factory=lambda: OwnPrograms(None))
    #: For bringing journals to the disk; by default ``threads``.
    syncing: Executor | None = None

    def any_private(self, contexts: Iterable[str]) -> bool:
        """Whether one of these contexts is private by now: a mark may come after a run has begun, or ended."""
        return any(map(self.contexts.is_private, contexts))
