"""Every method of the protocol: its name, what it takes, what it gives.

The one authority for clients: ``rpc.discover`` and docs/protocol.md are generated from ``METHODS`` and the
models here. Offsets are code points of the stored text; sizes bytes; times seconds since the epoch (UTC) or
durations in seconds. Numbers that may exceed 2^53 (inode, nanoseconds) travel as decimal strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlmd.events import (
    AnyFact,
    Citation,
    Model,
    Outcome,
    Pin,
    Receipt,
    RunState,
    Strategy,
    Text,
)

PROTOCOL = 1
#: Above this a text goes by path or spool; Emacs blocks 5 s for 40 MB of JSON (measured).
INLINE_BYTES = 256 * 1024
MAX_PEEK_CHARS = 65_536
#: What one ``run/fetch`` brings at most: writing more as JSON would block the daemon (6 ms a million characters).
MAX_FETCH_CHARS = 500_000
MAX_FETCH_FACTS = 250


class Params(BaseModel):
    """Base of all parameters: unknown fields are refused, so that a typing error is seen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(Params):
    """No parameters."""


class Result(Model):
    """Base of all results: clients ignore fields that they do not know."""


class Done(Result):
    done: bool = True


# ── connection ──────────────────────────────────────────────────────────────────────────────────────────────


class ClientName(Params):
    name: str = Field(max_length=100)
    version: str = Field("", max_length=100)


class InitializeParams(Params):
    """``egress``: what this client reads may leave the machine; private contexts do not exist for it."""

    protocol: int = PROTOCOL
    client: ClientName | None = None
    egress: bool = False


class InitializeResult(Result):
    protocol: int
    server: str
    version: str
    spool_folder: str
    inline_bytes: int = INLINE_BYTES
    methods: tuple[str, ...]


# ── contexts ────────────────────────────────────────────────────────────────────────────────────────────────


Decimal = Annotated[str, Field(pattern=r"^-?[0-9]{1,20}$")]


class FileIdentity(Params):
    """A file as the client sees it, each number in decimal; a difference is answered ``not_visible``."""

    device: Decimal
    inode: Decimal
    size: Decimal
    mtime_ns: Decimal


class InlineSource(Params):
    kind: Literal["inline"] = "inline"
    text: str
    origin: str | None = Field(None, description="A label or path that citations show")


class PathSource(Params):
    """Files or directories. A directory honours .gitignore; ``include`` and ``exclude`` are gitignore patterns."""

    kind: Literal["path"] = "path"
    paths: tuple[str, ...] = Field(min_length=1)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    identity: FileIdentity | None = Field(None, description="Of the one file in paths")


class SpoolSource(Params):
    """A file that the client wrote into the daemon's spool folder: a bare file name; consumed by the load."""

    kind: Literal["spool"] = "spool"
    file: str
    origin: str | None = Field(None, description="A label or path that citations show")


Source = Annotated[InlineSource | PathSource | SpoolSource, Field(discriminator="kind")]


class LoadParams(Params):
    """Loading what is there is an update. Without ``name`` the context is implicit, named by its content."""

    name: str | None = Field(None, min_length=1, max_length=200)
    source: Source
    private: bool = False
    dry_run: bool = False


class Skipped(Result):
    reason: Literal["binary", "ignored", "excluded", "unreadable", "too_large", "special"]
    count: int
    examples: tuple[str, ...]


class ContextInfo(Result):
    name: str
    revision: int
    kind: Literal["text", "collection"]
    private: bool
    implicit: bool
    documents: int
    chars: int
    bytes: int
    digest: str
    created: float
    updated: float
    sources: tuple[str, ...]


class LoadResult(Result):
    """``change``: created, updated or unchanged; after ``dry_run`` what would happen, and ``context`` is None."""

    change: Literal["created", "updated", "unchanged"]
    context: ContextInfo | None
    documents: int
    chars: int
    bytes: int
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


class ContextListResult(Result):
    contexts: tuple[ContextInfo, ...]


class ContextParams(Params):
    name: str
    documents_from: int = Field(0, ge=0, le=2**53 - 1)
    documents_limit: int = Field(100, ge=0, le=10_000)


class DocumentInfo(Result):
    name: str
    origin: str | None
    chars: int
    bytes: int
    digest: str
    origin_digest: str


class ContextInfoResult(Result):
    context: ContextInfo
    documents: tuple[DocumentInfo, ...]


class PeekParams(Params):
    name: str
    document: str | None = Field(None, description="Needed when the context has several")
    start: int = Field(0, ge=0)
    chars: int = Field(2000, ge=1, le=MAX_PEEK_CHARS)


