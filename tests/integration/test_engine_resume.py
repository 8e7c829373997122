"""The journal is the truth: a run goes on after any of its facts, asks nothing twice, and comes to the same answer.

A daemon killed right after fact N leaves exactly the journal's first N lines, and texts stored before them. So one run
is made whole, and for each N a house is opened over those lines alone.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import LimitSettings, ReplSettings, RoleSettings
from rlmd.engine import RunRecord, RunRequest
from rlmd.engine.requests import LimitRequest
from rlmd.events import AnyFact
from tests.fakes.ollama import FakeOllama, Scripted, Seen
from tests.house import House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
LINES = "".join(f"Entry {n}: the lamp number {n} is lit.\n" for n in range(1500))
SEED = 4


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


#: A run with everything that might come out otherwise a second time, and does not: the order of a set, random numbers,
#: a batch with equal prompts and a failure in it, a search, a final that is refused, a cell that fails, a variable that
#: later cells rest on, an output that is stored as a value of its own.
TURNS = (
    cell("words = list(set(context.split()))\nprint(words[:5])\nprint('x' * 5000)"),
    cell("import random\nr = [random.random() for _ in range(3)]\nprint(r)\nr[0]"),
    cell(
        "replies = llm_query_batched([f'piece {n % 5}' for n in range(6)] + ['fail'])\n"
        "one = llm_query('piece 1')\nprint(replies, one)"
    ),
    "FINAL_VAR(nothing)",
    cell("hits = search('lamp number 77', 3)\nprint([hit.start for hit in hits])\nprint(answer)"),
    cell("total = len(replies[0]) + int(r[0] * 1e9)\n1/0"),
    cell("answer['content'] = 'so far'\nmore = llm_query('piece ' + words[0])\nprint(total, more)"),
    cell("final = f'{total} {words[:3]} {more} {one}'") + "\nFINAL_VAR(final)",
)


def told(prompt: str, turns: tuple[str, ...] = TURNS) -> str | Scripted:
    """What the models say: of a prompt alone, so that it is the same for whoever asks again."""
    if found := re.findall(r"Turn (\d+) of", prompt):
        return turns[int(found[-1]) - 1]
    if prompt == "fail":
        return Scripted("no such thing", status=400)
    return f"reply to {prompt}"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        server.answer = told
        yield server


def house_of(folder: Path, fake: FakeOllama) -> House:
    folder.mkdir(exist_ok=True)
    return House(folder, settings_for(("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0)))


async def whole_run(folder: Path, fake: FakeOllama, **fields: object) -> tuple[RunRecord, str, list[AnyFact]]:
    """A run from its first to its last fact, in a house that is closed again."""
    async with house_of(folder, fake) as house:
        await house.load("lines", LINES)
        record = await house.ask("How many?", "lines", **{"strategy": "rlm", **fields})
        return record, await house.answer(record) or "", await house.facts(record)


def killed_after(folder: Path, copy: Path, run_id: str, number: int) -> Path:
    """The state of ``folder`` as a kill right after fact ``number`` of a run leaves it; without any cache."""
    shutil.copytree(folder / "state", copy / "state")
    journal = copy / "state" / "runs" / run_id / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:number]))
    return copy


def replies_in(facts: list[AnyFact]) -> int:
    """Replies and failures of models, without those that the run itself refused to ask for."""
    kinds = Counter(fact.type for fact in facts)
    return kinds["root_replied"] + kinds["subquery_replied"] + kinds["subquery_failed"]


async def resumed(copy: Path, fake: FakeOllama, run_id: str) -> tuple[RunRecord, str, list[AnyFact], int]:
    before = len(fake.seen)
    async with house_of(copy, fake) as house:
        record = await house.engine.wait(run_id)
        return record, await house.answer(record) or "", await house.facts(record), len(fake.seen) - before


def numbers(last: int, few: int) -> list[int]:
    return sorted(random.Random(SEED).sample(range(1, last), min(few, last - 1)))


few_or_all = pytest.mark.parametrize(
    "few", [9, pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)])], ids=["few", "all"]
)


@few_or_all
async def test_killed_after_any_fact_it_comes_to_the_same(tmp_path: Path, fake: FakeOllama, few: int) -> None:
    """Answer, receipt's counts and facts are those of the run that nobody killed; nothing is asked twice."""
    record, answer, facts = await whole_run(tmp_path / "whole", fake)
    assert record.outcome == "answered"
    assert len(facts) > 30
    for number in numbers(len(facts), few):
        copy = killed_after(tmp_path / "whole", tmp_path / f"after-{number}", record.run_id, number)
        again, same, told_again, asked = await resumed(copy, fake, record.run_id)
        where = f"killed after fact {number}, {facts[number - 1].type}"
        assert again.outcome == "answered", where
        if any(fact.type == "session_started" for fact in facts[:number]):  # before it the seeds were not drawn
            assert same == answer, where
        assert told_again[:number] == facts[:number], where
        missing = replies_in(facts) - replies_in(facts[:number])
        # Equal prompts that are asked at the same time are asked once; the fake counts what reached it.
        assert asked <= missing, where
        assert replies_in(told_again) == replies_in(facts), where
        assert (again.receipt.sub_queries, again.receipt.turns) == (
            record.receipt.sub_queries,
            record.receipt.turns,
        ), where
        assert not [fact for fact in told_again if fact.type == "session_started" and fact.why], where
        shutil.rmtree(copy)


