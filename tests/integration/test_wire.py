"""Connections over a real socket, with handlers of the test: envelope, concurrency, cancelling, going away."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ConfigDict

from rlmd import logs
from rlmd.errors import LimitReached
from rlmd.wire import connection as connections
from rlmd.wire import server as servers
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Dispatcher, Encoded
from rlmd.wire.methods import METHODS, Done, FetchResult, Params, Result
from rlmd.wire.server import Server

Handle = Callable[[Connection, Any], Awaitable[Result | Encoded]]
SECRET = "a-secret-of-the-user"
#: Bounds a hang, seconds; answers come in milliseconds.
PATIENCE = 30.0


class Wire:
    """A server whose handlers a test sets one by one; those not set answer ``done``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s"
        self.handlers: dict[str, Handle] = {}
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        listener.setblocking(False)
        table = {name: self._handler(name) for name in METHODS}
        self.server = Server(listener, Dispatcher(table))

    def _handler(self, name: str) -> Handle:
        async def handle(client: Connection, params: Params) -> Result | Encoded:
            return await self.handlers[name](client, params) if name in self.handlers else Done()

        return handle

    async def connect(self) -> Peer:
        return Peer(*await asyncio.open_unix_connection(str(self.path), limit=64 << 20))


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *messages: Any) -> None:
        for message in messages:
            self.writer.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    def ask(self, number: int, method: str, params: Any = None) -> None:
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

    async def read(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            line = await self.reader.readline()
        assert line, "the server hung up"
        return json.loads(line)

    async def read_many(self, count: int) -> dict[Any, Any]:
        return {answer["id"]: answer for answer in [await self.read() for _ in range(count)]}

    async def error(self) -> dict[str, Any]:
        return dict((await self.read())["error"])

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    made = Wire(tmp_path)
    await made.server.start()
    yield made
    await made.server.stop(0)


@pytest.fixture
async def peer(wire: Wire) -> AsyncIterator[Peer]:
    made = await wire.connect()
    yield made
    await made.close()


@pytest.fixture
def log() -> io.StringIO:
    out = io.StringIO()
    logs.configure_logging("debug", out)
    return out


# ── the envelope ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "message",
    [
        17,
        "text",
        None,
        {},
        {"id": 1, "method": "daemon/status"},
        {"jsonrpc": "1.0", "id": 1, "method": "daemon/status"},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "id": 1, "method": 3},
        {"jsonrpc": "2.0", "id": 1, "method": "daemon/status", "params": 3},
        {"jsonrpc": "2.0", "id": True, "method": "daemon/status"},
        {"jsonrpc": "2.0", "id": 1.5, "method": "daemon/status"},
        {"jsonrpc": "2.0", "id": 2**53, "method": "daemon/status"},
        {"jsonrpc": "2.0", "id": [1], "method": "daemon/status"},
        [],
        [[]] * 2000,
    ],
    ids=lambda message: json.dumps(message)[:60],
)
async def test_what_is_no_request_is_refused_and_the_next_one_answered(peer: Peer, message: Any) -> None:
    # Not in a batch or on a line of its own kind: the first line decides the framing.
    peer.send({"jsonrpc": "2.0", "id": 0, "method": "context/list"}, message)
    peer.ask(9, "context/list")
    answers = [await peer.read() for _ in range(3)]
    refusal = next(answer for answer in answers if "error" in answer)
    assert refusal["error"]["code"] == -32600
    assert refusal["error"]["data"]["kind"] == "invalid_request"
    assert {answer["id"] for answer in answers if "result" in answer} == {0, 9}


async def test_a_malformed_request_is_answered_under_its_id(peer: Peer) -> None:
    """Otherwise a client that waits for that id waits until its timeout."""
    peer.send({"jsonrpc": "2.0", "id": "mine", "method": 3})
    assert (await peer.read())["id"] == "mine"


async def test_null_parameters_are_none_given(peer: Peer) -> None:
    peer.ask(1, "context/list", None)
    assert (await peer.read())["result"] == {"done": True}


async def test_positional_parameters_are_refused(peer: Peer) -> None:
    peer.ask(1, "context/drop", ["x"])
    assert (await peer.error())["code"] == -32602


@pytest.mark.parametrize("name", ["context", "self", "method", "params", "handler"])
async def test_a_parameter_may_have_any_name_without_meeting_ours(peer: Peer, name: str) -> None:
    peer.ask(1, "context/drop", {name: 1, "name": "x"})
    error = await peer.error()
    assert (error["code"], error["data"]["field"]) == (-32602, name)


