"""The one way in which a run's facts come to be: numbered, journalled, folded, then told.

Owns the order of these four steps and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rlmd.engine.feed import Feed
from rlmd.engine.journal import Journal, clean
from rlmd.engine.past import Past
from rlmd.engine.receipt import Tally
from rlmd.engine.record import RunRecord, fold
from rlmd.events import AnyFact, Delta, RunStarted, Text

F = TypeVar("F", bound=AnyFact)


class Recorder:
    """Args:
    run_id: The run.
    journal: Where its facts go first.
    now: Seconds since the epoch.
    feed: Who is told after.
    watch: Is given the record whenever the run's state is another.
    """

    def __init__(
        self,
        run_id: str,
        journal: Journal,
        feed: Callable[[Recorder], Feed],
        now: Callable[[], float],
        watch: Callable[[RunRecord], None] = lambda _: None,
    ) -> None:
        self.run_id = run_id
        self.tally = Tally()
        self._journal = journal
        self._now = now
        self._past = Past()
        self._record: RunRecord | None = None
        self._watch = watch
        self.feed = feed(self)

    @property
    def record(self) -> RunRecord:
        assert self._record is not None, "run_started comes first"
        return self._record

    @property
    def last_seq(self) -> int:
        return self._record.last_seq if self._record is not None else 0

    def restore(self, facts: Sequence[AnyFact], past: Past) -> None:
        """Takes up a run whose journal holds these facts: none of them is written or told again."""
        self._past = past
        self._record = fold(facts)
        for fact in past.lasting.facts:
            self.tally.apply(fact)
        for fact in past.lasting.undone:
            self.tally.pay(fact)

    def add(self, kind: type[F], /, **fields: Any) -> F:
        """Makes the next fact of this kind; when this returns it is on disk and everyone was told."""
        fact = kind(run_id=self.run_id, seq=self.last_seq + 1, time=self._now(), **fields)
        if (known := self._past.take(fact)) is not None:
            return known
        self._journal.append(fact)
        before = self._record
        self._record = RunRecord.begin(fact) if isinstance(fact, RunStarted) else self.record.apply(fact)
        self.tally.apply(fact)
        self.feed.publish(fact)
        if before is not None and before.state != self._record.state:
            self._watch(self._record)
        return fact

    async def text(self, text: str) -> Text:
        """The text as a fact holds it, stored first when it is long."""
        return await self._journal.text(text)

    def delta(self, stream: str, offset: int, text: str) -> None:
        """Tells a piece of a stream; not journalled."""
        self.feed.delta(Delta(run_id=self.run_id, stream=stream, offset=offset, text=clean(text)))

    async def finish(self) -> None:
        """Closes the journal, and brings it to the disk; a child's is brought there with its parent's."""
        if self._record is not None and self._record.parent is not None:
            self._journal.close()
        else:
            await self._journal.finish()
