"""Named sessions across daemons: their names come back out of the journals, and stay away when they were dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import ReplSettings, RoleSettings
from rlmd.engine import ExecuteRequest
from rlmd.engine.requests import LimitRequest
from rlmd.errors import Busy, NotFound
from tests.fakes.ollama import FakeOllama, Scripted
from tests.house import House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
LINES = "".join(f"Entry {n}: the lamp number {n} is lit.\n" for n in range(1500))


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


def house_of(folder: Path, fake: FakeOllama) -> House:
    return House(folder, settings_for(("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0)))


async def execute(house: House, code: str, *contexts: str, session: str = "s") -> str:
    report = await house.engine.execute(
        ExecuteRequest(run_id=new_id(), code=code, contexts=contexts, session=session, limits=LimitRequest())
    )
    return report.output


async def test_a_follow_up_question_after_a_restart(tmp_path: Path, fake: FakeOllama) -> None:
    """Names, seeds, what sub-models said, earlier questions: all there, and nothing is asked again."""
    fake.script("root", [cell("words = list(set(context.split()))\nsaid = llm_query('piece')"), "FINAL_VAR(said)"])
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        first = await house.ask("What is lit?", "lines", strategy="rlm", session="s")
        answer = await house.answer(first)
        order = await execute(house, "import random\nprint(words[:9], random.random())")
        drawn = await execute(house, "x = random.random()\nx")
    (tmp_path / "cache").rename(tmp_path / "old cache")
    async with house_of(tmp_path, fake) as house:
        before = len(fake.seen)
        [session] = await house.engine.sessions()
        assert (session.name, session.cells, session.alive) == ("s", 3, False)
        assert [pin.context for pin in session.contexts] == ["lines"]
        detail = await house.engine.session("s")
        assert detail.exchanges[0] == ("What is lit?", answer)
        assert {"words", "said", "x"} <= {one.name for one in detail.names}
        fake.script("root", [cell("print(words[:9], x)") + "\nFINAL_VAR(said)"])
        second = await house.ask("And then?", "lines", strategy="rlm", session="s")
        assert await house.answer(second) == answer
        assert len(fake.seen) - before == 1
        [prompt] = fake.prompts("root")[-1:]
        assert "What is lit?" in prompt
        assert "Variables that still exist: words" in prompt
        facts = await house.facts(second)
        [woken] = [fact for fact in facts if fact.type == "session_started"]
        assert (woken.lost, woken.why, sum(len(one.cells) for one in woken.woken)) == (False, "", 3)
        output = next(fact.output.text for fact in facts if fact.type == "cell_ended")
        assert output.split("] ")[0] == order.split("] ")[0]
        assert output.split("] ")[1] == drawn
    async with house_of(tmp_path, fake) as house:  # and once more, over what was woken
        assert await execute(house, "x") == drawn


async def test_unused_sessions_are_woken_too(tmp_path: Path, fake: FakeOllama) -> None:
    """A worker that ends for want of use takes no names along."""
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        await execute(house, "n = len(context)\nanswer['content'] = 'kept'", "lines")
        await house.engine._sessions.end_unused(float("inf"))
        assert [one.alive for one in await house.engine.sessions()] == [False]
        assert await execute(house, "print(n, answer['content'], len(context))") == f"{len(LINES)} kept {len(LINES)}\n"


async def test_a_cell_whose_output_comes_out_otherwise_is_told(tmp_path: Path, fake: FakeOllama) -> None:
    """Its variables are of the type and size that they were: the output alone gives it away."""
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        await execute(house, "before = 41", "lines")
        await execute(house, "import time\nwhen = int(time.time())\nprint(time.time_ns())")
        await house.engine._sessions.end_unused(float("inf"))
        request = ExecuteRequest(run_id=new_id(), code="before + 1", contexts=(), session="s", limits=LimitRequest())
        report = await house.engine.execute(request)
        assert report.output == "42\n"
        [woken] = [fact for fact in await house.engine.facts(report.run_id) if fact.type == "session_started"]
        assert "when" in woken.names_lost
        assert "output is another" in woken.why


async def test_a_cell_that_names_no_context_finds_the_sessions(tmp_path: Path, fake: FakeOllama) -> None:
    """After a restart as before; at the revision that was loaded, whatever the context is by now."""
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        await execute(house, "n = len(context)", "lines")
        await execute(house, "m = len(context) + n")
        await house.load("lines", LINES + "one more\n")
    async with house_of(tmp_path, fake) as house:
        assert await execute(house, "print(len(context), m)") == f"{len(LINES)} {2 * len(LINES)}\n"


async def test_a_cancelled_cell_of_a_session_is_not_run_again(tmp_path: Path, fake: FakeOllama) -> None:
    """What others did is woken; who asks next is told what is not."""
    fake.answer = lambda prompt: Scripted("late", latency=3600)
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        await execute(house, "a = 1", "lines")
        request = ExecuteRequest(run_id=new_id(), code="b = 2\nllm_query('x')", session="s")
        await house.engine.start_run(request.as_run())
        await fake.until(lambda: fake.serving == 1)
        await house.engine.cancel(request.run_id, "no")
        assert await execute(house, "c = a + b\nc") == "3\n"
    async with house_of(tmp_path, fake) as house:
        fake.script("root", [cell("print(a, 'b' in dir())") + "\nFINAL_VAR(a)"])
        record = await house.ask("?", "lines", strategy="rlm", session="s")
        assert await house.answer(record) == "1"
        [woken] = [fact for fact in await house.facts(record) if fact.type == "session_started"]
        assert {"b", "c"} <= set(woken.names_lost)
        assert "b, c" in fake.prompts("root")[-1]


async def test_a_session_whose_worker_died_begins_anew(tmp_path: Path, fake: FakeOllama) -> None:
    """Its names were lost then, and told; they do not come back by surprise."""
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        await execute(house, "a = 1", "lines")
        await execute(house, "import os\nos._exit(3)")
    async with house_of(tmp_path, fake) as house:
        assert await execute(house, "print('a' in dir())") == "False\n"


@pytest.mark.parametrize("how", ["drop", "reset"])
async def test_what_was_dropped_or_reset_stays_so(tmp_path: Path, fake: FakeOllama, how: str) -> None:
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        await execute(house, "a = 1", "lines")
        if how == "drop":
            await house.engine.drop_session("s")
        else:
            detail = await house.engine.reset_session("s")
            assert (detail.names, detail.exchanges, detail.session.cells) == ((), (), 0)
    async with house_of(tmp_path, fake) as house:
        sessions = await house.engine.sessions()
        if how == "drop":
            assert sessions == []
            with pytest.raises(NotFound):
                await house.engine.session("s")
            await house.engine.execute(ExecuteRequest(new_id(), "1", ("lines",), "s"))
        else:
            assert [(one.name, one.cells) for one in sessions] == [("s", 0)]
        assert await execute(house, "print('a' in dir(), len(context))") == f"False {len(LINES)}\n"
        await execute(house, "b = 2")
    async with house_of(tmp_path, fake) as house:
        assert await execute(house, "print('a' in dir(), b)") == "False 2\n"


async def test_a_held_session_is_not_reset(tmp_path: Path, fake: FakeOllama) -> None:
    fake.answer = lambda prompt: Scripted("late", latency=3600)
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        request = ExecuteRequest(new_id(), "llm_query('x')", ("lines",), "s")
        await house.engine.start_run(request.as_run())
        await fake.until(lambda: fake.serving == 1)
        for end in (house.engine.reset_session, house.engine.drop_session):
            with pytest.raises(Busy):
                await end("s")
        await house.engine.cancel(request.run_id, "no")
        await house.engine.reset_session("s")


async def test_private_sessions_do_not_come_back_for_egress(tmp_path: Path, fake: FakeOllama) -> None:
    """Not after a restart, not after a reset, not by any method."""
    async with house_of(tmp_path, fake) as house:
        await house.load("secret", "The word is heliotrope.\n", private=True)
        await execute(house, "a = context", "secret")
    async with house_of(tmp_path, fake) as house:
        await house.engine.reset_session("s")
    async with house_of(tmp_path, fake) as house:
        assert await house.engine.sessions(egress=True) == []
        for method in (house.engine.session, house.engine.reset_session, house.engine.drop_session):
            with pytest.raises(NotFound):
                await method("s", egress=True)
        assert (await house.engine.session("s")).session.private