@pytest.mark.parametrize("strategy", ["map", "direct", "quote", "auto"])
async def test_every_way_of_running_is_taken_up(tmp_path: Path, fake: FakeOllama, strategy: str) -> None:
    """The programs and one completion, with a kill after a handful of their facts."""
    fake.answer = lambda prompt: f"found: {len(prompt)}"
    text = LINES[:2000] if strategy == "direct" else LINES[:40_000]
    async with house_of(tmp_path / "whole", fake) as house:
        await house.load("lines", text)
        record = await house.ask("Which lamp?", "lines", strategy=strategy)
        answer, facts = await house.answer(record), await house.facts(record)
    assert record.outcome == "answered"
    for number in numbers(len(facts), 4):
        copy = killed_after(tmp_path / "whole", tmp_path / f"after-{number}", record.run_id, number)
        again, same, _, asked = await resumed(copy, fake, record.run_id)
        where = f"killed after fact {number}, {facts[number - 1].type}"
        assert (again.outcome, same, again.strategy) == ("answered", answer, record.strategy), where
        assert asked <= replies_in(facts) - replies_in(facts[:number]), where
        assert again.citations == record.citations, where


async def test_a_drained_run_goes_on_where_it_was(tmp_path: Path, fake: FakeOllama) -> None:
    """Stopped in order in the middle of a batch: the same cell runs again, with the replies that it had."""
    held = Counter[str]()

    def slow(prompt: str) -> str | Scripted:
        held[prompt] += 1
        return Scripted("late", latency=3600) if prompt == "piece 4" and held[prompt] == 1 else told(prompt)

    fake.answer = slow
    request = RunRequest(run_id=new_id(), question="How many?", contexts=("lines",), strategy="rlm")
    async with house_of(tmp_path / "h", fake) as house:
        await house.load("lines", LINES)
        await house.engine.start_run(request)
        while house.engine.run(request.run_id).sub_queries < 6:  # all but the one that is held
            await asyncio.sleep(0.01)
        await house.engine.drain()
        assert house.engine.run(request.run_id).state == "interrupted"
    async with house_of(tmp_path / "h", fake) as house:
        record = await house.engine.wait(request.run_id)
        facts = await house.facts(record)
        assert record.outcome == "answered"
    kinds = [fact.type for fact in facts]
    assert (kinds.count("run_interrupted"), kinds.count("run_resumed")) == (1, 1)
    assert max(held.values()) == 2
    assert held["piece 4"] == 2
    assert [prompt for prompt, count in held.items() if count > 1] == ["piece 4"]


async def test_the_purse_and_the_time_stay_spent(tmp_path: Path, fake: FakeOllama) -> None:
    """A run taken up again has no more than was left: of turns, of sub-queries, of seconds."""
    limits = LimitRequest(sub_queries=5, turns=7)
    record, answer, facts = await whole_run(tmp_path / "whole", fake, limits=limits)
    assert any(fact.type == "limit_hit" for fact in facts)
    for number in numbers(len(facts), 5):
        copy = killed_after(tmp_path / "whole", tmp_path / f"after-{number}", record.run_id, number)
        again, same, told_again, _ = await resumed(copy, fake, record.run_id)
        assert (again.outcome, same) == (record.outcome, answer), number
        assert replies_in(told_again) == replies_in(facts), number
    copy = killed_after(tmp_path / "whole", tmp_path / "late", record.run_id, 12)
    journal = copy / "state" / "runs" / record.run_id / "journal.jsonl"
    *others, last = journal.read_text().splitlines(keepends=True)
    late = json.dumps(json.loads(last) | {"time": json.loads(last)["time"] + 100_000}) + "\n"
    journal.write_text("".join([*others, late]))
    again, _, told_again, _ = await resumed(copy, fake, record.run_id)
    assert [fact.limit for fact in told_again if fact.type == "limit_hit"][-1] == "seconds"
    assert again.outcome in ("partial", "none")


