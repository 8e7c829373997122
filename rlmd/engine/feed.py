"""Who listens to a run: facts of the past from the journal, then live ones; deltas of the streams still open.

A subscription reads the journal in stretches until it has caught up, then goes live in the same step of the loop, so
that no fact is missed or doubled. Knows sinks and the journal's reader, nothing of connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from rlmd.engine.journal import Mark, Reading, read_facts
from rlmd.engine.requests import Sink
from rlmd.engine.runfolder import RunFolder
from rlmd.errors import RlmdError
from rlmd.events import AnyFact, CellEnded, Delta, RootFailed, RootReplied, SubQueryFact

#: Facts read from the journal at once, some 2 ms of parsing.
_STRETCH = 200
#: An open stream is kept for late subscribers up to here; the fact that closes it brings the whole.
_STREAM_CHARS = 256 * 1024

log = structlog.get_logger(__name__)


class Subscription:
    """One sink on one run, until ``withdrawn`` says that it may not know of it any more. ``close`` may be called
    twice."""

    def __init__(
        self, feed: Feed, sink: Sink, from_seq: int, *, deltas: bool, withdrawn: Callable[[], bool] = lambda: False
    ) -> None:
        self._feed = feed
        self._sink = sink
        self._next = from_seq
        self._mark = Mark()
        self._deltas = deltas
        self._live = False
        self._closed = False
        self._withdrawn = withdrawn
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to catch up with the journal."""
        self._task = asyncio.get_running_loop().create_task(self._catch_up(), name=f"catch-up {self._feed.run_id}")

    def close(self) -> None:
        self._closed = True
        self._feed.forget(self)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def end(self) -> None:
        """No more facts will come; told once all that there are have been."""
        if self._live and not self._closed:
            self.close()
            self._sink.ended()

    async def caught_up(self) -> None:
        """Waits until all facts of the past have been told."""
        if self._task is not None:
            await self._task

    def fact(self, fact: AnyFact) -> None:
        if self._live and self._may_tell():
            self._next = fact.seq + 1
            self._sink.fact(fact)

    def delta(self, delta: Delta) -> None:
        if self._live and self._deltas and self._may_tell():
            self._sink.delta(delta)

    def _may_tell(self) -> bool:
        if not self._closed and self._withdrawn():
            self.close()
            self._sink.ended()
        return not self._closed

    async def _catch_up(self) -> None:
        try:
            while self._next <= self._feed.last_seq():
                await self._sink.ready()
                reading = await self._feed.read(self._next, self._next + _STRETCH - 1, self._mark)
                self._mark = reading.after
                for fact in reading.facts:
                    if not self._may_tell():
                        return
                    self._next = fact.seq + 1
                    self._sink.fact(fact)
        except (RlmdError, OSError) as error:
            log.warning("subscription ended", run_id=self._feed.run_id, error=type(error).__name__)
            self.close()
            return
        self._live = True
        if self._feed.over:
            self.end()
            return
        for delta in self._feed.open_streams():
            self.delta(delta)


class Feed:
    """The subscriptions of one run.

    Args:
        run_id: The run.
        folder: Its journal's folder.
        threads: Where the journal is read.
        last_seq: The number of the last fact as it stands.
        done: Called when the last subscription has gone.
    over: Whether the run has ended already.
    """

    def __init__(
        self,
        run_id: str,
        folder: RunFolder,
        threads: Executor,
        last_seq: Callable[[], int],
        done: Callable[[Feed], None] = lambda feed: None,
        over: bool = False,
    ) -> None:
        self.run_id = run_id
        #: The run goes no further.
        self.over = over
        self.last_seq = last_seq
        self._folder = folder
        self._threads = threads
        self._done = done
        self._subscriptions: set[Subscription] = set()
        self._streams: dict[str, list[str]] = {}

    def subscribe(
        self, sink: Sink, from_seq: int, *, deltas: bool, withdrawn: Callable[[], bool] = lambda: False
    ) -> Subscription:
        subscription = Subscription(self, sink, from_seq, deltas=deltas, withdrawn=withdrawn)
        self._subscriptions.add(subscription)
        subscription.start()
        return subscription

    def forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            self._done(self)

    def close(self) -> None:
        for subscription in list(self._subscriptions):
            subscription.close()

    def end(self) -> None:
        """The run goes no further, whatever its last fact was; those still catching up are told when they have."""
        self.over = True
        for subscription in list(self._subscriptions):
            subscription.end()

    def publish(self, fact: AnyFact) -> None:
        if isinstance(fact, RootReplied | RootFailed | CellEnded):
            self._streams.pop(fact.stream, None)
        if isinstance(fact, SubQueryFact) and fact.stream is not None:
            self._streams.pop(fact.stream, None)
        if isinstance(fact, CellEnded):  # sub-queries that it did not wait for
            for stream in [one for one in self._streams if one.startswith(f"cell-{fact.cell}/")]:
                del self._streams[stream]
        for subscription in list(self._subscriptions):
            subscription.fact(fact)

    def delta(self, delta: Delta) -> None:
        pieces = self._streams.setdefault(delta.stream, [])
        if delta.offset == 0:
            pieces.clear()
        pieces.append(delta.text)
        for subscription in list(self._subscriptions):
            subscription.delta(delta)

    def open_streams(self) -> list[Delta]:
        """Each open stream from its beginning, unless it is too long to be sent again."""
        whole = {stream: "".join(pieces) for stream, pieces in self._streams.items()}
        return [
            Delta(run_id=self.run_id, stream=stream, offset=0, text=text)
            for stream, text in whole.items()
            if len(text) <= _STREAM_CHARS
        ]

    async def read(self, from_seq: int, to_seq: int, mark: Mark) -> Reading:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, read_facts, self._folder, from_seq, to_seq, mark)
