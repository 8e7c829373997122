"""The typed call: each method of the protocol with what it takes and gives, one overload each.

The overloads say nothing that ``METHODS`` does not; they exist so that a type checker knows the result. A test
holds the two equal.
"""

from __future__ import annotations

from typing import Any, Literal, overload

from pydantic import ValidationError

from rlmd.errors import InternalError
from rlmd.wire.methods import (
    METHODS,
    AppendParams,
    AttachParams,
    BeginParams,
    BudgetAllowParams,
    BudgetParams,
    BudgetResult,
    CacheResult,
    CancelParams,
    CommitParams,
    ConfirmParams,
    ContextInfo,
    ContextInfoResult,
    ContextListResult,
    ContextParams,
    ContinueParams,
    DiffParams,
    DiffResult,
    DiscoverResult,
    DoctorResult,
    Done,
    DropResult,
    ExecuteParams,
    ExecuteResult,
    ExportParams,
    ExportResult,
    FetchParams,
    FetchResult,
    FlagsParams,
    GcParams,
    GcResult,
    HostAddParams,
    HostAddResult,
    HostCalibrateParams,
    HostCalibrateResult,
    HostListResult,
    HostProbeParams,
    HostProbeResult,
    HostResult,
    HostSubscribeParams,
    InitializeParams,
    InitializeResult,
    LoadParams,
    LoadResult,
    NameParams,
    Nothing,
    OpenParams,
    Params,
    PeekParams,
    PeekResult,
    ProgramListResult,
    QueryParams,
    QueryResult,
    ReloadResult,
    Result,
    RunIdParams,
    RunInfo,
    RunListParams,
    RunListResult,
    RunParams,
    RunResult,
    SearchParams,
    SearchResult,
    SessionDetail,
    SessionListResult,
    StatusResult,
    UpdateParams,
    UploadResult,
)


