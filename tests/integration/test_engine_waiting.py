"""Runs that only hosts could serve that are down, paused or asleep: they wait, say so, go on, and end in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import HostSettings, ModelSettings, ReplSettings, RoleSettings, Settings
from rlmd.engine import LimitRequest, RunRecord, RunRequest
from rlmd.errors import NotFound
from rlmd.events import Note, SubQueryFailed, SubQueryReplied, Waiting, WentOn
from tests.fakes.ollama import FakeOllama
from tests.house import House, new_id, settings_for

TEXT = "The mill burned down in 1912.\n"
#: Longer than any machine takes to bring a host back in a test.
NIGHT = LimitRequest(waiting=36_000.0)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is away for a moment is away."""
    monkeypatch.setattr("rlmd.pool.patience.GRACE", 0.1)
    monkeypatch.setattr("rlmd.pool.hosts.START_SECONDS", 0.1)


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=2) as server:
        server.answer = lambda prompt: "In 1912."
        yield server


@pytest.fixture
async def other() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["sub"], slots=2) as server:
        server.answer = lambda prompt: "yes"
        yield server


def house_of(folder: Path, *hosts: tuple[str, FakeOllama], sub: str = "box/sub") -> House:
    roles = RoleSettings(root=("box/root",), sub=(sub,))
    return House(folder, settings_for(*hosts, roles=roles, repl=ReplSettings(spare_workers=0)))


async def begun(house: House, limits: LimitRequest = NIGHT, **fields: object) -> RunRecord:
    asked = {"question": "When?", "contexts": ("mill",), **fields}
    request = RunRequest(run_id=new_id(), limits=limits, **asked)
    return await house.engine.start_run(request)


async def in_state(house: House, record: RunRecord, state: str) -> RunRecord:
    async with asyncio.timeout(60):
        while (now := house.engine.run(record.run_id)).state != state:
            await asyncio.sleep(0.02)
    return now


async def up(house: House, name: str) -> None:
    """The host has said what it is: until then it is waited for as any other."""
    async with asyncio.timeout(60):
        while not any(host.name == name and host.state == "ok" for host in house.pool.hosts()):
            await asyncio.sleep(0.02)


async def story(house: House, record: RunRecord) -> list[Waiting | WentOn]:
    return [fact for fact in await house.facts(record) if isinstance(fact, (Waiting, WentOn))]


async def test_a_run_waits_for_its_host_says_so_and_goes_on_when_it_comes(tmp_path: Path, fake: FakeOllama) -> None:
    await fake.die()  # before it is asked the first time: the next time is minutes later
    async with house_of(tmp_path, ("box", fake)) as house:
        await house.load("mill", TEXT)
        async with asyncio.timeout(60):
            while "refused" not in (house.pool.hosts()[0].last_error or ""):
                await asyncio.sleep(0.02)
        run = await begun(house)
        waiting = await in_state(house, run, "waiting")
        assert waiting.waits is not None
        assert [(host.name, host.state) for host in waiting.waits.hosts] == [("box", "down")]
        assert "refused the connection" in waiting.waits.hosts[0].why
        assert waiting.waits.until > waiting.created + 30_000
        assert (await house.engine.runs("waiting")) == [waiting]
        purse = house.engine._going.live[run.run_id].run.purse
        used = purse.seconds_used
        await asyncio.sleep(0.2)
        assert purse.seconds_used == used, "its time stands still"
        await fake.revive()
        ended = await house.engine.wait(run.run_id)
        assert (ended.state, await house.answer(ended)) == ("ended", "In 1912.")
        assert [fact.type for fact in await story(house, ended)] == ["waiting", "went_on"]
        assert ended.waits is None


async def test_a_run_for_which_no_host_comes_ends_with_the_reason(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, ("box", fake)) as house:
        await house.load("mill", TEXT)
        await fake.die()
        ended = await house.engine.wait((await begun(house, LimitRequest(waiting=4.0))).run_id)
        assert (ended.state, ended.outcome) == ("failed", "failed")
        assert ended.error is not None
        assert ended.error.kind == "no_host"
        assert "box: " in ended.error.message
        assert "4 s were waited" in ended.error.message
        waited, over = await story(house, ended)
        assert isinstance(over, WentOn)
        assert not over.came
        assert over.time >= waited.time