RACE = """import threading, time, os
thing = []
def work(n):
    for _ in range(200):
        thing.append(n); time.sleep(os.urandom(1)[0] / 2e6)
several = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[one.start() for one in several]; [one.join() for one in several]
print(thing)"""

DIVERGING: dict[str, tuple[str, str]] = {
    "the address of an object": ("thing = object()\nprint(thing)", "output"),
    "the time, printed": ("import time\nthing = time.time_ns()\nprint(thing)", "output"),
    "the time, kept": ("import time\nthing = time.time_ns()", "variable thing"),
    "a race": (RACE, "output"),
    "random bytes of the system": ("import os\nthing = os.urandom(8).hex()\nprint(thing)", "output"),
}


@pytest.mark.parametrize("what", DIVERGING)
async def test_a_cell_that_comes_out_otherwise_is_told(tmp_path: Path, fake: FakeOllama, what: str) -> None:
    """The names are there up to it; the model and the person are told which are lost; outputs stay as they were."""
    code, where = DIVERGING[what]
    turns = (
        cell("kept = 'kept ' * 2\nrebound = 1"),
        cell(f"{code}\nrebound = 2"),
        cell("later = 3\nprint(rebound)"),
        cell("print(sorted(name for name in dir() if name in ('kept', 'thing', 'later')), rebound)"),
        "FINAL_VAR(kept)",
    )
    fake.answer = lambda prompt: told(prompt, turns)
    record, _, facts = await whole_run(tmp_path / "whole", fake)
    number = next(fact.seq for fact in facts if fact.type == "cell_ended" and fact.cell == 3)
    copy = killed_after(tmp_path / "whole", tmp_path / "again", record.run_id, number)
    again, answer, told_again, _ = await resumed(copy, fake, record.run_id)
    assert (again.outcome, answer) == ("answered", "kept kept")
    [woken] = [fact for fact in told_again if fact.type == "session_started" and fact.seq > number]
    assert {"thing", "later"} <= set(woken.names_lost)
    assert "rebound" in woken.names_older
    assert where in woken.why
    assert [one.cells for one in woken.woken] == [(1,)]
    last = next(fact for fact in told_again if fact.type == "cell_ended" and fact.cell == 4)
    assert last.output.text == "['kept'] 1\n"
    prompt = next(text for text in fake.prompts("root")[::-1] if "Turn 4 of" in text)
    assert "gone: later" in prompt
    assert "thing" in prompt
    assert any(fact.type == "note" and "thing" in fact.text for fact in told_again)
    # Killed again before and after the root was told: it is told all the same, and goes on knowing.
    for kind, turn in (("note", 4), ("root_replied", 5)):
        number = next(fact.seq for fact in told_again if fact.type == kind and fact.seq > woken.seq)
        twice = killed_after(tmp_path / "again", tmp_path / kind, record.run_id, number)
        fake.seen.clear()
        final, answer, _, _ = await resumed(twice, fake, record.run_id)
        assert (final.outcome, answer) == ("answered", "kept kept")
        messages = next(seen.messages for seen in fake.seen if f"Turn {turn} of" in seen.prompt)
        assert sum("gone: later" in str(message["content"]) for message in messages) == 1


