"""What a cell may ask: claimed, sent, journalled, then answered; hints are checked; failures are typed slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rlmd.config import Settings
from rlmd.engine.cells import Asking, RunCellHost
from rlmd.engine.feed import Feed
from rlmd.engine.journal import Journal, read_facts
from rlmd.engine.limits import Purse
from rlmd.engine.parts import Parts
from rlmd.engine.passages import shown_in, verified
from rlmd.engine.past import Past
from rlmd.engine.recorder import Recorder
from rlmd.engine.runfolder import DiskFolder
from rlmd.errors import HostFailed, NoHost, NotFound, PromptTooLong, RlmdError
from rlmd.events import CompletionRecord, Limits, Pin, RunStarted, Span, Text
from rlmd.pool import Candidate, CompletionRequest, PooledCompletion
from rlmd.providers.base import Completion, Usage
from rlmd.repl import SearchPassage, SubQuery, SubQueryFailure, SubQueryReply

LIMITS = Limits(turns=1, sub_queries=3, seconds=60, consecutive_errors=1)


class Context:
    pin = Pin(context="c", revision=1, kind="text", private=False, documents=1, chars=26, digest="d")
    text = "abcdefghijklmnopqrstuvwxyz"

    def read(self, document: str, start: int, end: int) -> str:
        if document != "d":
            raise NotFound("no such document")
        return self.text[start:end]


class StubPool:
    """Answers by ``reply``: a text, a finish, an error, or a wait."""

    def __init__(self) -> None:
        self.asked: list[CompletionRequest] = []
        self.temperature = 0.0
        self.reply: Callable[[], str | RlmdError] = lambda: "fine"
        self.finish = "stop"
        self.source = "model"
        self.gate = asyncio.Event()
        self.gate.set()

    def candidates(self, *_: object, **__: object) -> tuple[Candidate, ...]:
        return (Candidate("h", "m", 8192, 4096, 1, 512, self.temperature, "mine"),)

    async def complete(self, request: CompletionRequest, on_delta: object = None) -> PooledCompletion:
        self.asked.append(request)
        await self.gate.wait()
        reply = self.reply()
        if isinstance(reply, RlmdError):
            raise reply
        record = CompletionRecord(
            host="h", model="m", source=self.source, finish=self.finish, prompt_tokens=1, completion_tokens=512
        )
        return PooledCompletion(Completion(reply, "", self.finish, Usage(1, 512)), record)


class Bench:
    def __init__(self, folder: Path, threads: ThreadPoolExecutor) -> None:
        self.folder, self.pool = folder, StubPool()
        self.recorder = Recorder(
            "r",
            Journal(DiskFolder(folder), threads),
            lambda one: Feed("r", DiskFolder(folder), threads, lambda: one.last_seq),
            lambda: 1.0,
        )
        self.recorder.add(
            RunStarted, question=Text(chars=1, text="?"), strategy="rlm", contexts=(), session=None, root=(), sub=(),
            limits=LIMITS, private=False, request_digest="d", rlmd="0", prompts="1",
        )  # fmt: skip
        self.purse = Purse(LIMITS, time.monotonic)
        parts = Parts(  # type: ignore[arg-type]
            None, self.pool, None, Settings(), threads, time.time, time.monotonic, None, None, None
        )
        self.asking = Asking(
            run_id="r", parts=parts, purse=self.purse, contexts=[Context()], private=lambda: True, sub=None,
            fresh=False, piece_chars=900, children=None,
        )  # type: ignore[list-item]  # fmt: skip
        self.host = RunCellHost(1, "cell-1/output", self.asking, self.recorder)

    async def ask(self, prompt: str, slot: int = 0, *spans: Span) -> SubQueryReply | SubQueryFailure:
        return await self.host.answer(SubQuery(prompt, None, spans), batch=1, slot=slot)

    def facts(self, kind: str) -> list:
        return [fact for fact in read_facts(DiskFolder(self.folder)).facts if fact.type == kind]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    with ThreadPoolExecutor(1) as threads:
        made = Bench(tmp_path, threads)
        yield made
        await made.recorder.finish()


async def test_a_reply_is_in_the_journal_when_the_cell_gets_it(bench: Bench) -> None:
    """With digest, occurrence and the stretches that really stood in the prompt; raw bytes are cleaned."""
    true = Span(context="c", document="d", start=2, end=5)
    reply = await bench.ask("cde \udcff?", 4, true)
    assert reply == SubQueryReply("fine")
    [fact] = bench.facts("subquery_replied")
    assert (fact.slot, fact.occurrence, fact.spans, fact.reply.text) == (4, 1, (true,), "fine")
    assert fact.prompt_preview == "cde \ufffd?"
    assert bench.pool.asked[0].private, "a private run's sub-queries are private"


@pytest.mark.parametrize(
    "span",
    [
        Span(context="c", document="d", start=5, end=8),
        Span(context="c", document="other", start=2, end=5),
        Span(context="other", document="d", start=2, end=5),
        Span(context="c", document="d", start=-1, end=5),
        Span(context="c", document="d", start=5, end=5),
        Span(context="c", document="d", start=20, end=99),
    ],
)
def test_a_cell_cannot_claim_to_have_read_what_it_did_not(span: Span) -> None:
    """A hint counts only if its text stands in the prompt."""
    assert verified([span], "cde and uvwxyz", [Context()]) == ()  # type: ignore[list-item]
    true = Span(context="c", document="d", start=2, end=5)
    assert verified([true], "cde and uvwxyz", [Context()]) == (true,)  # type: ignore[list-item]


async def test_repeats_are_other_samples_only_above_temperature_0(bench: Bench) -> None:
    """Equal prompts at temperature 0 are one question; above it each is another sample."""
    await bench.ask("same")
    await bench.ask("same")
    bench.pool.temperature = 0.7
    await bench.ask("same")
    assert [request.sample for request in bench.pool.asked] == [1, 1, 3]
    assert [fact.occurrence for fact in bench.facts("subquery_replied")] == [1, 2, 3]


async def test_a_cut_reply_is_a_failure(bench: Bench) -> None:
    """It never reaches the cell as text."""
    bench.pool.finish = "length"
    reply = await bench.ask("q")
    assert isinstance(reply, SubQueryFailure)
    assert reply.kind == "completion_cut"
    assert bench.facts("subquery_replied") == []
    assert bench.facts("subquery_failed")[0].error.kind == "completion_cut"


async def test_failures_are_typed_and_told_with_numbers(bench: Bench) -> None:
    """A cell learns what would fit; the kind is the error's own."""
    bench.pool.reply = lambda: PromptTooLong("9,000 tokens; the window is 8,192.")
    too_long = await bench.ask("q")
    bench.pool.reply = lambda: HostFailed("The host went away.")
    failed = await bench.ask("q")
    assert too_long == SubQueryFailure(
        "prompt_too_long", "9,000 tokens; the window is 8,192. Put at most 900 characters of text into one prompt."
    )
    assert failed == SubQueryFailure("host_failed", "The host went away.")


