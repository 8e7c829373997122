"""``session/*`` and ``repl/execute``: REPLs that outlive one question."""

from __future__ import annotations

from collections.abc import Mapping

from rlmd.engine import Engine, ExecuteRequest
from rlmd.errors import SessionLost
from rlmd.wire import methods as m
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Encoded, Handler
from rlmd.wire.handlers.runs import limit_request
from rlmd.wire.listing import listing


class SessionHandlers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Mapping[str, Handler[Connection]]:
        return {
            "session/list": self.list,
            "session/show": self.show,
            "session/reset": self.reset,
            "session/drop": self.drop,
            "repl/execute": self.execute,
        }

    async def list(self, client: Connection, _: m.Nothing) -> Encoded:
        sessions = await self._engine.sessions(egress=client.egress)
        return await listing(m.SessionListResult(sessions=()), m.SessionInfo, sessions, client.protocol)

    async def show(self, client: Connection, params: m.NameParams) -> m.SessionDetail:
        detail = await self._engine.session(params.name, egress=client.egress)
        return m.SessionDetail.model_validate(detail, from_attributes=True)

    async def reset(self, client: Connection, params: m.NameParams) -> m.SessionDetail:
        detail = await self._engine.reset_session(params.name, egress=client.egress)
        return m.SessionDetail.model_validate(detail, from_attributes=True)

    async def drop(self, client: Connection, params: m.NameParams) -> m.Done:
        await self._engine.drop_session(params.name, egress=client.egress)
        return m.Done()

    async def execute(self, client: Connection, params: m.ExecuteParams) -> m.ExecuteResult:
        request = ExecuteRequest(
            run_id=params.run_id,
            code=params.code,
            contexts=params.contexts,
            session=params.session,
            if_busy=params.if_busy,
            limits=limit_request(params.limits),
            within=params.within,
        )
        report = await self._engine.execute(request, egress=client.egress)
        if report.died:
            raise SessionLost(
                report.error or "The REPL session is lost.",
                hint="Send the cell again: a new worker has the contexts, but no names of before.",
                run_id=report.run_id,
            )
        return m.ExecuteResult.model_validate(report, from_attributes=True)
