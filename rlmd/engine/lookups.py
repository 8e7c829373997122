"""What runs there are and what they hold, for whoever asks: nothing here changes a run.

Every door asks anew whether the asking client may know of the run: what was public may have become private since.
"""

from __future__ import annotations

import asyncio
import functools

from rlmd.engine.archive import Archive
from rlmd.engine.exports import ExportForm
from rlmd.engine.feed import Feed, Subscription
from rlmd.engine.going import Going
from rlmd.engine.parts import Parts
from rlmd.engine.record import ACTIVE, RunRecord
from rlmd.engine.requests import Sink
from rlmd.errors import NotFound
from rlmd.events import AnyFact, RunState

#: Runs that are looked at between two turns of the loop: some 0.5 ms.
_AT_ONCE = 500
#: Characters of an export that are given at once.
MOST_EXPORTED = 500_000


class Lookups:
    """Args:
    archive: The runs on disk.
    going: Those that go on.
    parts: The collaborators of every run.
    """

    def __init__(self, archive: Archive, going: Going, parts: Parts) -> None:
        self._archive = archive
        self._going = going
        self._parts = parts
        #: Of runs that have ended and are still read.
        self._feeds: set[Feed] = set()

    def run(self, run_id: str, *, egress: bool = False) -> RunRecord:
        """A run as it stands; once it has ended, without answer, citations and receipt."""
        return self._find(run_id, egress=egress)

    async def whole(self, run_id: str, *, egress: bool = False) -> RunRecord:
        """A run with its answer, citations and receipt, as far as there are any."""
        await self.look_for(run_id)
        return await self._archive.whole(self._find(run_id, egress=egress))

    async def runs(self, state: RunState | None = None, limit: int = 50, *, egress: bool = False) -> list[RunRecord]:
        """Runs, newest first, without answers, child runs left out; of thousands no more are looked at than needed, and
        others have their turns meanwhile."""
        shown: list[RunRecord] = []
        for looked_at, record in enumerate(reversed(list(self._archive.records.values()))):
            if looked_at % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            if record.parent is not None or (state is not None and self._going.state(record) != state):
                continue
            current = self._going.current(record)
            if not (egress and current.private):
                shown.append(current)
                if len(shown) >= limit:
                    break
        return shown

    def counts(self, *, egress: bool = False) -> tuple[int, int]:
        """How many runs there are, child runs left out, and how many of them go on."""
        private = functools.cache(self._parts.any_private)  # thousands of runs are about a few contexts
        going = self._going.all()
        count = active = 0
        for one in self._archive.records.values():
            if one.parent is not None or (egress and (one.private or private(one.held))):
                continue
            count += 1
            if (one.state in ACTIVE or one.run_id in going) and self._going.state(one) in ACTIVE:
                active += 1
        return count, active

    async def facts(
        self, run_id: str, from_seq: int = 1, to_seq: int | None = None, *, egress: bool = False
    ) -> list[AnyFact]:
        """Facts ``from_seq`` to ``to_seq`` inclusive, at most 5,000 at once."""
        await self.look_for(run_id)
        self._find(run_id, egress=egress)
        return await self._archive.facts(run_id, from_seq, to_seq)

    async def value(self, run_id: str, digest: str, *, egress: bool = False) -> str:
        """The text named by a digest in one of the run's facts."""
        await self.look_for(run_id)
        self._find(run_id, egress=egress)
        return await self._archive.value(run_id, digest)

    async def answer(self, record: RunRecord) -> str | None:
        """The whole answer of a run that has ended."""
        text = (await self._archive.whole(record)).answer
        return None if text is None else await self._archive.text(record.run_id, text)

    async def export(
        self, run_id: str, form: ExportForm, start: int = 0, chars: int = MOST_EXPORTED, *, egress: bool = False
    ) -> tuple[str, int]:
        """A stretch of the run in another form, and how many characters the whole has."""
        self._archive.records[run_id] = self._find(run_id, egress=egress)
        text = await self._archive.exported(run_id, form)
        self._find(run_id, egress=egress)  # it may have become private meanwhile
        if start + chars >= len(text):
            self._archive.forget_export()
        return text[start : start + chars], len(text)

    def subscribe(
        self, run_id: str, from_seq: int, sink: Sink, *, deltas: bool = True, egress: bool = False
    ) -> Subscription:
        """Facts from ``from_seq`` on, those of the past first, then live; deltas of streams still open."""
        record = self._find(run_id, egress=egress)

        def withdrawn() -> bool:
            return egress and self._going.current(record).private

        live = self._going.of(run_id)
        if live is not None:
            return live.recorder.feed.subscribe(sink, from_seq, deltas=deltas, withdrawn=withdrawn)
        folder = self._archive.folder(run_id)
        feed = Feed(run_id, folder, self._parts.threads, lambda: record.last_seq, done=self._feeds.discard, over=True)
        self._feeds.add(feed)
        return feed.subscribe(sink, from_seq, deltas=False, withdrawn=withdrawn)

    async def look_for(self, run_id: str) -> None:
        """Children of runs of the past are not in memory: they are looked for when they are asked about."""
        if run_id not in self._archive.records:
            await self._archive.find_child(run_id)

    def _find(self, run_id: str, *, egress: bool) -> RunRecord:
        record = self._archive.records.get(run_id)
        if record is None or (egress and self._going.current(record).private):
            hint = "List runs with run/list; those over ephemeral text are gone when the daemon stops."
            raise NotFound(f"There is no run {run_id}.", hint=hint, run_id=run_id)
        return self._going.current(record)
