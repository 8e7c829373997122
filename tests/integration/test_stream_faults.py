"""Streams that break, at any byte and in every protocol: each break is noticed, what was asked is asked again, and
nothing of the broken stream is kept.

An honest fake answers once; what it sent is then sent again with one fault in it, to the pool, by httpx over aiohttp.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rlmd.config import HostSettings, ModelSettings, Settings
from rlmd.errors import CompletionError, PromptTruncated
from rlmd.pool import CompletionRequest, Pool
from rlmd.providers.base import Message, Sampling
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.httpd import HttpServer, Reply, Request
from tests.fakes.ollama import FakeOllama, Scripted
from tests.fakes.openai import FakeOpenAI

WINDOW = 2048
ANSWER = "It stands in the cellar: grüße, 漢字 and 🙂, says the note of May."
PROSE = "some words of prose, as people write them. "
CODE = "for(i=0;i<n;i++){a[i]=b[i]*c[i]-d[i];e[i]^=0x1f;}\n"
SERVERS = ("ollama", "anthropic", "llama.cpp", "vllm", "deepseek", "openrouter")
COUNTS = [pytest.param(6, id="some"), pytest.param(400, marks=[pytest.mark.full, pytest.mark.timeout(1800)], id="many")]


@asynccontextmanager
async def honest(server: str, **more: Any) -> AsyncIterator[FakeOllama | FakeAnthropic | FakeOpenAI]:
    fake: FakeOllama | FakeAnthropic | FakeOpenAI
    match server:
        case "ollama":
            fake = FakeOllama(["sub"], **more)
        case "anthropic":
            fake = FakeAnthropic(["sub"], **more)
        case _:
            fake = FakeOpenAI(["sub"], dialect=server, **more)
    async with fake:
        yield fake


@dataclass(frozen=True)
class Stream:
    """What a server sent for one answer. ``whole``: the byte with which the answer is whole; ``records``: where its
    JSON objects begin and end."""

    server: str
    path: str
    kind: str
    body: bytes

    @property
    def records(self) -> list[tuple[int, int]]:
        found, at = [], 0
        for line in self.body.split(b"\n"):
            start = line.find(b"{")
            if start >= 0 and not line.startswith((b"event:", b":")):
                found.append((at + start, at + len(line.rstrip())))
            at += len(line) + 1
        return found

    @property
    def whole(self) -> int:
        marks = {"ollama": b'"done": true', "anthropic": b'"type": "message_stop"'}
        mark = marks.get(self.server, b'"finish_reason": "stop"')
        return next(end for start, end in self.records if mark in self.body[start:end])


async def heard_from(server: str) -> Stream:
    path, body = {
        "ollama": ("/api/chat", {}),
        "anthropic": ("/v1/messages", {"max_tokens": 99}),
    }.get(
        server,
        (
            "/v1/chat/completions",
            {
                "stream_options": {"include_usage": True},
                "thinking": {"type": "disabled"},
                "reasoning": {"enabled": False},
            },
        ),
    )
    asked = {"model": "sub", "stream": True, "messages": [{"role": "user", "content": "where?"}], **body}
    async with honest(server) as fake, aiohttp.ClientSession() as session:
        fake.answer = lambda _: Scripted(ANSWER, chunk=5)
        headers = {"anthropic-version": "2023-06-01"}
        async with session.post(fake.url + path, json=asked, headers=headers) as answer:
            return Stream(server, path, answer.content_type, await answer.read())


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────────

Fault = Callable[[Stream, random.Random, Reply], Any]


async def send(reply: Reply, data: bytes, chance: random.Random) -> None:
    """In chunks of any size, so that records and characters are cut anywhere."""
    while data:
        size = chance.choice((1, 7, 40, 4000))
        await reply.write(data[:size])
        data = data[size:]
        if chance.random() < 0.1:
            await asyncio.sleep(0.001)


def up_to(stream: Stream, chance: random.Random) -> bytes:
    return stream.body[: chance.randrange(stream.whole)]


async def cut(stream: Stream, chance: random.Random, reply: Reply) -> None:
    """Ended in good form before the answer was."""
    await send(reply, up_to(stream, chance), chance)
    await reply.end()


async def closed(stream: Stream, chance: random.Random, reply: Reply) -> None:
    """Closed without the last chunk."""
    await send(reply, up_to(stream, chance), chance)


async def reset(stream: Stream, chance: random.Random, reply: Reply) -> None:
    await send(reply, up_to(stream, chance), chance)
    await asyncio.sleep(0.002)  # lets some of it out: a reset discards what is still unsent
    reply.reset()


async def short_chunk(stream: Stream, chance: random.Random, reply: Reply) -> None:
    """Less than the chunk said that it has."""
    await send(reply, up_to(stream, chance), chance)
    await reply.raw(b"400\r\nabc")


async def no_chunk(stream: Stream, chance: random.Random, reply: Reply) -> None:
    """Where a chunk's size belongs stands something else."""
    await send(reply, up_to(stream, chance), chance)
    await reply.raw(chance.choice((b"zz\r\nabc\r\n", b"-5\r\nabc\r\n", b"\r\n\r\n\r\n", b"\x00\xff\r\n")))


