"""The daemon's end of the channel over a plain socketpair: frames cut anywhere, both ways; breaches; hanging up."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rlmd.repl.channel import Breach, Channel
from rlmd.repl.link import Channel as WorkerChannel
from rlmd.repl.link import Interrupts


class Ends:
    """A channel and the bare other end."""

    def __init__(self) -> None:
        ours, self.other = socket.socketpair()
        self.frames: list[tuple[dict[str, Any], bytes]] = []
        self.ended: asyncio.Future[Breach | None] = asyncio.get_running_loop().create_future()
        self.channel = Channel(ours, lambda header, body: self.frames.append((header, body)), self.ended.set_result)

    async def until_frames(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.frames) < count:
                await asyncio.sleep(0)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.channel.close()
    made.other.close()


def packed(header: object, body: bytes = b"") -> bytes:
    head = json.dumps(header).encode()
    return struct.pack(">II", len(head), len(body)) + head + body


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_frames_arrive_whole_however_they_are_cut(size: int, ends: Ends) -> None:
    sent = [({"t": "a", "n": n}, b"x" * n) for n in (0, 1, 300)]
    data = b"".join(packed(*frame) for frame in sent)
    for start in range(0, len(data), size):
        ends.other.send(data[start : start + size])
        await asyncio.sleep(0)
    await ends.until_frames(3)
    assert ends.frames == sent


@pytest.mark.parametrize(
    "data",
    [struct.pack(">II", 9 << 20, 0), struct.pack(">II", 5 << 20, 5 << 20), struct.pack(">II", 9, 8 << 20),
     packed([1]), packed({"n": 1}), packed({"t": 1}), struct.pack(">II", 3, 0) + b"\xff{}"],
)  # fmt: skip
async def test_what_is_no_frame_ends_the_channel(data: bytes, ends: Ends) -> None:
    ends.other.sendall(packed({"t": "good"}) + data + packed({"t": "after"}))
    async with asyncio.timeout(60):
        assert isinstance(await ends.ended, Breach)
    assert [header["t"] for header, _ in ends.frames] == ["good"]


async def test_hanging_up_in_the_middle_of_a_frame_is_an_end_without_a_breach(ends: Ends) -> None:
    ends.other.sendall(packed({"t": "good"}, b"12345678")[:-3])
    ends.other.close()
    assert await ends.ended is None
    assert ends.frames == []


async def test_a_frame_too_long_for_the_worker_is_refused_here(ends: Ends) -> None:
    with pytest.raises(ValueError, match="at most 8,388,608 fit"):
        ends.channel.send({"t": "reply"}, b"x" * (9 << 20))


async def test_a_worker_that_asks_and_does_not_read_fills_no_memory(ends: Ends) -> None:
    """64 MiB may wait for it; what is beyond ends it, and nothing waits any more."""
    body = bytes(8_000_000)
    for _ in range(8):
        ends.channel.send({"t": "reply"}, body)
    await asyncio.sleep(0)
    assert not ends.ended.done()
    ends.channel.send({"t": "reply"}, body)
    async with asyncio.timeout(60):
        breach = await ends.ended
    assert breach is not None
    assert "not read" in str(breach)
    assert not ends.channel._outgoing


async def test_a_worker_that_reads_may_be_sent_any_amount_in_all(ends: Ends) -> None:
    ends.other.setblocking(False)
    loop = asyncio.get_running_loop()
    for _ in range(10):
        ends.channel.send({"t": "reply"}, bytes(8_000_000))
        got = 0
        while got < 8_000_000 and not ends.ended.done():
            got += len(await loop.sock_recv(ends.other, 1 << 20))
    await asyncio.sleep(0)
    assert not ends.ended.done()


async def test_a_slow_reader_gets_everything_and_descriptors_are_handed_over_and_closed(ends: Ends) -> None:
    read, write = os.pipe()
    os.close(write)
    body = os.urandom(3 << 20)
    ends.channel.send({"t": "one"}, body)
    ends.channel.send({"t": "two"}, b"", [read])
    ends.other.setblocking(True)
    worker = WorkerChannel(ends.other.detach(), Interrupts())
    assert await asyncio.to_thread(worker.receive) == ({"t": "one"}, body)
    assert await asyncio.to_thread(worker.receive) == ({"t": "two"}, b"")
    (got,) = worker.descriptors
    assert os.read(got, 1) == b""
    os.close(got)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read)
    worker.close()


async def test_a_worker_whose_daemon_is_gone_leaves_and_a_test_that_is_one_fails(ends: Ends) -> None:
    """Elsewhere by ``os._exit``, which would end all tests here, and look as though they had passed."""
    worker = WorkerChannel(ends.other.detach(), Interrupts())
    ends.channel.close()
    with pytest.raises(AssertionError, match=r"os\._exit\(0\) would have ended the tests"):
        await asyncio.to_thread(worker.receive)
    worker.close()
    child = os.fork()
    if not child:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


async def test_descriptors_of_frames_never_sent_are_closed(ends: Ends) -> None:
    read, write = os.pipe()
    ends.channel.send({"t": "big"}, b"x" * (6 << 20))  # fills the socket
    ends.channel.send({"t": "late"}, b"", [read])
    ends.channel.close()
    ends.channel.send({"t": "later"}, b"", [write])
    for descriptor in (read, write):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
