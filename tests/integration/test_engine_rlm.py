"""The strategy rlm in its edge cases: windows, finals, limits, lost workers, cancelling."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlmd.config import LimitSettings, PromptSettings, ReplSettings, RoleSettings
from rlmd.engine import LimitRequest, RunRequest
from rlmd.events import AnyFact
from rlmd.pool import CompletionRequest, PooledCompletion
from tests.fakes.ollama import FakeOllama, Scripted
from tests.house import Ear, House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
LINES = "".join(f"Entry {n}: the lamp number {n} is {'lit' if n % 3 else 'dark'}.\n" for n in range(3000))


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, fake: FakeOllama) -> AsyncIterator[House]:
    settings = settings_for(
        ("box", fake), roles=ROLES, limits=LimitSettings(turns=8), repl=ReplSettings(spare_workers=0)
    )
    async with House(tmp_path, settings) as made:
        await made.load("lines", LINES)
        yield made


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


def of_type(facts: list[AnyFact], kind: str) -> list[AnyFact]:
    return [fact for fact in facts if fact.type == kind]


async def test_an_8k_root_over_10_mb_never_exceeds_its_window(tmp_path: Path) -> None:
    """Twelve talkative turns: each prompt and its reply fit, though the tokenizer is poorer than was estimated."""
    async with FakeOllama(["root"], bytes_per_token=2.5) as fake:
        settings = settings_for(("box", fake), roles=RoleSettings(root=("box/root",)))
        async with House(tmp_path, settings) as house:
            await house.load("big", "0123456789 abc def ghi. " * 440_000)
            talk = "I think about it at length. " * 30
            turns = [talk + cell(f"x{n} = {n}\nprint(context[{n}:90000])") for n in range(11)]
            fake.script("root", [*turns, cell("total = x0 + x10") + "\nFINAL_VAR(total)"])
            record = await house.ask("What is the sum?", "big", strategy="rlm")
            assert (record.outcome, await house.answer(record), record.turns) == ("answered", "10", 12)
            assert len(fake.seen) == 12
            for seen in fake.seen:
                assert fake.tokens(seen) + int(seen.options["num_predict"]) <= 8192
            assert "What is the sum?" in fake.seen[-1].messages[1]["content"], "the question is never lost"


async def test_history_in_the_repl_keeps_what_was_folded_away(tmp_path: Path) -> None:
    """A root of 4K that has long lost its first turns from its prompt finds their outputs whole."""
    async with FakeOllama(["root"]) as fake:
        settings = settings_for(("box", fake), roles=RoleSettings(root=("box/root",)), window=4096)
        async with House(tmp_path, settings) as house:
            await house.load("lines", LINES)
            talk = "I look at the next of them. " * 20
            turns = [talk + cell(f"print(context[{600 * n}:{600 * n + 600}]); print('mark {n}')") for n in range(9)]
            said = cell(
                "outputs = [one['content'] for one in history if one['role'] == 'user' and 'mark ' in one['content']]\n"
                "result = [n for n in range(9) if any(\n"
                "    f'mark {n}' in one and context[600 * n:600 * n + 600].strip() in one for one in outputs)]"
            )
            fake.script("root", [*turns, said, "FINAL_VAR(result)"])
            record = await house.ask("Which marks?", "lines", strategy="rlm")
            found = json.loads(await house.answer(record) or "")
            last = "".join(str(message["content"]) for message in fake.seen[-1].messages)
            shown = [n for n in range(9) if f"mark {n}\n[end" in last]
            assert 0 not in shown, "it was folded away"
            assert set(found) | set(shown) == set(range(9)), "what is not in the prompt is in the REPL, whole"
            assert "`history`" in last
            facts = await house.facts(record)
            programs = [fact.program for fact in of_type(facts, "cell_started")]
            assert set(programs) == {None, "history"}
            grew = [one.prompt_tokens_estimated for one in of_type(facts, "turn_started")]
            compactions = sum(later < earlier for earlier, later in itertools.pairwise(grew))
            assert 0 < programs.count("history") <= compactions, "bound anew when folded anew, and not else"


async def test_what_a_turn_prints_takes_a_quarter_of_the_window_and_its_cells_share_that(
    house: House, fake: FakeOllama
) -> None:
    long = "print('word ' * 9000)"
    fake.script("root", [cell(long), f"{cell(long)}\n\n{cell(long)}", "FINAL(done)"])
    await house.ask("?", "lines", strategy="rlm")
    quarter = 8192 // 4 * 3  # characters: three are counted for a token
    for seen in fake.seen[1:]:
        printed = seen.messages[-1]["content"].count("word ") * len("word ")
        assert 0.9 * quarter < printed <= quarter


async def test_output_and_replies_stream_and_close(house: House, fake: FakeOllama) -> None:
    """A subscriber hears what the facts then hold; one that comes late hears the same facts."""
    heard = asyncio.Event()
    fake.script("root", [Scripted(cell("print('one'); print('two')"), until=heard), "FINAL(two lines)"])
    ear, late = Ear(), Ear()
    request = RunRequest(run_id=new_id(), question="?", contexts=("lines",), strategy="rlm")
    await house.engine.start_run(request)
    await house.engine.subscribe(request.run_id, 1, ear).caught_up()
    heard.set()
    record = await house.engine.wait(request.run_id)
    subscription = house.engine.subscribe(request.run_id, 3, late)
    await subscription.caught_up()
    facts = await house.facts(record)
    assert ear.facts == facts
    assert late.facts == facts[2:]
    assert ear.text("turn-1/root") == cell("print('one'); print('two')")
    assert ear.text("cell-1/output") == of_type(facts, "cell_ended")[0].output.text == "one\ntwo\n"


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ("FINAL(dark)", "Nothing has been read"),
        (cell("print(context[:80])") + "\nFINAL(lit)", "before the output"),
        (cell("1/0") + "\nFINAL_VAR(x)", "failed"),
        (cell("x = ''") + "\nFINAL_VAR(x)", "empty"),
        (cell("x = 1") + "\nFINAL_VAR(context)", "belongs to the REPL"),
        (cell("x = 1") + "\nFINAL_VAR(y)", "no variable y"),
    ],
)
async def test_a_final_that_does_not_count_is_refused(house: House, fake: FakeOllama, first: str, why: str) -> None:
    """The refusal is a fact, the root is told why, and the run goes on."""
    fake.script("root", [first, cell("found = 'lit'") + "\nFINAL_VAR(found)"])
    record = await house.ask("Is lamp 1 lit?", "lines", strategy="rlm")
    assert await house.answer(record) == "lit"
    [refused] = of_type(await house.facts(record), "final_refused")
    assert why in refused.why
    assert why in fake.seen[1].prompt


@pytest.mark.parametrize(
    "last",
    [
        "FINAL(found)",
        "FINAL_VAR('found')",
        "**FINAL_VAR(found)**",
        "FINAL_VAR(found.upper().lower())",
        'FINAL(f"{found}")',
        "SUBMIT(found)",
        "FINAL(answer)",
        cell("FINAL(found)"),
        cell("FINAL_VAR('found')"),
        cell("SUBMIT(found)"),
        cell("answer['content'] = found; answer['ready'] = True"),
        "<think>FINAL(no)</think>FINAL(2000 lit)",
        "<|begin_of_box|>FINAL(2000 lit)<|end_of_box|>",
    ],
)
async def test_both_protocols_finish(house: House, fake: FakeOllama, last: str) -> None:
    """Prose, callable and the answer dict all end the run with the value."""
    count = cell("found = f\"{context.count(' lit')} lit\"\nanswer['content'] = found")
    fake.script("root", [count, last])
    record = await house.ask("How many are lit?", "lines", strategy="rlm")
    assert (record.outcome, await house.answer(record), record.turns) == ("answered", "2000 lit", 2)


async def test_a_reply_cut_at_its_limit_is_not_run(house: House, fake: FakeOllama) -> None:
    """The last, unclosed block of a cut reply never runs; the root is told that it was cut."""
    fake.script("root", [Scripted("```repl\nx = 'half", finish="length"), cell("x = 'whole'") + "\nFINAL_VAR(x)"])
    record = await house.ask("?", "lines", strategy="rlm")
    assert await house.answer(record) == "whole"
    assert len(of_type(await house.facts(record), "cell_started")) == 1
    assert "did not count" in fake.seen[1].prompt
    assert "Write less" in fake.seen[1].prompt


async def test_a_batch_with_failures_keeps_its_good_slots(house: House, fake: FakeOllama) -> None:
    """A slot too long for every window fails alone, and says what would fit."""
    fake.script(
        "root",
        [
            cell("r = llm_query_batched(['short', 'x y ' * 50_000, 'also short'])\nprint([bool(x) for x in r], r[1])"),
            cell("n = len(ok(r))") + "\nFINAL_VAR(n)",
        ],
    )
    record = await house.ask("?", "lines", strategy="rlm")
    facts = await house.facts(record)
    assert await house.answer(record) == "2"
    assert "[True, False, True]" in of_type(facts, "cell_ended")[0].output.text
    [failed] = of_type(facts, "subquery_failed")
    assert failed.error.kind == "prompt_too_long"
    assert "1 prompt_too_long" in fake.seen[-1].prompt


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_turns_used_up_end_in_a_last_word(house: House, fake: FakeOllama) -> None:
    """The limit is a fact; the last turn asks for the findings so far, and they make a partial answer."""
    fake.script("root", [cell("print(context[:60])"), cell("print(1)"), 'It says "the lamp number 0 is dark".'])
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(turns=3))
    assert len(fake.seen) == record.receipt.turns == 3
    told = [seen.messages[-1]["content"].splitlines()[-1] for seen in fake.seen]
    assert ["last turn that can run a block" in line for line in told] == [False, True, False]
    assert (record.state, record.outcome) == ("ended", "partial")
    assert await house.answer(record) == 'It says "the lamp number 0 is dark".'
    assert record.citations[0].verified
    assert record.receipt.limit == "turns"
    facts = await house.facts(record)
    assert [fact.limit for fact in of_type(facts, "limit_hit")] == ["turns"]
    assert [fact.last for fact in of_type(facts, "turn_started")] == [False, False, True]
    assert facts[-1].stream == of_type(facts, "root_replied")[-1].stream  # it was told while it came


async def test_an_answer_that_was_set_is_what_a_limit_leaves(house: House, fake: FakeOllama) -> None:
    """No further call is made for it."""
    fake.script("root", [cell("answer['content'] = 'so far'")])
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(turns=1))
    assert (record.outcome, await house.answer(record)) == ("partial", "so far")
    assert len(fake.seen) == 1


async def test_while_an_answer_stands_no_turn_is_kept_for_a_last_word(house: House, fake: FakeOllama) -> None:
    fake.script("root", [cell("print(1)"), cell("answer['content'] = 'so far'"), cell("print(2)"), "never asked"])
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(turns=3))
    assert (record.outcome, await house.answer(record), record.receipt.turns) == ("partial", "so far", 3)
    assert "Turn 3 of 3. This is the last turn that can run a block" in fake.seen[-1].prompt
    fake.script("root", [cell("print(1)")])
    record = await house.ask("And?", "lines", strategy="rlm", limits=LimitRequest(turns=1))
    assert (record.outcome, record.receipt.turns) == ("none", 1)


@pytest.mark.parametrize("tokens", [20_000, 21_000, 22_000, 24_000])
async def test_a_last_word_makes_do_with_the_tokens_that_are_left(house: House, fake: FakeOllama, tokens: int) -> None:
    """Some are kept for it; what was said is shortened until it fits; the server counts no more than allowed."""
    looks = [cell(f"print(context[{n * 6000}:{n * 6000 + 5500}])") for n in range(9)]
    fake.answer = lambda prompt: "It is lit." if "can run no more code" in prompt else looks[len(fake.seen) % 9]
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(tokens=tokens))
    assert (record.outcome, await house.answer(record), record.receipt.limit) == ("partial", "It is lit.", "tokens")
    used = sum(use.prompt_tokens + use.completion_tokens for use in record.receipt.models)
    assert 0.7 * tokens < used <= tokens


async def test_without_findings_a_limit_ends_in_an_honest_none(house: House, fake: FakeOllama) -> None:
    """Errors in a row end the run; where nothing ran, and nothing may be asked, there is nothing to answer from."""
    fake.script("root", ["I wonder.", "I ponder.", "made up"])
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(consecutive_errors=2, sub_queries=0))
    assert (record.state, record.outcome, len(fake.seen)) == ("ended", "none", 2)
    assert "2 errors in a row" in await house.answer(record)


async def test_sub_queries_are_claimed_before_they_are_sent(house: House, fake: FakeOllama) -> None:
    """A batch of 30 against a limit of 10 sends 10; the rest are typed failures; the answer still comes."""
    batch = "r = llm_query_batched([f'q{n}' for n in range(30)])\nn = len(ok(r))\nprint(n)"
    fake.script("root", [cell(batch), "FINAL_VAR(n)"])
    record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(sub_queries=10))
    assert (await house.answer(record), len(fake.prompts("sub"))) == ("10", 10)
    failed = of_type(await house.facts(record), "subquery_failed")
    assert {fact.error.kind for fact in failed} == {"limit_reached"}
    assert len(failed) == 20


async def test_time_over_in_the_middle_of_a_batch(house: House, fake: FakeOllama) -> None:
    """The cell is stopped, what is in flight is aborted, and the findings before it still make an answer."""
    warm = {"strategy": "rlm", "session": "warm"}  # the time of a busy machine's worker to start is not to count
    fake.script("root", [cell("x = 1"), "FINAL(1)"])
    await house.ask("?", "lines", **warm)
    fake.script("root", [cell("print('seen')"), cell("r = llm_query('slow')"), "From what I saw: seen."])
    fake.answer = lambda prompt: Scripted("late", latency=60)
    record = await house.ask("?", "lines", limits=LimitRequest(seconds=3), **warm)
    assert (record.outcome, await house.answer(record)) == ("partial", "From what I saw: seen.")
    assert record.receipt.limit == "seconds"
    await asyncio.wait_for(fake.until(lambda: fake.aborted == 1), 60)


# ── lost workers, cancelling ────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_that_dies_is_replaced(house: House, fake: FakeOllama) -> None:
    """The root learns that its variables are gone; the context is there again."""
    fake.script("root", [cell("x = 1"), cell("import os\nos._exit(3)"), cell("y = len(context)") + "\nFINAL_VAR(y)"])
    record = await house.ask("?", "lines", strategy="rlm")
    assert await house.answer(record) == str(len(LINES))
    facts = await house.facts(record)
    assert [fact.lost for fact in of_type(facts, "session_started")] == [False, True]
    assert [fact.names_lost for fact in of_type(facts, "cell_ended")] == [False, True, False]
    assert "all variables are gone" in fake.seen[2].prompt


async def test_cancel_in_the_middle_of_a_batch(house: House, fake: FakeOllama) -> None:
    """Answered when it has ended: upstream requests aborted, last fact written, the receipt tells what was paid."""
    fake.script("root", [cell("r = llm_query_batched([f'q{n}' for n in range(20)])")])
    fake.answer = lambda prompt: Scripted("late", latency=60)
    request = RunRequest(run_id=new_id(), question="?", contexts=("lines",), strategy="rlm")
    await house.engine.start_run(request)
    await fake.until(lambda: fake.serving == 4)
    record = await house.engine.cancel(request.run_id, "enough")
    assert (record.state, record.outcome, record.why) == ("cancelled", "cancelled", "enough")
    assert record.receipt.turns == 1
    facts = await house.facts(record)
    assert facts[-1].type == "run_ended"
    assert of_type(facts, "cell_ended")[0].error == "cancelled"
    await fake.until(lambda: fake.serving == 0)
    assert fake.outcomes("answered") == 1
    assert house.engine.statistics().runs_active == 0
    assert await house.engine.cancel(request.run_id, "again") == record


async def test_cancel_while_the_root_speaks(house: House, fake: FakeOllama) -> None:
    """The stream that is open is closed by a fact."""
    fake.script("root", [Scripted("word " * 500, pause=0.2)])
    request = RunRequest(run_id=new_id(), question="?", contexts=("lines",), strategy="rlm")
    await house.engine.start_run(request)
    await fake.until(lambda: fake.serving == 1)
    record = await house.engine.cancel(request.run_id, "enough")
    facts = await house.facts(record)
    assert [fact.type for fact in facts[-3:]] == ["cancel_requested", "root_failed", "run_ended"]
    await fake.until(lambda: fake.serving == 0)


async def test_a_cut_reply_that_a_host_hands_over_is_not_run(
    house: House, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers give what there is with finish "length": whole blocks run, the open one and the final do not."""
    real = house.pool.complete
    asked = 0

    async def cut_first(request: CompletionRequest, on_delta: object = None) -> PooledCompletion:
        nonlocal asked
        asked += 1
        done = await real(request, on_delta)
        finish = "length" if asked == 1 else "stop"
        return replace(done, completion=replace(done.completion, finish=finish))

    monkeypatch.setattr(house.pool, "complete", cut_first)
    first = cell("x = 'whole'") + "\nFINAL(half)\n```repl\nx = 'half'\nprint('unfinished"
    fake.script("root", [first, "FINAL_VAR(x)"])
    record = await house.ask("?", "lines", strategy="rlm")
    assert await house.answer(record) == "whole"
    assert len(of_type(await house.facts(record), "cell_started")) == 1
    assert "Its last block was not run" in fake.seen[1].prompt


