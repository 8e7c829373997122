"""``run/*``: asking, following and looking up runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any

from rlmd.engine import ContinueRequest, Engine, LimitRequest, OpenRequest, QueryRequest, RunRecord, RunRequest
from rlmd.errors import InvalidParams, NotAllowed, NotFound, RlmdError
from rlmd.events import More
from rlmd.schema import canonical, check_schema
from rlmd.wire import methods as m
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Encoded, Handler
from rlmd.wire.follower import Follower
from rlmd.wire.listing import listing


class RunHandlers:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: Cancels on behalf of clients that went away.
        self._cancelling: set[asyncio.Task[None]] = set()

    def table(self) -> Mapping[str, Handler[Connection]]:
        return {
            "run/start": self.start,
            "run/open": self.open,
            "run/close": self.close,
            "llm/query": self.query,
            "run/ask": self.ask,
            "run/attach": self.attach,
            "run/detach": self.detach,
            "run/cancel": self.cancel,
            "run/confirm": self.confirm,
            "run/continue": self.continue_,
            "run/list": self.list,
            "run/show": self.show,
            "run/fetch": self.fetch,
            "run/export": self.export,
            "run/delete": self.delete,
        }

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, client: Connection, params: m.RunParams) -> m.RunInfo:
        return run_info(await self._begin(client, params))

    async def ask(self, client: Connection, params: m.RunParams) -> m.RunResult:
        await self._begin(client, params)
        return await self._result(await self._engine.wait(params.run_id, egress=client.egress))

    async def cancel(self, client: Connection, params: m.CancelParams) -> m.RunInfo:
        return run_info(await self._engine.cancel(params.run_id, params.why, egress=client.egress))

    async def confirm(self, client: Connection, params: m.ConfirmParams) -> m.RunInfo:
        accepted = params.choice == "accept"
        return run_info(
            await self._engine.confirm(params.run_id, accepted=accepted, strategy=params.strategy, egress=client.egress)
        )

    async def continue_(self, client: Connection, params: m.ContinueParams) -> m.RunInfo:
        more = More.model_validate(params.model_dump(include=set(More.model_fields)))
        await self._engine.look_for(params.run_id)
        last = params.last_seq or self._engine.run(params.run_id, egress=client.egress).last_seq
        request = ContinueRequest(params.run_id, more, params.last_seq)
        record = await self._engine.continue_run(request, egress=client.egress)
        if params.attach and record.run_id not in client.following:
            self._follow(client, record.run_id, last + 1, deltas=True)
        return run_info(record)

    async def _begin(self, client: Connection, params: m.RunParams) -> RunRecord:
        record = await self._engine.start_run(_request(params), egress=client.egress)
        if params.on_disconnect == "cancel" and record.active:
            client.on_gone[f"cancel {record.run_id}"] = lambda: self._cancel_for_gone(record.run_id)
        if params.attach and record.run_id not in client.following:
            self._follow(client, record.run_id, 1, deltas=True)
        return record

    # ── open runs ───────────────────────────────────────────────────────────────────────────────────────────

    async def open(self, client: Connection, params: m.OpenParams) -> m.RunInfo:
        """The run closes with this connection."""
        if client.egress and params.ephemeral:
            raise NotAllowed("This client may not ask privately: what it reads may leave the machine.")
        request = OpenRequest(params.run_id, params.title, limit_request(params.limits), params.ephemeral)
        record = await self._engine.start_run(request.as_run(), egress=client.egress)
        if record.active:
            key, session, egress = f"close {record.run_id}", params.session, client.egress
            client.on_gone[key] = lambda: self._for_gone(self._close(record.run_id, session, egress=egress))
            client.open_sessions[record.run_id] = session
        return run_info(record)

    async def close(self, client: Connection, params: m.RunIdParams) -> m.RunInfo:
        client.on_gone.pop(f"close {params.run_id}", None)
        session = client.open_sessions.pop(params.run_id, None)
        return run_info(await self._close(params.run_id, session, egress=client.egress))

    async def _close(self, run_id: str, session: str | None, *, egress: bool) -> RunRecord:
        record = await self._engine.close_run(run_id, egress=egress)
        if session is not None:
            with contextlib.suppress(NotFound):  # no cell ran in it
                await self._engine.drop_session(session, egress=egress)
        return record

    async def query(self, client: Connection, params: m.QueryParams) -> m.QueryResult:
        request = QueryRequest(params.run_id, params.prompt, params.model, params.sub)
        report = await self._engine.query(request, egress=client.egress)
        record = report.done.record
        return m.QueryResult(
            run_id=report.run_id,
            reply=report.reply,
            host=record.host,
            model=record.model,
            source=record.source,
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            money=record.money,
        )

    def _cancel_for_gone(self, run_id: str) -> None:
        self._for_gone(self._engine.cancel(run_id, "the client that asked went away"))

    def _for_gone(self, work: Coroutine[Any, Any, object]) -> None:
        async def quietly() -> None:
            with contextlib.suppress(RlmdError):  # it is no more
                await work

        task = asyncio.create_task(quietly(), name="for a client that went away")
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    # ── following ───────────────────────────────────────────────────────────────────────────────────────────

    async def attach(self, client: Connection, params: m.AttachParams) -> m.RunInfo:
        await self._engine.look_for(params.run_id)
        record = self._engine.run(params.run_id, egress=client.egress)
        if (before := client.following.get(params.run_id)) is not None:
            before.close()
        self._follow(client, params.run_id, params.from_seq, deltas=params.deltas)
        return run_info(record)

    async def detach(self, client: Connection, params: m.RunIdParams) -> m.Done:
        """Done too when nothing was followed: the run may have ended a moment ago."""
        if (following := client.following.get(params.run_id)) is not None:
            following.close()
        return m.Done()

    def _follow(self, client: Connection, run_id: str, from_seq: int, *, deltas: bool) -> None:
        def ended() -> None:
            if client.following.get(run_id) is follower:
                del client.following[run_id]
                if not self._engine.run(run_id).active:
                    client.on_gone.pop(f"cancel {run_id}", None)

        follower = Follower(run_id, client.outbox, deltas=deltas, on_end=ended)
        client.following[run_id] = follower
        subscription = self._engine.subscribe(run_id, from_seq, follower, deltas=deltas, egress=client.egress)
        follower.attached(subscription)

    # ── looking up ──────────────────────────────────────────────────────────────────────────────────────────

    async def list(self, client: Connection, params: m.RunListParams) -> Encoded:
        records = await self._engine.runs(params.state, params.limit, egress=client.egress)
        return await listing(m.RunListResult(runs=()), m.RunInfo, records, client.protocol)

    async def show(self, client: Connection, params: m.RunIdParams) -> m.RunResult:
        return await self._result(await self._engine.whole(params.run_id, egress=client.egress))

    async def fetch(self, client: Connection, params: m.FetchParams) -> m.FetchResult:
        if (params.digest is None) == (params.from_seq is None):
            raise InvalidParams(
                "run/fetch: either from_seq or digest must be given.", hint="from_seq reads facts, digest a value."
            )
        if params.digest is not None:
            text = await self._engine.value(params.run_id, params.digest, egress=client.egress)
            page = text[params.start : params.start + min(params.chars, m.MAX_FETCH_CHARS)]
            return m.FetchResult(text=page, chars=len(text))
        first = params.from_seq or 1
        last = min(params.to_seq or first + m.MAX_FETCH_FACTS, first + m.MAX_FETCH_FACTS - 1)
        facts = await self._engine.facts(params.run_id, first, last, egress=client.egress)
        return m.FetchResult(facts=tuple(facts))

    async def export(self, client: Connection, params: m.ExportParams) -> m.ExportResult:
        text, chars = await self._engine.export(params.run_id, params.form, params.start, egress=client.egress)
        return m.ExportResult(text=text, chars=chars)

    async def delete(self, client: Connection, params: m.RunIdParams) -> m.Done:
        await self._engine.delete_run(params.run_id, egress=client.egress)
        return m.Done()

    async def _result(self, record: RunRecord) -> m.RunResult:
        answer = await self._engine.answer(record)
        return m.RunResult(run=run_info(record), answer=answer, citations=record.citations, receipt=record.receipt)


def run_info(record: RunRecord) -> m.RunInfo:
    return m.RunInfo.model_validate(record, from_attributes=True)


def limit_request(limits: m.LimitParams) -> LimitRequest:
    return LimitRequest(**limits.model_dump())


def _request(params: m.RunParams) -> RunRequest:
    if params.strategy in ("execute", "open"):
        raise InvalidParams(f"{params.strategy} answers no question.", hint="repl/execute, run/open", field="strategy")
    return RunRequest(
        run_id=params.run_id,
        question=params.question,
        contexts=params.contexts,
        strategy=params.strategy,
        session=params.session,
        if_busy=params.if_busy,
        root=params.root,
        sub=params.sub,
        limits=limit_request(params.limits),
        fresh=params.fresh,
        schema=_checked(params.answer_schema),
        within=params.within,
        confirm=params.confirm,
    )


def _checked(schema: object) -> str | None:
    """The schema as the engine takes it. Raises ``InvalidParams``."""
    if schema is None:
        return None
    check_schema(schema)
    return canonical(schema)
