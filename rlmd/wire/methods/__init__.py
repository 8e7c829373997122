"""Every method of the protocol: its name, what it takes, what it gives. One file a noun.

The one authority for clients: ``rpc.discover`` and docs/protocol.md are generated from ``METHODS`` and the
models here. Offsets are code points of the stored text; sizes bytes; times seconds since the epoch (UTC) or
durations in seconds. Numbers that may exceed 2^53 (inode, nanoseconds) travel as decimal strings.
"""

from __future__ import annotations

from rlmd.wire.methods import contexts, daemon, greeting, hosts, runs, sessions
from rlmd.wire.methods.base import (
    PROTOCOL,
    Done,
    Method,
    NameParams,
    Nothing,
    Params,
    Result,
)
from rlmd.wire.methods.contexts import (
    INLINE_BYTES,
    MAX_PEEK_CHARS,
    ContextInfo,
    ContextInfoResult,
    ContextListResult,
    ContextParams,
    Decimal,
    DiffParams,
    DiffResult,
    DocumentChange,
    DocumentInfo,
    FileIdentity,
    FlagsParams,
    InlineSource,
    LoadParams,
    LoadResult,
    PathSource,
    PeekParams,
    PeekResult,
    SearchHit,
    SearchParams,
    SearchResult,
    Skipped,
    Source,
    SpoolSource,
    UpdateParams,
)
from rlmd.wire.methods.daemon import (
    Check,
    DoctorResult,
    StatusResult,
)
from rlmd.wire.methods.greeting import (
    ClientName,
    DiscoverResult,
    InitializeParams,
    InitializeResult,
)
from rlmd.wire.methods.hosts import (
    HostAddParams,
    HostAddResult,
    HostInfo,
    HostListResult,
    HostModel,
)
from rlmd.wire.methods.runs import (
    MAX_FETCH_CHARS,
    MAX_FETCH_FACTS,
    AttachParams,
    CancelParams,
    ExportParams,
    ExportResult,
    FetchParams,
    FetchResult,
    LimitParams,
    RunGap,
    RunIdParams,
    RunInfo,
    RunListParams,
    RunListResult,
    RunParams,
    RunResult,
)
from rlmd.wire.methods.sessions import (
    ExecuteParams,
    ExecuteResult,
    SessionDetail,
    SessionInfo,
    SessionListResult,
    SessionName,
)

#: In the order in which the protocol's page shows them.
METHODS: dict[str, Method] = {
    method.name: method for part in (greeting, contexts, runs, sessions, hosts, daemon) for method in part.METHODS
}
"""Notifications from the daemon: ``run/fact`` (a fact), ``run/delta`` (a delta), ``run/gap`` (a ``RunGap``)."""

__all__ = [
    "INLINE_BYTES",
    "MAX_FETCH_CHARS",
    "MAX_FETCH_FACTS",
    "MAX_PEEK_CHARS",
    "METHODS",
    "PROTOCOL",
    "AttachParams",
    "CancelParams",
    "Check",
    "ClientName",
    "ContextInfo",
    "ContextInfoResult",
    "ContextListResult",
    "ContextParams",
    "Decimal",
    "DiffParams",
    "DiffResult",
    "DiscoverResult",
    "DoctorResult",
    "DocumentChange",
    "DocumentInfo",
    "Done",
    "ExecuteParams",
    "ExecuteResult",
    "ExportParams",
    "ExportResult",
    "FetchParams",
    "FetchResult",
    "FileIdentity",
    "FlagsParams",
    "HostAddParams",
    "HostAddResult",
    "HostInfo",
    "HostListResult",
    "HostModel",
    "InitializeParams",
    "InitializeResult",
    "InlineSource",
    "LimitParams",
    "LoadParams",
    "LoadResult",
    "Method",
    "NameParams",
    "Nothing",
    "Params",
    "PathSource",
    "PeekParams",
    "PeekResult",
    "Result",
    "RunGap",
    "RunIdParams",
    "RunInfo",
    "RunListParams",
    "RunListResult",
    "RunParams",
    "RunResult",
    "SearchHit",
    "SearchParams",
    "SearchResult",
    "SessionDetail",
    "SessionInfo",
    "SessionListResult",
    "SessionName",
    "Skipped",
    "Source",
    "SpoolSource",
    "StatusResult",
    "UpdateParams",
]
