"""Subscribers: the past from the journal, then live, in order, each fact once, however slow they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlmd.engine.feed import Feed
from rlmd.engine.journal import Journal, read_facts
from rlmd.engine.recorder import Recorder
from rlmd.engine.runfolder import DiskFolder
from rlmd.events import AnyFact, CellEnded, Delta, Limits, Note, RunInterrupted, RunStarted, Text


class Sink:
    """Takes facts; ``gate`` holds it up before each stretch of the past."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: list[AnyFact] = []
        self.deltas: list[Delta] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = self.ends = 0
        self.journalled = True

    async def ready(self) -> None:
        self.asked += 1
        await self.gate.wait()

    def fact(self, fact: AnyFact) -> None:
        self.journalled &= read_facts(DiskFolder(self.folder), fact.seq, fact.seq).facts == [fact]
        self.facts.append(fact)

    def delta(self, delta: Delta) -> None:
        self.deltas.append(delta)

    def ended(self) -> None:
        self.ends += 1


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    with ThreadPoolExecutor(1) as threads:
        made = Recorder(
            "r",
            Journal(DiskFolder(tmp_path), threads),
            lambda one: Feed("r", DiskFolder(tmp_path), threads, lambda: one.last_seq),
            lambda: 1.0,
        )
        made.add(
            RunStarted, question=Text(chars=1, text="?"), strategy="auto", contexts=(), session=None, root=(), sub=(),
            limits=Limits(turns=1, sub_queries=1, seconds=1, consecutive_errors=1), private=False, request_digest="d",
            rlmd="0", prompts="1",
        )  # fmt: skip
        yield made
        made.feed.close()
        await made.finish()


def seqs(sink: Sink) -> list[int]:
    return [fact.seq for fact in sink.facts]


async def test_past_and_live_meet_without_a_gap(recorder: Recorder, tmp_path: Path) -> None:
    """Facts that come while a slow subscriber reads the past are neither missed nor doubled; all were on disk first."""
    for _ in range(700):
        recorder.add(Note, text="past")
    sink = Sink(tmp_path)
    sink.gate.clear()
    subscription = recorder.feed.subscribe(sink, 1, deltas=True)
    for _ in range(50):
        recorder.add(Note, text="meanwhile")
        await asyncio.sleep(0)
    assert sink.facts == []
    sink.gate.set()
    await subscription.caught_up()
    recorder.add(Note, text="live")
    assert seqs(sink) == list(range(1, 753))
    assert sink.journalled, "a fact was told before it was in the journal"
    assert sink.asked >= 4


async def test_live_facts_are_on_disk_before_they_are_told(recorder: Recorder, tmp_path: Path) -> None:
    """A daemon that is killed while it tells a fact still has it."""
    sink = Sink(tmp_path)
    await recorder.feed.subscribe(sink, 1, deltas=True).caught_up()
    for _ in range(20):
        recorder.add(Note, text="live")
    assert seqs(sink) == list(range(1, 22))
    assert sink.journalled


async def test_the_end_is_told_to_all_whatever_the_last_fact(recorder: Recorder, tmp_path: Path) -> None:
    """Once, after every fact: to who is live, to who is still reading the past, to who comes later or asks for more
    than there is."""
    for _ in range(300):
        recorder.add(Note, text="past")
    live, slow, late, beyond = (Sink(tmp_path) for _ in range(4))
    await recorder.feed.subscribe(live, 1, deltas=True).caught_up()
    slow.gate.clear()
    reading = recorder.feed.subscribe(slow, 1, deltas=True)
    recorder.add(RunInterrupted, why="stopped")
    assert live.ends == 0
    recorder.feed.end()
    assert (live.ends, slow.ends) == (1, 0)
    slow.gate.set()
    await reading.caught_up()
    await recorder.feed.subscribe(late, 1, deltas=False).caught_up()
    await recorder.feed.subscribe(beyond, 1000, deltas=False).caught_up()
    assert [len(sink.facts) for sink in (live, slow, late, beyond)] == [302, 302, 302, 0]
    assert [sink.ends for sink in (live, slow, late, beyond)] == [1, 1, 1, 1]


async def test_one_who_closes_hears_no_more(recorder: Recorder, tmp_path: Path) -> None:
    """Closing twice does no harm; others go on hearing."""
    one, two = Sink(tmp_path), Sink(tmp_path)
    subscriptions = [recorder.feed.subscribe(sink, 1, deltas=True) for sink in (one, two)]
    for subscription in subscriptions:
        await subscription.caught_up()
    subscriptions[0].close()
    subscriptions[0].close()
    recorder.add(Note, text="later")
    assert (seqs(one), seqs(two)) == ([1], [1, 2])


async def test_an_open_stream_comes_from_its_beginning(recorder: Recorder, tmp_path: Path) -> None:
    """Who comes late gets the whole of a stream that is open, of one that began anew the last form, no closed one; nor
    that of a sub-query for which its cell did not wait."""
    recorder.delta("closed", 0, "gone")
    recorder.delta("cell-1/sub-3", 0, "not waited for")
    recorder.add(
        CellEnded, turn=1, cell=1, stream="closed", output=Text(chars=0, text=""), digest="d", cut=0, ok=True,
        error=None, seconds=0.0,
    )  # fmt: skip
    recorder.delta("open", 0, "first try")
    recorder.delta("open", 0, "on")
    recorder.delta("open", 2, "ce more\0")
    late, without = Sink(tmp_path), Sink(tmp_path)
    await recorder.feed.subscribe(late, 1, deltas=True).caught_up()
    await recorder.feed.subscribe(without, 1, deltas=False).caught_up()
    recorder.delta("open", 10, "!")
    assert [(delta.offset, delta.text) for delta in late.deltas] == [(0, "once more\ufffd"), (10, "!")]
    assert without.deltas == []
