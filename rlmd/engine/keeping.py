"""What is kept and what is erased: sessions by their name, runs on the disk, and all that tells of a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlmd.contexts import Collected
from rlmd.engine.archive import Archive
from rlmd.engine.going import Going
from rlmd.engine.parts import Parts
from rlmd.engine.record import RunRecord
from rlmd.engine.retention import collect
from rlmd.engine.sessions import SessionDetail, SessionRecord, Sessions
from rlmd.engine.steering import Steering
from rlmd.errors import Busy, Conflict


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many runs and sessions went with a context."""

    runs: int
    sessions: int


class Keeping(Steering):
    """Args:
    archive: The runs on disk.
    going: Those that go on.
    sessions: The named ones.
    parts: The collaborators of every run.
    """

    def __init__(self, archive: Archive, going: Going, sessions: Sessions, parts: Parts) -> None:
        super().__init__(archive, going, parts)
        self._sessions = sessions

    async def sessions(self, *, egress: bool = False) -> list[SessionRecord]:
        """The named sessions."""
        shown = self._sessions.visible(egress=egress)
        for session in shown:
            await session.recall(self._parts)
        return [session.record() for session in shown]

    def session_count(self, *, egress: bool = False) -> int:
        return len(self._sessions.visible(egress=egress))

    async def session(self, name: str, *, egress: bool = False) -> SessionDetail:
        """A named session with its variables and last questions. Raises ``NotFound``."""
        session = self._sessions.named(name, egress=egress)
        await session.recall(self._parts)
        return session.detail()

    async def reset_session(self, name: str, *, egress: bool = False) -> SessionDetail:
        """Begins a session anew, without its variables and questions. Raises ``NotFound``, ``Busy``."""
        return (await self._sessions.reset(name, egress=egress)).detail()

    async def drop_session(self, name: str, *, egress: bool = False) -> None:
        """Ends a session and forgets its names. Raises ``NotFound``, ``Busy``."""
        await self._sessions.drop(name, egress=egress)

    async def drop_context(self, name: str, *, egress: bool = False) -> Dropped:
        """Erases a context and all that tells of it: runs that read it, sessions that held it, cached replies.

        The context goes last: where this is cut short, it is still there to be dropped again.

        Raises:
            NotFound: There is none, or none that this client may know of.
        """
        name = self._parts.contexts.real_name(name, egress=egress)
        async with self._starting:
            # Children go with their parents, who hold all that they do.
            records = [record for record in self._archive.records.values() if record.parent is None]
            telling = [record.run_id for record in records if name in self._held(record)]
            for run_id in telling:
                if run_id in self._going.live:
                    await self.cancel(run_id, f"its context {name!r} was dropped")
            sessions = await self._sessions.drop_holding(name)
            for run_id in telling:
                await self.delete_run(run_id)
            await self._parts.pool.forget(name)
            await self._parts.contexts.drop(name, egress=False)
        return Dropped(len(telling), sessions)

    async def collect(self, *, dry_run: bool = False) -> Sequence[Collected]:
        """Removes runs and what of the contexts has expired, or says what would be. What a run that stays or a session
        names is kept."""
        async with self._starting:  # no run begins on what is being removed
            found = await collect(
                self._archive, self._sessions, self._going, self._parts, self.delete_run, dry_run=dry_run
            )
            if not dry_run:
                await self._sessions.forget_ended(lambda: self._archive.records.values())
                await self._parts.pool.sum_up()
            return found

    def _held(self, record: RunRecord) -> tuple[str, ...]:
        live = self._going.live.get(record.run_id)
        return record.held if live is None else live.recorder.record.held

    async def delete_run(self, run_id: str, *, egress: bool = False) -> None:
        """Takes a run off the disk, with all that is kept of it. Raises ``NotFound``, ``Busy`` while it goes on."""
        record = self._find(run_id, egress=egress)
        if record.parent is not None:
            raise Conflict(f"Run {run_id} is part of run {record.parent}.", hint=f"Delete {record.parent}.")
        if run_id in self._going.live:
            raise Busy(f"Run {run_id} goes on.", hint="Cancel it first.", run_id=run_id)
        for feed in list(self._feeds):
            if feed.run_id == run_id:
                feed.close()
        await self._archive.delete(run_id)