async def test_a_paused_host_is_waited_for(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, ("box", fake)) as house:
        await house.load("mill", TEXT)
        house.pool.pause_host("box", paused=True)
        waiting = await in_state(house, await begun(house), "waiting")
        assert waiting.waits is not None
        assert waiting.waits.why == "No host that may answer takes work now: box (paused)."
        house.pool.pause_host("box", paused=False)
        assert (await house.engine.wait(waiting.run_id)).state == "ended"


async def test_a_cell_that_asks_a_host_that_is_away_waits_with_its_run(
    tmp_path: Path, fake: FakeOllama, other: FakeOllama
) -> None:
    code = "said = llm_query_batched([f'{n}: ' + context for n in range(6)])\nprint(said)"
    fake.script("root", [f"```repl\n{code}\n```", "FINAL_VAR(said)"])
    async with house_of(tmp_path, ("box", fake), ("far", other), sub="far/sub") as house:
        await house.load("mill", TEXT)
        await up(house, "box")
        await other.die()
        waiting = await in_state(house, await begun(house, strategy="rlm"), "waiting")
        assert waiting.waits is not None
        assert [host.name for host in waiting.waits.hosts] == ["far"]
        await other.revive()
        ended = await house.engine.wait(waiting.run_id)
        assert await house.answer(ended) == str(["yes"] * 6)


async def test_a_run_that_waits_survives_the_daemon(tmp_path: Path, fake: FakeOllama) -> None:
    """Stopped in the middle of the wait, and killed in it: the next daemon waits on, for what is left of the time."""
    async with house_of(tmp_path, ("box", fake)) as house:
        await house.load("mill", TEXT)
        await fake.die()
        run = await begun(house)
        await in_state(house, run, "waiting")
    file = tmp_path / "state" / "runs" / run.run_id / "journal.jsonl"
    facts = file.read_bytes().splitlines(keepends=True)
    assert b'"run_interrupted"' in facts[-1]
    async with house_of(tmp_path, ("box", fake)) as house:
        again = await in_state(house, run, "waiting")
        assert 0 < again.waited < 60
    # A daemon that is killed leaves the journal as it is in the middle of the wait.
    lines = file.read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if b'"type":"waiting"' in line)
    file.write_bytes(b"".join(lines[: last + 1]))
    async with house_of(tmp_path, ("box", fake)) as house:
        await in_state(house, run, "waiting")
        await fake.revive()
        ended = await house.engine.wait(run.run_id)
        assert (ended.state, await house.answer(ended)) == ("ended", "In 1912.")


async def test_a_run_that_waits_can_be_cancelled(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, ("box", fake)) as house:
        await house.load("mill", TEXT)
        await fake.die()
        run = await in_state(house, await begun(house), "waiting")
        assert (await house.engine.cancel(run.run_id, "enough")).state == "cancelled"
        assert (await house.facts(run))[-1].type == "run_ended"


async def test_two_runs_that_ask_the_same_wait_both(tmp_path: Path, fake: FakeOllama) -> None:
    async with house_of(tmp_path, ("box", fake)) as house:
        await house.load("mill", TEXT)
        await fake.die()
        runs = [await begun(house) for _ in range(2)]
        for run in runs:
            await in_state(house, run, "waiting")
        await fake.revive()
        for run in runs:
            assert (await house.engine.wait(run.run_id)).state == "ended"


def unknown_house(folder: Path, fake: FakeOllama) -> House:
    """Of the one host nobody knows which models it has before it says so."""
    host = HostSettings(url=fake.url, provider="ollama")
    return House(folder, Settings(hosts={"box": host}, repl=ReplSettings(spare_workers=0)))


