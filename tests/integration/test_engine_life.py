"""Runs over a daemon's life: idempotent starts, sessions, restarts, privacy, programs, cells of clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import ReplSettings, RoleSettings
from rlmd.engine import ExecuteRequest, LimitRequest, RunRecord, RunRequest, journal
from rlmd.engine.journal import Journal
from rlmd.errors import Busy, CageUnavailable, Conflict, DiskFull, Draining, NotFound
from rlmd.events import AnyFact
from tests.fakes.ollama import FakeOllama, Scripted
from tests.house import Ear, House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
LINES = "".join(f"Entry {n}: the lamp number {n} is {'lit' if n % 3 else 'dark'}.\n" for n in range(3000))


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


def house_of(folder: Path, fake: FakeOllama) -> House:
    return House(folder, settings_for(("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0)))


@pytest.fixture
async def house(tmp_path: Path, fake: FakeOllama) -> AsyncIterator[House]:
    async with house_of(tmp_path, fake) as made:
        await made.load("lines", LINES)
        yield made


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


async def test_the_same_id_is_the_same_run(house: House, fake: FakeOllama) -> None:
    """Asked twice at once, while it runs, and after: one run. With other parameters: a conflict."""
    fake.script("root", [cell("x = 7"), "FINAL_VAR(x)"])
    request = RunRequest(run_id=new_id(), question="?", contexts=("lines",), strategy="rlm")
    await asyncio.gather(*(house.engine.start_run(request) for _ in range(3)))
    record = await house.engine.wait(request.run_id)
    assert await house.engine.start_run(request) == record
    other = RunRequest(run_id=request.run_id, question="??", contexts=("lines",), strategy="rlm")
    with pytest.raises(Conflict):
        await house.engine.start_run(other)
    assert [one.run_id for one in await house.engine.runs()] == [request.run_id]


async def test_a_restart_takes_up_and_keeps(tmp_path: Path, fake: FakeOllama) -> None:
    """Drained runs are told as interrupted; the next daemon takes them up; ended ones keep their answers."""
    fake.script("root", ["FINAL: no", cell("x = 7"), "FINAL_VAR(x)", Scripted("long", latency=60)])
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        ended = await house.ask("a", "lines", strategy="rlm")
        running = RunRequest(run_id=new_id(), question="b", contexts=("lines",), strategy="rlm")
        await house.engine.start_run(running)
        await fake.until(lambda: fake.serving == 1)
        await house.engine.drain()
        assert house.engine.run(running.run_id).state == "interrupted"
        with pytest.raises(Draining):
            await house.ask("c", "lines")
    await fake.until(lambda: fake.serving == 0)
    # A daemon that was killed leaves a journal without an end, perhaps with a torn line.
    file = tmp_path / "state" / "runs" / running.run_id / "journal.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    assert b'"run_interrupted"' in lines[-1]
    file.write_bytes(b"".join(lines[:-1]) + b'{"torn')
    fake.script("root", [cell("y = 8"), "FINAL_VAR(y)"])
    (tmp_path / "state" / "runs" / "damaged").mkdir()
    (tmp_path / "state" / "runs" / "damaged" / "journal.jsonl").write_text("nonsense\n")
    async with house_of(tmp_path, fake) as house:
        assert {one.run_id: one.state for one in await house.engine.runs()} == {
            ended.run_id: "ended",
            running.run_id: "running",
        }
        again = await house.engine.wait(running.run_id)
        assert (again.state, await house.answer(again)) == ("ended", "8")
        resumed = [fact for fact in await house.facts(again) if fact.type == "run_resumed"]
        assert ["torn" in fact.why for fact in resumed] == [True]
        assert await house.engine.whole(ended.run_id) == ended
        assert await house.answer(ended) == "7"
        assert (await house.engine.start_run(running)).state == "ended"
        ear = Ear()
        await house.engine.subscribe(running.run_id, 1, ear).caught_up()
        assert (ear.facts[-1].type, ear.ends) == ("run_ended", 1)
    assert (tmp_path / "state" / "runs" / "damaged" / "journal.jsonl").read_text() == "nonsense\n"


async def test_runs_are_listed_newest_first_after_a_restart_too(tmp_path: Path, fake: FakeOllama) -> None:
    """Whatever the order of their ids, which is that of their folders."""
    ids = [f"{digit * 8}-0000-4000-8000-000000000000" for digit in "71f05"]
    async with house_of(tmp_path, fake) as house:
        await house.load("lines", LINES)
        for run_id in ids:
            await house.engine.start_run(RunRequest(run_id, "line", ("lines",), strategy="quote"))
            await house.engine.wait(run_id)
        assert [one.run_id for one in await house.engine.runs()] == ids[::-1]
    async with house_of(tmp_path, fake) as house:
        assert [one.run_id for one in await house.engine.runs()] == ids[::-1]
        assert [one.run_id for one in await house.engine.runs("ended", 2)] == ids[:2:-1]


async def test_a_session_keeps_its_names(house: House, fake: FakeOllama) -> None:
    """A later question builds on the variables of an earlier one, and its root is told of them."""
    fake.script("root", [cell("kept = 41"), "FINAL_VAR(kept)", cell("kept += 1") + "\nFINAL_VAR(kept)"])
    first = await house.ask("First?", "lines", strategy="rlm", session="work")
    second = await house.ask("Second?", "lines", strategy="rlm", session="work")
    assert [await house.answer(one) for one in (first, second)] == ["41", "42"]
    assert "kept" in fake.seen[2].prompt
    assert "First?" in fake.seen[2].prompt
    [session] = await house.engine.sessions()
    assert (session.name, session.alive, session.held_by, session.cells) == ("work", True, None, 2)
    await house.engine.drop_session("work")
    assert await house.engine.sessions() == []
    with pytest.raises(NotFound):
        await house.engine.drop_session("work")


async def test_a_session_is_held_by_one_run(house: House, fake: FakeOllama) -> None:
    """Another run waits, is refused, or takes a fresh session, as it asked."""
    replies = [cell(f"y = {n}") + "\nFINAL_VAR(y)" for n in (2, 3)]
    fake.script("root", [Scripted("never", latency=3600), *replies])
    holder = RunRequest(run_id=new_id(), question="a", contexts=("lines",), strategy="rlm", session="one")
    await house.engine.start_run(holder)
    await fake.until(lambda: len(fake.prompts("root")) == 1)
    with pytest.raises(Busy):
        await house.ask("b", "lines", strategy="rlm", session="one", if_busy="refuse")
    with pytest.raises(Busy):
        await house.engine.drop_session("one")
    fresh = await house.ask("c", "lines", strategy="rlm", session="one", if_busy="fresh")
    assert (await house.answer(fresh), fresh.session) == ("2", None)
    queued = RunRequest(run_id=new_id(), question="d", contexts=("lines",), strategy="rlm", session="one")
    assert (await house.engine.start_run(queued)).active
    assert (await house.engine.sessions())[0].held_by == holder.run_id
    await house.engine.cancel(holder.run_id, "make room")
    record = await house.engine.wait(queued.run_id)
    assert await house.answer(record) == "3"


async def test_cancel_of_a_run_that_waits_for_its_session(house: House, fake: FakeOllama) -> None:
    """It ends at once and leaves the holder alone."""
    fake.answer = lambda prompt: Scripted("slow", latency=60)
    fake.script("root", [cell("x = llm_query('wait')")])
    holder = RunRequest(run_id=new_id(), question="a", contexts=("lines",), strategy="rlm", session="one")
    waiter = RunRequest(run_id=new_id(), question="b", contexts=("lines",), strategy="rlm", session="one")
    await house.engine.start_run(holder)
    await house.engine.start_run(waiter)
    assert (await house.engine.cancel(waiter.run_id, "no")).state == "cancelled"
    assert house.engine.run(holder.run_id).state == "running"
    assert (await house.engine.cancel(holder.run_id, "no")).state == "cancelled"


async def test_a_cell_of_a_client(house: House) -> None:
    """Output, error and final come back; names live on in a named session; asked again, it is not run again."""
    request = ExecuteRequest(run_id=new_id(), code="n = len(context)\nprint('hi')\nn", contexts=("lines",), session="s")
    report = await house.engine.execute(request)
    assert (report.ok, report.output, report.error) == (True, f"hi\n{len(LINES)}\n", None)
    assert await house.engine.execute(request) == report
    again = await house.engine.execute(ExecuteRequest(run_id=new_id(), code="FINAL(n + 1)", session="s"))
    assert again.final == str(len(LINES) + 1)
    failed = await house.engine.execute(ExecuteRequest(run_id=new_id(), code="1/0", session="s"))
    assert (failed.ok, failed.error) == (False, "ZeroDivisionError: division by zero")
    assert (await house.engine.sessions())[0].cells == 3


async def test_a_cell_whose_worker_died_is_told_from_one_that_says_so(house: House) -> None:
    """A field says it, not the words of the error: a cell may raise what it likes."""
    request = ExecuteRequest(run_id=new_id(), code="import os\nos._exit(3)", contexts=("lines",))
    report = await house.engine.execute(request)
    assert (report.ok, report.died) == (False, True)
    assert report.error == "The REPL session is lost: the worker left with exit status 3."
    assert await house.engine.execute(request) == report
    posing = "class SessionLost(Exception): pass\nraise SessionLost('not really')"
    report = await house.engine.execute(ExecuteRequest(run_id=new_id(), code=posing, contexts=("lines",)))
    assert (report.ok, report.died, report.error) == (False, False, "SessionLost: not really")


async def test_a_cell_is_found_behind_any_number_of_facts(house: House, fake: FakeOllama) -> None:
    """Only the end of the journal is read for it."""
    code = "len(ok(llm_query_batched([f'piece {n}' for n in range(60)])))"
    report = await house.engine.execute(ExecuteRequest(run_id=new_id(), code=code, contexts=("lines",)))
    assert (report.ok, report.output) == (True, "60\n")


async def test_journals_are_read_off_the_loop(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with its answer comes from its journal, which may be long or on a slow disk."""
    request = ExecuteRequest(run_id=new_id(), code="FINAL('yes')", contexts=("lines",))
    await house.engine.execute(request)
    real, readers = journal.read_record, []

    def noted(folder: Path) -> RunRecord:
        readers.append(threading.current_thread())
        return real(folder)

    monkeypatch.setattr(journal, "read_record", noted)
    assert house.engine.run(request.run_id).answer is None
    assert (await house.engine.whole(request.run_id)).answer is not None
    assert (await house.engine.wait(request.run_id)).answer is not None
    assert len(readers) == 2
    assert threading.main_thread() not in readers


