"""How runs end when several things happen at once: one last fact, always, and nothing after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import ReplSettings, RoleSettings
from rlmd.engine import RunRequest
from rlmd.errors import Conflict
from rlmd.events import RunEnded, RunInterrupted
from tests.fakes.ollama import FakeOllama, Scripted
from tests.house import House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, fake: FakeOllama) -> AsyncIterator[House]:
    async with House(tmp_path, settings_for(("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0))) as made:
        await made.load("note", "The lamp is lit.\n" * 100)
        yield made


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


async def test_cancelled_by_several_at_once(house: House, fake: FakeOllama) -> None:
    """A second cancel must not hit the run while it writes how it ended."""
    fake.script("root", [Scripted("x", latency=60)])
    request = RunRequest(run_id=new_id(), question="?", contexts=("note",), strategy="rlm")
    await house.engine.start_run(request)
    await fake.until(lambda: fake.serving == 1)
    records = await asyncio.gather(*(house.engine.cancel(request.run_id, f"{n}") for n in range(4)))
    assert [record.state for record in records] == ["cancelled"] * 4
    kinds = [fact.type for fact in await house.facts(records[0])]
    assert kinds[-1] == "run_ended"
    assert kinds.count("cancel_requested") == 1


async def test_a_journal_that_cannot_be_read_is_not_written_on(house: House) -> None:
    request = RunRequest(run_id=new_id(), question="lamp?", contexts=("note",), strategy="quote")
    journal = house.folder / "state" / "runs" / request.run_id / "journal.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b'{"half a fa')
    with pytest.raises(Conflict):
        await house.engine.start_run(request)
    assert journal.read_bytes() == b'{"half a fa'
    journal.write_bytes(b"")  # killed between making the file and the first fact: nobody was told of that run
    await house.engine.start_run(request)
    assert (await house.engine.wait(request.run_id)).outcome == "answered"


@pytest.mark.parametrize("steps", range(8))
async def test_stopped_at_any_step_after_a_cancel(house: House, fake: FakeOllama, steps: int) -> None:
    """The daemon stops while a run that was cancelled ends: it ends as cancelled, once."""
    fake.script("root", [Scripted("x", latency=60)])
    request = RunRequest(run_id=new_id(), question="?", contexts=("note",), strategy="rlm")
    await house.engine.start_run(request)
    await fake.until(lambda: fake.serving == 1)
    cancelling = asyncio.create_task(house.engine.cancel(request.run_id, "asked"))
    for _ in range(steps):
        await asyncio.sleep(0)
    await house.engine.drain()
    record = await cancelling
    facts = await house.facts(record)
    assert sum(isinstance(fact, RunEnded | RunInterrupted) for fact in facts) == 1
    assert isinstance(facts[-1], RunEnded | RunInterrupted)
    assert record.state == ("cancelled" if steps else "interrupted")


async def test_stopped_while_the_session_is_given_back(
    house: House, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has its last fact has ended, whatever comes while its worker is put away."""
    from rlmd.engine.sessions import Session

    putting_away, go_on = asyncio.Event(), asyncio.Event()
    end_worker = Session.end_worker

    async def slow(session: Session) -> None:
        if session.repl is not None:
            putting_away.set()
            await go_on.wait()
        await end_worker(session)

    monkeypatch.setattr(Session, "end_worker", slow)
    fake.script("root", [cell("x = 7"), "FINAL_VAR(x)"])
    asking = asyncio.create_task(house.ask("?", "note", strategy="rlm"))
    await putting_away.wait()
    draining = asyncio.create_task(house.engine.drain())
    await asyncio.sleep(0)
    go_on.set()
    await draining
    record = await asking
    assert (record.state, record.outcome) == ("ended", "answered")
    assert isinstance((await house.facts(record))[-1], RunEnded)