async def test_a_host_that_never_said_its_models_is_waited_for(tmp_path: Path, fake: FakeOllama) -> None:
    await fake.die()
    async with unknown_house(tmp_path, fake) as house:
        await house.load("mill", TEXT)
        run = await begun(house)
        waiting = await in_state(house, run, "waiting")
        assert waiting.waits is not None
        assert [(host.name, host.state) for host in waiting.waits.hosts] == [("box", "down")]
        other = await begun(house, strategy="quote")
        assert (await house.engine.wait(other.run_id)).state == "ended", "what needs no model does not wait"
        await fake.revive()
        ended = await house.engine.wait(run.run_id)
        assert (ended.state, await house.answer(ended)) == ("ended", "In 1912.")
        assert [fact.type for fact in await story(house, ended)] == ["waiting", "went_on"]


async def test_when_it_does_not_come_passages_are_quoted_or_the_reason_is_told(
    tmp_path: Path, fake: FakeOllama
) -> None:
    await fake.die()
    async with unknown_house(tmp_path, fake) as house:
        await house.load("mill", TEXT)
        ended = await house.engine.wait((await begun(house, LimitRequest(waiting=0.5))).run_id)
        assert (ended.state, ended.strategy) == ("ended", "quote")
        notes = [fact.text for fact in await house.facts(ended) if isinstance(fact, Note)]
        assert any("No answer came from box." in note for note in notes)
        assert [fact.type for fact in await story(house, ended)] == ["waiting", "went_on"]
        failed = await house.engine.wait((await begun(house, LimitRequest(waiting=0.5), strategy="map")).run_id)
        assert failed.error is not None
        assert failed.error.kind == "no_host"
        assert "box did not answer" in failed.error.message


async def test_a_run_that_waits_for_an_unknown_host_can_be_cancelled(tmp_path: Path, fake: FakeOllama) -> None:
    await fake.die()
    async with unknown_house(tmp_path, fake) as house:
        await house.load("mill", TEXT)
        run = await in_state(house, await begun(house), "waiting")
        assert (await house.engine.cancel(run.run_id, "enough")).state == "cancelled"
        assert (await house.facts(run))[-1].type == "run_ended"


@pytest.fixture
async def far() -> AsyncIterator[FakeOllama]:
    """It never said which models it has; ``wide`` is a model that the other hosts lack."""
    async with FakeOllama(["wide"], slots=2) as server:
        server.answer = lambda prompt: "far away"
        await server.die()
        yield server


def two_houses(folder: Path, box: FakeOllama, far: FakeOllama, **fields: object) -> House:
    """Any model of any host may take any part."""
    hosts = {
        "box": HostSettings(url=box.url, provider="ollama", slots=2, models={"root": ModelSettings()}),
        "far": HostSettings(url=far.url, provider="ollama", slots=2),
    }
    return House(folder, Settings(hosts=hosts, repl=ReplSettings(spare_workers=0), **fields))


async def waits_for_far(house: House, far: FakeOllama, **fields: object) -> RunRecord:
    """The run, ended: it waited for the host that never said its models, which came then."""
    waiting = await in_state(house, await begun(house, **fields), "waiting")
    assert waiting.waits is not None
    assert [host.name for host in waiting.waits.hosts] == ["far"]
    assert waiting.waits.until > waiting.created + 30_000
    await far.revive()
    ended = await house.engine.wait(waiting.run_id)
    assert [fact.type for fact in await story(house, ended)] == ["waiting", "went_on"]
    return ended


@pytest.mark.parametrize("name", ["far", "far/wide"])
async def test_a_run_narrowed_to_a_silent_host_waits_though_others_answer(
    tmp_path: Path, fake: FakeOllama, far: FakeOllama, name: str
) -> None:
    async with two_houses(tmp_path, fake, far) as house:
        await house.load("mill", TEXT)
        await up(house, "box")
        ended = await waits_for_far(house, far, root=(name,), strategy="direct")
        assert await house.answer(ended) == "far away"


