"""A connection's queue and the followers in front of it: order, bounds, gaps told, streams from their beginning."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rlmd.events import Delta
from rlmd.wire.follower import Follower
from rlmd.wire.framing import Message
from rlmd.wire.outbox import MERGED_CHARS, Outbox
from tests.unit.wire_facts import note, root_replied, run_ended, turn_started

RUN = "11111111-1111-1111-1111-111111111111"


class Peer:
    """The other end: reads as many messages as it is let."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.may_read = asyncio.Semaphore(0)
        self.gone = False

    async def send(self, message: Message) -> None:
        await self.may_read.acquire()
        if self.gone:
            raise BrokenPipeError
        self.got.append(b"".join(message))

    def read_all(self) -> None:
        for _ in range(100_000):
            self.may_read.release()

    def messages(self) -> list[Any]:
        return [json.loads(message) for message in self.got]


class Rig:
    def __init__(self, room: int = 1000) -> None:
        self.peer = Peer()
        self.outbox = Outbox(self.peer.send, room=room)
        self.writing = asyncio.create_task(self.outbox.run())
        self.ends = 0

    def follower(self, *, deltas: bool = True) -> Follower:
        return Follower(RUN, self.outbox, deltas=deltas, on_end=self._ended)

    def _ended(self) -> None:
        self.ends += 1

    async def drained(self) -> list[Any]:
        self.peer.read_all()
        await self.outbox.wait_idle()
        return self.peer.messages()


@pytest.fixture
async def rig() -> Any:
    made = Rig()
    yield made
    made.writing.cancel()


def delta(text: str, offset: int, stream: str = "root-1") -> Delta:
    return Delta(run_id=RUN, stream=stream, offset=offset, text=text)


async def test_order_is_kept_among_replies_and_notifications(rig: Rig) -> None:
    await rig.outbox.reply((b"1",))
    assert rig.outbox.offer(b"2")
    await rig.outbox.reply((b"3",))
    assert await rig.drained() == [1, 2, 3]