async def test_a_limit_is_one_fact_and_many_failed_slots(bench: Bench) -> None:
    """Ten at once against three: three are sent, seven fail, the limit is told once."""
    replies = await asyncio.gather(*(bench.ask(f"q{slot}", slot) for slot in range(10)))
    assert sum(isinstance(reply, SubQueryReply) for reply in replies) == len(bench.pool.asked) == 3
    assert len(bench.facts("limit_hit")) == 1
    assert len(bench.facts("subquery_failed")) == 7


async def test_what_the_cache_answered_costs_nothing(bench: Bench) -> None:
    """Ten against a limit of three: none is refused, and all three are left."""
    bench.pool.source = "cache"
    replies = await asyncio.gather(*(bench.ask(f"q{slot}", slot) for slot in range(10)))
    assert replies == [SubQueryReply("fine")] * 10
    assert (bench.purse.used("sub_queries"), bench.purse.used("tokens")) == (0, 0)
    assert bench.facts("limit_hit") == []


async def test_what_was_spent_stays_spent_when_a_run_is_taken_up_again(bench: Bench) -> None:
    """A reply of the journal is not asked for again, and takes from the new purse what it took from the old one; one
    of the cache took nothing."""
    await bench.ask("paid")
    bench.pool.source = "cache"
    await bench.ask("free")
    bench.pool.reply = lambda: NoHost("None is up.")
    await bench.ask("failed")
    asked, folder = len(bench.pool.asked), DiskFolder(bench.folder)
    past = Past(read_facts(folder).facts, folder, bench.asking.parts.threads)
    purse = Purse(LIMITS, time.monotonic)
    again = RunCellHost(1, "cell-1/output", replace(bench.asking, past=past, purse=purse), bench.recorder)
    replies = [await again.answer(SubQuery(prompt, None, ()), batch=1, slot=0) for prompt in ("paid", "free", "failed")]
    assert replies[:2] == [SubQueryReply("fine")] * 2
    assert isinstance(replies[2], SubQueryFailure)
    assert len(bench.pool.asked) == asked
    assert (purse.used("sub_queries"), purse.used("tokens")) == (2, 513)