async def test_its_sub_models_are_waited_for_where_the_pieces_go_by_them(
    tmp_path: Path, fake: FakeOllama, far: FakeOllama
) -> None:
    async with two_houses(tmp_path, fake, far) as house:
        await house.load("mill", TEXT)
        await up(house, "box")
        for strategy in ("direct", "auto"):  # which chooses direct
            direct = await begun(house, sub=("far/wide",), strategy=strategy, root=("box",))
            assert (await house.engine.wait(direct.run_id)).state == "ended", "it asks no sub-model"
            assert await story(house, direct) == []
        ended = await waits_for_far(house, far, sub=("far/wide",), strategy="map")
        assert await house.answer(ended) == "far away"
        assert {fact.completion.host for fact in await house.facts(ended) if isinstance(fact, SubQueryReplied)} == {
            "far"
        }


async def test_of_several_names_those_that_are_there_do_it(tmp_path: Path, fake: FakeOllama, far: FakeOllama) -> None:
    async with two_houses(tmp_path, fake, far) as house:
        await house.load("mill", TEXT)
        await up(house, "box")
        run = await begun(house, root=("far/wide", "box"), sub=("far", "box/root"), strategy="map")
        ended = await house.engine.wait(run.run_id)
        assert (ended.state, await house.answer(ended)) == ("ended", "In 1912.")
        assert await story(house, ended) == []


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("near/x",), "Not heard yet which models there are: far. far/MODEL waits for one of them."),
        (("wide",), "far/MODEL waits for one of them"),  # it may be anybody's, and far never had it
        (("box/other",), "'box/other' is no candidate for root; the candidates are: box/root."),
    ],
)
async def test_a_name_that_can_be_nobodys_is_refused_at_once(
    tmp_path: Path, fake: FakeOllama, far: FakeOllama, named: tuple[str, ...], said: str
) -> None:
    async with two_houses(tmp_path, fake, far) as house:
        await house.load("mill", TEXT)
        await up(house, "box")
        with pytest.raises(NotFound) as refused:
            await begun(house, root=named, strategy="direct")
        assert said in f"{refused.value.message} {refused.value.hint}"


async def test_where_the_config_names_the_candidates_a_silent_host_is_none(
    tmp_path: Path, fake: FakeOllama, far: FakeOllama
) -> None:
    async with two_houses(tmp_path, fake, far, roles=RoleSettings(root=("box/root",))) as house:
        await house.load("mill", TEXT)
        with pytest.raises(NotFound, match="candidates are: box/root"):
            await begun(house, root=("far/wide",), strategy="direct")


async def test_a_silent_host_that_comes_without_the_model_is_an_error(
    tmp_path: Path, fake: FakeOllama, far: FakeOllama
) -> None:
    async with two_houses(tmp_path, fake, far) as house:
        await house.load("mill", TEXT)
        await up(house, "box")
        ended = await waits_for_far(house, far, root=("far/narrow",), strategy="direct")
        assert ended.error is not None
        assert "'far/narrow' is no candidate for root; the candidates are: box/root, far/wide" in ended.error.message


async def test_a_cell_that_names_a_silent_host_waits_and_the_others_of_its_run_go_on(
    tmp_path: Path, fake: FakeOllama, far: FakeOllama
) -> None:
    """The run waits when nothing else of it goes on, and says so then: not before."""
    fake.latency = 1.0
    code = "import asyncio\nsaid = await asyncio.gather(llm_query_async('a', model='far/wide'), llm_query_async('b'))"
    fake.script("root", [f"```repl\n{code}\n```", "b said", "FINAL_VAR(said)"])
    async with two_houses(tmp_path, fake, far) as house:
        await house.load("mill", TEXT)
        await up(house, "box")
        run = await begun(house, strategy="rlm", root=("box",))
        await in_state(house, run, "waiting")
        assert fake.serving == 0, "what box was asked in the same cell is done"
        await far.revive()
        ended = await house.engine.wait(run.run_id)
        assert [fact.type for fact in await story(house, ended)] == ["waiting", "went_on"]
        assert "far away" in await house.answer(ended)


