"""Runs on their way: waited for, cancelled, answered when they ask, and continued after a limit.

Every door asks anew whether the client may know of the run.
"""

from __future__ import annotations

import asyncio

from rlmd.engine.archive import Archive
from rlmd.engine.continuing import ContinueRequest, check_ended
from rlmd.engine.going import Going
from rlmd.engine.lookups import Lookups
from rlmd.engine.parts import Parts
from rlmd.engine.record import RunRecord
from rlmd.errors import Conflict, Draining
from rlmd.events import CancelRequested, More, RunContinued, Strategy


class Steering(Lookups):
    """Args:
    archive: The runs on disk.
    going: Those that go on.
    parts: The collaborators of every run.
    """

    def __init__(self, archive: Archive, going: Going, parts: Parts) -> None:
        super().__init__(archive, going, parts)
        self._starting = asyncio.Lock()
        self._draining = False

    async def wait(self, run_id: str, *, egress: bool = False) -> RunRecord:
        """The run once it has ended."""
        record = self._find(run_id, egress=egress)
        live = self._going.of(run_id)
        if live is not None:
            await live.ended.wait()
            record = self._find(run_id, egress=egress)  # it may have become private meanwhile
        return await self._archive.whole(record)

    async def cancel(self, run_id: str, why: str, *, egress: bool = False) -> RunRecord:
        """Cancels a run; answered when it has ended. One that has ended already is returned as it is."""
        self._find(run_id, egress=egress)
        live = self._going.of(run_id)
        if live is not None and live.recorder.record.active and live.run.stop("cancelled", why):
            live.task.cancel()
            live.recorder.add(CancelRequested, why=why)
        return await self.wait(run_id, egress=egress)

    async def confirm(
        self, run_id: str, *, accepted: bool, strategy: Strategy | None = None, egress: bool = False
    ) -> RunRecord:
        """Answers what a run asks: it goes on, by another strategy if one is named, or is concluded with what it has.

        Raises:
            Conflict: It does not ask, or is part of another run, which does.
            InvalidParams: That strategy cannot be chosen.
        """
        record = self._find(run_id, egress=egress)
        if record.parent is not None:
            raise Conflict(f"Run {run_id} is part of run {record.parent}.", hint=f"Answer {record.parent}.")
        live = self._going.of(run_id)
        if live is None or record.asks is None:
            raise Conflict(f"Run {run_id} does not ask anything.", hint="run/show says how it stands.")
        live.run.confirming.decide(accepted=accepted, strategy=strategy, why="asked by the client")
        return self._going.current(live.recorder.record)

    async def continue_run(self, request: ContinueRequest, *, egress: bool = False) -> RunRecord:
        """A run that ended at a limit gets more and goes on from there, under its id. Asked again it is done once.

        Raises:
            Conflict: It goes on, was cancelled, ended by itself, or is part of another; its session went on without it.
            InvalidParams: The limit that ended it is not raised.
            NotFound: There is no such run for this client, or a context of it is gone.
            Draining: The daemon is stopping.
        """
        await self.look_for(request.run_id)
        self._find(request.run_id, egress=egress)
        live = self._going.of(request.run_id)
        if live is not None and not live.recorder.record.active:
            await live.ended.wait()  # its last fact was told a moment ago
        async with self._starting:
            record = self._find(request.run_id, egress=egress)
            if request.last_seq is not None and request.last_seq != record.last_seq:
                await self._check_continued(record, request, request.last_seq)
                return await self._archive.whole(record)
            if self._draining:
                raise Draining("The daemon is stopping.", hint="Ask again when it has restarted.")
            check_ended(record)
            self._check_session(record)
            live = await self._going.go_on(record, request.more)
            return self._going.current(live.recorder.record)

    async def _check_continued(self, record: RunRecord, request: ContinueRequest, last_seq: int) -> None:
        """Raises ``Conflict`` unless the run was continued from there, and by an equal request."""
        facts = await self._archive.facts(record.run_id, last_seq + 1, last_seq + 1) if last_seq > 0 else []
        fact = facts[0] if facts else None
        if not isinstance(fact, RunContinued) or request.more not in (fact.more, More()):
            raise Conflict(
                f"The last fact of run {record.run_id} has another number: {record.last_seq:,}, not {last_seq:,}.",
                hint="It was continued meanwhile, or never ended there: run/show says how it stands.",
                run_id=record.run_id,
            )

    def _check_session(self, record: RunRecord) -> None:
        """Raises ``Conflict`` when a later run held the session: its names are not those of this one any more."""
        if record.session_id is None:
            return
        held = [one for one in self._archive.records.values() if one.session_id == record.session_id]
        later = max(held, key=lambda one: one.created)
        if later.run_id != record.run_id:
            raise Conflict(
                f"Session {record.session!r} went on without run {record.run_id}.",
                hint=f"Ask again in the session, or continue its last run, {later.run_id}.",
                run_id=later.run_id,
            )
