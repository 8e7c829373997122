"""The REPL: model-written cells in a caged process of their own, one a session.

``Workers`` hands out ``ReplSession``s. What a cell needs of the engine is the Protocol ``CellHost``.
"""

from rlmd.repl.base import (
    CellHost,
    CellReport,
    ChildQuery,
    ContextSource,
    Final,
    Name,
    SearchPassage,
    SubQuery,
    SubQueryFailure,
    SubQueryReply,
)
from rlmd.repl.cgroup import WorkerGroups
from rlmd.repl.proof import Proof
from rlmd.repl.session import ReplSession
from rlmd.repl.workers import Workers

__all__ = [
    "CellHost",
    "CellReport",
    "ChildQuery",
    "ContextSource",
    "Final",
    "Name",
    "Proof",
    "ReplSession",
    "SearchPassage",
    "SubQuery",
    "SubQueryFailure",
    "SubQueryReply",
    "WorkerGroups",
    "Workers",
]