async def test_private_runs_do_not_exist_for_egress_clients(house: House, fake: FakeOllama) -> None:
    """Contexts, runs, values and sessions that ever touched private text are hidden, whatever came after."""
    await house.load("secret", "The code word is heliotrope, do not tell.\n" * 3, private=True)
    fake.script("root", ["It is heliotrope.", cell("w = 1"), "FINAL_VAR(w)"])
    engine = house.engine
    with pytest.raises(NotFound):
        await engine.start_run(RunRequest(run_id=new_id(), question="?", contexts=("secret",)), egress=True)
    request = RunRequest(run_id=new_id(), question="What is it?", contexts=("secret",), session="s", strategy="direct")
    await engine.start_run(request)
    assert (await engine.wait(request.run_id)).private
    later = await house.ask("?", "lines", strategy="rlm", session="s")
    assert later.private, "a session that held private text stays private"
    assert (await engine.runs(egress=True)) == []
    assert await engine.sessions(egress=True) == []
    for hidden in (
        lambda: engine.run(request.run_id, egress=True),
        lambda: engine.subscribe(request.run_id, 1, Ear(), egress=True),
    ):
        with pytest.raises(NotFound):
            hidden()
    with pytest.raises(NotFound):
        await engine.facts(later.run_id, egress=True)
    with pytest.raises(NotFound):
        await engine.cancel(later.run_id, "x", egress=True)
    with pytest.raises(NotFound):
        await engine.start_run(request, egress=True)
    fake.script("root", [cell("print(w)"), "FINAL(it is not here)"])
    asked = RunRequest(run_id=new_id(), question="?", contexts=("lines",), session="s", strategy="rlm")
    await engine.start_run(asked, egress=True)
    assert not (await engine.wait(asked.run_id)).private, "the session of that name is another one"


