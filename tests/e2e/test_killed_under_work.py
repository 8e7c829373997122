"""``kill -9``, again and again, under everything at once: loads, growing files, questions, runs over models that cost
money, ephemeral texts, searches, deletions, gc. What was acknowledged is there, and every store is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import re
import sqlite3
import uuid
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.e2e.test_canaries import holding
from tests.fakes.ollama import FakeOllama, Scripted, Seen
from tests.fakes.serving import echo
from tests.harness import Client, Folders, Json, RpcFailure, load_path, load_text, new_run, start_run, whole_text

CANARY = "Xanthippe7741"
PIECES = 5
CELL = """```repl
parts = [f"{tag} piece {{n}}: {{context[:40]}}" for n in range({pieces})]
joined = "|".join(map(str, llm_query_batched(parts)))
print(joined)
```"""
#: Dollars a million tokens.
PRICE = 1000


def reply_of(prompt: str) -> Scripted:
    """The same to the same prompt, after a moment that lets a kill come in between."""
    return Scripted(echo(prompt), latency=0.002 + 0.02 * (len(prompt) % 7) / 7)


def root_of(seen: Seen) -> str:
    """Asks about some pieces under the question's own mark, then answers with the replies."""
    if any(message["role"] == "assistant" for message in seen.messages):
        return "FINAL_VAR(joined)"
    told = " ".join(str(message["content"]) for message in seen.messages)
    return CELL.format(tag=re.findall("mark-[0-9a-f]{8}", told)[-1], pieces=PIECES)


def config(mine: FakeOllama, cloud: FakeOllama) -> str:
    return f"""
[retention]
revisions = 3
[confirm]
[roles]
root = ["mine/root"]
sub = ["cloud/sub"]
[hosts.mine]
url = "{mine.url}"
provider = "ollama"
slots = 4
models.root.window = 65536
[hosts.cloud]
url = "{cloud.url}"
provider = "ollama"
trust = "cloud"
slots = 4
models.sub = {{ window = 8192, price = {{ prompt = {PRICE}, completion = {PRICE} }} }}
[budget]
day = 1000000
"""


def integrity(file: Path) -> None:
    # To write: what a killed process left in the log is brought over by whoever opens the file next.
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",), file


def check_stores(folders: Folders) -> None:
    """Each database is sound; each blob on disk is one that the catalogue names, of the size and digest that it says;
    of what is ephemeral nothing is there."""
    state, cache = folders.state / "rlmd", folders.cache / "rlmd"
    store = state / "contexts" / "store"
    for file in (store / "catalogue.sqlite", state / "ledger.sqlite", cache / "completions" / "cache.db"):
        integrity(file)
    for file in (cache / "index").rglob("*.sqlite"):
        integrity(file)
    with contextlib.closing(sqlite3.connect(f"file:{store}/catalogue.sqlite?mode=ro", uri=True)) as db:
        named = dict(db.execute("SELECT digest, bytes FROM blobs"))
    blobs = {path.name: path for path in (store / "blobs").rglob("*") if path.is_file()}
    assert blobs.keys() == named.keys()
    for digest, path in blobs.items():
        data = path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (named[digest], digest)
    for folder in (folders.state, folders.cache, folders.runtime):
        assert list(holding(folder, (CANARY,))) == []