@pytest.mark.parametrize("asked", ["llm_query('a')", "rlm_query('a')"])
async def test_a_persons_cell_waits_for_a_silent_host(tmp_path: Path, fake: FakeOllama, asked: str) -> None:
    await fake.die()
    async with unknown_house(tmp_path, fake) as house:
        await house.load("mill", TEXT)
        run = await begun(house, strategy="execute", question=f"FINAL({asked})")
        await in_state(house, run, "waiting")
        await fake.revive()
        ended = await house.engine.wait(run.run_id)
        assert (ended.state, await house.answer(ended)) == ("ended", "In 1912.")


async def test_a_cell_gives_up_a_silent_host_when_its_runs_patience_is_over(tmp_path: Path, fake: FakeOllama) -> None:
    await fake.die()
    async with unknown_house(tmp_path, fake) as house:
        await house.load("mill", TEXT)
        run = await begun(house, LimitRequest(waiting=0.5), strategy="execute", question="FINAL(str(llm_query('a')))")
        ended = await house.engine.wait(run.run_id)
        assert "box did not answer" in next(
            fact.error.message for fact in await house.facts(ended) if isinstance(fact, SubQueryFailed)
        )
        assert [fact.type for fact in await story(house, ended)] == ["waiting", "went_on"]


async def test_a_program_of_the_user_waits_for_a_silent_host(tmp_path: Path, fake: FakeOllama) -> None:
    """Where it goes by the size of the pieces, before it begins; else when it asks."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "sized.py").write_text("FINAL(f'{piece_chars > 1000} ' + llm_query(question))")
    (folder / "blind.py").write_text("FINAL('blind ' + llm_query(question))")
    (folder / "alone.py").write_text("FINAL('alone')")
    await fake.die()
    async with unknown_house(tmp_path, fake) as house:
        await house.load("mill", TEXT)
        alone = await begun(house, strategy="alone")
        assert await house.answer(await house.engine.wait(alone.run_id)) == "alone"
        runs = {name: await begun(house, strategy=name) for name in ("sized", "blind")}
        for run in runs.values():
            await in_state(house, run, "waiting")
        await fake.revive()
        ended = {name: await house.answer(await house.engine.wait(run.run_id)) for name, run in runs.items()}
        assert ended == {"sized": "True In 1912.", "blind": "blind In 1912."}


async def test_text_that_becomes_private_while_it_waits_goes_to_no_cloud_host(tmp_path: Path, fake: FakeOllama) -> None:
    """The host turns out to be another's, and the flag came before it answered."""
    await fake.die()
    host = HostSettings(url=fake.url, provider="ollama", trust="cloud")
    async with House(tmp_path, Settings(hosts={"box": host}, repl=ReplSettings(spare_workers=0))) as house:
        await house.load("mill", TEXT)
        run = await begun(house, LimitRequest(waiting=5.0), strategy="execute", question="llm_query(context)")
        await in_state(house, run, "waiting")
        await house.load("mill", TEXT, private=True)
        house.engine.privacy_changed()
        await fake.revive()
        await house.engine.wait(run.run_id)
        assert fake.seen == []


async def test_without_any_host_nothing_waits(tmp_path: Path) -> None:
    async with House(tmp_path, Settings(repl=ReplSettings(spare_workers=0))) as house:
        await house.load("mill", TEXT)
        ended = await house.engine.wait((await begun(house)).run_id)
        assert (ended.state, ended.strategy) == ("ended", "quote")
        assert await story(house, ended) == []


async def test_a_machine_that_sleeps_is_woken_to_say_its_models(tmp_path: Path, fake: FakeOllama) -> None:
    await fake.die()
    woken = tmp_path / "woken"
    host = HostSettings(url=fake.url, provider="ollama", wake=("touch", str(woken)))
    async with House(tmp_path, Settings(hosts={"box": host}, repl=ReplSettings(spare_workers=0))) as house:
        await house.load("mill", TEXT)
        run = await begun(house)
        async with asyncio.timeout(60):
            while not woken.exists():
                await asyncio.sleep(0.02)
        await fake.revive()
        assert await house.answer(await house.engine.wait(run.run_id)) == "In 1912."
