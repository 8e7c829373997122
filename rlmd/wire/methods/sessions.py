"""Sessions and the cells that run in them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlmd.events import Pin
from rlmd.wire.methods.base import Done, Method, NameParams, Nothing, Params, Result
from rlmd.wire.methods.runs import LimitParams


class SessionInfo(Result):
    name: str
    held_by: str | None
    contexts: tuple[Pin, ...]
    private: bool
    ephemeral: bool = False
    cells: int
    alive: bool
    used: float


class SessionName(Result):
    """A variable: its type, and a few words on its size."""

    name: str
    type: str
    size: str


class SessionDetail(Result):
    """``exchanges``: the last questions with their answers, shortened, as the next root is told them."""

    session: SessionInfo
    names: tuple[SessionName, ...]
    exchanges: tuple[tuple[str, str], ...]


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
    within: str | None = Field(None, description="An open run: its purse pays, and when it ends this cell does")


class ExecuteResult(Result):
    run_id: str
    ok: bool
    output: str
    output_cut: int
    error: str | None
    final: str | None
    seconds: float


METHODS = (
    Method("session/list", Nothing, SessionListResult, "Lists named sessions."),
    Method("session/show", NameParams, SessionDetail, "Shows a session with its variables and last questions."),
    Method("session/reset", NameParams, SessionDetail, "Begins a session anew: variables and questions are forgotten."),
    Method("session/drop", NameParams, Done, "Ends a session and forgets its names."),
    Method("repl/execute", ExecuteParams, ExecuteResult, "Runs one cell in a session."),
)
