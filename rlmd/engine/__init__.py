"""Runs: a question asked of pinned contexts, from its first fact to its answer, citations and receipt."""

from rlmd.engine.continuing import ContinueRequest
from rlmd.engine.feed import Subscription
from rlmd.engine.openruns import QueryReport
from rlmd.engine.record import RunRecord
from rlmd.engine.requests import ExecuteRequest, LimitRequest, OpenRequest, QueryRequest, RunRequest, Sink
from rlmd.engine.runs import Engine, EngineStatistics, ExecuteReport
from rlmd.engine.sessions import SessionRecord

__all__ = [
    "ContinueRequest",
    "Engine",
    "EngineStatistics",
    "ExecuteReport",
    "ExecuteRequest",
    "LimitRequest",
    "OpenRequest",
    "QueryReport",
    "QueryRequest",
    "RunRecord",
    "RunRequest",
    "SessionRecord",
    "Sink",
    "Subscription",
]