async def test_map_asks_every_piece_and_combines(house: House, fake: FakeOllama) -> None:
    """Pieces without findings are left out of the combination; asked again, only the cache answers."""

    def answer(prompt: str) -> str:
        if "findings from the pieces" in prompt:
            return f'Combined from {prompt.count("found:")}: "the lamp number 2999 is lit" it says.'
        return "found: something" if "number 7" in prompt or "number 2999 " in prompt else "NOTHING"

    fake.answer = answer
    record = await house.ask("Which is the last?", "lines", strategy="map")
    assert (record.outcome, record.strategy) == ("answered", "map")
    pieces = record.receipt.pieces
    assert pieces > 5
    assert record.sub_queries == pieces + 1
    assert record.receipt.chars_read == record.receipt.chars_total == len(LINES)
    assert (await house.answer(record)).startswith("Combined from ")
    [citation] = record.citations
    assert (citation.verified, citation.locator.line) == (True, 3000)
    count = len(fake.seen)
    again = await house.ask("Which is the last?", "lines", strategy="map")
    assert (len(fake.seen), again.receipt.sub_queries_cached) == (count, pieces + 1)


async def test_few_pieces_are_mapped_and_many_explored(house: House, fake: FakeOllama) -> None:
    """The choice of auto is told with its reason."""
    await house.load("short", LINES[:20_000])
    fake.script("root", [cell("x = 1"), "FINAL_VAR(x)"])
    assert (await house.ask("?", "short")).strategy == "map"
    assert (await house.ask("?", "lines")).strategy == "rlm"
    chosen = [fact for fact in await house.facts((await house.engine.runs())[0]) if fact.type == "strategy_chosen"]
    assert "121,780 characters" in chosen[0].why