async def half_record(stream: Stream, chance: random.Random, reply: Reply) -> None:
    """The end of one record is missing; all the others come."""
    start, end = chance.choice([one for one in stream.records if one[1] <= stream.whole])
    at = chance.randrange(start + 1, end)
    await send(reply, stream.body[:at] + stream.body[end:], chance)
    await reply.end()


async def no_record(stream: Stream, chance: random.Random, reply: Reply) -> None:
    """Something that is no JSON stands among the records."""
    start, _ = chance.choice([one for one in stream.records if one[1] <= stream.whole])
    junk = chance.choice((b"{", b'{"a": tru', b'{"a": 1}}', b"{\xff\xfe}", b"{" * 2000))
    prefix = b"" if stream.server == "ollama" else b"data: "
    at = stream.body.rfind(b"\n", 0, start) + 1
    await send(reply, stream.body[:at] + prefix + junk + b"\n\n" + stream.body[at:], chance)
    await reply.end()


async def error_line(stream: Stream, chance: random.Random, reply: Reply) -> None:
    """The server says in the 200 that it failed; some go on as if nothing had been."""
    said: dict[str, Any] = {"error": "an error was encountered while running the model"}
    if stream.server != "ollama":
        said = {"error": {"type": "api_error", "message": "upstream worker died", "code": 500}}
    if stream.server == "anthropic":
        said["type"] = "error"
    line = (b"" if stream.server == "ollama" else b"data: ") + json.dumps(said).encode() + b"\n\n"
    start, _ = chance.choice([one for one in stream.records if one[1] <= stream.whole])
    at = stream.body.rfind(b"\n", 0, start) + 1
    await send(reply, stream.body[:at] + line + (stream.body[at:] if chance.random() < 0.5 else b""), chance)
    await reply.end()


async def no_last_record(stream: Stream, chance: random.Random, reply: Reply) -> None:
    """All of the text, and what may follow the end; not the record by which the answer is whole."""
    start, end = next(one for one in stream.records if one[1] == stream.whole)
    at = stream.body.rfind(b"\n", 0, start) + 1
    rest = stream.body[end:]
    if stream.server not in ("ollama", "anthropic"):
        rest = b"\n\ndata: [DONE]\n\n"
    await send(reply, stream.body[:at] + rest, chance)
    await reply.end()


async def nothing(stream: Stream, chance: random.Random, reply: Reply) -> None:
    """A 200 and no reply: empty, a page of a proxy's, an object of another kind."""
    del stream
    body, kind = chance.choice(
        ((b"", "text/event-stream"), (b"<html>Log in</html>", "text/html"), (b"{}", "application/json"))
    )
    await reply.send(200, body, kind)


FAULTS: tuple[Fault, ...] = (
    cut, closed, reset, short_chunk, no_chunk, half_record, no_record, error_line, no_last_record, nothing,
)  # fmt: skip


class Tampering:
    """Sends the stream with the fault that is set, once; then as it was."""

    def __init__(self, stream: Stream, chance: random.Random) -> None:
        self._stream = stream
        self._chance = chance
        self.fault: Fault | None = None
        self.asked = 0
        self.server = HttpServer(self._handle)

    async def _handle(self, request: Request, reply: Reply) -> None:
        if request.method == "GET":
            await reply.send_json(404, {"error": {"message": "not here"}})
            return
        self.asked += 1
        fault, self.fault = self.fault, None
        if fault is nothing:
            await fault(self._stream, self._chance, reply)
            return
        await reply.start(self._stream.kind)
        if fault is not None:
            await fault(self._stream, self._chance, reply)
            return
        await send(reply, self._stream.body, self._chance)
        await reply.end()