class Lane:
    """What one client does until the daemon dies, and what it was told."""

    def __init__(self, folders: Folders, number: int, cloud: FakeOllama) -> None:
        self.chance = random.Random(number)
        self.name = f"lane{number}"
        self.file = folders.home / f"{self.name}.log"
        self.file.write_text("begin\n" * 20_000)
        self.cloud = cloud
        #: Digests that each context may have: what was acknowledged, and what was asked for since.
        self.may_be: dict[str, set[str | None]] = {}
        #: The word of the last line that is surely in the log's context.
        self.word = ""
        #: Answers of runs that have ended; those that may have been deleted.
        self.answered: dict[str, str] = {}
        self.deleted: set[str] = set()
        #: What was told of runs that have ended since the daemon started.
        self.told: dict[str, list[Json]] = {}
        #: Runs that were under way: their mark, and what was told of them.
        self.going: dict[str, tuple[str, list[Json]]] = {}
        self.done = self.resumed = 0

    async def work(self, client: Client) -> None:
        steps = {
            self.load: 4, self.grow: 3, self.quote: 1, self.ask: 4, self.whisper: 1, self.search: 1, self.collect: 1,
            self.drop: 1, self.delete: 1,
        }  # fmt: skip
        try:
            while True:
                await self.chance.choices(list(steps), weights=list(steps.values()))[0](client)
                self.done += 1
        finally:
            self.going = {run_id: (mark, client.facts(run_id)) for run_id, (mark, _) in self.going.items()}

    async def load(self, client: Client) -> None:
        name = f"{self.name}-{self.chance.randrange(4)}"
        text = str(self.chance.random()) * self.chance.randrange(1, 500)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.may_be.setdefault(name, {None}).add(digest)
        await load_text(client, name, text)
        self.may_be[name] = {digest}

    async def grow(self, client: Client) -> None:
        word = f"word{self.chance.randrange(10**9)}"
        with self.file.open("a") as file:
            file.write(f"{word} and others\n" * self.chance.randrange(1, 50))
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        self.may_be.setdefault(self.name, {None}).add(digest)
        await load_path(client, self.name, self.file)
        self.may_be[self.name] = {digest}
        self.word = word

    async def quote(self, client: Client) -> None:
        await self.grow(client)
        run = new_run("Where does it begin?", self.name, strategy="quote")
        await start_run(client, run)
        self.answered[run["run_id"]] = (await client.call("run/show", {"run_id": run["run_id"]}))["answer"]

    async def ask(self, client: Client) -> None:
        """A run with sub-queries, in the journal of which every reply is, and in the cache."""
        await self.grow(client)
        mark = f"mark-{uuid.UUID(int=self.chance.getrandbits(128)).hex[:8]}"
        run = new_run(f"What says {mark}?", self.name, strategy="rlm", confirm="accept")
        self.going[run["run_id"]] = mark, []
        ended = await start_run(client, run)
        assert ended["outcome"] == "answered", ended
        self.answered[run["run_id"]] = await whole_text(client, run["run_id"], ended["answer"])
        del self.going[run["run_id"]]
        self.told[run["run_id"]] = client.facts(run["run_id"])

    async def whisper(self, client: Client) -> None:
        """An ephemeral text, searched and asked about."""
        text = f"{CANARY} says {self.chance.random()}.\n" * 300
        name = f"{self.name}-whispered"
        await client.call("context/load", {"name": name, "ephemeral": True, "source": {"kind": "inline", "text": text}})
        assert (await client.call("context/search", {"name": name, "query": f"what says {CANARY}"}))["hits"]
        await start_run(client, new_run(f"What says {CANARY}?", name, strategy="quote"))

    async def search(self, client: Client) -> None:
        await self.grow(client)
        await self.finds(client)

    async def finds(self, client: Client) -> None:
        if self.word:
            found = await client.call("context/search", {"name": self.name, "query": self.word})
            assert self.word in found["hits"][0]["text"], f"the index of {self.name} lacks {self.word}"

    async def collect(self, client: Client) -> None:
        await client.call("daemon/gc")

    async def drop(self, client: Client) -> None:
        name = f"{self.name}-{self.chance.randrange(4)}"
        if name in self.may_be:
            self.may_be[name].add(None)
            with contextlib.suppress(RpcFailure):
                await client.call("context/drop", {"name": name})
            self.may_be[name] = {None}

    async def delete(self, client: Client) -> None:
        if self.answered:
            run_id = next(iter(self.answered))
            self.deleted.add(run_id)
            del self.answered[run_id]
            await client.call("run/delete", {"run_id": run_id})

    # ── after the kill ──────────────────────────────────────────────────────────────────────────────────────

    async def check(self, client: Client) -> None:
        listed = {one["name"]: one for one in (await client.call("context/list"))["contexts"]}
        assert f"{self.name}-whispered" not in listed
        for name, digests in self.may_be.items():
            there = listed[name]["digest"] if name in listed else None
            assert there in digests, f"{name} came back as something else"
            self.may_be[name] = {there}
        for run_id, answer in self.answered.items():
            assert (await client.call("run/show", {"run_id": run_id}))["answer"] == answer
        runs = {one["run_id"] for one in (await client.call("run/list", {"limit": 1000}))["runs"]}
        for run_id, (mark, told) in self.going.items():
            if told or run_id in runs:  # else it was not acknowledged
                await self.goes_on(client, run_id, mark, told)
        self.going.clear()
        for run_id in self.told.keys() & self.answered.keys():
            fetched = await client.call("run/fetch", {"run_id": run_id, "from_seq": 1})
            assert fetched["facts"] == self.told[run_id], "the journal is not what was told"
        self.told.clear()
        await self.finds(client)

    async def goes_on(self, client: Client, run_id: str, mark: str, told: list[Json]) -> None:
        """It ends as if nothing had happened: all that was told stays so, no reply that is there is asked for again."""
        await client.call("run/attach", {"run_id": run_id})
        ended = await client.ended_run(run_id)
        facts = client.facts(run_id)
        assert facts[: len(told)] == told
        assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))
        assert ended["outcome"] == "answered", ended
        resumed = [at for at, fact in enumerate(facts) if fact["type"] == "run_resumed"]
        self.resumed += bool(resumed)
        replied = [fact["prompt_digest"] for fact in facts if fact["type"] == "subquery_replied"]
        assert len(replied) == len(set(replied)) == PIECES
        prompts = [f"{mark} piece {n}: {'begin' + chr(10)}" for n in range(PIECES)]
        asked = self.cloud.prompts("sub")
        there = sum(fact["type"] == "subquery_replied" for fact in facts[: resumed[0] if resumed else None])
        times = [sum(one.startswith(prompt) for one in asked) for prompt in prompts]
        assert sum(times) <= PIECES + (PIECES - there) * len(resumed), f"{times} times, {there} were there"
        text = await whole_text(client, run_id, ended["answer"])
        assert text == "|".join(echo(next(p for p in asked if p.startswith(prompt))) for prompt in prompts)
        self.answered[run_id] = text


