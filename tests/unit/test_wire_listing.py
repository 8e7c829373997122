"""Long lists are written a stretch at a time, and are what they would be at once."""

from __future__ import annotations

import asyncio
import json

from rlmd.contexts import DocumentInfo
from rlmd.wire import methods as m
from rlmd.wire.dispatch import response_message
from rlmd.wire.framing import framed
from rlmd.wire.listing import listing


def documents(count: int) -> list[DocumentInfo]:
    return [DocumentInfo(f"{n}\udcff\0.txt", None, n, n, "d" * 64, "d" * 64) for n in range(count)]


def context() -> m.ContextInfo:
    return m.ContextInfo(
        name="many", revision=1, kind="collection", private=False, implicit=False, documents=1, chars=1, bytes=1,
        digest="d", created=0.0, updated=0.0, sources=(),
    )  # fmt: skip


async def test_it_is_what_it_would_be_at_once() -> None:
    for count in (0, 1, 200, 201, 999):
        entries = documents(count)
        whole = m.ContextInfoResult.model_validate({"context": context(), "documents": entries}, from_attributes=True)
        written = await listing(m.ContextInfoResult(context=context(), documents=()), m.DocumentInfo, entries)
        told = json.loads(b"".join(written.pieces))
        assert [one["chars"] for one in told["documents"]] == [one.chars for one in whole.documents]
        assert all(one["name"].endswith("��.txt") for one in told["documents"]), "what no client can parse is sent"
        assert m.ContextInfoResult.model_validate(told).context == whole.context


async def test_the_loop_has_its_turns_meanwhile() -> None:
    turns, done = 0, asyncio.Event()

    async def other() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await listing(m.ContextInfoResult(context=context(), documents=()), m.DocumentInfo, documents(10_000))
    done.set()
    await task
    assert turns >= 40


async def test_no_piece_is_so_long_that_writing_it_holds_the_loop() -> None:
    """Joined anywhere on its way to the socket, ten thousand entries are 3 MB that are copied at once."""
    written = await listing(m.ContextInfoResult(context=context(), documents=()), m.DocumentInfo, documents(10_000))
    pieces = response_message({"jsonrpc": "2.0", "result": written, "id": 1})
    assert max(map(len, pieces)) < 64 << 10
    assert len(json.loads(b"".join(framed(pieces, "lines")))["result"]["documents"]) == 10_000
