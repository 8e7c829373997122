"""The daemon's parts below the wire, real ones, for tests of the engine: store, pool, caged workers."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from pathlib import Path

from rlmd.config import HostSettings, ModelSettings, Settings
from rlmd.contexts import ContextStore, InlineSource
from rlmd.engine import Engine, RunRecord, RunRequest
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
        self.contexts = await ContextStore.open(self.folder / "state", self.folder / "cache", self.folder / "spool")
        self._stack.push_async_callback(self.contexts.close)
        self.pool = Pool(self.settings, cache_folder=self.folder / "cache" / "completions", default_url=None)
        await self.pool.start()
        self._stack.push_async_callback(self.pool.close)
        self.workers = Workers(
            spare_workers=0,
            max_workers=self.settings.repl.max_workers,
            depth=self.settings.limits.depth,
            packages=self.settings.repl.environment,
        )
        self._stack.push_async_callback(self.workers.close)
        self.engine = Engine(
            contexts=self.contexts,
            pool=self.pool,
            workers=self.workers,
            settings=self.settings,
            state_folder=self.folder / "state",
            programs_folder=self.folder / "programs",
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
        self.ends = 0

    async def ready(self) -> None:
        return

    def fact(self, fact: AnyFact) -> None:
        self.facts.append(fact)

    def delta(self, delta: Delta) -> None:
        self.deltas.append(delta)

    def ended(self) -> None:
        self.ends += 1

    def text(self, stream: str) -> str:
        """What a client has of a stream."""
        text = ""
        for delta in self.deltas:
            if delta.stream == stream:
                text = text[: delta.offset] + delta.text
        return text