async def test_a_cell_that_was_stopped_is_never_run_again(tmp_path: Path, fake: FakeOllama) -> None:
    """What it had done by then nobody knows; what came after it is made again, as far as that does not rest on it."""
    turns = (
        cell("first = 1"),
        cell("half = 2\nwhile True: pass"),
        cell("after = first + 1\nprint(after)"),
        cell("print('half' in dir(), first, after)"),
        "FINAL_VAR(after)",
    )
    fake.answer = lambda prompt: told(prompt, turns)
    folder = tmp_path / "whole"
    folder.mkdir()
    settings = settings_for(("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0, cell_seconds=1.0))
    async with House(folder, settings) as house:
        await house.load("lines", LINES)
        record = await house.ask("How many?", "lines", strategy="rlm")
        facts = await house.facts(record)
    assert next(fact for fact in facts if fact.type == "cell_ended" and fact.cell == 4).output.text == "True 1 2\n"
    number = next(fact.seq for fact in facts if fact.type == "cell_ended" and fact.cell == 3)
    copy = killed_after(folder, tmp_path / "again", record.run_id, number)
    again, answer, told_again, _ = await resumed(copy, fake, record.run_id)
    assert (again.outcome, answer) == ("answered", "2")
    [woken] = [fact for fact in told_again if fact.type == "session_started" and fact.seq > number]
    assert [one.cells for one in woken.woken] == [(1, 3)]
    assert woken.names_lost == ("half",)
    assert "stopped" in woken.why
    last = next(fact for fact in told_again if fact.type == "cell_ended" and fact.cell == 4)
    assert last.output.text == "False 1 2\n"


async def test_what_was_cancelled_ends_as_cancelled(tmp_path: Path, fake: FakeOllama) -> None:
    """The daemon died between the wish and the last fact."""
    fake.answer = lambda prompt: Scripted("late", latency=3600) if prompt == "piece 4" else told(prompt)
    request = RunRequest(run_id=new_id(), question="How many?", contexts=("lines",), strategy="rlm")
    async with house_of(tmp_path / "whole", fake) as house:
        await house.load("lines", LINES)
        await house.engine.start_run(request)
        await fake.until(lambda: fake.serving == 1)
        await house.engine.cancel(request.run_id, "no more")
        facts = await house.facts(house.engine.run(request.run_id))
    number = next(fact.seq for fact in facts if fact.type == "cancel_requested")
    copy = killed_after(tmp_path / "whole", tmp_path / "again", request.run_id, number)
    record, _, _, asked = await resumed(copy, fake, request.run_id)
    assert (record.state, asked) == ("cancelled", 0)


async def test_a_run_that_takes_the_daemon_along_is_given_up(tmp_path: Path, fake: FakeOllama) -> None:
    """Taken up three times without a step forward, it is left interrupted."""
    record, _, facts = await whole_run(tmp_path / "whole", fake)
    copy = killed_after(tmp_path / "whole", tmp_path / "again", record.run_id, 5)
    journal = copy / "state" / "runs" / record.run_id / "journal.jsonl"
    lines = [
        json.dumps({"run_id": record.run_id, "seq": 6 + n, "time": facts[4].time, "type": "run_resumed", "why": "x"})
        for n in range(3)
    ]
    journal.write_text(journal.read_text() + "".join(line + "\n" for line in lines))
    again, _, _, asked = await resumed(copy, fake, record.run_id)
    assert (again.state, asked) == ("interrupted", 0)
    assert "3 times" in (again.why or "")


@pytest.mark.parametrize("change", ["dropped", "changed"])
async def test_a_run_whose_text_is_gone(tmp_path: Path, fake: FakeOllama, change: str) -> None:
    """A text that changed meanwhile is read at its revision; one that was dropped ends the run with the reason."""
    record, answer, facts = await whole_run(tmp_path / "whole", fake)
    copy = killed_after(tmp_path / "whole", tmp_path / "again", record.run_id, len(facts) - 4)
    journal = copy / "state" / "runs" / record.run_id
    shutil.move(journal, tmp_path / "kept")
    async with house_of(copy, fake) as house:
        if change == "dropped":
            await house.contexts.drop("lines")
        await house.load("lines", "Something else altogether.\n" * 50)
    shutil.move(tmp_path / "kept", journal)
    again, same, _, _ = await resumed(copy, fake, record.run_id)
    if change == "changed":
        assert (again.outcome, same) == ("answered", answer)
    else:
        assert again.outcome in ("failed", "partial")
        assert "'lines'" in (again.why or "")


async def test_child_runs_are_taken_up_with_their_parent(tmp_path: Path, fake: FakeOllama) -> None:
    """Killed after any fact of a child: the child goes on where it was, and what was said in it is not asked again."""
    turns = {
        "top": (
            cell("got = rlm_query('first child', context[:200_000])\nprint(got)"),
            cell("two = rlm_query('second child')\nprint(two)"),
            cell("both = got + ' / ' + two") + "\nFINAL_VAR(both)",
        ),
        "first child": (
            cell("import random\nmine = llm_query('of the first') + str(random.random())\nprint(len(context))"),
            cell("more = llm_query('of the first, again')") + "\nFINAL_VAR(mine)",
        ),
        "second child": (cell("theirs = llm_query('of the second')"), "FINAL_VAR(theirs)"),
    }

    def root(seen: Seen) -> str:
        whole = "\n".join(message["content"] for message in seen.messages if message["role"] == "user")
        asked = re.search(r"Question: (.*)", whole)
        assert asked
        return turns[asked[1].strip()][sum(message["role"] == "assistant" for message in seen.messages)]

    fake.answer = lambda prompt: f"reply to {prompt}"
    settings = settings_for(
        ("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0), limits=LimitSettings(turns=100, depth=1)
    )
    folder = tmp_path / "whole"
    folder.mkdir()
    fake.script("root", [root] * 1000)
    async with House(folder, settings) as house:
        await house.load("lines", LINES * 4)
        record = await house.ask("top", "lines", strategy="rlm")
        assert record.outcome == "answered", record
        answer, facts = await house.answer(record), await house.facts(record)
    began, ended = (next(f for f in facts if f.type == kind) for kind in ("child_started", "child_ended"))
    child = Path("state") / "runs" / record.run_id / "children" / began.child / "journal.jsonl"
    lines = (folder / child).read_bytes().splitlines(keepends=True)
    for number in (1, len(lines) // 3, len(lines) // 2, len(lines) - 1, len(lines)):
        copy = killed_after(folder, tmp_path / f"after-{number}", record.run_id, ended.seq - 1)
        (copy / child).write_bytes(b"".join(lines[:number]))
        before = len(fake.seen)
        async with House(copy, settings) as house:
            again = await house.engine.wait(record.run_id)
            same, told_again = await house.answer(again), await house.facts(again)
            nested = await house.engine.facts(began.child)
        where = f"killed after fact {number} of the child, {json.loads(lines[number - 1])['type']}"
        assert again.outcome == "answered", where
        if any(json.loads(line)["type"] == "session_started" for line in lines[:number]):
            assert same == answer, where
        assert next(f.child for f in told_again if f.type == "child_started") == began.child, where
        assert len([f for f in told_again if f.type == "child_started"]) == 2, where
        assert nested[-1].type == "run_ended", where
        prompts = fake.prompts()[before:]
        kept = [json.loads(line) for line in lines[:number]]
        for fact in kept:
            if fact["type"] == "subquery_replied":
                assert fact["prompt_preview"] not in prompts, where
        replied = sum(fact["type"] == "root_replied" for fact in kept)
        asked_again = [one for one in fake.seen[before:] if "Question: first child" in str(one.messages)]
        assert len(asked_again) == 2 - replied, where


@few_or_all
@pytest.mark.parametrize("limit", ["turns", "tokens"])
async def test_a_run_at_its_limit_is_taken_up_within_it(tmp_path: Path, fake: FakeOllama, limit: str, few: int) -> None:
    """Killed after any fact, a child's turns among them, the last word comes as it would have, and no turn above it."""
    limits = LimitRequest(depth=1, **{"turns": {"turns": 9}, "tokens": {"tokens": 22_000}}[limit])

    def root(seen: Seen) -> str:
        whole = "\n".join(message["content"] for message in seen.messages if message["role"] == "user")
        turn = sum(message["role"] == "assistant" for message in seen.messages) + 1
        if "You can run no more code" in whole:
            return "As far as I have read."
        if "Question: below?" in whole:
            return cell(f"print({turn})") if turn < 3 else "FINAL(it is below)"
        return cell("r = rlm_query('below?')\nprint(r)" if turn == 1 else f"print(context[:99], {turn})")

    fake.script("root", [root] * 1000)
    settings = settings_for(
        ("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0), limits=LimitSettings(turns=100, depth=1)
    )
    folder = tmp_path / "whole"
    folder.mkdir()
    async with House(folder, settings) as house:
        await house.load("lines", LINES * 4)
        record = await house.ask("top", "lines", strategy="rlm", limits=limits)
        answer, facts = await house.answer(record), await house.facts(record)
    assert (record.outcome, answer, record.receipt.limit) == ("partial", "As far as I have read.", limit)
    asked = len(fake.seen)
    assert (record.receipt.turns, asked) == (9, 9) if limit == "turns" else record.receipt.turns == asked + 1
    turns = record.receipt.turns
    for number in sorted({*numbers(len(facts), few), *range(len(facts) - 3, len(facts))}):  # the last word too
        copy = killed_after(folder, tmp_path / f"after-{number}", record.run_id, number)
        for child in (copy / "state" / "runs" / record.run_id / "children").glob("*"):
            if not any(fact.type == "child_started" for fact in facts[:number]):
                shutil.rmtree(child)
        async with House(copy, settings) as house:
            again = await house.engine.wait(record.run_id)
            where = f"killed after fact {number}, {facts[number - 1].type}"
            assert (again.outcome, await house.answer(again)) == ("partial", answer), where
            assert (again.receipt.limit, again.receipt.turns) == (limit, turns), where
            told = await house.facts(again)
            assert [fact.limit for fact in told if fact.type == "limit_hit"] == [limit], where
        shutil.rmtree(copy)
