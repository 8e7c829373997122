"""Both ends of the channel under arbitrary input: frames cut anywhere arrive whole; what is no honest worker's is a
breach, which ends the session, and never any other exception."""

from __future__ import annotations

import asyncio
import contextlib
import json
import marshal
import socket
import struct
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmd.repl import SubQuery, SubQueryFailure, SubQueryReply
from rlmd.repl.cell import Cell
from rlmd.repl.channel import Breach, Channel
from rlmd.repl.link import Channel as WorkerChannel
from rlmd.repl.link import Interrupts
from tests.repl import Host

SCALAR = st.none() | st.booleans() | st.integers(-2, 6) | st.integers() | st.floats() | st.text(max_size=5)
ANY = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))
FIELDS = ("id", "total", "model", "schema", "spans", "slot", "k", "cell", "ok", "stopped", "error", "final", "answer",
          "names", "threads")  # fmt: skip
#: What an honest worker sends, to be mixed with what none does.
HONEST = st.fixed_dictionaries(
    {"t": st.sampled_from(["batch", "prompt", "cancel", "search", "done", "reply", "run", "nonsense"])},
    optional={
        "id": st.integers(1, 4), "total": st.integers(1, 4), "model": st.none(), "schema": st.none(),
        "slot": st.integers(0, 3), "spans": st.just([]), "k": st.integers(1, 3), "ok": st.booleans(),
        "stopped": st.booleans(), "error": st.none(), "final": st.none(), "answer": st.none(), "names": st.just([]),
        "threads": st.integers(1, 2),
    },
)  # fmt: skip
SPAN = st.tuples(st.just("c"), st.just("d"), SCALAR, SCALAR).map(list)
SPANS = st.fixed_dictionaries(
    {"t": st.just("batch"), "id": st.just(1), "total": st.just(1), "spans": st.lists(SPAN, max_size=3)}
)
FORGED = SPANS | st.builds(
    lambda honest, more: honest | more, HONEST, st.dictionaries(st.sampled_from(FIELDS), ANY, max_size=3)
)
BODY = st.binary(max_size=20) | st.sampled_from([b"", b"x", struct.pack(">I", 1), struct.pack(">II", 1, 1)])


@settings(max_examples=400)
@given(frames=st.lists(st.tuples(HONEST | FORGED, BODY), max_size=12))
def test_a_cell_takes_any_frames_or_calls_them_a_breach(frames: list[tuple[dict[str, Any], bytes]]) -> None:
    async def feed() -> None:
        host = Host()
        sent: list[tuple[dict[str, Any], bytes]] = []
        cell = Cell(1, host, lambda header, body: sent.append((header, body)), {}, lambda _: None)
        try:
            for header, body in frames:
                if not cell.take(header, body):
                    break
                await asyncio.sleep(0)
        except Breach:
            pass
        finally:
            await cell.stop()
        assert host.in_flight == 0

    asyncio.run(feed())


#: Small ones, so that few prompts use them up: slots and characters under way at once, characters of one prompt.
CREDIT, FLYING, LONGEST = 3, 6, 4
STEP = (
    st.tuples(st.just("batch"), st.integers(1, 3), st.lists(st.integers(0, LONGEST), min_size=1, max_size=5))
    | st.tuples(st.just("prompt"), st.integers(1, 3), st.integers(0, 5))
    | st.tuples(st.just("honest prompt"), st.integers(0, 9), st.just(0))
    | st.tuples(st.sampled_from(["reply", "cancel"]), st.integers(1, 3), st.just(0))
)


