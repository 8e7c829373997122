"""Programs of the user: strategies that are files in the config folder."""

from __future__ import annotations

from rlmd.wire.methods.base import Method, Nothing, Result


class ProgramInfo(Result):
    """``summary``: the first line of its docstring. ``problem``: why it cannot be asked for; null when it can."""

    name: str
    file: str
    summary: str
    problem: str | None


class ProgramListResult(Result):
    """``folder`` is where they are looked for; it need not exist."""

    folder: str
    programs: tuple[ProgramInfo, ...]


METHODS = (Method("program/list", Nothing, ProgramListResult, "Lists the user's programs, which are strategies."),)
