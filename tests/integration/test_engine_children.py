"""Child runs by ``rlm_query``: their own process, their parent's purse, journals in one another, one end for all."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rlmd.config import LimitSettings, ReplSettings, RoleSettings
from rlmd.engine import LimitRequest, RunRecord, RunRequest
from rlmd.errors import NotFound
from rlmd.events import AnyFact, ChildEnded, ChildStarted
from rlmd.pool import CompletionRequest, PooledCompletion
from tests.fakes.ollama import FakeOllama, Scripted, Seen
from tests.harness import all_end, descendants
from tests.house import Ear, House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
#: Too long for a root to be answered directly, so that children write cells.
LINES = "".join(f"Entry {n}: the lamp number {n} is {'lit' if n % 3 else 'dark'}.\n" for n in range(6000))
LIMITS = LimitSettings(turns=100, depth=1)


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, fake: FakeOllama) -> AsyncIterator[House]:
    settings = settings_for(("box", fake), roles=ROLES, limits=LIMITS, repl=ReplSettings(spare_workers=0))
    async with House(tmp_path, settings) as made:
        await made.load("lines", LINES)
        yield made


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


def of_type(facts: list[AnyFact], kind: str) -> list[AnyFact]:
    return [fact for fact in facts if fact.type == kind]


def question_of(seen: Seen) -> str:
    """What the run that asks this was asked."""
    whole = "\n".join(message["content"] for message in seen.messages if message["role"] == "user")
    found = re.search(r"Question: (.*)", whole)
    assert found
    return found[1].strip()


def turn_of(seen: Seen) -> int:
    return sum(message["role"] == "assistant" for message in seen.messages) + 1


class Roots:
    """A root that answers by question and turn: ``replies[question]`` are its replies, one a turn."""

    def __init__(self, fake: FakeOllama, replies: dict[str, list[str]], most: int = 2000) -> None:
        self.replies = replies
        fake.script("root", [self.reply] * most)

    def reply(self, seen: Seen) -> str:
        question = question_of(seen)
        known = next(key for key in self.replies if re.fullmatch(key, question))
        match = re.fullmatch(known, question)
        assert match
        text = self.replies[known][turn_of(seen) - 1]
        return text.replace("\\1", match[1]) if match.groups() else text


# ── what a child is ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_child_has_its_own_repl_and_its_parents_contexts(house: House, fake: FakeOllama) -> None:
    """Names do not cross, either way; the answer comes back as text; both journals are whole."""
    Roots(
        fake,
        {
            "top": [
                cell("mine = 'parent'\nr = rlm_query('how many lit?')\nprint(repr(r), mine, 'theirs' in globals())"),
                "FINAL_VAR(r)",
            ],
            "how many lit\\?": [
                cell("theirs = context.count(' lit')\nprint('mine' in globals(), theirs)"),
                "FINAL_VAR(theirs)",
            ],
        },
    )
    record = await house.ask("top", "lines", strategy="rlm")
    assert (record.outcome, await house.answer(record)) == ("answered", "4000")
    facts = await house.facts(record)
    assert of_type(facts, "cell_ended")[0].output.text == "'4000' parent False\n"
    [started], [ended] = of_type(facts, "child_started"), of_type(facts, "child_ended")
    assert (started.child, started.given_chars, ended.outcome) == (ended.child, None, "answered")
    child = house.engine.run(started.child)
    assert (child.parent, child.strategy, child.outcome) == (record.run_id, "rlm", "answered")
    below = await house.facts(child)
    assert of_type(below, "cell_ended")[0].output.text == "False 4000\n"
    assert below[-1].type == "run_ended"
    assert record.receipt is not None
    assert (record.receipt.children, record.receipt.turns) == (1, 4)
    assert [one.run_id for one in await house.engine.runs()] == [record.run_id], "a list of runs leaves children out"


async def test_a_child_is_given_pieces_and_texts(house: House, fake: FakeOllama) -> None:
    """What it reads of its parent's contexts counts as read, and its quotes are found there."""
    code = (
        "part = context[:3000]\n"
        "r = rlm_query_batched(['which is dark?', 'what is this?', 'and this?'], [part, 'made ' * 9, [part, 'x']])\n"
        "print(r)"
    )
    quote = 'It says "the lamp number 3 is dark".'
    replies = {"which is dark\\?": [quote], "what is this\\?": ["made up"], "and this\\?": ["both"]}
    Roots(fake, {"top": [cell(code), "FINAL_VAR('r')", f"FINAL({quote})"]} | replies)
    record = await house.ask("top", "lines", strategy="rlm")
    assert record.outcome == "answered"
    started = of_type(await house.facts(record), "child_started")
    by_question = {one.question.text: one for one in started if isinstance(one, ChildStarted)}
    assert [(span.start, span.end) for span in by_question["which is dark?"].given] == [(0, 3000)]
    assert (by_question["what is this?"].given, by_question["what is this?"].given_chars) == ((), 45)
    assert by_question["and this?"].given_chars == 3001
    assert record.receipt is not None
    assert record.receipt.chars_read == 3000
    child = house.engine.run(by_question["which is dark?"].child)
    assert child.strategy == "direct"
    ended = (await house.facts(child))[-1]
    assert ended.type == "run_ended"
    assert ended.citations[0].locator is not None
    assert ended.citations[0].locator.label == "lines:1:4"


