"""Anything on the socket: framing and dispatch neither crash nor hang, whatever comes; every answer is an answer.

Framing and dispatch are driven as the daemon drives them, in this process, so that a million inputs take minutes; the
calls made of the schemas of ``rpc.discover`` go to a real daemon.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmd.errors import RlmdError
from rlmd.wire.dispatch import Dispatcher, error_response, id_of, parse_request, response_message
from rlmd.wire.framing import FrameReader, FramingLost, Refused
from rlmd.wire.methods import METHODS
from rlmd.wire.strictjson import loads
from tests.harness import Client, Daemon, Json, RpcFailure

#: Inputs of each generator; a test draws from all three.
FEW, MANY = 3_000, 350_000
LIMIT = 4096
#: What is worth meeting: the words of the protocol, its edges, and what breaks parsers.
WORDS = (
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\0", b"\xff", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"Content-Length: ", b"content-length:5", b"Content-Length: -1",
    b"Content-Length: 99999999999999999999", b"0", b"7",
    b'{"jsonrpc":"2.0","id":1,"method":"daemon/status"}', b'"jsonrpc":"2.0"', b'"id":', b'"method":', b'"params":',
    b"null", b"true", b"NaN", b"1e999", b"9007199254740993", b"\\ud800", b"\\u0000", b"[[[[[[[[[[[[[[[[", b'{"a":' * 20,
    b"daemon/status", b"run/start", b"$/cancelRequest", b"x" * 5000,
)  # fmt: skip


async def _nothing(_: object, __: object) -> Any:
    raise RlmdError("nothing is done here", hint="")


DISPATCHER: Dispatcher[None] = Dispatcher(dict.fromkeys(METHODS, _nothing))


async def feed(data: bytes, cut: Callable[[], int]) -> list[Json]:
    """All answers to a stream of bytes that arrives in pieces."""
    position = 0

    async def read(most: int) -> bytes:
        nonlocal position
        piece = data[position : position + min(most, cut())]
        position += len(piece)
        return piece

    frames, answers = FrameReader(read, limit=LIMIT), []
    while True:
        try:
            message = await frames.next()
        except FramingLost as lost:
            return [*answers, error_response(None, lost)]
        if message is None:
            return answers
        answers.append(await answer(message))


async def answer(message: bytes | Refused) -> Json:
    if isinstance(message, Refused):
        return error_response(message.id, message.error)
    parsed: object = None
    try:
        parsed = loads(message)
        return await DISPATCHER.answer(parse_request(parsed), None)
    except RlmdError as error:
        return error_response(id_of(parsed), error)


def check(answers: list[Json]) -> None:
    for one in answers:
        whole = json.loads(b"".join(response_message(one)))
        assert whole["jsonrpc"] == "2.0"
        assert isinstance(whole["error"]["code"], int)
        assert whole["error"]["message"]
        assert whole["error"]["code"] != -32603 or whole["error"]["message"] == "nothing is done here", whole


def drawn(chance: random.Random) -> bytes:
    if chance.random() < 0.2:
        return chance.randbytes(chance.randrange(1, 200))
    data = bytearray(b"".join(chance.choices(WORDS, k=chance.randrange(1, 12))))
    for _ in range(chance.randrange(3)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize(
    "count", [FEW, pytest.param(MANY, marks=[pytest.mark.full, pytest.mark.timeout(1800)])], ids=["few", "many"]
)
@pytest.mark.parametrize("seed", range(3))
async def test_any_bytes(count: int, seed: int) -> None:
    """And none of them is kept: what a stream cost is given back when it is over."""
    chance = random.Random(seed)
    tracemalloc.start()
    try:
        for number in range(count):
            check(await feed(drawn(chance), lambda: chance.randrange(1, 600)))
            if number == count // 10:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 1 << 20
    finally:
        tracemalloc.stop()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries({}, optional={"jsonrpc": st.just("2.0") | JSON, "id": JSON, "method": JSON, "params": JSON})
)
@settings(max_examples=500)
def test_any_envelope(envelope: Json) -> None:
    data = json.dumps(envelope).encode() + b"\n"
    check(asyncio.run(feed(data, lambda: 100)))


@given(st.sampled_from(sorted(METHODS)), st.dictionaries(st.text(max_size=10), JSON, max_size=5))
@settings(max_examples=500)
def test_any_parameters(method: str, params: Json) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    check(asyncio.run(feed(json.dumps(message).encode() + b"\n", lambda: 1000)))


# ── by the schemas that the daemon publishes ────────────────────────────────────────────────────────────────


class Inventor:
    """Makes parameters from a JSON schema: most of them fit, some on purpose do not."""

    def __init__(self, chance: random.Random, components: Json) -> None:
        self._chance = chance
        self._components = components

    def value(self, schema: Json, depth: int = 0) -> Any:
        chance = self._chance
        if chance.random() < 0.04:
            return chance.choice([None, "", "\0", -1, 2**53, 1.5, [], {}, "x" * 3000, "ż🐢", {"a": [[]]}])
        if "$ref" in schema:
            return self.value(self._components[schema["$ref"].rpartition("/")[2]], depth)
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self.value(chance.choice(schema[several]), depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return chance.choice(schema["enum"])
        make = {
            "object": lambda: self._object(schema, depth),
            "array": lambda: [self.value(schema.get("items", {}), depth + 1) for _ in range(chance.randrange(3))],
            "string": lambda: self._string(schema),
            "integer": lambda: chance.choice([0, 1, 2, 100, schema.get("minimum", -5), schema.get("maximum", 2**60)]),
            "number": lambda: chance.choice([0.0, 0.5, 1e9, -1]),
            "boolean": lambda: chance.random() < 0.5,
        }.get(schema.get("type", ""), lambda: None)
        return make() if depth < 6 else None

    def _object(self, schema: Json, depth: int) -> Json:
        required = schema.get("required", ())
        return {
            name: self.value(inner, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in required or self._chance.random() < 0.4
        }

    def _string(self, schema: Json) -> str:
        if "0-9a-f]{8}-" in schema.get("pattern", ""):
            return f"00000000-0000-4000-8000-{self._chance.randrange(16**12):012x}"
        return self._chance.choice(["a", "note", "/nowhere", "no such", "..", "0" * 64, "ż🐢\n", ".*", "1"])


async def refused(client: Client, method: str, params: Json) -> RpcFailure | None:
    try:
        await client.call(method, params)
    except RpcFailure as failure:
        return failure
    return None


@pytest.mark.parametrize(
    "count", [400, pytest.param(20_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)])], ids=["few", "many"]
)
async def test_every_method_by_its_schema(daemon: Daemon, client: Client, count: int) -> None:
    """An error is one that a caller can act on; the daemon works on, and lost nothing."""
    await client.call("context/load", {"name": "kept", "source": {"kind": "inline", "text": "kept\n"}})
    document = await client.call("rpc.discover")
    inventor = Inventor(random.Random(7), document["components"]["schemas"])
    methods = [one for one in document["methods"] if one["name"] not in ("host/add", "host/remove", "run/ask")]
    assert {one["name"] for one in document["methods"]} == METHODS.keys()
    for number in range(count):
        method = methods[number % len(methods)]
        schema = {
            "type": "object",
            "properties": {one["name"]: one["schema"] for one in method["params"]},
            "required": [one["name"] for one in method["params"] if one.get("required")],
        }
        params = inventor.value(schema)
        refusal = await refused(client, method["name"], params if isinstance(params, dict) else {"params": params})
        assert refusal is None or (refusal.message and refusal.data["kind"] != "internal"), (method["name"], params)
    assert (await client.call("context/peek", {"name": "kept"}))["text"] == "kept\n"