@asynccontextmanager
async def pool_at(server: str, url: str, cache: Path) -> AsyncIterator[Pool]:
    kind: Any = server if server in ("ollama", "anthropic") else "openai"
    settings = HostSettings(url=url, provider=kind, models={"sub": ModelSettings(window=WINDOW)})
    pool = Pool(Settings(hosts={"host": settings}), cache_folder=cache, environment={}, default_url=None)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


def ask(prompt: str) -> CompletionRequest:
    return CompletionRequest("sub", (Message("user", prompt),), Sampling(max_tokens=64), "run")


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("server", SERVERS)
async def test_a_stream_that_breaks_is_asked_again_and_never_kept(server: str, count: int, tmp_path: Path) -> None:
    chance = random.Random(f"{server} {count}")
    tampering = Tampering(await heard_from(server), chance)
    await tampering.server.start()
    try:
        async with pool_at(server, tampering.server.url, tmp_path) as pool:
            for number in range(count * len(FAULTS)):
                tampering.fault = fault = FAULTS[number % len(FAULTS)]
                tampering.asked = 0
                heard: list[tuple[int, str]] = []
                got = await pool.complete(
                    ask(f"where, {number}?"), lambda at, said, heard=heard: heard.append((at, said))
                )
                told = f"{fault.__name__} number {number}"
                assert (got.completion.text, got.record.attempts, tampering.asked) == (ANSWER, 2, 2), told
                last = max(place for place, (at, _) in enumerate(heard) if at == 0)
                assert "".join(said for _, said in heard[last:]) == ANSWER, told
                again = await pool.complete(ask(f"where, {number}?"))
                assert (again.completion.text, again.record.source) == (ANSWER, "cache"), told
    finally:
        await tampering.server.stop()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("server", SERVERS)
async def test_a_kept_connection_that_is_closed_under_us_costs_no_attempt(
    server: str, count: int, tmp_path: Path
) -> None:
    """Right after an answer, or when the next request has come and nothing of it was answered."""
    chance = random.Random(f"stale {server} {count}")
    stream = await heard_from(server)
    kept = 0

    async def handle(request: Request, reply: Reply) -> None:
        nonlocal kept
        if request.method == "GET":
            await reply.send_json(404, {"error": {"message": "not here"}})
            return
        if reply.number > 1:
            kept += 1
            if chance.random() < 0.7:
                if chance.random() < 0.5:
                    reply.reset()
                return  # closed
        await reply.start(stream.kind, {"Keep-Alive": "timeout=5, max=100"})
        await send(reply, stream.body, chance)
        await reply.end()
        if chance.random() < 0.3:
            reply.close_after()

    http = HttpServer(handle)
    await http.start()
    try:
        async with pool_at(server, http.url, tmp_path) as pool:
            for number in range(10 * count):
                got = await pool.complete(ask(f"where, {number}?"))
                assert (got.completion.text, got.record.attempts) == (ANSWER, 1), number
    finally:
        await http.stop()
    assert kept, "connections were kept"


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("server", SERVERS)
async def test_a_prompt_of_which_half_a_window_was_read_is_never_answered(
    server: str, count: int, tmp_path: Path
) -> None:
    """Whatever the text is where the server is Ollama; prose where any other says that it read fewer tokens than the
    text has words."""
    chance = random.Random(f"half {server} {count}")
    more: dict[str, Any] = {"honours_truncate": False} if server == "ollama" else {"window": 1_000_000}
    async with honest(server, **more) as fake, pool_at(server, fake.url, tmp_path) as pool:
        for number in range(count):
            text = chance.choice((PROSE, CODE) if server == "ollama" else (PROSE,))
            size = chance.randrange(4800, 6000)
            prompt = f"{number} " + (text * (size // len(text) + 1))[:size]
            if isinstance(fake, FakeOllama):
                fake.bytes_per_token = chance.uniform(1.2, 2.2)  # beyond the window, though it was not thought to be
            else:
                fake.answer = lambda _: Scripted("x", prompt_eval_count=WINDOW // 4 + 2)
            with pytest.raises(PromptTruncated):
                await pool.complete(ask(prompt))
            assert not await pool.holds(ask(prompt))


async def test_what_is_broken_each_time_is_an_error(tmp_path: Path) -> None:
    for server in ("ollama", "anthropic", "vllm"):
        async with honest(server) as fake, pool_at(server, fake.url, tmp_path / server) as pool:
            fake.answer = lambda _: Scripted(ANSWER, fault="cut", after=9)
            with pytest.raises(CompletionError):
                await pool.complete(ask("where?"))
            assert not await pool.holds(ask("where?"))
            assert len(fake.seen) == 4, "attempts at most"