async def test_a_failed_host_fails_the_run_with_a_hint(house: House, fake: FakeOllama) -> None:
    """No host reachable: the run ends as failed, with a sentence, and the engine lives on."""
    await fake.die()
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(waiting=0))
    assert (record.state, record.outcome) == ("failed", "failed")
    assert record.error.kind in ("no_host", "host_failed")
    assert record.error.message
    await fake.revive()


async def test_where_no_cell_can_run_quote_searches_without_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own program needs no cage; the person is told. What a model wrote is refused with the remedy."""

    async def refuse(**_: object) -> None:
        raise CageUnavailable("No seccomp here.", hint="Use a newer kernel.")

    monkeypatch.setattr(house.workers, "acquire", refuse)
    record = await house.ask("Which lamp is number 77?", "lines", strategy="quote")
    assert record.outcome == "answered"
    assert "number 77 " in record.citations[0].quote
    notes = [fact.text for fact in await house.facts(record) if fact.type == "note"]
    assert any("No seccomp here" in note for note in notes)
    report = await house.engine.execute(ExecuteRequest(run_id=new_id(), code="1", contexts=("lines",)))
    assert (report.ok, report.error) == (False, "No seccomp here.")


async def test_a_full_disk_ends_the_run_and_nothing_else(
    house: House, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits is told; the next start tells the run as interrupted; other runs go on."""
    fake.script("root", [cell("x = 1"), cell("y = 2") + "\nFINAL_VAR(y)"])
    real = Journal.append
    written = 0

    def full(self: Journal, fact: AnyFact) -> None:
        nonlocal written
        written += 1
        if written > 5:
            raise DiskFull("The disk that holds the journal is full.", hint="Free space.")
        real(self, fact)

    monkeypatch.setattr(Journal, "append", full)
    record = await house.ask("?", "lines", strategy="rlm")
    assert (record.state, record.why) == ("failed", "The disk that holds the journal is full.")
    monkeypatch.undo()
    assert house.engine.statistics().runs_active == 0
    other = await house.ask("??", "lines", strategy="rlm")
    assert await house.answer(other) == "2"