async def test_what_a_child_read_in_very_many_places_is_told_to_be_more(
    house: House, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest stretches have their places; a grandchild's and a child's beyond them are counted, and said."""
    monkeypatch.setattr("rlmd.engine.children._MOST_READ", 6)
    parts = "[context[n * 1000 : n * 1000 + {size} + n] for n in range({first}, {last})]"
    code = "x = llm_query_batched([piece + '\\n\\nAbove?' for piece in {parts}])"
    low = cell(code.replace("{parts}", parts.format(size=100, first=20, last=30)))
    deep = cell(code.replace("{parts}", parts.format(size=300, first=0, last=10)) + "\ny = rlm_query('low')")
    Roots(
        fake,
        {
            "top": [cell("r = rlm_query('deep')"), "FINAL(done)"],
            "deep": [deep, "FINAL(deep)"],
            "low": [low, "FINAL(low)"],
        },
    )
    record = await house.ask("top", "lines", strategy="rlm", limits=LimitRequest(depth=2))
    [ended] = of_type(await house.facts(record), "child_ended")
    assert isinstance(ended, ChildEnded)
    assert sorted(span.end - span.start for span in ended.read) == [304, 305, 306, 307, 308, 309]
    whole = sum(300 + n for n in range(10)) + sum(100 + n for n in range(20, 30))
    assert record.receipt is not None
    assert record.receipt.chars_read + record.receipt.chars_read_more == whole
    assert f"and up to {record.receipt.chars_read_more:,} more" in record.receipt.summary


async def test_a_child_that_explores_what_it_was_given(house: House, fake: FakeOllama) -> None:
    """Loaded into its worker, searched, grepped and quoted like any context; raw bytes and CRLF intact."""
    code = "r = rlm_query('find it', context[:100_000] + '\\r\\nodd \\udcff\\r\\nThe hidden word is zebra.')\nprint(r)"
    look = (
        "p = search('hidden word')[0]\n"
        "n = len(context)\nprint(p, p.line, len(grep('zebra')), '\\r\\nodd' in context, n)"
    )
    Roots(
        fake,
        {"top": [cell(code), "FINAL_VAR(r)"], "find it": [cell(look), 'FINAL(It says "The hidden word is zebra".)']},
    )
    record = await house.ask("top", "lines", strategy="rlm")
    assert (record.outcome, await house.answer(record)) == ("answered", 'It says "The hidden word is zebra".')
    [started] = of_type(await house.facts(record), "child_started")
    below = await house.facts(house.engine.run(started.child))
    output = of_type(below, "cell_ended")[0].output.text
    assert "The hidden word is zebra." in output
    assert "1 True 100034" in output
    assert below[-1].citations[0].verified


# ── depth ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_below_the_depth_there_are_no_children(house: House, fake: FakeOllama) -> None:
    """The cell is told what to do instead, and its prompt does not promise what is not there."""
    Roots(
        fake,
        {
            "top": [cell("r = rlm_query('below')"), "FINAL_VAR(r)"],
            "below": [cell("x = rlm_query_batched(['deeper'])[0]\nprint(repr(x))\ny = x.kind"), "FINAL_VAR(y)"],
        },
    )
    record = await house.ask("top", "lines", strategy="rlm")
    assert await house.answer(record) == "limit_reached"
    systems = {question_of(seen): seen.messages[0]["content"] for seen in fake.seen}
    assert "rlm_query" in systems["top"]
    assert "rlm_query" not in systems["below"]


async def tree(house: House, fake: FakeOllama, widths: tuple[int, int, int], workers: int, **limits: int) -> RunRecord:
    """A run over three levels of children; every node prints its own name and hands it up with its children's. The
    lowest ask three sub-queries each, of their own."""
    first, second, third = widths
    ask = (
        "r = rlm_query_batched([f'node {name}.{{k}}' for k in range({width})])\n"
        "for _ in range(10): print('{name}')\n"
        "out = '{name}(' + ','.join(map(str, r)) + ')'"
    )

    def reply(seen: Seen) -> str:
        name = question_of(seen).removeprefix("node ")
        if turn_of(seen) == 2:
            shown = seen.prompt.split("[output of cell 1]\n")[1].split("\n[end of output]")[0]
            assert set(shown.splitlines()) == {name}, f"{name} saw the output of another"
            return "FINAL_VAR(out)"
        level = name.count(".")
        if level == 3:
            asked = f"said = llm_query_batched([f'{name} {{n}}' for n in range(3)])\n"
            return cell(f"{asked}for _ in range(10): print('{name}')\nout = '{name}'")
        width = (first, second, third)[level]
        return cell(ask.replace("{name}", name).replace("{width}", str(width)).replace("{{k}}", "{k}"))

    fake.script("root", [reply] * 2000)
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, house.workers.alive)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    given = LimitRequest(**{"depth": 3, "turns": 10_000, "sub_queries": 10_000, **limits}, seconds=3000)
    record = await house.ask("node r", "lines", strategy="rlm", limits=given)
    watching.cancel()
    assert peak <= workers
    return record


def whole_tree(widths: tuple[int, int, int]) -> str:
    first, second, third = widths
    leaf = "r.{}.{}.{}"
    return "r({})".format(
        ",".join(
            f"r.{a}("
            + ",".join(
                f"r.{a}.{b}(" + ",".join(leaf.format(a, b, c) for c in range(third)) + ")" for b in range(second)
            )
            + ")"
            for a in range(first)
        )
    )


small_or_whole = pytest.mark.parametrize(
    ("widths", "workers"),
    [((2, 2, 2), 4), pytest.param((8, 8, 1), 16, marks=[pytest.mark.full, pytest.mark.timeout(900)])],
    ids=["2+4+8 under 4", "8+64+64 under 16"],
)


@small_or_whole
async def test_three_levels_of_children_come_to_their_end(
    tmp_path: Path, fake: FakeOllama, widths: tuple[int, int, int], workers: int
) -> None:
    """Outputs never cross, the purse counts to the unit, and there is no deadlock."""
    repl = ReplSettings(spare_workers=0, max_workers=workers)
    settings = settings_for(("box", fake), roles=ROLES, limits=LIMITS, repl=repl)
    async with House(tmp_path, settings) as house:
        await house.load("lines", LINES)
        record = await tree(house, fake, widths, workers)
        assert (record.outcome, await house.answer(record)) == ("answered", whole_tree(widths))
        first, second, third = widths
        nodes = 1 + first * (1 + second * (1 + third))
        assert record.receipt is not None
        assert (record.receipt.children, record.receipt.turns) == (nodes - 1, 2 * nodes)
        assert len(fake.prompts("root")) == 2 * nodes
        assert len(fake.prompts("sub")) == record.receipt.sub_queries == 3 * first * second * third
        assert house.workers.alive == 0


@small_or_whole
@pytest.mark.parametrize("limit", ["sub_queries", "turns"])
async def test_a_limit_holds_for_three_levels_to_the_unit(
    tmp_path: Path, fake: FakeOllama, widths: tuple[int, int, int], workers: int, limit: str
) -> None:
    """A purse for half of what the tree asks: so much is sent and not one more, and all come to an end."""
    repl = ReplSettings(spare_workers=0, max_workers=workers)
    first, second, third = widths
    nodes = 1 + first * (1 + second * (1 + third))
    allowed = {"sub_queries": 3 * first * second * third // 2, "turns": nodes}[limit]
    async with House(tmp_path, settings_for(("box", fake), roles=ROLES, limits=LIMITS, repl=repl)) as house:
        await house.load("lines", LINES)
        record = await tree(house, fake, widths, workers, **{limit: allowed})
        assert record.receipt is not None
        if limit == "sub_queries":
            assert (record.outcome, len(fake.prompts("sub"))) == ("answered", allowed)
            assert (record.receipt.sub_queries, record.receipt.sub_queries_refused) == (2 * allowed, allowed)
        else:
            asked = len(fake.prompts("root"))
            assert record.receipt.turns == asked
            assert nodes // 2 < asked <= allowed, "last words come out of the purse too"
            assert any("You can run no more code" in prompt for prompt in fake.prompts("root"))
        assert house.workers.alive == 0


# ── one purse ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_limits_hold_for_the_tree_to_the_unit(house: House, fake: FakeOllama) -> None:
    """Four children with ten sub-queries each against a purse of 25: 25 are sent, 15 fail, all come to an end."""
    Roots(
        fake,
        {
            "top": [cell("r = rlm_query_batched([f'child {k}' for k in range(4)])\nprint(r)"), "FINAL_VAR('r')"],
            "child (\\d)": [
                cell("x = llm_query_batched([f'\\1 {n}' for n in range(10)])\nn = len(ok(x))\nprint(n)"),
                "FINAL_VAR(n)",
            ],
        },
    )
    record = await house.ask("top", "lines", strategy="rlm", limits=LimitRequest(sub_queries=25))
    assert len(fake.prompts("sub")) == 25
    answers = [fact.answer.text for fact in of_type(await house.facts(record), "child_ended")]
    assert sum(int(answer or 0) for answer in answers) == 25
    assert record.receipt is not None
    assert record.receipt.sub_queries == 40


async def test_a_child_that_runs_away_leaves_its_parent_enough(house: House, fake: FakeOllama) -> None:
    """It may take half the turns that are left; its end is told as what it is, never as an answer."""
    endless = [cell(f"print('look', {n})") for n in range(20)]
    code = "r = rlm_query_batched(['endless'])[0]\nprint(bool(r), r)"
    Roots(fake, {"top": [cell(code), "FINAL(gave up)"], "endless": [*endless[:2], "Nothing sure yet."]})
    record = await house.ask("top", "lines", strategy="rlm", limits=LimitRequest(turns=9))
    assert (record.outcome, await house.answer(record)) == ("answered", "gave up")
    [ended] = of_type(await house.facts(record), "child_ended")
    assert isinstance(ended, ChildEnded)
    assert ended.outcome == "partial"
    output = of_type(await house.facts(record), "cell_ended")[0].output.text or ""
    assert output.startswith("False ")
    assert "Nothing sure yet." in output


async def test_a_child_that_needed_no_last_word_gives_back_what_was_set_aside_for_it(
    house: House, fake: FakeOllama
) -> None:
    """One after the other they come to their end, with one last word to spare beside the parent's."""
    ask = cell("r = [rlm_query(f'child {n}') for n in range(3)]")
    Roots(fake, {"top": [ask, "FINAL_VAR(r)"], "child (\\d)": [cell("x = \\1") + "\nFINAL_VAR(x)"]})
    record = await house.ask("top", "lines", strategy="rlm", limits=LimitRequest(turns=8))
    assert (record.outcome, record.receipt and record.receipt.turns) == ("answered", 5)
    record = await house.ask("top", "lines", strategy="rlm", limits=LimitRequest(turns=6), fresh=True)
    assert (record.outcome, record.receipt and record.receipt.turns) == ("answered", 5)


async def test_tokens_are_limited_for_the_tree(house: House, fake: FakeOllama) -> None:
    """The run ends at the limit with what it has, and what the server counted is within it."""
    fake.script("root", [cell(f"print('look', {n})") for n in range(30)] + ["So far nothing."])
    record = await house.ask("top", "lines", strategy="rlm", limits=LimitRequest(tokens=20_000))
    assert record.outcome in ("partial", "none")
    assert record.receipt is not None
    assert record.receipt.limit == "tokens"
    assert sum(use.prompt_tokens + use.completion_tokens for use in record.receipt.models) <= 20_000


# ── cancelling, privacy ─────────────────────────────────────────────────────────────────────────────────────


@small_or_whole
async def test_cancelling_the_parent_leaves_nothing(
    tmp_path: Path, fake: FakeOllama, widths: tuple[int, int, int], workers: int
) -> None:
    """No process, no upstream request, and every journal has its end."""
    first, second, third = widths
    Roots(
        fake,
        {
            "top": [cell(f"r = rlm_query_batched([f'child {{k}}' for k in range({first})])")],
            "child (\\d)": [cell(f"x = rlm_query_batched([f'deep \\1 {{k}}' for k in range({second})])")],
            "deep (.*)": [cell(f"x = rlm_query_batched([f'low \\1 {{k}}' for k in range({third})])")],
            "low (.*)": [cell("y = llm_query_batched([f'slow \\1 {k}' for k in range(9)])")],
        },
    )
    fake.answer = lambda prompt: Scripted("late", latency=600)
    before = {one.pid for one in descendants(os.getpid())}
    repl = ReplSettings(spare_workers=0, max_workers=workers)
    async with House(tmp_path, settings_for(("box", fake), roles=ROLES, limits=LIMITS, repl=repl)) as house:
        await house.load("lines", LINES)
        limits = LimitRequest(depth=3, turns=10_000)
        request = RunRequest(new_id(), "top", ("lines",), strategy="rlm", limits=limits)
        idle = {one.pid for one in descendants(os.getpid())}
        await house.engine.start_run(request)
        held = lambda: sum(one.prompt.startswith("slow") for one in fake.seen if one.outcome == "held")  # noqa: E731
        await fake.until(lambda: held() >= fake.slots)
        record = await house.engine.cancel(request.run_id, "enough")
        assert record.state == "cancelled"
        assert house.workers.alive == 0
        await all_end(lambda: [one for one in descendants(os.getpid()) if one.pid not in before | idle], lambda: "")
        await fake.until(lambda: fake.held == 0)
        asked = len(fake.seen)
    assert len(fake.seen) == asked, "nothing is asked after the end"
    journals = sorted((tmp_path / "state" / "runs" / request.run_id).rglob("journal.jsonl"))
    assert len(journals) >= 1 + 3
    for journal in journals:
        assert '"type":"run_ended"' in journal.read_text().splitlines()[-1]


async def test_a_child_can_be_cancelled_alone(house: House, fake: FakeOllama) -> None:
    """Its parent's cell gets a failed slot and goes on."""
    Roots(
        fake,
        {
            "top": [cell("r = rlm_query_batched(['child'])[0]\nk = r.kind"), "FINAL_VAR(k)"],
            "child": [cell("y = llm_query('slow')")],
        },
    )
    fake.answer = lambda prompt: Scripted("late", latency=600)
    request = RunRequest(new_id(), "top", ("lines",), strategy="rlm")
    ear = Ear()
    await house.engine.start_run(request)
    house.engine.subscribe(request.run_id, 1, ear)
    await fake.until(lambda: any(seen.prompt == "slow" for seen in fake.seen))
    [child] = [fact.child for fact in ear.facts if isinstance(fact, ChildStarted)]
    assert (await house.engine.cancel(child, "not needed")).state == "cancelled"
    record = await house.engine.wait(request.run_id)
    assert (record.outcome, await house.answer(record)) == ("answered", "cancelled")


async def test_a_child_is_as_private_as_its_parent(house: House, fake: FakeOllama) -> None:
    """Also where it was given a text, and where the mark came when all was over."""
    Roots(fake, {"top": [cell("r = rlm_query('what?', context[:50])"), "FINAL_VAR(r)"], "what\\?": ["words"]})
    record = await house.ask("top", "lines", strategy="rlm")
    [child] = [fact.child for fact in await house.facts(record) if isinstance(fact, ChildStarted)]
    assert house.engine.run(child, egress=True).outcome == "answered"
    await house.load("lines", LINES, private=True)
    with pytest.raises(NotFound):
        house.engine.run(child, egress=True)
    assert house.engine.run(child).private


async def test_to_the_pool_a_tree_is_one_run(house: House, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one share of the slots, however many children; and what is marked private is so for all of them."""
    runs: list[str] = []
    real = house.pool.complete

    async def complete(request: CompletionRequest, *rest: object) -> PooledCompletion:
        runs.append(request.run_id)
        return await real(request, *rest)

    monkeypatch.setattr(house.pool, "complete", complete)
    Roots(
        fake,
        {
            "top": [cell("r = rlm_query('child')"), "FINAL_VAR(r)"],
            "child": [cell("r = llm_query('sub')"), "FINAL_VAR(r)"],
        },
    )
    record = await house.ask("top", "lines", strategy="rlm")
    assert record.outcome == "answered"
    assert runs == [record.run_id] * 5


async def test_children_of_the_past_are_found_again(tmp_path: Path, fake: FakeOllama) -> None:
    """After a restart their facts can be read under their id, whichever level they are of."""
    settings = settings_for(("box", fake), roles=ROLES, limits=LIMITS, repl=ReplSettings(spare_workers=0))
    Roots(
        fake,
        {
            "top": [cell("r = rlm_query('child')"), "FINAL_VAR(r)"],
            "child": [cell("r = rlm_query('deep')"), "FINAL_VAR(r)"],
            "deep": [cell("print(len(context))"), "FINAL(deep down)"],
        },
    )
    async with House(tmp_path, settings) as house:
        await house.load("lines", LINES)
        record = await house.ask("top", "lines", strategy="rlm", limits=LimitRequest(depth=2))
        [child] = [fact.child for fact in await house.facts(record) if isinstance(fact, ChildStarted)]
        [deep] = [fact.child for fact in await house.engine.facts(child) if isinstance(fact, ChildStarted)]
    async with House(tmp_path, settings) as house:
        assert len(await house.engine.runs()) == 1
        found = await house.engine.whole(deep)
        assert (found.parent, await house.engine.answer(found)) == (child, "deep down")
        assert (await house.engine.facts(child))[-1].type == "run_ended"
        with pytest.raises(NotFound):
            await house.engine.whole(new_id())
