"""Both ends of the channel under arbitrary input: frames cut anywhere arrive whole; what is no honest worker's is a
breach, which ends the session, and never any other exception."""

from __future__ import annotations

import asyncio
import json
import marshal
import socket
import struct
import threading
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

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
        async with asyncio.timeout(20):
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