class PeekResult(Result):
    document: str
    start: int
    end: int
    text: str
    document_chars: int
    line: int


class SearchParams(Params):
    """``mode`` bm25 ranks passages for a question; ``regex`` (re2 syntax, linear time) finds matches in order."""

    name: str
    query: str = Field(min_length=1, max_length=10_000)
    mode: Literal["bm25", "regex"] = "bm25"
    limit: int = Field(10, ge=1, le=1000)


class SearchHit(Result):
    document: str
    start: int
    end: int
    text: str
    line: int
    score: float
    label: str


class SearchResult(Result):
    hits: tuple[SearchHit, ...]
    complete: bool


class NameParams(Params):
    name: str


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────


class LimitParams(Params):
    """Those given replace the configured ones."""

    turns: int | None = Field(None, ge=1, le=10_000)
    sub_queries: int | None = Field(None, ge=0, le=10_000_000)
    seconds: float | None = Field(None, gt=0)
    consecutive_errors: int | None = Field(None, ge=1)


class RunParams(Params):
    """``run_id`` is the client's: a UUID. The same id with equal parameters returns that run, with others is an error.

    ``attach``: send this connection the run's facts, from the first. Facts and deltas that come before the
    answer to ``run/start`` belong to it too.
    """

    run_id: str = Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    question: str = Field(min_length=1, max_length=1_000_000)
    contexts: tuple[str, ...] = Field(min_length=1, max_length=100)
    strategy: Literal["auto", "direct", "rlm", "map", "quote"] = "auto"
    session: str | None = Field(None, max_length=200)
    if_busy: Literal["queue", "fresh", "refuse"] = "queue"
    root: tuple[str, ...] | None = None
    sub: tuple[str, ...] | None = None
    limits: LimitParams = LimitParams()
    fresh: bool = Field(False, description="Do not answer sub-queries from the cache")
    attach: bool = True
    on_disconnect: Literal["continue", "cancel"] = "continue"


class RunInfo(Result):
    run_id: str
    question: Text
    state: RunState
    outcome: Outcome | None
    strategy: Strategy
    contexts: tuple[Pin, ...]
    session: str | None
    private: bool
    created: float
    ended: float | None
    turns: int
    sub_queries: int
    last_seq: int
    why: str | None = None


class RunResult(Result):
    """A run with its answer, once it has ended."""

    run: RunInfo
    answer: str | None
    citations: tuple[Citation, ...] = ()
    receipt: Receipt | None = None


class RunIdParams(Params):
    run_id: str


class AttachParams(Params):
    """Facts from ``from_seq`` on, those of the past first, then live; deltas only of streams still open."""

    run_id: str
    from_seq: int = Field(1, ge=1)
    deltas: bool = True


class CancelParams(Params):
    run_id: str
    why: str = Field("asked by the client", max_length=500)


class RunListParams(Params):
    state: RunState | None = None
    limit: int = Field(50, ge=1, le=10_000)


class RunListResult(Result):
    runs: tuple[RunInfo, ...]


class FetchParams(Params):
    """Either facts ``from_seq`` to ``to_seq`` (inclusive), or the value named by a ``digest`` in a fact.

    At most 1,000 facts or 500,000 characters come at once, whatever was asked: ask again from where they end.
    """

    run_id: str
    from_seq: int | None = Field(None, ge=1)
    to_seq: int | None = Field(None, ge=1)
    digest: str | None = None
    start: int = Field(0, ge=0)
    chars: int = Field(1_000_000, ge=1, le=10_000_000)


class FetchResult(Result):
    facts: tuple[AnyFact, ...] = ()
    text: str | None = None
    chars: int | None = None


class RunGap(Result):
    """Facts that this slow reader was not sent; it reads them by ``run/fetch``."""

    run_id: str
    from_seq: int
    to_seq: int


# ── sessions and cells ──────────────────────────────────────────────────────────────────────────────────────


class SessionInfo(Result):
    name: str
    held_by: str | None
    contexts: tuple[Pin, ...]
    private: bool
    cells: int
    alive: bool
    used: float


class SessionListResult(Result):
    sessions: tuple[SessionInfo, ...]


class ExecuteParams(Params):
    """Runs one cell in a session; it belongs to a run of its own, with limits and a journal."""

    code: str = Field(max_length=1_000_000)
    run_id: str = Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    contexts: tuple[str, ...] = Field((), max_length=100)
    session: str | None = Field(None, max_length=200)
    if_busy: Literal["queue", "fresh", "refuse"] = "queue"
    limits: LimitParams = LimitParams()


