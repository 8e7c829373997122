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
    record = await house.ask("?", "note", strategy="rlm", limits=LimitRequest(turns=1))
    assert record.outcome == "none"


async def test_a_last_word_that_was_cut_says_so(house: House, fake: FakeOllama) -> None:
    fake.script("root", [cell("print(1)"), Scripted("The lamp is " + "very " * 1500, finish="length")])
    record = await house.ask("?", "note", strategy="rlm", limits=LimitRequest(turns=1))
    if record.outcome == "partial":
        assert "was cut" in (await house.answer(record) or "")
    else:
        assert record.outcome == "none"


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