def charged(cloud: FakeOllama) -> float:
    """Dollars that an honest provider takes for what it answered."""
    answered = [seen for seen in cloud.seen if seen.outcome == "answered"]
    tokens = sum(cloud.tokens(seen) + round(len(echo(seen.prompt)) / cloud.bytes_per_token) for seen in answered)
    return tokens * PRICE / 1e6


@pytest.mark.parametrize(
    "times", [2, pytest.param(200, marks=[pytest.mark.full, pytest.mark.timeout(7200)])], ids=["few", "many"]
)
async def test_killed_under_everything_at_once(folders: Folders, start_daemon: StartDaemon, times: int) -> None:
    async with FakeOllama(["root"], slots=4) as mine, FakeOllama(["sub"], slots=4) as cloud:
        mine.mind("root", root_of)
        cloud.answer = reply_of
        folders.write_config(config(mine, cloud))
        chance = random.Random(55)
        lanes = [Lane(folders, number, cloud) for number in range(3)]
        for round_ in range(times + 1):
            daemon = await start_daemon()
            async with contextlib.AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(daemon.connect()) for _ in lanes]
                for lane, client in zip(lanes, clients, strict=True):
                    await lane.check(client)
                spent = {one["name"]: one["spent"] for one in (await clients[0].call("budget/show"))["accounts"]}
                assert spent["day"] >= charged(cloud) - 1e-6, "what was spent is forgotten"
                await clients[0].call("daemon/gc")
                check_stores(folders)
                if round_ == times:
                    break
                tasks = [asyncio.create_task(lane.work(client)) for lane, client in zip(lanes, clients, strict=True)]
                enough = sum(lane.done for lane in lanes) + chance.randrange(10, 40)
                while sum(lane.done for lane in lanes) < enough:
                    await asyncio.sleep(0.001)
                    assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
                await daemon.kill()
                for task in tasks:
                    with contextlib.suppress(ConnectionError, BrokenPipeError, AssertionError):
                        await task
        told = {
            "kills": times,
            "steps": sum(lane.done for lane in lanes),
            "resumed": sum(lane.resumed for lane in lanes),
        }
        print(
            json.dumps(told | {"answers": sum(len(lane.answered) for lane in lanes), "dollars": round(spent["day"], 2)})
        )
        assert times < 10 or told["resumed"] > times // 10, "the kills came when nothing was going on"