class ExecuteResult(Result):
    run_id: str
    ok: bool
    output: str
    output_cut: int
    error: str | None
    final: str | None
    seconds: float


# ── hosts and the daemon ────────────────────────────────────────────────────────────────────────────────────


class HostModel(Result):
    name: str
    window: int
    useful_window: int
    digest: str | None = None


class HostInfo(Result):
    """``state``: ok, busy (all slots used), down (``retry_in`` seconds), paused, unknown (not asked yet)."""

    name: str
    url: str
    provider: str
    trust: Literal["mine", "cloud"]
    state: Literal["ok", "busy", "down", "paused", "unknown"]
    retry_in: float | None
    slots: int
    slots_used: int
    queued: int
    completed: int
    failed: int
    models: tuple[HostModel, ...]
    roles: tuple[str, ...]
    last_error: str | None


class HostListResult(Result):
    hosts: tuple[HostInfo, ...]


class HostAddParams(Params):
    """Asks the server at ``url`` what it is and writes ``config.d/host-NAME.toml``."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    url: str
    models: tuple[str, ...] = Field((), description="Of those served; by default every chat model")
    slots: int | None = Field(None, ge=1, le=512)
    window: int | None = Field(None, ge=256)
    trust: Literal["mine", "cloud"] | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None


class HostAddResult(Result):
    host: HostInfo
    file: str
    notes: tuple[str, ...]


class StatusResult(Result):
    version: str
    pid: int
    uptime: float
    socket: str
    state_folder: str
    config_files: tuple[str, ...]
    contexts: int
    context_bytes: int
    runs_active: int
    runs: int
    sessions: int
    workers: int
    hosts: tuple[HostInfo, ...]
    cache_entries: int
    cache_bytes: int
    memory_bytes: int
    draining: bool


class Check(Result):
    """``needed``: whether something is wrong when it is not ``ok``; else it is a thing that could be better."""

    name: str
    ok: bool
    message: str
    hint: str = ""
    needed: bool = True


class DoctorResult(Result):
    ok: bool
    checks: tuple[Check, ...]


class DiscoverResult(Result):
    """An OpenRPC document."""

    openrpc: str
    info: dict[str, str]
    methods: tuple[dict[str, Any], ...]
    components: dict[str, Any]


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Method:
    name: str
    params: type[Params]
    result: type[Result]
    summary: str


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("initialize", InitializeParams, InitializeResult, "Says who calls and agrees on the protocol."),
        Method("context/load", LoadParams, LoadResult, "Loads or updates a context; durable when answered."),
        Method("context/list", Nothing, ContextListResult, "Lists contexts."),
        Method("context/info", ContextParams, ContextInfoResult, "Shows one context and its documents."),
        Method("context/peek", PeekParams, PeekResult, "Reads a stretch of a document."),
        Method("context/search", SearchParams, SearchResult, "Searches a context."),
        Method("context/drop", NameParams, Done, "Erases a context and what was derived from it."),
        Method("run/start", RunParams, RunInfo, "Starts a run; its facts and deltas follow as notifications."),
        Method("run/ask", RunParams, RunResult, "Starts a run and answers when it has ended."),
        Method("run/attach", AttachParams, RunInfo, "Follows a run from a sequence number."),
        Method("run/detach", RunIdParams, Done, "Stops following; the run goes on."),
        Method("run/cancel", CancelParams, RunInfo, "Cancels a run; answered when it has ended."),
        Method("run/list", RunListParams, RunListResult, "Lists runs, newest first."),
        Method("run/show", RunIdParams, RunResult, "Shows a run with answer, citations and receipt."),
        Method("run/fetch", FetchParams, FetchResult, "Reads facts of the past, or a value named in a fact."),
        Method("session/list", Nothing, SessionListResult, "Lists named sessions."),
        Method("session/drop", NameParams, Done, "Ends a session and forgets its names."),
        Method("repl/execute", ExecuteParams, ExecuteResult, "Runs one cell in a session."),
        Method("host/list", Nothing, HostListResult, "Lists hosts with state, slots and queue depth."),
        Method("host/add", HostAddParams, HostAddResult, "Asks a server what it is and adds it."),
        Method("host/remove", NameParams, Done, "Removes a host that host/add wrote."),
        Method("rpc.discover", Nothing, DiscoverResult, "This protocol as an OpenRPC document."),
        Method("daemon/status", Nothing, StatusResult, "What the daemon is and does."),
        Method("daemon/doctor", Nothing, DoctorResult, "Tries each part and says what to mend."),
    )
}
"""Notifications from the daemon: ``run/fact`` (a fact), ``run/delta`` (a delta), ``run/gap`` (a ``RunGap``)."""
