"""The engine with the real store, pool, providers and caged workers; only the model servers are fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import HostSettings, ModelSettings, ReplSettings, RoleSettings, Settings
from rlmd.engine import LimitRequest
from tests.fakes.ollama import FakeOllama, Scripted
from tests.house import House, settings_for


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=2) as server:
        yield server


ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))


async def test_a_short_text_is_answered_directly(tmp_path: Path, fake: FakeOllama) -> None:
    """One streamed completion; its deltas are the answer; its quote is a verified citation."""
    fake.script("root", ['The manual says "the lamp must be off" in so many words.'])
    async with House(tmp_path, settings_for(("box", fake), roles=ROLES)) as house:
        await house.load("manual", "Before cleaning,\nthe lamp must be off and cold.\n")
        record = await house.ask("When may I clean it?", "manual")
        assert (record.state, record.outcome, record.strategy) == ("ended", "answered", "direct")
        assert await house.answer(record) == 'The manual says "the lamp must be off" in so many words.'
        [citation] = record.citations
        assert (citation.quote, citation.verified, citation.locator.line) == ("the lamp must be off", True, 2)
        assert record.receipt.chars_read == record.receipt.chars_total


def small_and_big(small: FakeOllama, big: FakeOllama, window: int) -> Settings:
    hosts = {
        name: HostSettings(url=fake.url, provider="ollama", slots=2, models={"root": ModelSettings(window=holds)})
        for name, fake, holds in (("small", small, 8192), ("big", big, window))
    }
    return Settings(hosts=hosts, roles=RoleSettings(root=("small/root", "big/root"), sub=("big/root",)))


async def test_what_the_first_root_cannot_hold_is_asked_of_a_larger_one(tmp_path: Path) -> None:
    async with FakeOllama(["root"]) as small, FakeOllama(["root"]) as big:
        big.answer = lambda prompt: "It is lit."
        async with House(tmp_path, small_and_big(small, big, 32_768)) as house:
            await house.load("lines", "The lamp is lit, and so is this. " * 2000)
            record = await house.ask("Is it?", "lines", strategy="direct")
            assert (record.outcome, record.receipt.turns, len(small.seen), len(big.seen)) == ("answered", 1, 0, 1)


@pytest.mark.parametrize("cuts", [False, True], ids=["refuses", "truncates"])
async def test_a_root_that_counts_more_tokens_gives_way_to_a_larger_one(tmp_path: Path, *, cuts: bool) -> None:
    """Though that one fails at first, and would not hold the text if it counted likewise."""
    async with (
        FakeOllama(["root"], bytes_per_token=1.5, honours_truncate=not cuts) as small,
        FakeOllama(["root"], bytes_per_token=4) as big,
    ):
        small.answer = lambda prompt: "half read"
        big.answer = lambda prompt: Scripted("sorry", status=500) if len(big.seen) <= 3 else "It is lit."
        async with House(tmp_path, small_and_big(small, big, 12_000)) as house:
            await house.load("lines", "The lamp is lit, and so is this. " * 600)
            record = await house.ask("Is it?", "lines", strategy="direct")
            assert (record.outcome, await house.answer(record)) == ("answered", "It is lit.")
            assert small.seen
            assert record.receipt.turns == 1


async def test_where_no_root_holds_it_auto_explores(tmp_path: Path) -> None:
    async with FakeOllama(["root"], bytes_per_token=0.8) as small, FakeOllama(["root"], bytes_per_token=0.8) as big:
        for fake in (small, big):
            fake.answer = lambda prompt: "```repl\nx = 1\n```\nFINAL_VAR(x)" if "Turn 1" in prompt else "half read"
        async with House(tmp_path, small_and_big(small, big, 10_000)) as house:
            await house.load("lines", "The lamp is lit, and so is this. " * 380)
            record = await house.ask("Is it?", "lines")
            chosen = [fact.strategy for fact in await house.facts(record) if fact.type == "strategy_chosen"]
            assert (record.outcome, chosen) == ("answered", ["direct", "rlm"]), record


async def test_without_a_model_the_best_passages_are_quoted(tmp_path: Path) -> None:
    """No host at all: search, quote, and say so."""
    async with House(tmp_path, Settings()) as house:
        text = "\n\n".join(f"Chapter {n}. Nothing of note happens here." for n in range(200))
        await house.load("book", text + "\n\nThe treasure is buried under the old oak. Dig there.\n\n" + text)
        record = await house.ask("Where is the treasure buried?", "book")
        assert (record.outcome, record.strategy) == ("answered", "quote")
        answer = await house.answer(record)
        assert "treasure is buried under the old oak" in answer
        assert "No language model was used" in answer
        assert "rlmctl host add" in answer
        assert record.citations[0].verified
        assert "treasure" in record.citations[0].quote
        assert record.receipt.chars_searched == record.receipt.chars_total
        assert record.receipt.chars_read == 0


PROBE = "Let me look.\n```repl\nprint(len(context), context[:20])\n```"
BATCH = """```repl
pieces = [context[i : i + {size}] for i in range(0, len(context), {size})]
replies = llm_query_batched([piece + "\\n\\nWhat is in it?" for piece in pieces])
result = f"{{len(ok(replies))}} of {{len(pieces)}} pieces"
print(result)
```"""


async def test_uneven_hosts_share_a_batch_and_the_cache_answers_again(tmp_path: Path) -> None:
    """Probe, batch of 40, finish from a variable: the scripted answer, slots kept, and nothing paid twice."""
    async with (
        FakeOllama(["root", "sub"], slots=2, latency=0.02) as one,
        FakeOllama(["sub"], slots=4, latency=0.01) as two,
        FakeOllama(["sub"], slots=2, latency=0.04) as three,
    ):
        roles = RoleSettings(root=("one/root",), sub=("one/sub", "two/sub", "three/sub"))
        settings = settings_for(("one", one), ("two", two), ("three", three), roles=roles)
        text = "".join(f"Line {n} speaks of {n * 7919 % 1000} things.\n" for n in range(14_000))
        async with House(tmp_path, settings) as house:
            await house.load("lines", text)
            size = -(-len(text) // 40)
            # The third time a limit of 3 is enough, since the cache costs nothing; the root is told it, so it is asked.
            for again, allowed, paid in ((False, 400, 43), (True, 400, 0), (True, 3, 3)):
                limits = LimitRequest(sub_queries=allowed)
                one.script("root", [PROBE, BATCH.format(size=size), "FINAL_VAR(result)"])
                record = await house.ask("What is in it?", "lines", strategy="rlm", root=("one/root",), limits=limits)
                facts = await house.facts(record)
                batch = next(fact for fact in facts if fact.type == "batch_started")
                assert await house.answer(record) == f"{batch.total} of {batch.total} pieces"
                assert batch.total == 40
                assert (record.outcome, record.turns, record.sub_queries) == ("answered", 3, batch.total)
                assert record.receipt.pieces == batch.total
                assert record.receipt.pieces_failed == 0
                assert record.receipt.chars_read == record.receipt.chars_total
                assert record.receipt.unread == ()
                assert record.receipt.sub_queries_cached == (batch.total if again else 0)
                told = [fact for fact in facts if fact.type in ("root_replied", "subquery_replied")]
                new = sum(fact.completion.source == "model" for fact in told)
                assert new == paid, "equal questions of an equal text are paid once"
            assert [fake.max_held <= fake.slots for fake in (one, two, three)] == [True] * 3


@pytest.mark.parametrize(
    ("chars", "slots", "strategy"),
    [
        (10_000, 1, "direct"), (20_000, 1, "map"), (45_000, 1, "map"), (60_000, 1, "rlm"), (60_000, 4, "map"),
        (85_000, 4, "map"), (120_000, 4, "rlm"), (130_000, 16, "map"), (180_000, 16, "rlm"),
    ],
)  # fmt: skip
async def test_auto_chooses_by_what_fits_and_how_many_pieces_there_are(
    tmp_path: Path, chars: int, slots: int, strategy: str
) -> None:
    """An 8K window reads 4K well; few pieces are two rounds of the slots, at least four and at most twelve."""
    async with FakeOllama(["root"], slots=slots) as fake:
        fake.answer = lambda prompt: "```repl\nFINAL(len(context))\n```" if "Turn 1" in prompt else "found"
        async with House(tmp_path, settings_for(("box", fake), repl=ReplSettings(spare_workers=0))) as house:
            await house.load("words", "some words of a text " * (chars // 21))
            record = await house.ask("How long is it?", "words", confirm="accept")
            chosen = [fact.strategy for fact in await house.facts(record) if fact.type == "strategy_chosen"]
            assert chosen == [strategy]


async def test_a_text_that_does_not_fit_after_all_is_explored(tmp_path: Path, fake: FakeOllama) -> None:
    """The estimate said that it fits, the server counts more: auto goes on turn by turn, and says why."""
    fake.bytes_per_token = 0.6
    fake.script("root", ["never sent", "```repl\nn = len(context)\n```", "FINAL_VAR(n)"])
    async with House(tmp_path, settings_for(("box", fake), roles=ROLES)) as house:
        await house.load("words", "some words of a text " * 330)
        record = await house.ask("How long is it?", "words")
        chosen = [fact.strategy for fact in await house.facts(record) if fact.type == "strategy_chosen"]
        assert chosen == ["direct", "rlm"]
        assert (record.outcome, await house.answer(record)) == ("answered", str(21 * 330))


async def test_a_cut_answer_is_no_answer(tmp_path: Path, fake: FakeOllama) -> None:
    """A direct reply that ran into its token limit is told as that, with a hint, and not kept."""
    for _ in range(2):
        fake.script("root", [Scripted("It is because", finish="length")])
        async with House(tmp_path, settings_for(("box", fake), roles=ROLES)) as house:
            await house.load("words", "some words")
            record = await house.ask("Why?", "words", strategy="direct")
            assert record.outcome in ("failed", "partial")
            assert record.error.kind == "completion_cut"
            assert record.error.hint
    assert len(fake.prompts("root")) == 2, "a cut reply must not come from the cache"


async def test_private_text_without_an_own_host_goes_nowhere(tmp_path: Path, fake: FakeOllama) -> None:
    """A host that is not trusted is not asked; the passages are quoted, and the person learns why."""
    settings = settings_for(("box", fake), roles=ROLES)
    hosts = {name: host.model_copy(update={"trust": "cloud"}) for name, host in settings.hosts.items()}
    async with House(tmp_path, settings.model_copy(update={"hosts": hosts})) as house:
        await house.load("secret", "The code word is heliotrope.", private=True)
        record = await house.ask("What is the code word?", "secret")
        assert (record.strategy, record.private) == ("quote", True)
        assert "The text is private" in await house.answer(record)
        assert fake.seen == []
