"""A run that a limit ended goes on from there: what was spent stays spent, and no answer is asked for twice."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rlmd.config import (
    BudgetSettings,
    ConfirmSettings,
    HostSettings,
    ModelSettings,
    PriceSettings,
    ReplSettings,
    RoleSettings,
    Settings,
)
from rlmd.engine import ContinueRequest, LimitRequest, OpenRequest, RunRecord, RunRequest
from rlmd.errors import Conflict, Draining, InvalidParams, NotFound
from rlmd.events import AnyFact, More
from tests.fakes.ollama import FakeOllama, Scripted, Seen
from tests.house import Ear, House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
LINES = "".join(f"Entry {n}: the lamp number {n} is lit.\n" for n in range(1500))


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


def by_turn(*turns: str) -> Callable[[str], str]:
    """What the models say, of the prompt alone: a root by the turn that it is told."""

    def told(prompt: str) -> str:
        found = re.findall(r"Turn (\d+) of", prompt)
        if found and "You can run no more code" not in prompt:
            return turns[int(found[-1]) - 1]
        return "a last word" if found or "You can run no more code" in prompt else f"reply to {prompt[:12]}"

    return told


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


def house_of(folder: Path, fake: FakeOllama, **fields: object) -> House:
    folder.mkdir(exist_ok=True)
    return House(folder, settings_for(("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0), **fields))


@pytest.fixture
async def house(tmp_path: Path, fake: FakeOllama) -> AsyncIterator[House]:
    async with house_of(tmp_path, fake) as made:
        await made.load("lines", LINES)
        yield made


async def go_on(house: House, record: RunRecord, **more: float) -> RunRecord:
    request = ContinueRequest(record.run_id, More.model_validate(more), record.last_seq)
    going = await house.engine.continue_run(request)
    assert (going.state, going.outcome, going.answer) == ("running", None, None)
    return await house.engine.wait(record.run_id)


def heard(seen: Seen) -> str:
    """All that a model was told in one request."""
    return "\n".join(message["content"] for message in seen.messages)


def of_type(facts: list[AnyFact], kind: str) -> list[AnyFact]:
    return [fact for fact in facts if fact.type == kind]


FIVE = (
    cell("import random\nr = [random.random() for _ in range(3)]\nwords = list(set(context.split()))[:5]"),
    cell("replies = llm_query_batched([f'piece {n % 5}' for n in range(6)])\nanswer['content'] = 'so far'"),
    cell("total = len(replies) + int(r[0] * 1e6)"),
    cell("more = llm_query('the last')\nprint(total)"),
    cell("final = f'{total} {words} {more}'") + "\nFINAL_VAR(final)",
)


# ── each limit ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_after_the_turns_it_goes_on_with_all_that_it_had(house: House, fake: FakeOllama) -> None:
    """Names are replayed, no reply is asked again, and answer and receipt are of the whole."""
    fake.answer = by_turn(*FIVE)
    record = await house.ask("How many?", "lines", strategy="rlm", limits=LimitRequest(turns=3))
    assert (record.outcome, record.receipt.limit, await house.answer(record)) == ("partial", "turns", "so far")
    before, sent = await house.facts(record), len(fake.seen)
    again = await go_on(house, record)
    assert (again.outcome, again.receipt.limit) == ("answered", None)
    facts = await house.facts(again)
    assert facts[: len(before)] == before
    assert facts[len(before)].type == "run_continued"
    assert (facts[len(before)].limit, facts[len(before)].limits.turns) == ("turns", 6)
    assert len(fake.seen) - sent == 3  # two turns and one sub-query
    assert not [one for one in of_type(facts, "session_started") if one.why]
    assert (again.receipt.turns, again.receipt.sub_queries) == (5, 7)
    assert (await house.answer(again)).startswith(str(6 + int(float(_printed(facts, 4)) - 6)))
    assert "had reached a limit and goes on" in heard(fake.seen[-1])


def _printed(facts: list[AnyFact], number: int) -> str:
    return next(fact.output.text for fact in of_type(facts, "cell_ended") if fact.cell == number).strip()


async def test_a_last_word_is_undone_but_paid(house: House, fake: FakeOllama) -> None:
    fake.answer = by_turn(cell("print(context[:9])"), cell("x = 7\nprint(x)"), cell("y = x + 1") + "\nFINAL_VAR(y)")
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(turns=3))
    assert (await house.answer(record), record.receipt.turns) == ("a last word", 3)
    again = await go_on(house, record, turns=1)
    assert (again.outcome, await house.answer(again)) == ("answered", "8")
    assert again.receipt.turns == 4  # the last word too
    assert sum(use.calls for use in again.receipt.models) == 4
    assert "a last word" not in heard(fake.seen[-1])


async def test_turn_by_turn_it_never_takes_more_than_it_was_given(house: House, fake: FakeOllama) -> None:
    """With one more turn a block is run and no last word asked; with two more there is one again."""
    fake.answer = by_turn(*(cell(f"print('look', {n})") for n in range(20)))
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(turns=3))
    given, words = 3, ["a last word"]
    for more, word in ((1, None), (1, None), (2, "a last word"), (3, "a last word")):
        record = await go_on(house, record, turns=more)
        given, words = given + more, [*words, word or "No answer was found. The limit"]
        assert len(fake.seen) == record.receipt.turns == given
        assert (await house.answer(record)).startswith(words[-1])


async def test_a_last_word_of_an_older_release_came_out_of_no_purse(tmp_path: Path, fake: FakeOllama) -> None:
    """Continued, the run has the turns that it was given."""
    fake.answer = by_turn(cell("print(1)"), cell("x = 7\nprint(x)"), cell("y = x + 1") + "\nFINAL_VAR(y)")
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(turns=3))
    journal = tmp_path / "state" / "runs" / record.run_id / "journal.jsonl"
    lines = journal.read_text().replace(',"last":true', "").replace(',"last":false', "")
    journal.write_text(lines.replace('"limits":{"turns":3,', '"limits":{"turns":2,', 1))
    async with house_of(tmp_path, fake) as house:
        again = await go_on(house, record, turns=1)
        assert (again.outcome, await house.answer(again)) == ("answered", "8")


async def test_map_asks_only_the_pieces_that_were_refused(house: House, fake: FakeOllama) -> None:
    """Those that came after the refusal too: they were answered, and the cell that failed is run anew."""
    record = await house.ask("Which?", "lines", strategy="map", limits=LimitRequest(sub_queries=4))
    assert record.receipt.limit == "sub_queries"
    assert record.receipt.pieces_failed > 0
    first = {seen.prompt for seen in fake.seen}
    again = await go_on(house, record, sub_queries=50)
    assert (again.outcome, again.receipt.pieces_failed, again.receipt.limit) == ("answered", 0, None)
    assert again.receipt.chars_read == len(LINES)
    later = [seen.prompt for seen in fake.seen[len(first) :]]
    assert not first & set(later)
    assert again.receipt.sub_queries == len(fake.seen)


async def test_a_cell_that_the_time_stopped_is_run_once_more_from_clean_names(house: House, fake: FakeOllama) -> None:
    """Also in a session whose worker was kept: what the stopped cell did to its names is not done twice."""
    told = by_turn(cell("n = 0"), cell("n += 1\nprint(llm_query('slow'))"), "FINAL_VAR(n)")
    for session in (None, "work"):
        slow = asyncio.Event()
        fake.answer = lambda prompt, slow=slow: (
            Scripted("late", latency=0 if slow.is_set() else 60) if prompt == "slow" else told(prompt)
        )
        fields = {"session": session, "fresh": True}
        record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(seconds=3), **fields)
        assert (record.outcome, record.receipt.limit) == ("partial", "seconds")
        slow.set()
        again = await go_on(house, record, seconds=600)
        assert (again.outcome, await house.answer(again)) == ("answered", "1"), session


async def test_errors_and_repeats_are_forgiven_as_often_as_they_were(house: House, fake: FakeOllama) -> None:
    fake.answer = by_turn("I wonder.", "I ponder.", cell("v = 1") + "\nFINAL_VAR(v)")
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(consecutive_errors=2, sub_queries=0))
    assert record.receipt.limit == "consecutive_errors"
    again = await go_on(house, record)
    assert (again.outcome, await house.answer(again)) == ("answered", "1")
    checking = [cell("print('the very same output')")] * 6
    fake.answer = by_turn(*checking, cell("v = 2") + "\nFINAL_VAR(v)")
    record = await house.ask("And?", "lines", strategy="rlm")
    assert record.receipt.limit == "repeats"
    again = await go_on(house, record)
    assert (again.outcome, await house.answer(again)) == ("answered", "2")


async def test_an_answer_given_without_refused_pieces_is_made_with_them(house: House, fake: FakeOllama) -> None:
    """The turns after the refusal are done anew; they and what they asked stay spent."""
    batch = "r = llm_query_batched([f'q{n}' for n in range(8)])\nn = len(ok(r))\nprint(n)"
    fake.answer = by_turn(cell(batch), cell("m = n * 10\nprint(m)"), cell("k = m + 1") + "\nFINAL_VAR(k)")
    limits = LimitRequest(sub_queries=5, turns=8)
    record = await house.ask("?", "lines", strategy="rlm", limits=limits)
    assert (record.outcome, record.receipt.limit, await house.answer(record)) == ("answered", "sub_queries", "51")
    again = await go_on(house, record, sub_queries=3)
    assert (again.outcome, await house.answer(again)) == ("answered", "81")
    assert len(fake.prompts("sub")) == 8
    assert again.receipt.turns == 5  # one that holds, two that did not, two anew
    assert "Turn 2 of 6" in heard(fake.seen[-2])  # of eight turns three are spent


async def test_what_was_taken_back_stays_spent(house: House, fake: FakeOllama) -> None:
    """Of four turns three were taken, two of them in vain: one is left, and it says so."""
    batch = "r = llm_query_batched([f'q{n}' for n in range(8)])\nn = len(ok(r))\nanswer['content'] = str(n)"
    fake.answer = by_turn(cell(batch), cell("m = n * 10\nprint(m)"), cell("k = m + 1") + "\nFINAL_VAR(k)")
    limits = LimitRequest(sub_queries=5, turns=4)
    record = await house.ask("?", "lines", strategy="rlm", limits=limits)
    again = await go_on(house, record, sub_queries=3)
    assert (again.outcome, again.receipt.limit, await house.answer(again)) == ("partial", "turns", "8")
    assert "Turn 2 of 2" in heard(fake.seen[-1])
    once_more = await go_on(house, again, turns=1)
    assert (once_more.outcome, await house.answer(once_more)) == ("answered", "81")


async def test_a_no_is_taken_back(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, fake, confirm=ConfirmSettings(sub_queries=1)) as house:
        await house.load("lines", LINES)
        record = await house.ask("Which?", "lines", strategy="map", confirm="refuse")
        assert (record.outcome, record.receipt.limit) == ("none", "confirmation")
        again = await go_on(house, record)
        assert again.outcome == "answered"
        asking = await house.engine.start_run(RunRequest(new_id(), "Who?", ("lines",), strategy="map"))
        while house.engine.run(asking.run_id).asks is None:
            await asyncio.sleep(0.01)
        await house.engine.confirm(asking.run_id, accepted=False)
        record = await house.engine.wait(asking.run_id)
        again = await go_on(house, record)
        assert again.outcome == "answered"


async def test_money_that_is_spent_is_a_limit_and_more_of_it_goes_on(tmp_path: Path, fake: FakeOllama) -> None:
    fake.answer = lambda prompt: "found"
    price = PriceSettings(prompt=1000.0, completion=1000.0)
    models = {"root": ModelSettings(price=price), "sub": ModelSettings(price=price, window=4096, max_tokens=64)}
    hosts = {"box": HostSettings(url=fake.url, provider="ollama", trust="cloud", slots=4, models=models)}
    settings = Settings(
        hosts=hosts, roles=ROLES, repl=ReplSettings(spare_workers=0), budget=BudgetSettings(run=8.0, overflow_after=0)
    )
    async with House(tmp_path, settings) as house:
        await house.load("lines", LINES)
        while house.pool.hosts()[0].state != "ok":
            await asyncio.sleep(0.01)
        record = await house.ask("Which?", "lines", strategy="map", confirm="accept")
        assert (record.receipt.limit, record.receipt.money < 8.0) == ("money", True)
        sent = len(fake.seen)
        assert sent > 0
        with pytest.raises(InvalidParams, match="money"):
            await house.engine.continue_run(ContinueRequest(record.run_id, More(turns=3)))
        again = await go_on(house, record, money=1000.0)
        assert (again.outcome, again.receipt.limit, again.receipt.pieces_failed) == ("answered", None, 0)
        assert len({seen.prompt for seen in fake.seen}) == len(fake.seen)
        assert again.receipt.money > 8.0


async def test_a_runs_own_money_holds_over_a_restart_and_below_the_budget(tmp_path: Path, fake: FakeOllama) -> None:
    """Without any budget, with a lower one and with a higher one the least counts; also when the run is taken up."""
    fake.answer = lambda prompt: "found"
    price = PriceSettings(prompt=1000.0, completion=1000.0)
    models = {"root": ModelSettings(price=price), "sub": ModelSettings(price=price, window=4096, max_tokens=64)}
    hosts = {"box": HostSettings(url=fake.url, provider="ollama", trust="cloud", slots=4, models=models)}
    for number, (budget, own, most) in enumerate(((None, 8.0, 8.0), (5.0, 8.0, 5.0), (80.0, 8.0, 8.0))):
        settings = Settings(
            hosts=hosts,
            roles=ROLES,
            repl=ReplSettings(spare_workers=0),
            budget=BudgetSettings(run=budget, overflow_after=0),
        )
        folder = tmp_path / str(number)
        folder.mkdir()
        request = RunRequest(
            new_id(), "Which?", ("lines",), strategy="map", confirm="accept", limits=LimitRequest(money=own)
        )  # fmt: skip
        sent = len(fake.seen)
        async with House(folder, settings) as house:
            await house.load("lines", LINES)
            while house.pool.hosts()[0].state != "ok":
                await asyncio.sleep(0.01)
            await house.engine.start_run(request)
            while len(fake.seen) == sent:
                await asyncio.sleep(0.001)
        async with House(folder, settings) as house:
            record = await house.engine.wait(request.run_id)
            assert (record.outcome, record.receipt.limit) == ("partial", "money")
            assert 0 < record.receipt.money <= most
            opened = await house.engine.start_run(OpenRequest(new_id(), "someone").as_run())
            with pytest.raises(InvalidParams, match="spends that run's money"):
                await house.engine.start_run(replace(request, run_id=new_id(), within=opened.run_id))


async def test_a_child_that_the_limit_stopped_goes_on_with_its_parent(house: House, fake: FakeOllama) -> None:
    """Its journal goes on, and what it had been told is not asked again."""
    child = (cell("print(context[:5])"), cell("a = llm_query('in the child')\nprint(a)"), "FINAL_VAR(a)")
    parent = (cell("got = rlm_query('below?')\nprint(repr(got))"), "FINAL_VAR(got)")
    slow = asyncio.Event()

    def told(seen: Seen) -> str:
        return by_turn(*(child if "Question: below?" in heard(seen) else parent))(seen.prompt)

    fake.script("root", [told] * 20)
    fake.answer = lambda prompt: Scripted("deep", latency=0 if slow.is_set() else 60)
    await house.load("long", LINES * 4)  # too long for the child to be answered directly or by map
    record = await house.ask("above?", "long", strategy="rlm", limits=LimitRequest(seconds=4, depth=1))
    assert record.receipt.limit == "seconds", await house.facts(record)
    slow.set()
    again = await go_on(house, record, seconds=600)
    assert (again.outcome, await house.answer(again)) == ("answered", "deep")
    facts = await house.facts(again)
    begun = {fact.child for fact in of_type(facts, "child_started")}
    assert len(begun) == 1
    kinds = [fact.type for fact in await house.engine.facts(begun.pop())]
    assert (kinds.count("run_started"), kinds.count("run_continued"), kinds[-1]) == (1, 1, "run_ended")


# ── sessions, privacy ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_goes_on_with_it(house: House, fake: FakeOllama) -> None:
    """Its worker is kept, its names are there, and the next question sees what the continued run made."""
    fake.answer = by_turn(cell("a = object()\nprint(1)"), cell("b = repr(a)\nprint(b)"), "FINAL_VAR(b)")
    record = await house.ask("?", "lines", strategy="rlm", session="work", limits=LimitRequest(turns=1))
    again = await go_on(house, record, turns=5)
    assert again.outcome == "answered"
    assert len(of_type(await house.facts(again), "session_started")) == 1
    detail = await house.engine.session("work")
    assert [question for question, _ in detail.exchanges] == ["?"]
    fake.answer = by_turn(cell("c = b") + "\nFINAL_VAR(c)")
    after = await house.ask("And now?", "lines", strategy="rlm", session="work")
    assert await house.answer(after) == await house.answer(again)
    with pytest.raises(Conflict, match="went on without run"):
        await house.engine.continue_run(ContinueRequest(record.run_id))


async def test_an_ephemeral_run_goes_on_in_memory(tmp_path: Path, fake: FakeOllama) -> None:
    fake.answer = by_turn(cell("x = 7\nprint(x)"), "FINAL_VAR(x)")
    async with house_of(tmp_path, fake) as house:
        await house.contexts.load(_inline(LINES), name="lines", ephemeral=True)
        record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(turns=1))
        again = await go_on(house, record)
        assert (again.outcome, again.ephemeral, await house.answer(again)) == ("answered", True, "7")
        assert not list((tmp_path / "state" / "runs").glob("*/journal.jsonl"))
    async with house_of(tmp_path, fake) as house:
        with pytest.raises(NotFound):
            await house.engine.continue_run(ContinueRequest(record.run_id))


def _inline(text: str) -> object:
    from rlmd.contexts import InlineSource

    return InlineSource(text=text, origin=None)


async def test_a_client_whose_reading_leaves_the_machine_continues_nothing_private(
    house: House, fake: FakeOllama
) -> None:
    await house.load("secret", LINES, private=True)
    fake.answer = by_turn(cell("x = 7\nprint(x)"), "FINAL_VAR(x)")
    record = await house.ask("?", "secret", strategy="rlm", limits=LimitRequest(turns=1))
    with pytest.raises(NotFound):
        await house.engine.continue_run(ContinueRequest(record.run_id), egress=True)


# ── what cannot be continued ────────────────────────────────────────────────────────────────────────────────


async def test_what_cannot_go_on_says_why(house: House, fake: FakeOllama) -> None:
    fake.answer = by_turn(cell("x = 7\nprint(x)"), "FINAL_VAR(x)")

    async def refused(record: RunRecord, why: str, error: type[Exception] = Conflict, **more: float) -> None:
        before = await house.facts(record)
        with pytest.raises(error, match=why):
            await house.engine.continue_run(ContinueRequest(record.run_id, More.model_validate(more)))
        assert await house.facts(record) == before

    await refused(await house.ask("?", "lines", strategy="rlm"), "ended by itself, at no limit")
    limited = await house.ask("??", "lines", strategy="rlm", limits=LimitRequest(turns=1))
    await refused(limited, "its limit of turns, and that is not raised", InvalidParams, sub_queries=9)
    fake.answer = lambda prompt: Scripted("late", latency=60)
    going = await house.engine.start_run(RunRequest(new_id(), "???", ("lines",), strategy="rlm"))
    with pytest.raises(Conflict, match="goes on"):
        await house.engine.continue_run(ContinueRequest(going.run_id))
    await refused(await house.engine.cancel(going.run_id, "test"), "was cancelled, which is no limit")
    with pytest.raises(NotFound):
        await house.engine.continue_run(ContinueRequest(new_id()))
    fake.answer = lambda prompt: Scripted("no", status=400)
    await refused(await house.ask("????", "lines", strategy="direct"), "failed, which is no limit")
    with pytest.raises(Conflict, match="another number"):
        await house.engine.continue_run(ContinueRequest(limited.run_id, last_seq=limited.last_seq - 1))
    house.engine._draining = True
    with pytest.raises(Draining):
        await house.engine.continue_run(ContinueRequest(limited.run_id))
    house.engine._draining = False
    await house.contexts.drop("lines", egress=False)
    await refused(limited, "There is no context", NotFound)


async def test_a_run_of_one_cell_and_a_child_are_continued_by_what_asked_them(house: House, fake: FakeOllama) -> None:
    asks = (cell("got = rlm_query('below?', 'text')\nprint(repr(got))"), "FINAL(ab)")
    fake.answer = lambda prompt: by_turn(*asks)(prompt) if "Turn" in prompt else "yes"
    record = await house.ask("above?", "lines", strategy="rlm", limits=LimitRequest(depth=1))
    begun = of_type(await house.facts(record), "child_started")[0].child
    with pytest.raises(Conflict, match=f"is part of run {record.run_id}"):
        await house.engine.continue_run(ContinueRequest(begun))


# ── twice, and a daemon that dies ───────────────────────────────────────────────────────────────────────────


async def test_asked_twice_it_is_done_once(house: House, fake: FakeOllama) -> None:
    fake.answer = by_turn(*FIVE)
    record = await house.ask("How many?", "lines", strategy="rlm", limits=LimitRequest(turns=3))
    request = ContinueRequest(record.run_id, More(turns=4), record.last_seq)
    first, second = await asyncio.gather(house.engine.continue_run(request), house.engine.continue_run(request))
    assert first.run_id == second.run_id
    await house.engine.wait(record.run_id)
    assert (await house.engine.continue_run(request)).outcome == "answered"
    facts = await house.facts(record)
    assert len(of_type(facts, "run_continued")) == 1
    with pytest.raises(Conflict, match="another number"):
        await house.engine.continue_run(ContinueRequest(record.run_id, More(turns=5), record.last_seq))


async def test_who_follows_is_told_the_whole_and_only_the_last_end_is_one(house: House, fake: FakeOllama) -> None:
    fake.answer = by_turn(*FIVE)
    record = await house.ask("How many?", "lines", strategy="rlm", limits=LimitRequest(turns=1))
    again = await go_on(house, await go_on(house, record, turns=1), turns=8)
    assert again.outcome == "answered"
    ear = Ear()
    subscription = house.engine.subscribe(record.run_id, 1, ear)
    await subscription.caught_up()
    assert [fact.type for fact in ear.facts].count("run_ended") == 3
    assert ear.facts == await house.facts(again)
    assert ear.ends == 1


@pytest.mark.parametrize("few", [6, pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)])])
async def test_killed_after_any_fact_of_a_continued_run_it_comes_to_the_same(
    tmp_path: Path, fake: FakeOllama, few: int
) -> None:
    fake.answer = by_turn(*FIVE)
    async with house_of(tmp_path / "whole", fake) as house:
        await house.load("lines", LINES)
        record = await house.ask("How many?", "lines", strategy="rlm", limits=LimitRequest(turns=3))
        again = await go_on(house, record)
        answer, facts = await house.answer(again), await house.facts(again)
    at = next(fact.seq for fact in facts if fact.type == "run_continued")
    step = max(1, (len(facts) - at) // few)
    for number in range(at, len(facts), step):
        copy = tmp_path / f"after-{number}"
        shutil.copytree(tmp_path / "whole" / "state", copy / "state")
        journal = copy / "state" / "runs" / record.run_id / "journal.jsonl"
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:number]))
        async with house_of(copy, fake) as house:
            last = await house.engine.wait(record.run_id)
            assert (last.outcome, await house.answer(last)) == ("answered", answer), number
            assert (last.receipt.turns, last.receipt.sub_queries) == (again.receipt.turns, again.receipt.sub_queries)
            told = await house.facts(last)
            assert told[:number] == facts[:number]
        shutil.rmtree(copy)


async def test_a_torn_continuing_was_none(tmp_path: Path, fake: FakeOllama) -> None:
    """Nobody was told of it: the run is as it ended, and can be continued."""
    fake.answer = by_turn(*FIVE)
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        record = await house.ask("How many?", "lines", strategy="rlm", limits=LimitRequest(turns=3))
    journal = tmp_path / "state" / "runs" / record.run_id / "journal.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"run_id":"' + record.run_id.encode() + b'","seq":')
    async with house_of(tmp_path, fake) as house:
        assert (await house.engine.wait(record.run_id)).outcome == "partial"
        again = await go_on(house, record)
        assert again.outcome == "answered"
        await house.facts(again)
