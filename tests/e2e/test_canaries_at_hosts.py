"""Private text and hosts of others: a free cloud model, a proxy on this machine, a model that an Ollama of one's own
passes on. By whatever way rlmd asks, and whatever happens meanwhile, none of them sees a canary.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeModel, FakeOllama, Scripted, Seen
from tests.fakes.openai import FakeOpenAI
from tests.harness import Client, Daemon, Folders, Json, load_text, new_run

CANARY = "Xanthippe7741"
SECRET = "".join(f"Entry {n}: the safe of {CANARY} opens with {n} turns to the left.\n" for n in range(60))
CHILD = "print(rlm_query('How does it open?', context[:2000]))"
PEEK = "print(context[:300])"
BATCH = "print(len(llm_query_batched(['Turns? ' + piece for piece in chunks(context, 600)])))"


@dataclass
class Closet:
    """One host of one's own, which also has a model that it passes on; a free cloud; a proxy on this machine."""

    mine: FakeOllama
    cloud: FakeOllama
    proxy: FakeOpenAI

    def leaked(self) -> list[str]:
        """What others saw of it, in any message and not the last one alone."""
        foreign: list[Seen] = [*self.cloud.seen, *self.proxy.seen]
        foreign += [seen for seen in self.mine.seen if "afar" in seen.model]
        return [f"{seen.model}: {seen.prompt[:80]}" for seen in foreign if CANARY in str(seen.messages)]

    def kept(self) -> bool:
        """Whether the host of one's own was asked at all."""
        return any(CANARY in str(seen.messages) for seen in self.mine.seen)


def answering(seen: Seen) -> str | Scripted:
    """A root that does what the question says, and a sub-model that quotes what it was given."""
    said, last = str(seen.messages), seen.prompt
    if "rlm_query" not in said:
        return f"It says: {last[:300]}"
    if "Peek" in said:  # and never comes to an end by itself
        return f"```repl\n{PEEK}\n```"
    if any(one["role"] == "assistant" for one in seen.messages):
        return f"FINAL(It opens so: the safe of {CANARY} opens with turns.)"
    cell = CHILD if "child" in said else BATCH
    return f"```repl\n{cell}\n```"


@pytest.fixture
async def closet(folders: Folders) -> AsyncIterator[Closet]:
    async with AsyncExitStack() as stack:
        models = [FakeModel("model", window=32_768), FakeModel("afar-cloud", remote_host="https://ollama.com")]
        mine = await stack.enter_async_context(FakeOllama(models, slots=4))
        cloud = await stack.enter_async_context(FakeOllama(["model"], slots=4))
        proxy = await stack.enter_async_context(FakeOpenAI(["model"], dialect="litellm", slots=4))
        for fake, name in ((mine, "model"), (mine, "afar-cloud"), (cloud, "model"), (proxy, "model")):
            fake.mind(name, answering)
        everyone = ["cloud/model", "proxy/model", "mine/afar-cloud", "mine/model"]
        # The cloud is said to be one; of the others nothing is said. A price of nothing, and help at once.
        free = "price = { prompt = 0, completion = 0 }"
        folders.write_config(
            f"[roles]\nroot = {everyone}\nsub = {everyone}\n[budget]\noverflow_after = 0\n"
            f'[hosts.cloud]\nurl = "{cloud.url}"\nprovider = "ollama"\ntrust = "cloud"\nslots = 4\n'
            f"[hosts.cloud.models.model]\nwindow = 32768\n{free}\n"
            f'[hosts.proxy]\nurl = "{proxy.url}"\nprovider = "openai"\nslots = 4\n'
            f"[hosts.proxy.models.model]\nwindow = 32768\n{free}\n"
            f'[hosts.mine]\nurl = "{mine.url}"\nprovider = "ollama"\ntrust = "mine"\nslots = 4\n'
            "[hosts.mine.models.model]\nwindow = 32768\n[hosts.mine.models.afar-cloud]\nwindow = 32768\n"
        )
        yield Closet(mine, cloud, proxy)


async def loaded(client: Client, *, private: bool) -> None:
    source = {"kind": "inline", "text": SECRET}
    await client.call("context/load", {"name": "diary", "private": private, "source": source})


async def asked(client: Client, question: str, **more: object) -> Json:
    run = new_run(question, "diary", **more)
    await client.call("run/start", run)
    return await client.ended_run(run["run_id"])