async def test_what_was_never_sent_costs_no_tokens(bench: Bench) -> None:
    """No host, or a prompt that fits none: what was claimed for it at the worst is given back."""
    bench.pool.reply = lambda: PromptTooLong("9,000 tokens; the window is 8,192.")
    await bench.ask("q")
    assert bench.purse.used("tokens") == 0
    bench.pool.reply = lambda: HostFailed("The host went away.")
    await bench.ask("q")
    assert bench.purse.used("tokens") > 512, "a request that was sent may have cost all of it"


async def test_what_was_cancelled_is_given_back(bench: Bench) -> None:
    """A cancelled sub-query leaves the purse and the journal as they were."""
    bench.pool.gate.clear()
    task = asyncio.create_task(bench.ask("q"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bench.purse.used("sub_queries") == 0
    assert bench.facts("subquery_replied") == bench.facts("subquery_failed") == []


SCHEMA = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'


def replies_of(*texts: str) -> Callable[[], str]:
    """Each once, in order."""
    left = iter(texts)
    return lambda: next(left)


@pytest.mark.parametrize(
    "text", ['{"n": 3}', 'Sure!\n```json\n{"n": 3}\n```\nBye.', 'It is {"n": 3}.', "{'n': 3}"],
)  # fmt: skip
async def test_a_typed_reply_is_its_json_wherever_it_stands(bench: Bench, text: str) -> None:
    """The prompt says what is wanted, the request carries the schema, the cell gets canonical JSON."""
    bench.pool.reply = replies_of(text)
    assert await bench.host.answer(SubQuery("q", schema=SCHEMA), batch=1, slot=0) == SubQueryReply('{"n": 3}')
    [request] = bench.pool.asked
    assert request.schema == SCHEMA
    assert SCHEMA in request.messages[0].content
    assert request.messages[0].content.startswith("q\n\n")


async def test_a_reply_that_does_not_fit_is_asked_for_once_more_and_paid_for(bench: Bench) -> None:
    """The second prompt says what was wrong; both are claimed from the purse and journalled with their replies."""
    bench.pool.reply = replies_of('{"n": "three"}', '{"n": 3}')
    assert await bench.host.answer(SubQuery("q", schema=SCHEMA), batch=1, slot=0) == SubQueryReply('{"n": 3}')
    assert "n must be of type integer" in bench.pool.asked[1].messages[0].content
    assert bench.purse.used("sub_queries") == 2
    assert [fact.reply.text for fact in bench.facts("subquery_replied")] == ['{"n": "three"}', '{"n": 3}']


async def test_two_replies_that_do_not_fit_are_a_failure(bench: Bench) -> None:
    bench.pool.reply = lambda: "three"
    reply = await bench.host.answer(SubQuery("q", schema=SCHEMA), batch=1, slot=0)
    assert isinstance(reply, SubQueryFailure)
    assert reply.kind == "reply_mismatch"
    assert "no JSON" in reply.message
    assert bench.host.failures == {"reply_mismatch": 1}
    assert len(bench.pool.asked) == 2


async def test_the_second_try_is_refused_when_the_purse_is_empty(bench: Bench) -> None:
    bench.pool.reply = lambda: "three"
    first = await bench.host.answer(SubQuery("q", schema=SCHEMA), batch=1, slot=0)
    second = await bench.host.answer(SubQuery("p", schema=SCHEMA), batch=1, slot=1)
    assert [one.kind for one in (first, second) if isinstance(one, SubQueryFailure)] == [
        "reply_mismatch",
        "limit_reached",
    ]
    assert len(bench.pool.asked) == 3


@pytest.mark.parametrize("schema", ["no JSON", '{"type": "text"}', '{"unknown": 1}', "[" * 5000])
async def test_a_schema_that_is_none_is_told_and_nothing_is_asked(bench: Bench, schema: str) -> None:
    reply = await bench.host.answer(SubQuery("q", schema=schema), batch=1, slot=0)
    assert isinstance(reply, SubQueryFailure)
    assert reply.kind == "invalid_params"
    assert bench.pool.asked == []


async def test_a_word_is_a_typed_reply_where_a_text_is_wanted(bench: Bench) -> None:
    bench.pool.reply = replies_of(" yes\n")
    asked = SubQuery("q", schema='{"enum": ["yes", "no"]}')
    assert await bench.host.answer(asked, batch=1, slot=0) == SubQueryReply('"yes"')


def test_printed_passages_count_as_shown() -> None:
    """Only those that stand in the output whole, each once."""
    seen = SearchPassage("c", "d", 2, 5, "cde", 1.0, 1)
    unseen = SearchPassage("c", "d", 5, 8, "fgh", 1.0, 1)
    assert shown_in("it prints cde", [seen, unseen, seen]) == (Span(context="c", document="d", start=2, end=5),)
