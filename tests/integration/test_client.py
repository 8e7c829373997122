"""The client against a scripted daemon: calls, errors, following a run through gaps and lost connections."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest

from rlmd import errors
from rlmd.client import Client, Follower, UnknownFact
from rlmd.client.calls import Calls
from rlmd.client.inbox import MAX_FACTS
from rlmd.events import Delta, Note, RunEnded
from rlmd.wire.methods import METHODS, NameParams, Nothing, RunIdParams, RunParams
from tests.fakes.daemon import FakeDaemon, Peer, Refusal, fake_daemon

RUN = "00000000-0000-4000-8000-000000000001"
RECEIPT = {
    "chars_total": 10, "chars_searched": 10, "chars_read": 0, "pieces": 0, "pieces_failed": 0,
    "sub_queries": 0, "sub_queries_cached": 0, "turns": 0, "wall_seconds": 0.5, "summary": "read nothing",
}  # fmt: skip


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    async with fake_daemon(tmp_path) as running:
        yield running


def client_of(daemon: FakeDaemon, **options: Any) -> Client:
    return Client(daemon.socket, **{"back_off": (0, 0, 0), **options})


def info(state: str = "running", last_seq: int = 0) -> dict[str, Any]:
    return {
        "run_id": RUN, "question": {"chars": 1, "text": "?"}, "state": state, "outcome": None, "strategy": "auto",
        "contexts": [], "session": None, "private": False, "created": 0, "ended": None, "turns": 0,
        "sub_queries": 0, "last_seq": last_seq,
    }  # fmt: skip


def note(seq: int) -> dict[str, Any]:
    return {"type": "note", "run_id": RUN, "seq": seq, "time": 0, "text": f"note {seq}"}


def ended(seq: int) -> dict[str, Any]:
    return {
        "type": "run_ended", "run_id": RUN, "seq": seq, "time": 0, "outcome": "answered", "stream": None, "why": "",
        "answer": {"chars": 2, "text": "42"}, "receipt": RECEIPT,
    }  # fmt: skip


def delta(offset: int, text: str, stream: str = "root-1") -> dict[str, Any]:
    return {"run_id": RUN, "stream": stream, "offset": offset, "text": text}


def question() -> RunParams:
    return RunParams(run_id=RUN, question="?", contexts=("text",))


def script_run(daemon: FakeDaemon, *sent: dict[str, Any], journal: list[dict[str, Any]] | None = None) -> None:
    """``run/start`` sends these facts and deltas, then answers; ``run/fetch`` serves the journal."""

    async def start(peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
        for message in sent:
            await peer.notify("run/fact" if "seq" in message else "run/delta", message)
        return info()

    async def fetch(_peer: Peer, params: dict[str, Any]) -> dict[str, Any]:
        return {"facts": [f for f in journal or () if params["from_seq"] <= f["seq"] <= params["to_seq"]]}

    daemon.answers |= {"run/start": start, "run/fetch": fetch}


async def seqs(run: Follower) -> list[int]:
    return [event.seq async for event in run if not isinstance(event, Delta)]


def test_each_method_has_an_overload_that_says_what_the_table_says() -> None:
    told = {}
    for overload in typing.get_overloads(Calls.call):
        hints = typing.get_type_hints(overload)
        (name,) = typing.get_args(hints["method"])
        assert typing.get_origin(hints["method"]) is Literal
        told[name] = (hints["params"], hints["return"])
    assert told == {method.name: (method.params, method.result) for method in METHODS.values()}


@pytest.mark.parametrize("framing", ["lines", "headers"])
async def test_a_call_gives_the_typed_result_in_either_framing(
    daemon: FakeDaemon, framing: Literal["lines", "headers"]
) -> None:
    async def sessions(_peer: Peer, params: dict[str, Any]) -> dict[str, Any]:
        assert params == {}
        return {"sessions": [], "new_field": "ignored"}

    daemon.answers["session/list"] = sessions
    async with client_of(daemon, framing=framing) as client:
        result = await client.call("session/list", Nothing())
        assert result.sessions == ()
        assert (await client.call("session/list")) == result
    assert daemon.peers[0].headers is (framing == "headers")


async def test_answers_find_their_calls_in_any_order(daemon: FakeDaemon) -> None:
    second_came = asyncio.Event()

    async def drop(_peer: Peer, params: dict[str, Any]) -> dict[str, Any]:
        if params["name"] == "second":
            second_came.set()
            return {"done": False}
        await second_came.wait()
        return {"done": True}

    daemon.answers["session/drop"] = drop
    async with client_of(daemon) as client, asyncio.TaskGroup() as group:
        calls = [group.create_task(client.call("session/drop", NameParams(name=name))) for name in ("first", "second")]
    assert [call.result().done for call in calls] == [True, False]


ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RlmdError)]


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if kind is not errors.RlmdError], ids=lambda k: k.kind)
async def test_an_error_comes_back_as_its_class(daemon: FakeDaemon, kind: type[errors.RlmdError]) -> None:
    async def refuse(_peer: Peer, _params: dict[str, Any]) -> None:
        data = {"kind": kind.kind, "hint": "do that", "bytes": 7, "retry_after": 2.5, "odd": ["not a detail"]}
        raise Refusal({"code": kind.code, "message": "no", "data": data})

    daemon.answers["run/show"] = refuse
    async with client_of(daemon) as client:
        with pytest.raises(kind) as caught:
            await client.call("run/show", RunIdParams(run_id=RUN))
    error = caught.value
    assert type(error) is kind
    assert (error.message, error.hint, error.details["bytes"]) == ("no", "do that", 7)
    assert "odd" not in error.details
    if isinstance(error, errors.HostOverloaded):
        assert error.retry_after == 2.5


@pytest.mark.parametrize("told", [{"code": 99, "message": "new"}, {}, "text", {"code": "x", "data": [1]}])
async def test_an_error_of_unknown_shape_is_an_error_still(daemon: FakeDaemon, told: Any) -> None:
    refusal = Refusal({})
    refusal.error = told

    async def refuse(_peer: Peer, _params: dict[str, Any]) -> None:
        raise refusal

    daemon.answers["run/show"] = refuse
    async with client_of(daemon) as client:
        with pytest.raises(errors.RlmdError):
            await client.call("run/show", RunIdParams(run_id=RUN))


async def test_a_result_of_another_version_is_an_error_that_says_so(daemon: FakeDaemon) -> None:
    async def sessions(_peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
        return {"sessions": [{"nothing": "known"}]}

    daemon.answers["session/list"] = sessions
    async with client_of(daemon) as client:
        with pytest.raises(errors.InternalError, match="session/list"):
            await client.call("session/list")


@pytest.mark.parametrize(
    "garbage",
    [b"this is no JSON\n", b"[1]\n", b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"bad"}}\n'],
)
async def test_garbage_ends_the_connection_and_every_open_call(daemon: FakeDaemon, garbage: bytes) -> None:
    async def babble(peer: Peer, _params: dict[str, Any]) -> None:
        await peer.raw(garbage)
        await asyncio.Event().wait()

    daemon.answers["session/list"] = babble
    async with client_of(daemon) as client:
        with pytest.raises(errors.NotConnected):
            await client.call("session/list")


async def test_a_call_that_is_cancelled_is_withdrawn(daemon: FakeDaemon) -> None:
    came = asyncio.Event()

    async def hang(_peer: Peer, _params: dict[str, Any]) -> None:
        came.set()
        await asyncio.Event().wait()

    daemon.answers["session/list"] = hang
    async with client_of(daemon) as client:
        call = asyncio.create_task(client.call("session/list"))
        await came.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await daemon.notified.wait()
    assert daemon.seen[-1] == ("$/cancelRequest", {"id": 2})


async def test_a_lost_connection_fails_the_open_call_and_the_next_one_connects_anew(daemon: FakeDaemon) -> None:
    async def vanish(peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
        if len(daemon.peers) == 1:
            peer.hang_up()
            await asyncio.Event().wait()
        return {"sessions": []}

    daemon.answers["session/list"] = vanish
    async with client_of(daemon) as client:
        with pytest.raises(errors.NotConnected):
            await client.call("session/list")
        assert (await client.call("session/list")).sessions == ()
    assert len(daemon.peers) == 2


async def test_one_that_hangs_up_at_the_greeting_is_asked_once_more(daemon: FakeDaemon) -> None:
    """A daemon that is being stopped took the connection; the next one answers."""
    greeting, hang_ups = daemon.answers["initialize"], [1]

    async def initialize(peer: Peer, params: dict[str, Any]) -> dict[str, Any]:
        if hang_ups:
            hang_ups.pop()
            peer.hang_up()
            await asyncio.Event().wait()
        return await greeting(peer, params)

    daemon.answers["initialize"] = initialize
    async with Client(daemon.socket) as client:
        assert client.server.server == "fake"
    hang_ups.extend((1, 1))
    with pytest.raises(errors.NotConnected):
        async with Client(daemon.socket):
            pass


async def test_one_that_never_greets_is_given_up(daemon: FakeDaemon) -> None:
    """As under a systemd that holds the connection of a daemon which cannot start."""

    async def hang(peer: Peer, params: dict[str, Any]) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    daemon.answers["initialize"] = hang
    with pytest.raises(errors.NotConnected, match="has not answered") as caught:
        async with Client(daemon.socket, patience=0.2):
            pass
    assert "journalctl" in caught.value.hint


async def test_nobody_listening_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(errors.NotConnected) as caught:
        async with Client(tmp_path / "none.sock", back_off=()):
            pass
    assert "rlmctl daemon start" in caught.value.hint


async def test_the_starter_is_called_when_nobody_listens(tmp_path: Path) -> None:
    started = asyncio.Event()
    stop = asyncio.Event()

    async def host() -> None:
        async with fake_daemon(tmp_path):
            started.set()
            await stop.wait()

    async with asyncio.TaskGroup() as group:

        async def start() -> None:
            group.create_task(host())
            await started.wait()

        async with Client(tmp_path / "rlmd.sock", start=start) as client:
            assert client.server.server == "fake"
        stop.set()


async def test_facts_before_the_answer_to_start_belong_to_the_run(daemon: FakeDaemon) -> None:
    script_run(daemon, note(1), delta(0, "ab"), delta(2, "c"), note(2), ended(3))
    async with client_of(daemon) as client, client.start(question()) as run:
        events = [event async for event in run]
    match events:
        case [Note(seq=1), Delta(text="abc"), Note(seq=2), RunEnded(seq=3)]:
            pass
        case _:
            pytest.fail(f"unexpected events: {events}")
    assert daemon.methods() == ["run/start"]


async def test_a_gap_is_filled_by_fetching(daemon: FakeDaemon) -> None:
    journal = [note(seq) for seq in range(1, 8)] + [ended(8)]
    script_run(daemon, note(1), note(2), note(6), note(7), ended(8), journal=journal)
    async with client_of(daemon) as client, client.start(question()) as run:
        assert await seqs(run) == list(range(1, 9))


async def test_an_announced_gap_is_filled_before_later_facts(daemon: FakeDaemon) -> None:
    journal = [note(seq) for seq in range(1, 1200)] + [ended(1200)]
    script_run(daemon, journal=journal)
    async with client_of(daemon) as client, client.start(question()) as run:
        await daemon.peers[0].notify("run/gap", {"run_id": RUN, "from_seq": 1, "to_seq": 1199})
        await daemon.peers[0].notify("run/fact", ended(1200))
        assert await seqs(run) == list(range(1, 1201))
    fetched = [params for method, params in daemon.seen if method == "run/fetch"]
    assert len(fetched) >= 3
    assert all(params["to_seq"] - params["from_seq"] < 500 for params in fetched)


async def test_a_reader_that_is_slow_holds_a_bounded_number_of_facts_and_misses_none(daemon: FakeDaemon) -> None:
    many = MAX_FACTS * 3
    journal = [note(seq) for seq in range(1, many)] + [ended(many)]
    script_run(daemon, *journal, journal=journal)
    async with client_of(daemon) as client, client.start(question()) as run:
        assert len(run._inbox._items) <= MAX_FACTS  # everything was sent before run/start was answered
        assert await seqs(run) == list(range(1, many + 1))


async def test_an_end_after_which_the_run_was_continued_is_none(daemon: FakeDaemon) -> None:
    async def attach(peer: Peer, _: dict[str, Any]) -> dict[str, Any]:
        for fact in (note(1), ended(2), note(3)):
            await peer.notify("run/fact", fact)
        return info(last_seq=3)

    daemon.answers["run/attach"] = attach
    async with client_of(daemon) as client, client.follow(RUN) as run:
        assert [(await anext(run)).seq for _ in range(3)] == [1, 2, 3]  # type: ignore[union-attr]
        for fact in (note(4), ended(5)):
            await daemon.peers[0].notify("run/fact", fact)
        assert await seqs(run) == [4, 5]


async def test_after_a_lost_connection_the_run_is_followed_from_the_last_fact(daemon: FakeDaemon) -> None:
    async def attach(peer: Peer, params: dict[str, Any]) -> dict[str, Any]:
        for fact in (note(3), ended(4)):
            await peer.notify("run/fact", fact)
        return info("ended", last_seq=4)

    script_run(daemon, note(1), note(2), journal=[note(1), note(2), note(3), ended(4)])
    daemon.answers["run/attach"] = attach
    async with client_of(daemon) as client, client.start(question()) as run:
        first = await anext(run)
        daemon.peers[0].hang_up()
        assert isinstance(first, Note)
        assert await seqs(run) == [2, 3, 4]
    attached = [params["from_seq"] for method, params in daemon.seen if method == "run/attach"]
    assert attached == [3]


async def test_a_connection_lost_before_the_answer_to_start_starts_the_same_run_again(daemon: FakeDaemon) -> None:
    script_run(daemon, ended(1))
    start = daemon.answers["run/start"]

    async def vanish_once(peer: Peer, params: dict[str, Any]) -> Any:
        if len(daemon.peers) == 1:
            peer.hang_up()
            await asyncio.Event().wait()
        return await start(peer, params)

    daemon.answers["run/start"] = vanish_once
    async with client_of(daemon) as client, client.start(question()) as run:
        assert await seqs(run) == [1]
    starts = [params for method, params in daemon.seen if method == "run/start"]
    assert len(starts) == 2
    assert starts[0] == starts[1]


async def test_a_run_that_ended_long_ago_is_read_to_its_end(daemon: FakeDaemon) -> None:
    async def attach(_peer: Peer, _params: dict[str, Any]) -> dict[str, Any]:
        return info("cancelled", last_seq=2)

    script_run(daemon, journal=[note(1), note(2)])
    daemon.answers["run/attach"] = attach
    async with client_of(daemon) as client, client.follow(RUN) as run:
        assert await seqs(run) == [1, 2]


async def test_a_fact_of_an_unknown_type_is_handed_on(daemon: FakeDaemon) -> None:
    script_run(daemon, {**note(1), "type": "later_invention", "more": 1}, {**note(2), "text": 7}, ended(3))
    async with client_of(daemon) as client, client.start(question()) as run:
        events = [event async for event in run]
    assert [type(event) for event in events] == [UnknownFact, UnknownFact, RunEnded]
    assert events[0].model_extra == {"text": "note 1", "more": 1}


async def test_a_daemon_that_announces_facts_and_has_none_is_not_asked_for_ever(daemon: FakeDaemon) -> None:
    script_run(daemon, note(5), journal=[])
    async with client_of(daemon) as client, client.start(question()) as run:
        with pytest.raises(errors.InternalError, match="announced"):
            await anext(run)


async def test_leaving_early_detaches_and_does_not_cancel(daemon: FakeDaemon) -> None:
    script_run(daemon, note(1))
    async with client_of(daemon) as client:
        async with client.start(question()) as run:
            await anext(run)
        async with client.start(question()) as run:
            await anext(run)
    assert daemon.methods() == ["run/start", "run/detach"] * 2
