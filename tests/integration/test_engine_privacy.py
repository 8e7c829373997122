"""What is private by now is hidden and stays at home, whenever and by whatever way it became so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import HostSettings, ModelSettings, ReplSettings, RoleSettings, Settings
from rlmd.engine import ExecuteRequest, RunRequest
from rlmd.errors import NotFound
from tests.fakes.ollama import FakeModel, FakeOllama, Scripted
from tests.house import Ear, House, new_id

SECRET = "The safe opens with 4711.\n"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


@pytest.fixture
async def cloud() -> AsyncIterator[FakeOllama]:
    async with FakeOllama([FakeModel("big")], slots=4) as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, fake: FakeOllama, cloud: FakeOllama) -> AsyncIterator[House]:
    windows = {name: ModelSettings(window=8192) for name in ("root", "sub", "big")}
    settings = Settings(
        hosts={
            "mine": HostSettings(
                url=fake.url, provider="ollama", slots=4, models={name: windows[name] for name in ("root", "sub")}
            ),
            "cloud": HostSettings(
                url=cloud.url, provider="ollama", slots=4, trust="cloud", models={"big": windows["big"]}
            ),
        },
        roles=RoleSettings(root=("mine/root",), sub=("cloud/big", "mine/sub")),
        repl=ReplSettings(spare_workers=0),
    )
    async with House(tmp_path, settings) as made:
        yield made


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


def asking(context: str, **fields: object) -> RunRequest:
    return RunRequest(run_id=new_id(), question="?", contexts=(context,), strategy="rlm", **fields)


async def test_a_run_that_waits_for_a_session_with_private_text(house: House, fake: FakeOllama) -> None:
    """It reads a public context, but the session's names hold what the run before it read."""
    await house.load("diary", SECRET, private=True)
    await house.load("open", "public\n")
    opening = [Scripted(cell("x = 1"), latency=0.2), "FINAL_VAR(x)", cell("x = context"), "FINAL_VAR(x)"]
    fake.script("root", [*opening, cell("print(1)"), "FINAL_VAR(x)"])
    await house.engine.start_run(asking("open", session="s"))
    first, second = asking("diary", session="s"), asking("open", session="s")
    await house.engine.start_run(first)
    await house.engine.start_run(second)
    assert await house.engine.sessions(egress=True) == []
    record = await house.engine.wait(second.run_id)
    assert await house.answer(record) == SECRET.strip()
    assert record.private
    assert len(await house.engine.runs(egress=True)) == 1
    with pytest.raises(NotFound):
        house.engine.run(second.run_id, egress=True)


async def test_what_is_marked_private_later_is_hidden_with_all_that_tells_of_it(house: House, fake: FakeOllama) -> None:
    await house.load("note", SECRET)
    await house.load("open", "public\n")
    fake.script("root", [cell("x = context"), "FINAL_VAR(x)", cell("print(1)"), "FINAL_VAR(x)"])
    told = asking("note", session="s")
    await house.engine.start_run(told)
    await house.engine.wait(told.run_id)
    after = asking("open", session="s")
    await house.engine.start_run(after)
    await house.engine.wait(after.run_id)
    ran = ExecuteRequest(run_id=new_id(), code="print(x)", session="s")
    assert SECRET.strip() in (await house.engine.execute(ran, egress=True)).output
    assert len(await house.engine.runs(egress=True)) == 3

    await house.load("note", SECRET, private=True)
    assert (await house.engine.runs(egress=True)) == []
    assert await house.engine.sessions(egress=True) == []
    for run_id in (told.run_id, after.run_id, ran.run_id):
        with pytest.raises(NotFound):
            await house.engine.facts(run_id, egress=True)
    with pytest.raises(NotFound):
        await house.engine.drop_session("s", egress=True)
    other = ExecuteRequest(run_id=new_id(), code="print(x)", session="s")
    assert not (await house.engine.execute(other, egress=True)).ok, "the session of that name is another one"
    hidden = [record for record in (await house.engine.runs()) if record.run_id != other.run_id]
    assert len(hidden) == 3
    assert all(record.private for record in hidden)


async def test_the_mark_counts_for_a_run_that_is_going_on(house: House, fake: FakeOllama, cloud: FakeOllama) -> None:
    """What it asks from then on goes to hosts of one's own alone."""
    await house.load("note", SECRET)

    again = cell("print(llm_query('again ' + context))")
    fake.script(
        "root", [cell("print(llm_query('first ' + context))"), Scripted(cell("pass"), latency=0.5), again, "FINAL(x)"]
    )
    run = asking("note", sub=("cloud/big",))
    ear = Ear()
    await house.engine.start_run(run, egress=True)
    house.engine.subscribe(run.run_id, 1, ear, egress=True)
    waiting = asyncio.create_task(house.engine.wait(run.run_id, egress=True))
    await cloud.until(lambda: cloud.outcomes("answered") == 1)
    await house.load("note", SECRET, private=True)
    record = await house.engine.wait(run.run_id)
    assert record.outcome == "answered"
    assert [prompt.split()[0] for prompt in cloud.prompts()] == ["first"]
    failed = [fact for fact in await house.facts(record) if fact.type == "subquery_failed"]
    assert [fact.error.kind for fact in failed] == ["no_host"]
    told = {fact.type for fact in ear.facts}
    assert "run_started" in told
    assert "subquery_failed" not in told, "a client that may leak was told on after the mark"
    with pytest.raises(NotFound):
        await waiting