async def test_replies_wait_for_room_and_none_is_lost(rig: Rig) -> None:
    replies = [asyncio.create_task(rig.outbox.reply((b"%d" % n, b" " * 400))) for n in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert sum(task.done() for task in replies) <= 4  # three of 400 bytes fill the room; one is being written
    rig.peer.read_all()
    await asyncio.gather(*replies)
    assert await rig.drained() == list(range(20))


async def test_notifications_never_wait(rig: Rig) -> None:
    taken = [rig.outbox.offer(b"0" * 400) for _ in range(10)]
    assert taken[0]
    assert not taken[-1]


async def test_deltas_that_touch_are_one_message_when_they_had_to_wait(rig: Rig) -> None:
    await rig.outbox.reply((b"0",))  # is being written
    await asyncio.sleep(0)
    for n, word in enumerate(("auf ", "und ", "ab")):
        assert rig.outbox.offer_delta(delta(word, 4 * n))
    assert rig.outbox.offer_delta(delta("x", 0, "cell-1"))
    _, first, second = await rig.drained()
    assert (first["method"], first["params"]["text"], first["params"]["offset"]) == ("run/delta", "auf und ab", 0)
    assert second["params"] == {"run_id": RUN, "stream": "cell-1", "offset": 0, "text": "x"}


async def test_a_stream_that_waits_is_merged_up_to_a_bound(rig: Rig) -> None:
    """A reader that stalls gets messages that it can hold, not one of megabytes."""
    rig.outbox = Outbox(rig.peer.send, room=1 << 20)
    writing = asyncio.create_task(rig.outbox.run())
    await rig.outbox.reply((b"0",))  # is being written
    await asyncio.sleep(0)
    piece = "x" * 1000
    for n in range(200):
        assert rig.outbox.offer_delta(delta(piece, 1000 * n))
    _, *deltas = await rig.drained()
    texts = [one["params"]["text"] for one in deltas]
    assert "".join(texts) == piece * 200
    assert max(map(len, texts)) <= MERGED_CHARS
    writing.cancel()


async def test_streams_of_two_runs_are_not_merged(rig: Rig) -> None:
    """Each has a root-1."""
    await rig.outbox.reply((b"0",))  # is being written
    await asyncio.sleep(0)
    other = "22222222-2222-2222-2222-222222222222"
    assert rig.outbox.offer_delta(delta("mine", 0))
    assert rig.outbox.offer_delta(Delta(run_id=other, stream="root-1", offset=4, text="its"))
    _, first, second = await rig.drained()
    assert [(one["params"]["run_id"], one["params"]["text"]) for one in (first, second)] == [
        (RUN, "mine"),
        (other, "its"),
    ]


async def test_room_is_told_when_half_of_it_is_free(rig: Rig) -> None:
    """Told with each message that goes, a reader that is slow would get a gap and a fact by turns."""
    told: list[int] = []
    for _ in range(10):
        assert rig.outbox.offer(b"1" * 100)
    rig.outbox.when_room(lambda: told.append(rig.outbox.waiting_bytes))
    for _ in range(10):
        rig.peer.may_read.release()
        for _ in range(5):
            await asyncio.sleep(0)
    assert told == [500]


async def test_a_peer_that_goes_away_holds_nobody(rig: Rig) -> None:
    waiting = [asyncio.create_task(rig.outbox.reply((b"0" * 900,))) for _ in range(5)]
    await asyncio.sleep(0)
    rig.peer.gone = True
    rig.peer.read_all()
    with pytest.raises(BrokenPipeError):
        await rig.writing
    rig.outbox.close()
    await asyncio.gather(*waiting)
    await rig.outbox.wait_idle()
    assert rig.outbox.offer(b"0")


async def test_room_counts_down_to_nothing(rig: Rig) -> None:
    """A leak of bytes would end in a connection that is full for ever."""
    rig.peer.read_all()
    for n in range(200):
        rig.outbox.offer(b"1" * 300)
        rig.outbox.offer_delta(delta("ab", 2 * n))
        if n % 3 == 0:
            await rig.outbox.wait_idle()
    await rig.outbox.wait_idle()
    assert rig.outbox.waiting_bytes == 0


# ── followers ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_facts_arrive_in_order_and_whole(rig: Rig) -> None:
    follower = rig.follower()
    for n in range(1, 4):
        follower.fact(note(RUN, n, f"n{n}"))
    got = await rig.drained()
    assert [(m["method"], m["params"]["seq"], m["params"]["text"]) for m in got] == [
        ("run/fact", 1, "n1"),
        ("run/fact", 2, "n2"),
        ("run/fact", 3, "n3"),
    ]


async def test_every_fact_is_either_sent_or_in_a_gap(rig: Rig) -> None:
    follower = rig.follower()
    for n in range(1, 101):
        follower.fact(note(RUN, n, "x" * 100))
        if n % 30 == 0:
            for _ in range(4):
                rig.peer.may_read.release()
            for _ in range(20):
                await asyncio.sleep(0)
    told: list[int] = []
    for message in await rig.drained():
        if message["method"] == "run/gap":
            assert message["params"]["run_id"] == RUN
            told += range(message["params"]["from_seq"], message["params"]["to_seq"] + 1)
        else:
            told.append(message["params"]["seq"])
    assert told == list(range(1, 101))


async def test_a_fact_that_would_find_room_does_not_pass_a_gap(rig: Rig) -> None:
    """Room for one is there long before the gap is told; what comes then belongs to the gap."""
    follower = rig.follower()
    for n in range(1, 60):
        follower.fact(note(RUN, n, "x" * 100))
        if n > 20 and n % 2:
            rig.peer.may_read.release()
            for _ in range(20):
                await asyncio.sleep(0)
            rig.outbox.offer(b'{"method": "other"}')  # another run's fact: room is never half
    told = []
    for message in await rig.drained():
        if message["method"] == "run/gap":
            told += range(message["params"]["from_seq"], message["params"]["to_seq"] + 1)
        elif message["method"] == "run/fact":
            told.append(message["params"]["seq"])
    assert told == list(range(1, 60))


async def test_the_end_in_a_gap_is_told(rig: Rig) -> None:
    follower = rig.follower()
    for n in range(1, 20):
        follower.fact(note(RUN, n, "x" * 100))
    follower.fact(run_ended(RUN, 20))
    follower.ended()
    assert rig.ends == 1
    last = (await rig.drained())[-1]
    assert last["method"] == "run/gap"
    assert last["params"]["to_seq"] == 20


async def test_what_a_client_has_of_a_stream_is_its_beginning(rig: Rig) -> None:
    follower = rig.follower()
    follower.fact(turn_started(RUN, 1, "root-1"))
    text = "".join(chr(97 + n % 26) for n in range(5000))
    for at in range(0, 5000, 50):
        follower.delta(delta(text[at : at + 50], at))
        if at == 2500:
            rig.peer.may_read.release()
            for _ in range(20):
                await asyncio.sleep(0)
    follower.fact(root_replied(RUN, 2, "root-1", text))
    have = ""
    for message in await rig.drained():
        if message["method"] == "run/delta":
            assert message["params"]["offset"] == len(have)
            have += message["params"]["text"]
    assert 0 < len(have) < 5000
    assert text.startswith(have)


async def test_a_restart_at_zero_is_sent_again(rig: Rig) -> None:
    follower = rig.follower()
    follower.delta(delta("first try", 0))
    follower.delta(delta("second", 0))
    follower.delta(delta(" half", 6))
    have = ""
    for message in await rig.drained():
        have = have[: message["params"]["offset"]] + message["params"]["text"]
    assert have == "second half"


async def test_a_stream_joined_in_the_middle_is_not_sent(rig: Rig) -> None:
    follower = rig.follower()
    follower.delta(delta("middle", 500))
    follower.delta(delta("end", 506))
    assert await rig.drained() == []


async def test_no_deltas_for_who_wants_none(rig: Rig) -> None:
    follower = rig.follower(deltas=False)
    follower.delta(delta("a", 0))
    assert await rig.drained() == []


async def test_closing_closes_the_subscription_whichever_comes_first(rig: Rig) -> None:
    class Subscription:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    early, late = Subscription(), Subscription()
    follower = rig.follower()
    follower.attached(early)
    follower.close()
    follower.close()
    assert (early.closed, rig.ends) == (1, 1)
    follower = rig.follower()
    follower.fact(run_ended(RUN, 1))
    follower.ended()
    follower.attached(late)
    assert late.closed == 1