async def test_an_answer_is_not_answered(peer: Peer) -> None:
    peer.send({"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "id": 2, "error": {}})
    peer.ask(3, "context/list")
    assert (await peer.read())["id"] == 3


async def test_a_notification_is_done_and_not_answered(wire: Wire, peer: Peer) -> None:
    called = asyncio.Event()

    async def drop(_: Connection, __: Any) -> Done:
        called.set()
        return Done()

    wire.handlers["context/drop"] = drop
    peer.send({"jsonrpc": "2.0", "method": "context/drop", "params": {"name": "x"}})
    await called.wait()
    peer.ask(3, "context/list")
    assert (await peer.read())["id"] == 3


async def test_a_batch_is_answered_item_by_item(peer: Peer) -> None:
    peer.send(
        [
            {"jsonrpc": "2.0", "id": 1, "method": "context/list"},
            {"jsonrpc": "2.0", "method": "context/list"},
            {"jsonrpc": "2.0", "id": 2, "method": "context/lst"},
            "nonsense",
            {"jsonrpc": "2.0", "id": 3, "method": "context/drop"},
        ]
    )
    answers = await peer.read()
    codes = [(answer["id"], answer.get("error", {}).get("code")) for answer in answers]
    assert codes == [(1, None), (2, -32601), (None, -32600), (3, -32602)]


async def test_a_batch_of_notifications_is_not_answered(peer: Peer) -> None:
    peer.send([{"jsonrpc": "2.0", "method": "context/list"}])
    peer.ask(3, "context/list")
    assert (await peer.read())["id"] == 3


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_unexpected_exception_tells_and_logs_a_number_and_no_text(
    wire: Wire, peer: Peer, log: io.StringIO
) -> None:
    async def broken(_: Connection, __: Any) -> Done:
        raise KeyError(SECRET)

    wire.handlers["context/list"] = broken
    peer.ask(1, "context/list")
    error = await peer.error()
    assert (error["code"], error["data"]["kind"]) == (-32603, "internal")
    logged = json.loads(next(line for line in log.getvalue().splitlines() if "incident" in line).partition(">")[2])
    assert logged["incident"] == error["data"]["incident"]
    assert (logged["exception"], logged["method"]) == ("KeyError", "context/list")
    assert any("test_wire.py" in frame for frame in logged["frames"])
    assert SECRET not in json.dumps(error) + log.getvalue()


async def test_our_errors_carry_code_kind_hint_and_details(wire: Wire, peer: Peer) -> None:
    async def limited(_: Connection, __: Any) -> Done:
        raise ExceptionGroup("group", [LimitReached("No turns are left.", hint="Allow more.", allowed=3, big=2**60)])

    wire.handlers["context/list"] = limited
    peer.ask(1, "context/list")
    assert await peer.error() == {
        "code": 1301,
        "message": "No turns are left.",
        "data": {"kind": "limit_reached", "hint": "Allow more.", "allowed": 3, "big": str(2**60)},
    }


async def test_a_result_that_is_no_json_is_an_internal_error_under_its_id(
    wire: Wire, peer: Peer, log: io.StringIO
) -> None:
    class Odd(Result):
        model_config = ConfigDict(ser_json_inf_nan="constants")
        value: float = float("nan")

    async def odd(_: Connection, __: Any) -> Result:
        return Odd()

    wire.handlers["context/list"] = odd
    peer.ask(5, "context/list")
    answer = await peer.read()
    assert (answer["id"], answer["error"]["code"]) == (5, -32603)


async def test_text_that_emacs_could_not_read_is_replaced(wire: Wire, peer: Peer) -> None:
    async def raw(_: Connection, __: Any) -> FetchResult:
        return FetchResult(text="a\0b\udc80c", chars=5)

    wire.handlers["run/fetch"] = raw
    peer.ask(1, "run/fetch", {"run_id": "r"})
    assert (await peer.read())["result"]["text"] == "a�b�c"


# ── requests side by side ───────────────────────────────────────────────────────────────────────────────────


class Gate:
    """A handler that waits until it is let through, and remembers what became of it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Semaphore(0)
        self.finished = 0
        self.cancelled = 0

    async def __call__(self, _: Connection, __: Any) -> Done:
        self.entered.release()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        return Done()


async def test_a_slow_request_holds_up_no_other(wire: Wire, peer: Peer) -> None:
    gate = wire.handlers["run/ask"] = Gate()
    assert not wire.server.answering
    peer.ask(1, "run/ask", ASK)
    peer.ask(2, "context/list")
    assert (await peer.read())["id"] == 2
    assert wire.server.answering
    gate.open.set()
    assert (await peer.read())["id"] == 1
    async with asyncio.timeout(PATIENCE):
        while wire.server.answering:
            await asyncio.sleep(0)


ASK = {"run_id": "11111111-1111-1111-1111-111111111111", "question": "q", "contexts": ["c"]}


async def test_a_request_can_be_withdrawn(wire: Wire, peer: Peer) -> None:
    gate = wire.handlers["run/ask"] = Gate()
    peer.ask(1, "run/ask", ASK)
    peer.ask(2, "run/ask", ASK)
    await gate.entered.acquire()
    await gate.entered.acquire()
    peer.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}})
    answer = await peer.read()
    assert (answer["id"], answer["error"]["code"]) == (1, -32800)
    gate.open.set()
    assert (await peer.read())["id"] == 2
    assert (gate.cancelled, gate.finished) == (1, 1)


@pytest.mark.parametrize("wanted", [{"id": 77}, {"id": None}, {}, None, [1]])
async def test_withdrawing_what_is_not_there_does_nothing(wire: Wire, peer: Peer, wanted: Any) -> None:
    gate = wire.handlers["run/ask"] = Gate()
    peer.ask(1, "run/ask", ASK)
    await gate.entered.acquire()
    peer.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": wanted})
    peer.ask(2, "context/list")
    assert (await peer.read())["id"] == 2
    gate.open.set()
    assert (await peer.read())["id"] == 1


async def test_a_batch_cannot_be_withdrawn_by_no_id(wire: Wire, peer: Peer) -> None:
    gate = wire.handlers["run/ask"] = Gate()
    peer.send([{"jsonrpc": "2.0", "id": 1, "method": "run/ask", "params": ASK}])
    await gate.entered.acquire()
    peer.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": None}})
    peer.ask(2, "context/list")
    assert (await peer.read())["id"] == 2
    gate.open.set()
    assert [answer["id"] for answer in await peer.read()] == [1]


async def test_a_client_that_reads_no_answers_is_not_read(wire: Wire) -> None:
    """What it asked for waits in the kernel's buffers and in a bounded queue, not in our memory."""
    handled: list[Connection] = []

    async def large(client: Connection, _: Any) -> Encoded:
        handled.append(client)
        return Encoded((b'"%b"' % (b"x" * 65_000),))

    wire.handlers["context/list"] = large
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(wire.path))
        deaf.setblocking(False)
        await loop.sock_sendall(deaf, b'{"jsonrpc":"2.0","id":1,"method":"context/list"}\n' * 400)
        async with asyncio.timeout(PATIENCE):
            while not handled or not handled[0].outbox.full:
                await asyncio.sleep(0.001)
            assert len(handled) < 400
            answers = 0
            while answers < 400:
                answers += (await loop.sock_recv(deaf, 1 << 20)).count(b"\n")


async def test_too_many_at_once_are_refused_and_those_at_work_go_on(
    wire: Wire, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_IN_FLIGHT", 3)
    gate = wire.handlers["run/ask"] = Gate()
    for number in range(5):
        peer.ask(number, "run/ask", ASK)
    refused = await peer.read_many(2)
    assert {answer["error"]["data"]["kind"] for answer in refused.values()} == {"too_many_requests"}
    gate.open.set()
    assert {0, 1, 2} == set(await peer.read_many(3))
    peer.ask(9, "context/list")
    assert (await peer.read())["id"] == 9


async def test_a_client_that_does_not_read_is_not_read_either(wire: Wire, peer: Peer) -> None:
    """Answers of 1 MB to a client that never reads: some are made, the rest are not even begun."""
    begun = 0

    async def large(_: Connection, __: Any) -> FetchResult:
        nonlocal begun
        begun += 1
        return FetchResult(text="x" * (1 << 20), chars=1)

    wire.handlers["run/fetch"] = large
    idle = await wire.connect()
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(60):
        peer.ask(number, "run/fetch", {"run_id": "r"})
        if number % 10 == 0:
            await asyncio.sleep(0)
    for number in range(300):  # the loop turns while the daemon could have served everything
        idle.ask(number, "context/list")
        assert (await idle.read())["id"] == number
    assert 0 < begun < 20
    peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert set(await peer.read_many(60)) == set(range(60))
    await idle.close()


# ── going away ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_goes_away_cancels_nothing(wire: Wire, peer: Peer) -> None:
    gate = wire.handlers["run/ask"] = Gate()
    gone = asyncio.Event()

    async def remember(client: Connection, _: Any) -> Done:
        client.on_gone["test"] = gone.set
        return Done()

    wire.handlers["context/list"] = remember
    peer.ask(1, "context/list")
    await peer.read()
    peer.ask(2, "run/ask", ASK)
    await gate.entered.acquire()
    await peer.close()
    await gone.wait()
    assert gate.cancelled == 0
    gate.open.set()
    while wire.server.connections():
        await asyncio.sleep(0)
    assert gate.finished == 1


async def test_a_client_that_shut_its_sending_half_gets_its_answer(wire: Wire, peer: Peer) -> None:
    gate = wire.handlers["run/ask"] = Gate()
    peer.ask(1, "run/ask", ASK)
    peer.writer.write_eof()
    await gate.entered.acquire()
    gate.open.set()
    assert (await peer.read())["id"] == 1
    assert await peer.reader.read() == b""


async def test_the_stop_answers_those_at_work_and_ends_the_rest(wire: Wire, peer: Peer) -> None:
    gate = wire.handlers["run/ask"] = Gate()
    idle = await wire.connect()
    idle.ask(1, "context/list")
    await idle.read()
    peer.ask(1, "run/ask", ASK)
    await gate.entered.acquire()
    stopping = asyncio.create_task(wire.server.stop(60))
    assert await idle.reader.read() == b""
    gate.open.set()
    assert (await peer.read())["id"] == 1
    await stopping
    assert wire.server.connections() == 0
    await idle.close()


async def test_the_stop_ends_what_does_not_end(wire: Wire, peer: Peer) -> None:
    gate = wire.handlers["run/ask"] = Gate()
    peer.ask(1, "run/ask", ASK)
    await gate.entered.acquire()
    await wire.server.stop(0.05)
    assert gate.cancelled == 1
    assert wire.server.connections() == 0


async def test_another_user_is_not_served(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    stranger = await wire.connect()
    stranger.ask(1, "context/list")
    with contextlib.suppress(ConnectionResetError):
        assert await stranger.reader.read() == b""
    await stranger.close()


async def test_more_clients_than_there_is_room_for_are_turned_away(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are there go on, and when one goes there is room for another."""
    monkeypatch.setattr(servers, "MAX_CONNECTIONS", 3)
    there = [await wire.connect() for _ in range(3)]
    for number, one in enumerate(there):
        one.ask(number, "context/list")
        await one.read()
    late = await wire.connect()
    with contextlib.suppress(ConnectionResetError):
        assert await late.reader.read() == b""
    await late.close()
    there[0].ask(9, "context/list")
    await there[0].read()
    await there.pop().close()
    while wire.server.connections() == 3:
        await asyncio.sleep(0)
    there.append(await wire.connect())
    there[-1].ask(1, "context/list")
    await there[-1].read()
    for one in there:
        await one.close()


async def test_connections_come_and_go_without_a_trace(wire: Wire) -> None:
    for number in range(100):
        one = await wire.connect()
        one.ask(number, "context/list")
        await one.read()
        await one.close()
    while wire.server.connections():
        await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("client-")]


# ── long answers ────────────────────────────────────────────────────────────────────────────────────────────


async def in_pieces(_: Connection, __: Any) -> Encoded:
    """As long lists come: 4 MB in pieces of 32 KB."""
    return Encoded((b'{"done":true,"more":[""', *(b',"%b"' % (b"x" * 32_765) for _ in range(128)), b"]}"))


@pytest.mark.parametrize("framing", ["lines", "headers"])
async def test_a_long_answer_arrives_whole_and_is_never_handed_over_at_once(
    wire: Wire, peer: Peer, framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is joined or written in one go holds the loop for as long as it takes to copy it."""
    written: list[int] = []
    write = asyncio.StreamWriter.write

    def watched(self: asyncio.StreamWriter, data: bytes) -> None:
        written.append(len(data))
        write(self, data)

    monkeypatch.setattr(asyncio.StreamWriter, "write", watched)
    wire.handlers["context/list"] = in_pieces
    request = b'{"jsonrpc":"2.0","id":1,"method":"context/list"}'
    if framing == "lines":
        peer.send(request + b"\n")
        answer = await peer.read()
    else:
        peer.send(b"Content-Length: %d\r\n\r\n%b" % (len(request), request))
        async with asyncio.timeout(PATIENCE):
            length = int((await peer.reader.readline()).split(b":")[1])
            await peer.reader.readline()
            answer = json.loads(await peer.reader.readexactly(length))
    assert len(answer["result"]["more"]) == 129
    assert max(written) < 256 << 10


async def test_a_long_answer_is_whole_in_a_batch_too(wire: Wire, peer: Peer) -> None:
    wire.handlers["context/list"] = in_pieces
    one = {"jsonrpc": "2.0", "method": "context/list"}
    peer.send([{**one, "id": 1}, {**one, "method": "daemon/status", "id": 2}, {**one, "id": 3}])
    answers = {answer["id"]: answer["result"] for answer in await peer.read()}
    assert [len(answers[number].get("more", ())) for number in (1, 2, 3)] == [129, 0, 129]