async def test_a_lone_sub_query_is_told_while_it_comes(house: House, fake: FakeOllama) -> None:
    """Its reply's fact names the stream that it equals; of a batch nobody reads along."""
    code = "a = llm_query('alone')\nb = llm_query_batched(['one', 'two'])"
    heard = asyncio.Event()
    fake.script("root", [Scripted(cell(code), until=heard), "FINAL_VAR(a)"])
    fake.answer = lambda prompt: Scripted(f"{prompt}, said at some length", chunk=5)
    ear = Ear()
    request = RunRequest(run_id=new_id(), question="?", contexts=("lines",), strategy="rlm")
    await house.engine.start_run(request)
    await house.engine.subscribe(request.run_id, 1, ear).caught_up()
    heard.set()
    record = await house.engine.wait(request.run_id)
    replied = of_type(await house.facts(record), "subquery_replied")
    assert [fact.stream for fact in replied] == ["cell-1/sub-1", None, None]
    assert ear.text("cell-1/sub-1") == "alone, said at some length" == replied[0].reply.text
    assert {delta.stream for delta in ear.deltas if "sub" in delta.stream} == {"cell-1/sub-1"}


# ── families ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_root_is_told_what_its_family_and_the_config_say(tmp_path: Path) -> None:
    """A coder is warned, a thinker gets room, both stop before they invent an output; the journal has the version."""
    async with FakeOllama(["coder-7b", "qwen3"]) as fake:
        for name, room, words in (("coder-7b", 1024, "Careful with llm_query"), ("qwen3", 3276, "Think briefly")):
            settings = settings_for(
                ("box", fake),
                roles=RoleSettings(root=(f"box/{name}",), sub=("box/qwen3",)),
                prompts=PromptSettings(note="Answer in rhyme."),
            )
            folder = tmp_path / name
            folder.mkdir()
            async with House(folder, settings) as house:
                await house.load("lines", LINES)
                fake.script(name, [cell("print(1)"), "FINAL(done)"])
                record = await house.ask("?", "lines", strategy="rlm")
                assert await house.answer(record) == "done"
                asked = fake.seen[-1]
                assert (asked.options["num_predict"], asked.options["stop"]) == (room, ["\n[output of cell"])
                system = asked.messages[0]["content"]
                assert words in system
                assert system.endswith("Answer in rhyme.\n")
                assert (await house.facts(record))[0].prompts.startswith("3+")