class Calls:
    """Base of ``Client``."""

    async def call_raw(self, method: str, params: Params) -> dict[str, Any]:
        """Sends one request and gives the result as parsed JSON."""
        raise NotImplementedError

    @overload
    async def call(self, method: Literal["initialize"], params: InitializeParams) -> InitializeResult: ...
    @overload
    async def call(self, method: Literal["context/load"], params: LoadParams) -> LoadResult: ...
    @overload
    async def call(self, method: Literal["context/begin"], params: BeginParams) -> UploadResult: ...
    @overload
    async def call(self, method: Literal["context/append"], params: AppendParams) -> UploadResult: ...
    @overload
    async def call(self, method: Literal["context/commit"], params: CommitParams) -> LoadResult: ...
    @overload
    async def call(self, method: Literal["context/update"], params: UpdateParams) -> LoadResult: ...
    @overload
    async def call(self, method: Literal["context/flags"], params: FlagsParams) -> ContextInfo: ...
    @overload
    async def call(self, method: Literal["context/diff"], params: DiffParams) -> DiffResult: ...
    @overload
    async def call(self, method: Literal["context/list"], params: Nothing = ...) -> ContextListResult: ...
    @overload
    async def call(self, method: Literal["context/info"], params: ContextParams) -> ContextInfoResult: ...
    @overload
    async def call(self, method: Literal["context/peek"], params: PeekParams) -> PeekResult: ...
    @overload
    async def call(self, method: Literal["context/search"], params: SearchParams) -> SearchResult: ...
    @overload
    async def call(self, method: Literal["context/drop"], params: NameParams) -> DropResult: ...
    @overload
    async def call(self, method: Literal["run/start"], params: RunParams) -> RunInfo: ...
    @overload
    async def call(self, method: Literal["run/open"], params: OpenParams) -> RunInfo: ...
    @overload
    async def call(self, method: Literal["run/close"], params: RunIdParams) -> RunInfo: ...
    @overload
    async def call(self, method: Literal["llm/query"], params: QueryParams) -> QueryResult: ...
    @overload
    async def call(self, method: Literal["run/ask"], params: RunParams) -> RunResult: ...
    @overload
    async def call(self, method: Literal["run/attach"], params: AttachParams) -> RunInfo: ...
    @overload
    async def call(self, method: Literal["run/detach"], params: RunIdParams) -> Done: ...
    @overload
    async def call(self, method: Literal["run/cancel"], params: CancelParams) -> RunInfo: ...
    @overload
    async def call(self, method: Literal["run/confirm"], params: ConfirmParams) -> RunInfo: ...
    @overload
    async def call(self, method: Literal["run/continue"], params: ContinueParams) -> RunInfo: ...
    @overload
    async def call(self, method: Literal["run/list"], params: RunListParams) -> RunListResult: ...
    @overload
    async def call(self, method: Literal["run/show"], params: RunIdParams) -> RunResult: ...
    @overload
    async def call(self, method: Literal["run/export"], params: ExportParams) -> ExportResult: ...
    @overload
    async def call(self, method: Literal["run/delete"], params: RunIdParams) -> Done: ...
    @overload
    async def call(self, method: Literal["run/fetch"], params: FetchParams) -> FetchResult: ...
    @overload
    async def call(self, method: Literal["session/list"], params: Nothing = ...) -> SessionListResult: ...
    @overload
    async def call(self, method: Literal["session/show"], params: NameParams) -> SessionDetail: ...
    @overload
    async def call(self, method: Literal["session/reset"], params: NameParams) -> SessionDetail: ...
    @overload
    async def call(self, method: Literal["session/drop"], params: NameParams) -> Done: ...
    @overload
    async def call(self, method: Literal["repl/execute"], params: ExecuteParams) -> ExecuteResult: ...
    @overload
    async def call(self, method: Literal["program/list"], params: Nothing = ...) -> ProgramListResult: ...
    @overload
    async def call(self, method: Literal["host/list"], params: Nothing = ...) -> HostListResult: ...
    @overload
    async def call(self, method: Literal["host/subscribe"], params: HostSubscribeParams) -> HostListResult: ...
    @overload
    async def call(self, method: Literal["host/add"], params: HostAddParams) -> HostAddResult: ...
    @overload
    async def call(self, method: Literal["host/probe"], params: HostProbeParams) -> HostProbeResult: ...
    @overload
    async def call(self, method: Literal["host/wake"], params: NameParams) -> HostResult: ...
    @overload
    async def call(self, method: Literal["host/calibrate"], params: HostCalibrateParams) -> HostCalibrateResult: ...
    @overload
    async def call(self, method: Literal["host/pause"], params: NameParams) -> HostResult: ...
    @overload
    async def call(self, method: Literal["host/resume"], params: NameParams) -> HostResult: ...
    @overload
    async def call(self, method: Literal["host/remove"], params: NameParams) -> Done: ...
    @overload
    async def call(self, method: Literal["budget/show"], params: BudgetParams) -> BudgetResult: ...
    @overload
    async def call(self, method: Literal["budget/allow"], params: BudgetAllowParams) -> BudgetResult: ...
    @overload
    async def call(self, method: Literal["cache/stats"], params: Nothing = ...) -> CacheResult: ...
    @overload
    async def call(self, method: Literal["cache/clear"], params: Nothing = ...) -> CacheResult: ...
    @overload
    async def call(self, method: Literal["daemon/status"], params: Nothing = ...) -> StatusResult: ...
    @overload
    async def call(self, method: Literal["rpc.discover"], params: Nothing = ...) -> DiscoverResult: ...
    @overload
    async def call(self, method: Literal["daemon/gc"], params: GcParams) -> GcResult: ...
    @overload
    async def call(self, method: Literal["daemon/reload"], params: Nothing = ...) -> ReloadResult: ...
    @overload
    async def call(self, method: Literal["daemon/doctor"], params: Nothing = ...) -> DoctorResult: ...
    async def call(self, method: str, params: Params | None = None) -> Result:
        """Calls a method of the protocol.

        Args:
            method: Its name, such as ``"context/load"``.
            params: An instance of its parameter model; needless where there are none.

        Raises:
            RlmdError: The daemon's error, of the class that belongs to its code.
            NotConnected: The connection ended before the answer came; what was asked may have been done.
        """
        result = await self.call_raw(method, params if params is not None else Nothing())
        try:
            return METHODS[method].result.model_validate(result)
        except ValidationError as error:
            raise InternalError(
                f"The answer to {method} has {error.error_count()} fields that this client does not understand.",
                hint="Daemon and client differ in version: restart the daemon (rlmctl status shows both).",
            ) from None