WAYS: dict[str, tuple[str, Json]] = {
    "direct": ("How?", {"strategy": "direct"}),
    "batch": ("How?", {"strategy": "rlm"}),
    "child": ("Ask a child run: how?", {"strategy": "rlm"}),
    "map": ("How many turns?", {"strategy": "map"}),
    "last word": ("Peek: how?", {"strategy": "rlm", "limits": {"turns": 2}}),
    "by schema": ("How?", {"strategy": "direct", "schema": {"type": "object"}}),
    "auto": ("How does it open?", {}),
}


@pytest.fixture
async def daemon(closet: Closet, start_daemon: StartDaemon) -> Daemon:
    return await start_daemon()


@pytest.mark.parametrize("way", WAYS)
async def test_no_way_of_asking_shows_it_to_others(daemon: Daemon, closet: Closet, way: str) -> None:
    question, more = WAYS[way]
    async with daemon.connect() as client:
        await load_text(client, "open", "Nothing of interest.\n" * 20)
        shown = new_run("And this?", "open", strategy="direct")
        await client.call("run/start", shown)
        await client.ended_run(shown["run_id"])
        assert closet.cloud.seen or closet.proxy.seen, "what is open goes to others, or this test shows nothing"
        await loaded(client, private=True)
        await asked(client, question, **more)
    assert closet.leaked() == []
    assert closet.kept()
    if way == "child":
        assert any("How does it open?" in seen.prompt for seen in closet.mine.seen), "a child run asked too"


async def test_neither_do_cells_single_questions_and_measuring(daemon: Daemon, closet: Closet) -> None:
    async with daemon.connect() as client:
        await loaded(client, private=True)
        cell = {"run_id": str(uuid.uuid4()), "code": "print(llm_query(context[:900]))", "contexts": ["diary"]}
        assert CANARY in (await client.call("repl/execute", cell))["output"]
        await client.call("host/calibrate", {"name": "mine", "model": "model"})
    assert closet.leaked() == []
    assert closet.kept()


async def test_a_host_of_mine_that_fails_sends_nothing_elsewhere(daemon: Daemon, closet: Closet) -> None:
    """It breaks off, is overloaded, is down: what is asked again is asked there, or of nobody."""
    overloaded = Scripted("wait", status=503, headers=(("Retry-After", "1"),))
    faults = iter((Scripted("half", fault="cut", after=2), Scripted("no", status=500), overloaded))

    def failing(seen: Seen) -> str | Scripted:
        return next(faults, "It opens so.")

    closet.mine.mind("model", failing)
    async with daemon.connect() as client:
        await loaded(client, private=True)
        for _ in range(3):
            await asked(client, "How?", strategy="direct")
        await closet.mine.die()
        ended = await asked(client, "And now?", strategy="direct", limits={"waiting": 1})
        assert ended["outcome"] != "answered"
    assert closet.leaked() == []
    assert closet.kept()


async def test_what_a_killed_daemon_was_asking_is_asked_of_no_other_by_the_next(
    daemon: Daemon, closet: Closet, start_daemon: StartDaemon
) -> None:
    """It takes the run up before any host has said what it is."""
    closet.mine.mind("model", lambda _: Scripted("x", fault="hang"))
    run = new_run("How many turns?", "diary", strategy="map")
    async with daemon.connect() as client:
        await loaded(client, private=True)
        await client.call("run/start", run)
        await closet.mine.until(lambda: closet.mine.serving >= 1)
    await daemon.kill()
    closet.mine.mind("model", answering)
    again = await start_daemon()
    async with again.connect() as client:
        await client.call("run/attach", {"run_id": run["run_id"]})
        await client.ended_run(run["run_id"])
    assert closet.leaked() == []


@pytest.mark.parametrize("strategy", ["direct", "map", "rlm"])
async def test_a_flag_that_is_raised_in_the_middle_holds_from_then_on(
    daemon: Daemon, closet: Closet, strategy: str
) -> None:
    """What others hold is aborted; the run goes on at the host of one's own, and shows nothing more to others."""
    for fake in (closet.cloud, closet.proxy):
        fake.mind("model", lambda _: Scripted("partial", fault="hang", after=3))
    closet.mine.mind("afar-cloud", lambda _: Scripted("partial", fault="hang", after=3))
    async with daemon.connect() as client:
        await loaded(client, private=False)
        run = new_run("How?", "diary", strategy=strategy)
        await client.call("run/start", run)
        await closet.cloud.until(lambda: closet.cloud.held >= 1)
        await client.call("context/flags", {"name": "diary", "private": True})
        before = len(closet.leaked())
        await client.ended_run(run["run_id"])
        for fake in (closet.cloud, closet.proxy):
            await fake.until(lambda fake=fake: fake.held == 0)
    assert len(closet.leaked()) == before, "nothing was sent to others after the flag"
    assert closet.kept()
