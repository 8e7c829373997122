"""Sessions that outlive their runs: what they hand on, and that those only kept hold up nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import ReplSettings, RoleSettings
from rlmd.engine import ExecuteRequest
from rlmd.engine.requests import LimitRequest
from rlmd.repl import Workers
from tests.fakes.ollama import FakeOllama, Scripted
from tests.house import House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
LINES = "".join(f"Entry {n}: the lamp number {n} is lit.\n" for n in range(1500))


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, fake: FakeOllama) -> AsyncIterator[House]:
    async with House(tmp_path, settings_for(("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0))) as made:
        await made.load("note", "The lamp is lit.\n" * 100)
        await made.load("lines", LINES)
        yield made


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


async def test_an_earlier_answer_is_none_to_the_next_question(house: House, fake: FakeOllama) -> None:
    """``answer`` keeps its content in the REPL; at a limit it would be handed over as what was found."""
    fake.script("root", [cell("answer['content'] = context[:0] + 'the old one'\nanswer['ready'] = True")])
    first = await house.ask("first?", "note", strategy="rlm", session="s")
    assert await house.answer(first) == "the old one"
    fake.script("root", [cell("print(1)"), "FINAL_VAR(answer)", "FINAL_VAR(answer)"])
    second = await house.ask("second?", "note", strategy="rlm", session="s", limits=LimitRequest(turns=2))
    assert second.outcome == "none"
    fake.script("root", [cell("answer['content'] = 'the new one'"), cell("print(1)"), "Hm."])
    third = await house.ask("third?", "note", strategy="rlm", session="s", limits=LimitRequest(turns=2))
    assert (third.outcome, await house.answer(third)) == ("partial", "the new one")


async def test_sessions_that_are_only_kept_give_their_workers_away(house: House, fake: FakeOllama) -> None:
    """With as many named sessions as there may be workers, the next one waited for half an hour."""
    await house.workers.close()
    house.workers = Workers(spare_workers=0, max_workers=3)  # one is kept for child runs
    object.__setattr__(house.engine._parts, "workers", house.workers)
    try:
        for name in ("a", "b", "c", None):
            request = ExecuteRequest(run_id=new_id(), code="x = 1", session=name)
            assert (await house.engine.execute(request)).ok, name
        alive = {one.name: one.alive for one in await house.engine.sessions()}
        assert alive == {"a": False, "b": False, "c": True}
    finally:
        await house.workers.close()


@pytest.mark.parametrize("last", ["FINAL_VAR(nothing)", f"Let me look again.\n{cell('print(2)')}", "FINAL()"])
async def test_a_last_word_that_says_nothing_is_no_answer(house: House, fake: FakeOllama, last: str) -> None:
    fake.script("root", [cell("print(1)"), last])
    record = await house.ask("?", "note", strategy="rlm", limits=LimitRequest(turns=2))
    assert (record.outcome, len(fake.prompts("root"))) == ("none", 2)


@pytest.mark.parametrize(
    ("last", "answer", "streamed"),
    [
        ("It is lit.", "It is lit.", True), ("It is lit.\n\n", "It is lit.", False),
        ("FINAL_VAR(x)", "lit as said", False), ("FINAL(lit)", "lit", False),
    ],
)  # fmt: skip
async def test_a_last_word_may_be_plain_or_a_final(
    house: House, fake: FakeOllama, last: str, answer: str, *, streamed: bool
) -> None:
    """Its stream is named where the answer is what was streamed, and nowhere else."""
    fake.script("root", [cell("x = 'lit as said'\nprint(1)"), last])
    record = await house.ask("?", "note", strategy="rlm", limits=LimitRequest(turns=2))
    assert (record.outcome, await house.answer(record)) == ("partial", answer)
    ended = (await house.facts(record))[-1]
    assert (ended.stream is not None) is streamed


async def test_a_last_word_that_was_cut_says_so(house: House, fake: FakeOllama) -> None:
    fake.script("root", [cell("print(1)"), Scripted("The lamp is " + "very " * 1500, finish="length")])
    record = await house.ask("?", "note", strategy="rlm", limits=LimitRequest(turns=2))
    assert record.outcome == "partial"
    assert "was cut" in (await house.answer(record) or "")


async def test_a_map_with_unread_pieces_is_partial(house: House, fake: FakeOllama) -> None:
    fake.answer = lambda prompt: Scripted("no", status=400) if prompt.startswith("Entry 0:") else "NOTHING"
    record = await house.ask("Which?", "lines", strategy="map")
    assert record.outcome == "partial"
    assert "failed" in (record.why or "")


@pytest.mark.parametrize("strategy", ["quote", "map", "rlm"])
async def test_a_question_as_long_as_a_book(house: House, fake: FakeOllama, strategy: str) -> None:
    record = await house.ask("why is the lamp not lit? " * 30_000, "lines", strategy=strategy)
    assert record.outcome == "failed"
    assert record.error is not None
    assert record.error.kind == "too_large"
    assert "The question" in record.error.message
    assert fake.seen == []


async def test_that_a_session_ended_is_known_as_long_as_one_of_its_runs_is_kept(
    tmp_path: Path, fake: FakeOllama
) -> None:
    """Its journals would bring it back. When they are gone, the line is; one in whose place another goes on stays, and
    so does one that an earlier one went on in, as its name would come back by that one."""
    runs: dict[str, str] = {}

    async def use(house: House, name: str) -> None:
        runs[name] = new_id()
        assert (await house.engine.execute(ExecuteRequest(run_id=runs[name], code="x = 1", session=name))).ok

    def ended() -> int:
        return len((tmp_path / "state" / "sessions.jsonl").read_text().splitlines())

    settings = settings_for(("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0))
    async with House(tmp_path, settings) as house:
        for name in ("dropped", "forgotten", "reset", "twice"):
            await use(house, name)
        for name in ("dropped", "forgotten"):
            await house.engine.drop_session(name)
        for name in ("reset", "twice", "twice"):
            await house.engine.reset_session(name)
        await house.engine.drop_session("twice")
        assert ended() == 6
        await house.engine.delete_run(runs["forgotten"])
        await house.engine.delete_run(runs["reset"])
        assert not any(one.what == "run" for one in await house.engine.collect(dry_run=True))
        assert ended() == 6, "a dry run changes nothing"
        await house.engine.collect()
        assert ended() == 5, "that it was forgotten is forgotten; what goes on by a name, and how, is not"
    async with House(tmp_path, settings) as house:
        assert [one.name for one in await house.engine.sessions()] == ["reset"]
        await house.engine.delete_run(runs["twice"])
        await house.engine.delete_run(runs["dropped"])
        await house.engine.collect()
        assert ended() == 1
    async with House(tmp_path, settings) as house:
        assert [one.name for one in await house.engine.sessions()] == ["reset"]
