"""Roots as they are met in the wild: each run ends right or honestly partial, inside its limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import LimitSettings, ReplSettings, RoleSettings
from rlmd.engine import LimitRequest
from rlmd.events import AnyFact
from tests.fakes.ollama import FakeOllama, Seen
from tests.house import House, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
LINES = "".join(f"Entry {n}: the lamp number {n} is {'lit' if n % 3 else 'dark'}.\n" for n in range(900))


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, fake: FakeOllama) -> AsyncIterator[House]:
    settings = settings_for(
        ("box", fake), roles=ROLES, limits=LimitSettings(turns=10), repl=ReplSettings(spare_workers=0)
    )
    async with House(tmp_path, settings) as made:
        await made.load("lines", LINES)
        yield made


def cell(code: str, language: str = "repl") -> str:
    return f"```{language}\n{code}\n```"


def of_type(facts: list[AnyFact], kind: str) -> list[AnyFact]:
    return [fact for fact in facts if fact.type == kind]


#: Name → the root's replies and the right answer to "How many lamps are lit?".
RIGHT_AFTER_ALL = {
    "several blocks a turn": (
        [
            cell("n = context.count(' lit')") + "\nNow print.\n" + cell("print(n)") + "\n" + cell("m = n"),
            "FINAL_VAR(m)",
        ],
        "600",
    ),
    "more blocks than are run": (
        ["".join(cell(f"n = {k}") + "\n" for k in range(9)), cell("n = context.count(' lit')"), "FINAL_VAR(n)"],
        "600",
    ),
    "a final with unread output": (
        [cell("print(context.count(' lit'))") + "\nFINAL(I think 450)", "FINAL(600)"],
        "600",
    ),
    "an invented output and a final": (
        [cell("print(context.count(' lit'))") + "\nOutput:\n```\n450\n```\nFINAL(450)", "FINAL(600)"],
        "600",
    ),
    "a literal handed over beside unread output": (
        [cell("print(context.count(' lit'))\nFINAL('450')"), cell("FINAL('600')")],
        "600",
    ),
    "an invented answer at once, in code": (
        [cell("answer['content'] = '450'\nanswer['ready'] = True"), cell("FINAL(context.count(' lit'))")],
        "600",
    ),
    "an unclosed fence": (["```repl\nn = context.count(' lit')", "FINAL_VAR(n)"], "600"),
    "FINAL of a variable that is not set": (
        [cell("count = context.count(' lit')"), "FINAL_VAR(result)", "FINAL_VAR(count)"],
        "600",
    ),
    "code that does not compile at first": (
        [cell("n = context.count(' lit'\nprint(n"), cell("n = context.count(' lit')\nFINAL_VAR('n')")],
        "600",
    ),
    "thinking never closed, then a cell": (
        ["<think>Should I count? ```repl\nn = 450\n```", cell("n = context.count(' lit')") + "\nFINAL_VAR(n)"],
        "600",
    ),
    "another language": ([cell("grep -c lit context", "bash"), cell("FINAL(context.count(' lit'))")], "600"),
}


@pytest.mark.parametrize(("replies", "answer"), RIGHT_AFTER_ALL.values(), ids=RIGHT_AFTER_ALL.keys())
async def test_a_bad_habit_costs_turns_and_not_the_answer(
    house: House, fake: FakeOllama, replies: list[str], answer: str
) -> None:
    fake.script("root", replies)
    record = await house.ask("How many lamps are lit?", "lines", strategy="rlm")
    assert (record.outcome, await house.answer(record)) == ("answered", answer)
    assert record.turns == len(replies)


async def test_what_was_invented_is_not_kept(house: House, fake: FakeOllama) -> None:
    """The next prompt holds the reply up to its block and the real output; a wrong number would be believed."""
    fake.script("root", [cell("print(context.count(' lit'))") + "\nOutput: 4711\nSo it is 4711.", "FINAL(600)"])
    await house.ask("How many?", "lines", strategy="rlm")
    told = "\n".join(message["content"] for message in fake.seen[1].messages[1:])
    assert "4711" not in told
    assert "600" in told


async def test_endless_verifying_is_concluded(house: House, fake: FakeOllama) -> None:
    """A root that derives the same again is told, then asked for its answer; turns are left over."""
    again = [cell(f"n{k} = context.count(' lit')\nprint('lit lamps:', n{k})") for k in range(6)]
    fake.script("root", [*again, "There are 600."])
    record = await house.ask("How many?", "lines", strategy="rlm", limits=LimitRequest(turns=30))
    assert (record.outcome, await house.answer(record), record.turns) == ("partial", "There are 600.", 7)
    assert record.receipt is not None
    assert record.receipt.limit == "repeats"
    assert "seen this output before" in fake.seen[3].prompt


async def test_empty_hits_are_no_repetition(house: House, fake: FakeOllama) -> None:
    """Looking for seven things that are not there is exploring, not verifying."""
    looks = [cell(f"grep('missing {k}')") for k in range(7)]
    fake.script("root", [*looks, "FINAL(none of them)"])
    record = await house.ask("Which?", "lines", strategy="rlm")
    assert (record.outcome, record.turns) == ("answered", 8)


async def test_a_sub_query_a_line_is_told_then_capped(house: House, fake: FakeOllama) -> None:
    """900 lines, one prompt each: 200 are sent, the others fail with the advice; packed ones go out after that."""
    each = "r = llm_query_batched([f'{line} Lit?' for line in context.splitlines()])\nprint(len(ok(r)), r[-1])"
    packed = "p = [c + '\\nWhich are lit?' for c in chunks(context, 9000)]\nr = ok(llm_query_batched(p))\nn = len(r)"
    fake.script("root", [cell(each), cell(packed), "FINAL_VAR(n)"])
    record = await house.ask("How many?", "lines", strategy="rlm")
    assert (record.outcome, await house.answer(record)) == ("answered", str(len(fake.prompts("sub")) - 200))
    failed = of_type(await house.facts(record), "subquery_failed")
    assert (len(failed), {fact.error.kind for fact in failed}) == (700, {"over_use"})
    assert "put about" in fake.seen[-1].messages[3]["content"]


async def test_the_cache_makes_small_sub_queries_free(house: House, fake: FakeOllama) -> None:
    """What costs nothing is not held against anyone."""
    each = "r = llm_query_batched([f'{n % 40} Lit?' for n in range(400)])\nn = len(ok(r))"
    fake.script("root", [cell(each), "FINAL_VAR(n)"])
    record = await house.ask("How many?", "lines", strategy="rlm")
    assert (await house.answer(record), len(fake.prompts("sub"))) == ("400", 40)


# ── a root that cannot write cells ──────────────────────────────────────────────────────────────────────────

BROKEN = cell("for line in context\n  print(line")


def findings(prompt: str) -> str:
    return "600 lamps are lit" if "findings from the pieces" in prompt else '"the lamp number 1 is lit"'


async def test_a_root_that_never_compiles_takes_the_offer(house: House, fake: FakeOllama) -> None:
    """After two it is offered the program map, with what that takes."""
    fake.answer = findings
    fake.script("root", [BROKEN, BROKEN, "**MAP**"])
    record = await house.ask("How many lamps are lit?", "lines", strategy="rlm")
    assert (record.outcome, await house.answer(record)) == ("answered", "600 lamps are lit")
    assert "reply with the one word" not in fake.seen[1].prompt
    assert "each of the 4 pieces" in fake.seen[2].prompt
    chosen = of_type(await house.facts(record), "strategy_chosen")
    assert [fact.strategy for fact in chosen] == ["rlm", "map"]


async def test_a_root_that_never_runs_anything_is_helped_out(house: House, fake: FakeOllama) -> None:
    """It does not even take the offer: at the limit of errors the pieces are asked instead."""
    fake.answer = findings
    fake.script("root", [BROKEN, "I would look at the text.", BROKEN, BROKEN, "Hm."])
    record = await house.ask("How many lamps are lit?", "lines", strategy="rlm")
    assert (record.outcome, await house.answer(record)) == ("answered", "600 lamps are lit")
    assert record.receipt is not None
    assert (record.receipt.turns, record.receipt.limit) == (5, None)


async def test_map_is_not_taken_unasked_where_it_cannot_be_paid(house: House, fake: FakeOllama) -> None:
    """An honest none, within the purse."""
    fake.script("root", [BROKEN, BROKEN, BROKEN])
    limits = LimitRequest(sub_queries=3, consecutive_errors=3)
    record = await house.ask("How many lamps are lit?", "lines", strategy="rlm", limits=limits)
    assert record.outcome == "none"
    assert fake.prompts("sub") == []


#: Name → what the root does in every turn, for ever.
FOR_EVER = {
    "several blocks": "".join(cell(f"n{k} = {k}") + "\n" for k in range(3)),
    "more blocks than are run": "".join(cell(f"print({k})") + "\n" for k in range(20)),
    "a final with unread output": cell("print(context.count(' lit'))") + "\nFINAL(I think 450)",
    "an invented output": cell("print(context.count(' lit'))") + "\nOutput:\n```\n450\n```\nFINAL(450)",
    "a literal beside unread output": cell("print(context.count(' lit'))\nFINAL('450')"),
    "verifying": cell("print('lit lamps:', context.count(' lit'))"),
    "a sub-query a line": cell("r = llm_query_batched([f'{line} Lit?' for line in context.splitlines()])"),
    "an unclosed fence": "```repl\nn = context.count(' lit'",
    "code that never compiles": cell("for line in context\n  print(line"),
    "FINAL of a variable that is not set": "FINAL_VAR(result)",
    "FINAL of a variable, beside a cell that fails": cell("result = 1/0") + "\nFINAL_VAR(result)",
    "nothing": "",
    "thinking alone": "<think>I should count them.",
    "prose": "I would count the lamps that are lit.",
    "another language": cell("grep -c lit context", "bash"),
    "a cell that never ends": cell("while True: pass"),
    "one line again and again": "The same line.\n" * 200,
}


@pytest.mark.parametrize("reply", FOR_EVER.values(), ids=FOR_EVER.keys())
async def test_a_bad_habit_for_ever_ends_inside_the_limits(tmp_path: Path, fake: FakeOllama, reply: str) -> None:
    """No limit is passed by one, and what comes out is the right answer or is said to be none for sure."""
    limits = LimitSettings(turns=8, sub_queries=40, seconds=600)
    repl = ReplSettings(spare_workers=0, cell_seconds=0.3)
    fake.answer = findings
    fake.mind("root", lambda seen: reply)
    async with House(tmp_path, settings_for(("box", fake), roles=ROLES, limits=limits, repl=repl)) as house:
        await house.load("lines", LINES)
        record = await house.ask("How many lamps are lit?", "lines", strategy="rlm")
        [last] = await house.engine.facts(record.run_id, record.last_seq)
    assert len(fake.prompts("root")) <= limits.turns + 1, "one last call, for the answer, is beside the limit"
    assert len(fake.prompts("sub")) <= limits.sub_queries
    assert last.type == "run_ended"
    if record.outcome == "answered":
        assert "600" in (record.answer.text or "")
    else:
        assert record.outcome in ("partial", "none")
        assert record.why
    assert record.receipt is not None
    assert record.receipt.turns <= limits.turns + 1


# ── typed answers ───────────────────────────────────────────────────────────────────────────────────────────

COUNT = '{"type": "object", "properties": {"lit": {"type": "integer"}}, "required": ["lit"]}'


async def test_a_typed_answer_is_asked_for_and_checked(house: House, fake: FakeOllama) -> None:
    """What does not fit is explained and tried again; an object of Python is taken as the JSON that it is."""
    fake.script(
        "root",
        [
            cell("n = context.count(' lit')\nprint(n)"),
            "FINAL(600 lamps)",
            cell("FINAL({'lit': str(n)})"),
            cell("FINAL({'lit': n})"),
        ],
    )
    record = await house.ask("How many?", "lines", strategy="rlm", schema=COUNT)
    assert (record.outcome, await house.answer(record)) == ("answered", '{"lit": 600}')
    assert COUNT in fake.seen[0].prompt
    refused = of_type(await house.facts(record), "final_refused")
    assert "is no JSON" in refused[0].why
    assert "lit must be of type integer, not string" in refused[1].why
    assert refused[1].why in fake.seen[3].prompt


async def test_a_direct_answer_is_typed_too(house: House, fake: FakeOllama) -> None:
    await house.load("short", "The lamp is lit.")
    fake.script("root", ["It is lit.", '```json\n{"lit": 1}\n```'])
    record = await house.ask("How many?", "short", schema=COUNT)
    assert (record.strategy, await house.answer(record), record.turns) == ("direct", '{"lit": 1}', 2)
    assert "is no JSON" in fake.seen[1].prompt


async def test_the_answer_of_map_is_made_typed_by_the_root(house: House, fake: FakeOllama) -> None:
    def typed(seen: Seen) -> str:
        assert "600 lamps are lit" in seen.prompt
        return '{"lit": 600}'

    fake.answer = findings
    fake.script("root", [typed])
    record = await house.ask("How many lamps are lit?", "lines", strategy="map", schema=COUNT)
    assert (record.outcome, await house.answer(record)) == ("answered", '{"lit": 600}')


async def test_a_wrong_type_to_the_end_is_partial_and_says_so(house: House, fake: FakeOllama) -> None:
    """Within the limits, never for ever; what there is is handed over as what it is."""
    await house.load("short", "The lamp is lit.")
    fake.script("root", ["It is lit."] * 3)
    limits = LimitRequest(consecutive_errors=3)
    record = await house.ask("How many?", "short", schema=COUNT, limits=limits)
    assert (record.outcome, await house.answer(record)) == ("partial", "It is lit.")
    assert "no JSON" in (record.why or "")


async def test_only_strings_of_a_typed_answer_are_quotes(house: House, fake: FakeOllama) -> None:
    """Names of members and short values are no claims; a quote that is found is a citation."""
    schema = '{"type": "object", "required": ["evidence", "count in all"]}'
    fake.script(
        "root", [cell("print(context[:99])"), 'FINAL({"evidence": "the lamp number 1 is lit", "count in all": 2})']
    )
    record = await house.ask("How many?", "lines", strategy="rlm", schema=schema)
    assert record.outcome == "answered"
    assert [(one.quote, one.verified) for one in record.citations] == [("the lamp number 1 is lit", True)]


async def test_without_a_model_nothing_is_typed(tmp_path: Path) -> None:
    async with House(tmp_path, settings_for()) as house:
        await house.load("lines", LINES)
        record = await house.ask("How many?", "lines", schema=COUNT)
        assert record.state == "failed"
        assert "needs a language model" in (record.why or "")
