"""The engine with the real store, pool, providers and caged workers; only the model servers are fakes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from rlmd.config import HostSettings, ModelSettings, RoleSettings, Settings
from rlmd.contexts import ContextStore, InlineSource
from rlmd.engine import Engine, ExecuteRequest, LimitRequest, RunRecord, RunRequest
from rlmd.events import AnyFact, Delta
from rlmd.pool import Pool
from rlmd.repl import Workers
from tests.fakes.ollama import FakeOllama


class House:
    """The daemon's parts below the wire, over a folder."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> House:
        for name in ("state", "cache", "spool"):
            (self.folder / name).mkdir(exist_ok=True)
        self.contexts = await ContextStore.open(
            self.folder / "state", self.folder / "cache", self.folder / "spool"
        )
        self._stack.push_async_callback(self.contexts.close)
        self.pool = Pool(self.settings, cache_folder=self.folder / "cache" / "completions", default_url=None)
        await self.pool.start()
        self._stack.push_async_callback(self.pool.close)
        self.workers = Workers(spare_workers=0)
        self._stack.push_async_callback(self.workers.close)
        self.engine = Engine(
            contexts=self.contexts,
            pool=self.pool,
            workers=self.workers,
            settings=self.settings,
            state_folder=self.folder / "state",
        )
        await self.engine.start()
        self._stack.push_async_callback(self.engine.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def load(self, name: str, text: str, *, private: bool = False) -> None:
        await self.contexts.load(InlineSource(text=text, origin=None), name=name, private=private)

    async def ask(self, question: str, *contexts: str, **fields: object) -> RunRecord:
        request = RunRequest(run_id=new_id(), question=question, contexts=contexts, **fields)
        record = await self.engine.start_run(request)
        return await self.engine.wait(record.run_id)

    async def facts(self, record: RunRecord) -> list[AnyFact]:
        facts = await self.engine.facts(record.run_id)
        assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1)), "fact numbers have a gap"
        return facts

    async def answer(self, record: RunRecord) -> str | None:
        return await self.engine.answer(record)


def new_id() -> str:
    return str(uuid.uuid4())


def settings_for(*fakes: tuple[str, FakeOllama], window: int = 8192, **fields: object) -> Settings:
    hosts = {
        name: HostSettings(
            url=fake.url,
            provider="ollama",
            slots=fake.slots,
            models={model.split(":")[0]: ModelSettings(window=window) for model in fake.models},
        )
        for name, fake in fakes
    }
    return Settings(hosts=hosts, **fields)


class Ear:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.facts: list[AnyFact] = []
        self.deltas: list[Delta] = []
        self.heard = asyncio.Condition()

    async def ready(self) -> None:
        return

    def fact(self, fact: AnyFact) -> None:
        self.facts.append(fact)

    def delta(self, delta: Delta) -> None:
        self.deltas.append(delta)


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
