"""Framing: the same messages in both framings, cut anywhere; sizes and malformed headers; bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmd.wire.framing import FrameReader, Framing, FramingLost, Refused, framed

MESSAGES = [b'{"id":1}', b'[{"id":2},{"id":3}]', '{"text":"zwölf € 𝄞"}'.encode(), b"{}"]


class Stream:
    """Gives bytes in the pieces that it was made of; keeps no more than the current one."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    async def read(self, most: int) -> bytes:
        piece = self._rest or next(self._pieces, b"")
        taken, self._rest = piece[:most], piece[most:]
        return taken


async def all_of(reader: FrameReader) -> list[bytes | Refused]:
    found = []
    while (message := await reader.next()) is not None:
        found.append(message)
    return found


async def read(*pieces: bytes, limit: int = 1000) -> list[bytes | Refused]:
    return await all_of(FrameReader(Stream(pieces).read, limit=limit))


@pytest.mark.parametrize("framing", ["lines", "headers"])
@given(cuts=st.lists(st.integers(1, 40), max_size=30))
async def test_messages_arrive_whole_however_they_are_cut(framing: Framing, cuts: list[int]) -> None:
    data = b"".join(piece for message in MESSAGES for piece in framed((message[:3], message[3:]), framing))
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    reader = FrameReader(Stream([piece for piece in [*pieces, data[at:]] if piece]).read)
    assert await all_of(reader) == MESSAGES
    assert reader.framing == framing


@pytest.mark.parametrize("blank", [b"", b"\n", b" \t\r\n\n"])
async def test_the_first_byte_that_is_not_blank_decides(blank: bytes) -> None:
    reader = FrameReader(Stream([blank + b'{"id":1}\n']).read)
    assert await reader.next() == b'{"id":1}'
    assert reader.framing == "lines"
    reader = FrameReader(Stream([blank + b"Content-Length: 2\r\n\r\n{}"]).read)
    assert await reader.next() == b"{}"
    assert reader.framing == "headers"


async def test_the_last_line_may_lack_its_newline() -> None:
    assert await read(b'{"id":1}\n{"id":2}') == [b'{"id":1}', b'{"id":2}']


async def test_headers_as_editors_write_them() -> None:
    block = b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\ncontent-length:2\r\n\r\n{}"
    assert await read(block + b"Content-Length: 2\n\n[]") == [b"{}", b"[]"]


async def test_a_long_line_is_refused_once_and_the_next_one_read() -> None:
    long = b'{"jsonrpc":"2.0","id":7,"method":"x","params":"' + b"a" * 5000 + b'"}\n'
    refused, after = await read(long[:100], long[100:], b'{"id":8}\n')
    assert isinstance(refused, Refused)
    assert (refused.id, refused.error.kind, refused.error.details["limit"]) == (7, "too_large", 1000)
    assert after == b'{"id":8}'


async def test_a_line_at_the_limit_is_read() -> None:
    line = b'{"a":"' + b"x" * 992 + b'"}'
    assert len(line) == 1000
    assert await read(line + b"\n") == [line]
    (refused,) = await read(line + b" \n")
    assert isinstance(refused, Refused)


async def test_a_long_body_is_refused_and_the_next_one_read() -> None:
    long = b'{"method":"x","id":"a-7","params":"' + b"a" * 5000 + b'"}'
    refused, after = await read(*framed((long,), "headers"), *framed((b"{}",), "headers"))
    assert isinstance(refused, Refused)
    assert (refused.id, refused.error.kind) == ("a-7", "too_large")
    assert str(len(long)) in refused.error.message
    assert after == b"{}"


async def test_the_refusal_comes_before_the_rest_was_sent() -> None:
    """Otherwise a client that waits for an answer in the middle waits for ever."""

    async def endless(_: int) -> bytes:
        return b"{" + b"a" * 999

    refused = await FrameReader(endless, limit=5000).next()
    assert isinstance(refused, Refused)


@pytest.mark.parametrize("head", [b"", b"Content-Length: 200000000\r\n\r\n"])
async def test_memory_is_bounded_whatever_comes(head: bytes) -> None:
    chunk = b'{"' + b"a" * (64 << 10)
    pieces = (head if n == 0 else chunk for n in range(3000))
    tracemalloc.start()
    try:
        found = await all_of(FrameReader(Stream(p for p in pieces if p).read, limit=1 << 20))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 1
    assert peak < 4 << 20


@pytest.mark.parametrize(
    "beginning",
    [
        b'{"params":{"id":3},"id":4,',  # an id that stands inside the parameters is not the request's
        b'{"id":true,',
        b'{"id":1.5,',
        b'{"id":12345678901234567,',
        b'{"note":"\\"id\\":1,","id":4,',
    ],
)
async def test_an_id_is_read_only_where_it_is_sure(beginning: bytes) -> None:
    (refused,) = await read(beginning + b" " * 5000 + b"\n")
    assert isinstance(refused, Refused)
    assert refused.id is None


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "missing"),
        (b"Content-Length: -1\r\n\r\n", "not a number"),
        (b"Content-Length: 1e3\r\n\r\n", "not a number"),
        (b"Content-Length: \xc2\xb2\r\n\r\n", "not a number"),
        (b"Content-Length: \r\n\r\n", "not a number"),
        (b"Content-Length: 9999999999999999\r\n\r\n", "not a number"),
        (b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "twice"),
        (b"Content-Length: 10\r\n\r\n{}", "2 of 10 bytes"),
        (b"X: " + b"y" * 20_000, "no end of the headers"),
        (b"X: y\r\n" * 3000, "no end of the headers"),
        (b"hello\n", "ended there"),
        (b"\x00\xff", "ended there"),
    ],
)
async def test_a_framing_that_cannot_be_followed_ends_with_a_sentence(sent: bytes, why: str) -> None:
    with pytest.raises(FramingLost) as caught:
        await read(sent)
    assert why in caught.value.message
    assert caught.value.hint


async def test_reading_many_small_messages_does_not_copy_the_rest_each_time() -> None:
    """Copying what waits for each message would be 5 GB here; it is taken from the front."""
    count = 20_000
    data = b"".join(b'{"id":%d}\n' % n for n in range(count))
    found = await read(data)
    assert len(found) == count
    assert json.loads(found[-1] if isinstance(found[-1], bytes) else b"") == {"id": count - 1}
