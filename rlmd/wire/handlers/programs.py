"""``program/list``: which strategies the user has added."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from rlmd.wire import methods as m
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Handler
from rlmd.wire.handlers.parts import Parts


class ProgramHandlers:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def table(self) -> Mapping[str, Handler[Connection]]:
        return {"program/list": self.list}

    async def list(self, _: Connection, __: m.Nothing) -> m.ProgramListResult:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._parts.threads, self._parts.engine.own_programs.listed)
        programs = tuple(
            m.ProgramInfo(name=one.name, file=str(one.file), summary=one.summary, problem=one.problem) for one in found
        )
        return m.ProgramListResult(folder=str(self._parts.paths.programs), programs=programs)