class HeldHost(Host):
    """Holds each answer until it is told to give one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[asyncio.Event, int] = {}

    async def answer(self, query: SubQuery, *, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        told = asyncio.Event()
        self.open[told] = len(query.prompt)
        try:
            await told.wait()
        finally:
            del self.open[told]
        return SubQueryReply("y")


class OneWorker:
    """A worker's end of a cell that knows what the daemon asked it for: whether a frame of its is honest is told first,
    and then what the daemon made of it."""

    def __init__(self) -> None:
        self.host = HeldHost()
        self.cell = Cell(1, self.host, self._hear, {}, lambda _: None)
        self.sizes: dict[int, list[int]] = {}
        self.asked: dict[int, set[int]] = {}
        self.answered: dict[int, int] = {}

    def _hear(self, header: dict[str, Any], _body: bytes) -> None:
        number = header["id"]
        if header["t"] == "pull":
            assert not self.asked[number] & set(header["slots"])
            self.asked[number] |= set(header["slots"])
        elif header["t"] == "reply":
            self.answered[number] += 1
            if self.answered[number] == len(self.sizes[number]):
                del self.sizes[number], self.asked[number]

    def _take(self, body: bytes, *, honest: bool, **header: object) -> None:
        try:
            self.cell.take(header, body)
        except Breach:
            assert not honest, header
            raise
        assert honest, header

    def batch(self, number: int, sizes: list[int]) -> None:
        honest = number not in self.sizes
        if honest:
            self.sizes[number], self.asked[number], self.answered[number] = sizes, set(), 0
        body = b"x" * sizes[0] if len(sizes) == 1 else struct.pack(f">{len(sizes)}I", *sizes)
        self._take(body, honest=honest, t="batch", id=number, total=len(sizes), model=None, spans=[])

    def prompt(self, number: int, slot: int) -> None:
        """Of a batch that is over by now it is let pass: it may have been under way."""
        honest, size = True, 0
        if number in self.sizes:
            honest = slot in self.asked[number]
            size = self.sizes[number][slot] if slot < len(self.sizes[number]) else 0
            self.asked[number].discard(slot)
        self._take(b"x" * size, honest=honest, t="prompt", id=number, slot=slot, spans=[])

    def honest_prompt(self, which: int, _: int) -> None:
        due = [(number, slot) for number, slots in self.asked.items() for slot in sorted(slots)]
        if due:
            self.prompt(*due[which % len(due)])

    def reply(self, which: int, _: int) -> None:
        waiting = [told for told in self.host.open if not told.is_set()]
        if waiting:
            waiting[which % len(waiting)].set()

    def cancel(self, number: int, _: int) -> None:
        for known in (self.sizes, self.asked):
            known.pop(number, None)
        self._take(b"", honest=True, t="cancel", id=number)

    async def settled(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)
        assert len(self.under_way()) <= CREDIT
        assert sum(self.under_way()) <= FLYING

    def under_way(self) -> list[int]:
        """Characters of each prompt that was asked for, or is with the host."""
        due = [self.sizes[number][slot] for number, slots in self.asked.items() for slot in slots]
        return due + list(self.host.open.values())


@settings(max_examples=250)
@given(steps=st.lists(STEP, max_size=25))
def test_prompts_come_as_they_were_asked_for_or_are_a_breach(steps: list[tuple[str, Any, Any]]) -> None:
    """And never more of them at once than there is credit for, in number and in length."""

    async def feed() -> None:
        worker = OneWorker()
        with contextlib.suppress(Breach):
            for kind, *arguments in steps:
                getattr(worker, kind.replace(" ", "_"))(*arguments)
                await worker.settled()
            for _ in range(20):  # more than there can be prompts to ask for, a few at a time
                for _ in range(CREDIT):
                    worker.honest_prompt(0, 0)
                    worker.reply(0, 0)
                await worker.settled()
            assert worker.sizes == {}, "a batch was never asked for to its end"
        await worker.cell.stop()
        assert worker.host.open == {}

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CREDIT", CREDIT), ("_MOST_FLYING", FLYING), ("MOST_CHARS", LONGEST)):
            patch.setattr(f"rlmd.repl.cell.{name}", value)
        asyncio.run(feed())


GARBAGE = st.binary(max_size=12).map(lambda head: struct.pack(">II", len(head), 0) + head)


@settings(max_examples=150)
@given(pieces=st.lists(GARBAGE | st.binary(max_size=40) | st.builds(
    lambda header, body: struct.pack(">II", len(h := json.dumps(header).encode()), len(body)) + h + body,
    FORGED, st.binary(max_size=9)), max_size=10))  # fmt: skip
def test_any_bytes_are_frames_or_a_breach(pieces: list[bytes]) -> None:
    async def feed() -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: faults.append(what))
        ours, theirs = socket.socketpair()
        ended: list[Breach | None] = []
        channel = Channel(ours, lambda header, body: None, ended.append)
        for piece in pieces:
            if not ended:
                theirs.sendall(piece)
            await asyncio.sleep(0)
        theirs.close()
        async with asyncio.timeout(60):
            while not ended:
                await asyncio.sleep(0)
        channel.close()
        assert faults == []

    asyncio.run(feed())


FRAMES = st.lists(st.tuples(st.fixed_dictionaries({"t": st.text(max_size=8)}, optional={"n": st.integers(0, 9)}),
                            st.binary(max_size=300)), min_size=1, max_size=6)  # fmt: skip


@settings(max_examples=60)
@given(frames=FRAMES, cuts=st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_the_workers_end_reads_frames_however_they_are_cut(
    frames: list[tuple[dict[str, Any], bytes]], cuts: list[int]
) -> None:
    ours, theirs = socket.socketpair()
    data = b"".join(
        struct.pack(">II", len(head := marshal.dumps(header)), len(body)) + head + body for header, body in frames
    )

    def trickle() -> None:
        start, turn = 0, 0
        while start < len(data):
            size = cuts[turn % len(cuts)]
            ours.sendall(data[start : start + size])
            start, turn = start + size, turn + 1

    sending = threading.Thread(target=trickle)
    sending.start()
    worker = WorkerChannel(theirs.detach(), Interrupts())
    assert [worker.receive() for _ in frames] == frames
    sending.join()
    worker.close()
    ours.close()
