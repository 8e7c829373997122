"""Before anything long somebody is asked: nothing is sent before the yes, and no kill loses question or answer."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import ConfirmSettings, ReplSettings, RoleSettings
from rlmd.engine import RunRecord, RunRequest
from rlmd.errors import Conflict, InvalidParams
from rlmd.events import AnyFact, Estimated
from tests.fakes.ollama import FakeOllama
from tests.house import Ear, House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
#: Some 14 pieces.
TEXT = "".join(f"Entry {n}: the lamp number {n} is lit.\n" for n in range(5000))
FEW = ConfirmSettings(sub_queries=5)
ALL = "```repl\nprint(len([one for one in llm_query_batched([f'piece {n}' for n in range(40)]) if one]))\n```"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        server.answer = lambda prompt: f"found: {prompt[:10]}"
        yield server


def house_of(folder: Path, fake: FakeOllama, confirm: ConfirmSettings = FEW, **fields: object) -> House:
    folder.mkdir(exist_ok=True)
    repl = ReplSettings(spare_workers=0)
    return House(folder, settings_for(("box", fake), roles=ROLES, repl=repl, confirm=confirm, **fields))


async def started(house: House, **fields: object) -> str:
    request = RunRequest(new_id(), "Which lamp?", ("lines",), **{"strategy": "map", **fields})
    return (await house.engine.start_run(request)).run_id


async def question(house: House, run_id: str) -> Estimated:
    """What the run asks, once it does."""
    asking = asyncio.Event()

    class Listening(Ear):
        def fact(self, fact: AnyFact) -> None:
            if house.engine.run(run_id).state == "asking":
                asking.set()

        def ended(self) -> None:
            asking.set()

    subscription = house.engine.subscribe(run_id, 1, Listening())
    await asking.wait()
    subscription.close()
    found = house.engine.run(run_id).asks
    assert found is not None, "the run ended without a question"
    return found


async def test_nothing_is_sent_before_the_yes(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", TEXT)
        run_id = await started(house)
        asked = await question(house, run_id)
        record = house.engine.run(run_id)
        assert (record.state, record.active, record.asks) == ("asking", True, asked)
        assert asked.estimate.requests > 5
        assert asked.estimate.chars > len(TEXT)
        assert "more than 5 sub-queries" in asked.why
        assert asked.alternatives == ("rlm", "quote")
        assert fake.seen == []
        assert (await house.engine.runs("asking")) == [record]
        answered = await house.engine.confirm(run_id, accepted=True)
        assert (answered.state, answered.asks) == ("running", None)
        record = await house.engine.wait(run_id)
        assert record.outcome == "answered"
        assert record.sub_queries == asked.estimate.requests + 1  # and one that combines


async def test_a_no_ends_it_without_a_request(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", TEXT)
        run_id = await started(house)
        await question(house, run_id)
        await house.engine.confirm(run_id, accepted=False)
        record = await house.engine.wait(run_id)
        assert (record.state, record.outcome) == ("ended", "none")
        assert "it was refused" in (record.why or "")
        assert record.receipt.limit == "confirmation"
        assert fake.seen == []


async def test_another_way_may_be_chosen(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", TEXT)
        run_id = await started(house)
        await question(house, run_id)
        with pytest.raises(InvalidParams, match="direct cannot be chosen"):
            await house.engine.confirm(run_id, accepted=True, strategy="direct")
        await house.engine.confirm(run_id, accepted=True, strategy="quote")
        record = await house.engine.wait(run_id)
        assert (record.outcome, record.strategy) == ("answered", "quote")
        assert record.receipt.limit is None
        assert fake.seen == []


async def test_the_request_may_say_it_itself(tmp_path: Path, fake: FakeOllama) -> None:
    """Where nobody can be asked it ends with the reason; with a yes in advance nobody is."""
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", TEXT)
        record = await house.ask("Which lamp?", "lines", strategy="map", confirm="refuse")
        assert record.outcome == "none"
        assert "nobody is to be asked" in (record.why or "")
        assert fake.seen == []
        record = await house.ask("Which lamp?", "lines", strategy="map", confirm="accept")
        assert record.outcome == "answered"
        assert not [fact for fact in await house.facts(record) if fact.type == "estimated" and fact.asks]


async def test_what_the_cache_holds_is_not_asked_about(tmp_path: Path, fake: FakeOllama) -> None:
    """The same question again, and again after a line was inserted: only what is new would be sent."""
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", TEXT)
        await house.pool._hosts.named("box").asked.wait()  # until then keys name the host, not its model's digest
        await house.ask("Which lamp?", "lines", strategy="map", confirm="accept")
        record = await house.ask("Which lamp?", "lines", strategy="map")
        assert (record.outcome, record.receipt.sub_queries) == ("answered", record.receipt.sub_queries_cached)
        middle = len(TEXT) // 2
        await house.load("lines", TEXT[:middle] + "One line more.\n" + TEXT[middle:])
        record = await house.ask("Which lamp?", "lines", strategy="map")
        assert record.outcome == "answered"
        assert 0 < record.receipt.sub_queries - record.receipt.sub_queries_cached < 5


async def test_time_is_told_once_speeds_are_known(tmp_path: Path, fake: FakeOllama) -> None:
    confirm = ConfirmSettings(seconds=1e-6)
    async with house_of(tmp_path, fake, confirm) as house:
        await house.load("lines", TEXT)
        await house.ask("Which one?", "lines", strategy="map", confirm="accept")
        run_id = await started(house)
        asked = await question(house, run_id)
        assert asked.estimate.seconds is not None
        assert asked.estimate.seconds > 0
        assert re.search(r"about \d+ s: more than 0 s in all", asked.why)
        await house.engine.confirm(run_id, accepted=False)


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_cell_that_asks_much_is_asked_about(tmp_path: Path, fake: FakeOllama, accepted: bool) -> None:
    """In the middle of a run of turns; a no concludes it with what it has found."""
    fake.script("root", [ALL, "FINAL(done)"] if accepted else [ALL, "FINAL(what was found)"])
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", TEXT)
        run_id = await started(house, strategy="rlm")
        asked = await question(house, run_id)
        assert (asked.what, asked.cell, asked.estimate.requests) == ("sub_queries", 1, 40)
        assert len(fake.seen) == 1
        await house.engine.confirm(run_id, accepted=accepted)
        record = await house.engine.wait(run_id)
        assert record.outcome == ("answered" if accepted else "partial")
        assert len(fake.prompts("sub")) == (40 if accepted else 0)


async def test_a_child_asks_through_its_parent(tmp_path: Path, fake: FakeOllama) -> None:
    child = "```repl\nprint(rlm_query('Which of them?'))\n```"

    def told(prompt: str) -> str:
        if "Which of them?" in prompt:
            return "FINAL(the third)" if "[output of cell" in prompt else ALL
        if "Turn 1 of" in prompt:
            return child
        return "FINAL(done)" if "Turn" in prompt else "found"

    fake.answer = told
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", TEXT)
        run_id = await started(house, strategy="rlm")
        asked = await question(house, run_id)
        assert asked.run_id == run_id
        assert asked.estimate.requests == 40
        children = [fact.child for fact in await house.engine.facts(run_id) if fact.type == "child_started"]
        with pytest.raises(Conflict, match="is part of run"):
            await house.engine.confirm(children[0], accepted=True)
        await house.engine.confirm(run_id, accepted=True)
        record = await house.engine.wait(run_id)
        assert record.outcome == "answered"
        assert len(fake.prompts("sub")) == 40


async def test_time_stands_still_while_it_is_asked(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", TEXT)
        run_id = await started(house)
        await question(house, run_id)
        run = house.engine._going.of(run_id).run
        first = run.purse.seconds_left
        await house.ask("Which lamp?", "lines", strategy="quote")  # takes its time
        assert run.purse.seconds_left == first
        assert run.deadline.when() is None
        await house.engine.confirm(run_id, accepted=True)
        assert run.purse.seconds_left <= first
        assert (await house.engine.wait(run_id)).outcome == "answered"
        assert run.purse.seconds_left < first


async def test_only_what_is_asked_can_be_answered(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", "short")
        record = await house.ask("Which lamp?", "lines", strategy="map")
        with pytest.raises(Conflict, match="does not ask"):
            await house.engine.confirm(record.run_id, accepted=True)


# ── over daemons ────────────────────────────────────────────────────────────────────────────────────────────────


async def confirmed_run(folder: Path, fake: FakeOllama, accepted: bool) -> tuple[RunRecord, list[AnyFact]]:
    async with house_of(folder, fake) as house:
        await house.load("lines", TEXT)
        run_id = await started(house)
        await question(house, run_id)
        await house.engine.confirm(run_id, accepted=accepted)
        record = await house.engine.wait(run_id)
        return record, await house.facts(record)


@pytest.mark.parametrize("accepted", [True, False])
async def test_killed_around_the_question(tmp_path: Path, fake: FakeOllama, accepted: bool) -> None:
    """Killed after any fact from the question on: it is asked again if it was not answered, else never."""
    record, facts = await confirmed_run(tmp_path / "whole", fake, accepted)
    asked = next(fact.seq for fact in facts if fact.type == "estimated" and fact.asks)
    for number in {asked - 1, asked, asked + 1, asked + 2, asked + 4, len(facts) - 1}:
        copy = tmp_path / f"after-{number}"
        shutil.copytree(tmp_path / "whole" / "state", copy / "state")
        journal = copy / "state" / "runs" / record.run_id / "journal.jsonl"
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:number]))
        before = len(fake.seen)
        async with house_of(copy, fake) as house:
            if number <= asked:
                await question(house, record.run_id)
                assert len(fake.seen) == before
                await house.engine.confirm(record.run_id, accepted=accepted)
            again = await house.engine.wait(record.run_id)
            where = f"killed after fact {number}, {facts[number - 1].type}"
            assert (again.outcome, again.why) == (record.outcome, record.why) or not accepted, where
            assert again.outcome == record.outcome, where
            told = await house.facts(again)
            assert told[:number] == facts[:number], where
            questions = sum(fact.type == "estimated" and fact.asks for fact in told)
            assert questions == (2 if number == asked else 1), where
        shutil.rmtree(copy)


async def test_killed_after_another_way_than_one_completion_was_chosen(tmp_path: Path, fake: FakeOllama) -> None:
    """The turns in the journal are those of the way chosen, not the reply of the one completion."""
    turns = ("```repl\nx = 41\nprint(x)\n```", "```repl\nx += 1\nprint(x)\n```", "FINAL_VAR(x)")

    def told(prompt: str) -> str:
        found = re.findall(r"Turn (\d+) of", prompt)
        return turns[int(found[-1]) - 1] if found else "read at once"

    fake.answer = told
    ask = ConfirmSettings(sub_queries=0)
    async with house_of(tmp_path / "whole", fake, ask) as house:
        await house.load("lines", TEXT[:4000])
        run_id = await started(house, strategy="direct")
        await question(house, run_id)
        await house.engine.confirm(run_id, accepted=True, strategy="rlm")
        record = await house.engine.wait(run_id)
        assert await house.answer(record) == "42"
        facts = await house.facts(record)
    for kind in ("strategy_chosen", "root_replied", "cell_ended"):
        number = max(fact.seq for fact in facts if fact.type == kind)
        copy = tmp_path / kind
        shutil.copytree(tmp_path / "whole" / "state", copy / "state")
        journal = copy / "state" / "runs" / run_id / "journal.jsonl"
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:number]))
        async with house_of(copy, fake, ask) as house:
            again = await house.engine.wait(run_id)
            assert (again.outcome, await house.answer(again)) == ("answered", "42"), kind


async def test_a_question_outlives_daemons_that_stop(tmp_path: Path, fake: FakeOllama) -> None:
    """As often as they do: more often than a run is taken up in vain."""
    run_id = ""
    for _ in range(5):
        async with house_of(tmp_path, fake) as house:
            if not run_id:
                await house.load("lines", TEXT)
                run_id = await started(house)
            await question(house, run_id)
            assert house.engine.run(run_id).state == "asking"
    assert fake.seen == []
    async with house_of(tmp_path, fake) as house:
        await question(house, run_id)
        await house.engine.confirm(run_id, accepted=True)
        assert (await house.engine.wait(run_id)).outcome == "answered"
