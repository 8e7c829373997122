"""Exports of runs: whole, bounded, and safe to open whatever models and texts have put into them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlmd.config import ReplSettings, RoleSettings
from rlmd.engine import ExecuteRequest, LimitRequest, RunRequest
from rlmd.engine.exports.markup import code, element, text
from rlmd.errors import Busy, NotFound
from tests.fakes.ollama import FakeOllama, Scripted, Seen
from tests.house import House, new_id, settings_for

ROLES = RoleSettings(root=("box/root",), sub=("box/sub",))
#: What a hostile text would like to be taken for.
NASTY = (
    "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)>\"'><style>*{}</style>"
    "<!-- --> ]]> &lt;b&gt; \u202egnol\u202c \x1b[31m \u2028 <svg/onload=alert(3)> <a href='javascript:x'>y</a>"
)
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "pre", "span", "details", "summary"),
    *("blockquote", "table", "tr", "th", "td"),
}


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, fake: FakeOllama) -> AsyncIterator[House]:
    async with House(tmp_path, settings_for(("box", fake), roles=ROLES, repl=ReplSettings(spare_workers=0))) as made:
        await made.load("note", f"The lamp is lit. {NASTY}\n" * 40)
        yield made


async def hostile_run(house: House, fake: FakeOllama) -> str:
    fake.answer = lambda prompt: f"reply {NASTY}"
    fake.script(
        "root",
        [
            f"I look. {NASTY}\n" + cell(f"# {NASTY!r}\nfor p in search('lamp', 2): print(p)\nprint({NASTY!r})"),
            cell(f"replies = llm_query_batched([{NASTY!r} + str(n) for n in range(5)])\n1/0  # {NASTY[:30]!r}"),
            f'FINAL(It says "The lamp is lit." {NASTY})',
        ],
    )
    record = await house.ask(f"What? {NASTY}", "note", strategy="rlm")
    assert record.outcome == "answered"
    return record.run_id


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.shown: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.shown.append(data)


async def test_a_page_holds_what_happened_and_nothing_that_acts(house: House, fake: FakeOllama) -> None:
    """Every text of the run is text of the page; no element or attribute is there that is not ours."""
    run_id = await hostile_run(house, fake)
    source, chars = await house.engine.export(run_id, "html")
    assert chars == len(source)
    page = Page(source)
    assert set(page.tags) <= ALLOWED
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert page.tags.count("style") == 1
    assert page.open == []
    shown = "".join(page.shown)
    for what in ("<script>alert(1)</script>", "onerror=alert(2)", "<svg/onload=alert(3)>"):
        assert shown.count(what) >= 8, f"{what} is shown where it was said"
    assert "\u202e" not in source
    assert "\x1b" not in source
    assert "⟨U+202E⟩" in shown
    for what in ("ZeroDivisionError", "5 sub-queries", "Turn 3", "sub on box", "Receipt"):
        assert what in shown, what
    assert "http://" not in source.replace(NASTY, "")
    assert "src=" not in source.replace("&", "").replace("img src=x", "")


async def test_the_log_is_the_references(house: House, fake: FakeOllama) -> None:
    """Field by field what research on rlms 0.1.3 found, so that its visualizer reads it."""
    run_id = await hostile_run(house, fake)
    source, _ = await house.engine.export(run_id, "jsonl")
    metadata, *iterations = map(json.loads, source.splitlines())
    assert metadata["type"] == "metadata"
    assert {"timestamp", "root_model", "max_depth", "max_iterations", "backend", "environment_type"} <= set(metadata)
    assert [one["iteration"] for one in iterations] == [1, 2, 3]
    assert {one["type"] for one in iterations} == {"iteration"}
    assert [one["role"] for one in iterations[1]["prompt"]] == ["user", "assistant", "user"]
    assert 'original query: "What?' in iterations[0]["prompt"][0]["content"]
    [block] = iterations[1]["code_blocks"]
    result = block["result"]
    assert set(result) == {"stdout", "stderr", "locals", "execution_time", "final_answer", "rlm_calls"}
    assert "ZeroDivisionError" in result["stderr"]
    assert len(result["rlm_calls"]) == 5
    call = result["rlm_calls"][0]
    assert call["usage_summary"]["model_usage_summaries"]["sub"]["total_calls"] == 1
    assert call["response"] == f"reply {NASTY}".replace("\x00", "")
    assert "elided" in result["locals"]["context"]
    assert "5" in result["locals"]["replies"]
    assert [one["final_answer"] is not None for one in iterations] == [False, False, True]
    assert source.isascii()


async def test_long_texts_are_elided_and_long_exports_come_in_parts(house: House, fake: FakeOllama) -> None:
    fake.answer = lambda prompt: "word " * 6000
    code = "replies = llm_query_batched([f'piece {n}' for n in range(60)])\nprint('x' * 500_000)"
    request = ExecuteRequest(run_id=new_id(), code=code, contexts=("note",))
    assert (await house.engine.execute(request)).ok
    parts, length, whole = [], 0, 1
    while length < whole:
        part, whole = await house.engine.export(request.run_id, "html", length)
        assert 0 < len(part) <= 500_000
        parts.append(part)
        length += len(part)
    assert len(parts) > 2
    assert Page("".join(parts)).open == []
    assert "characters left out" in "".join(parts)


async def test_a_run_that_goes_on_is_exported_as_far_as_it_is(house: House, fake: FakeOllama) -> None:
    fake.answer = lambda prompt: Scripted("late", latency=3600)
    request = ExecuteRequest(run_id=new_id(), code="llm_query('x')", contexts=("note",))
    await house.engine.start_run(request.as_run())
    await fake.until(lambda: fake.serving == 1)
    for form in ("html", "jsonl"):
        source, _ = await house.engine.export(request.run_id, form)
        assert "llm_query" in source
    await house.engine.cancel(request.run_id, "enough")


async def test_private_runs_are_neither_exported_nor_deleted_by_egress(house: House, fake: FakeOllama) -> None:
    await house.load("secret", "The word is heliotrope.\n" * 20, private=True)
    record = await house.ask("Which word?", "secret", strategy="quote")
    for form in ("html", "jsonl"):
        with pytest.raises(NotFound):
            await house.engine.export(record.run_id, form, egress=True)
    with pytest.raises(NotFound):
        await house.engine.delete_run(record.run_id, egress=True)
    assert "heliotrope" in (await house.engine.export(record.run_id, "html"))[0]


async def test_a_deleted_run_is_gone(tmp_path: Path, house: House, fake: FakeOllama) -> None:
    """From memory, list and disk; its id can be used again; one that goes on is not deleted."""
    record = await house.ask("lamp?", "note", strategy="quote")
    folder = tmp_path / "state" / "runs" / record.run_id
    assert folder.exists()
    await house.engine.delete_run(record.run_id)
    assert not folder.exists()
    assert not list((tmp_path / "state" / "deleted-runs").iterdir())
    assert (await house.engine.runs()) == []
    for gone in (house.engine.facts(record.run_id), house.engine.delete_run(record.run_id)):
        with pytest.raises(NotFound):
            await gone
    again = RunRequest(run_id=record.run_id, question="lamp?", contexts=("note",), strategy="quote")
    await house.engine.start_run(again)
    assert (await house.engine.wait(record.run_id)).outcome == "answered"
    fake.answer = lambda prompt: Scripted("late", latency=3600)
    request = ExecuteRequest(run_id=new_id(), code="llm_query('x')", contexts=("note",))
    await house.engine.start_run(request.as_run())
    await fake.until(lambda: fake.serving == 1)
    with pytest.raises(Busy):
        await house.engine.delete_run(request.run_id)
    await house.engine.cancel(request.run_id, "enough")
    await house.engine.delete_run(request.run_id)


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    '''doc\nover lines'''\n    return x  # why\n",
        "for x in 'a<b>':\n\tprint(f'{x!r}', 0x1f)\n",
        "x = (1,\n\n     2)\\\n  + 3",
        "\f\nx = 1\u2028y = 2\r\nz = '\u2029'",
        "if x:\n  y\n z",
        "print('open",
        "",
        "\n\n",
        "   ",
        "日本 = '<&>'  # ☃",
    ],
)
def test_coloured_code_is_the_same_code(source: str) -> None:
    """Whatever is marked in it: without the marks it is the source, character for character."""
    plain = Page(element("pre", code(source)))
    assert "".join(plain.shown) == "".join(Page(element("pre", text(source))).shown)
    assert set(plain.tags) <= {"pre", "span"}


# ── the whole tree ──────────────────────────────────────────────────────────────────────────────────────────


async def tree_of_runs(house: House, fake: FakeOllama) -> str:
    """A run that asks two children, the first of which asks one of its own; one child fails."""
    turns = {
        "top": [
            cell(f"r = rlm_query_batched([{'first ' + NASTY!r}, 'second'])\nprint(r)"),
            f"FINAL(It is lit. {NASTY})",
        ],
        "first": [
            cell("low = rlm_query('lowest', 'a made text of its own ' * 9000)\nn = llm_query('sub of first')"),
            "FINAL_VAR(low)",
        ],
        "lowest": [cell("print('deep down', len(context))"), "FINAL(found below)"],
        "second": [cell("print('no luck')"), "FINAL()", cell("1/0"), cell("1/0"), cell("1/0"), cell("1/0")],
    }

    def root(seen: Seen) -> str:
        asked = str(seen.messages[1]["content"])
        name = next(name for name in turns if f"Question: {name}" in asked)
        done = sum(message["role"] == "assistant" for message in seen.messages)
        return turns[name][done] if done < len(turns[name]) else "I do not know."

    fake.mind("root", root)
    await house.load("long", f"The lamp is lit. {NASTY}\n" * 2000)
    limits = LimitRequest(depth=2, turns=40, consecutive_errors=4)
    record = await house.ask("top", "long", strategy="rlm", limits=limits)
    assert record.outcome == "answered", record
    return record.run_id


async def test_a_page_holds_the_whole_tree(house: House, fake: FakeOllama) -> None:
    """Children, and theirs, folded below the cell that asked them; nothing is loaded from anywhere."""
    run_id = await tree_of_runs(house, fake)
    source, _ = await house.engine.export(run_id, "html")
    page = Page(source)
    assert set(page.tags) <= ALLOWED
    assert page.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class"}
    shown = "".join(page.shown)
    for what in ("deep down 207000", "found below", "sub of first", "no luck", "ZeroDivisionError"):
        assert what in shown, what
    assert shown.count("child run") >= 3
    assert shown.count("<script>alert(1)</script>") >= 4
    assert source.index("first") < source.index("lowest") < source.index("deep down") < source.index("second</pre>")
    for loads in ("http:", "https:", "//", "url(", "@import", "<script", "<link", "<img", "<iframe", "srcset"):
        assert loads not in source.replace(escape(NASTY), ""), loads
    nested = re.search(r"<details><summary>child run.*", source, re.DOTALL)
    assert nested is not None
    assert nested[0].count("<summary>child run") == 3


async def test_a_child_whose_journal_is_damaged_is_told_by_its_parent(
    tmp_path: Path, house: House, fake: FakeOllama
) -> None:
    run_id = await tree_of_runs(house, fake)
    journals = sorted((tmp_path / "state" / "runs" / run_id / "children").glob("*/journal.jsonl"))
    for journal in journals:
        journal.write_text("no journal\n")
    source, _ = await house.engine.export(run_id, "html")
    shown = "".join(Page(source).shown)
    assert "found below" in shown
    assert "not shown further" in shown
    assert "deep down" not in shown


# ── the reference's visualizer ──────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass
class Opened:
    """What the visualizer of rlms 0.1.3 makes of a file: its header and panels read these fields without a check."""

    config: dict[str, Any]
    iterations: list[dict[str, Any]]
    question: str
    answer: str | None
    calls: list[dict[str, Any]]
    errors: bool


def opened(source: str) -> Opened:
    """Reads a log by that program's rules; fails where it would show a blank, ``undefined``, or an exception."""
    lines = [json.loads(line) for line in source.strip().split("\n") if line.strip()]
    configs = [line for line in lines if line.get("type") == "metadata"]
    iterations = [line for line in lines if line.get("type") != "metadata"]
    assert len(configs) == 1
    for name in ("root_model", "backend", "environment_type"):
        assert isinstance(configs[0][name], str)
    calls: list[dict[str, Any]] = []
    answer: str | None = None
    for iteration in iterations:
        assert isinstance(iteration["iteration"], int)
        datetime.fromisoformat(iteration["timestamp"])
        assert isinstance(iteration["response"], str)
        assert isinstance(iteration["iteration_time"], float | int | None)
        for message in iteration["prompt"]:
            assert message["role"] in ("system", "user", "assistant")
            assert isinstance(message["content"], str)
        final = iteration["final_answer"]
        assert final is None or isinstance(final, str)
        answer = final or answer
        for block in iteration["code_blocks"]:
            result = block["result"]
            assert all(isinstance(text, str) for text in (block["code"], result["stdout"], result["stderr"]))
            assert isinstance(result["locals"], dict)
            assert isinstance(result["execution_time"], float | int)
            calls += result["rlm_calls"]
    for call in calls:
        assert isinstance(call["prompt"], str | dict)
        assert isinstance(call["response"], str)
        assert isinstance(call["prompt_tokens"], int)
        assert isinstance(call["completion_tokens"], int)
        assert isinstance(call["execution_time"], float | int)
    blocks = [block for iteration in iterations for block in iteration["code_blocks"]]
    errors = any(block["result"]["stderr"] for block in blocks)
    return Opened(configs[0], iterations, _question(iterations), answer, calls, errors)


def _question(iterations: list[dict[str, Any]]) -> str:
    users = [message["content"] for message in iterations[0]["prompt"] if message["role"] == "user"]
    found = next((match for text in users if (match := re.search(r'original query: "([^"]+)"', text))), None)
    assert found is not None, "it would guess at the question"
    return found[1]


async def test_a_tree_opens_in_the_references_visualizer(house: House, fake: FakeOllama) -> None:
    """Children are calls of their cell, with their own iterations where the reference has them."""
    run_id = await tree_of_runs(house, fake)
    log = opened((await house.engine.export(run_id, "jsonl"))[0])
    assert (log.question, log.errors, log.config["max_depth"]) == ("top", False, 2)
    assert log.answer is not None
    assert log.answer.startswith("It is lit.")
    first, second = log.calls
    assert first["response"] == "found below"
    assert first["usage_summary"]["model_usage_summaries"]["root"]["total_calls"] == 4
    assert first["prompt_tokens"] > 0
    assert "error" in second
    below = opened(
        "\n".join(json.dumps(line) for line in [first["metadata"]["run_metadata"], *first["metadata"]["iterations"]])
    )
    assert below.question.startswith("first")
    assert [call["response"] for call in below.calls if "metadata" in call] == ["found below"]
    assert len(below.calls) == 2


@pytest.mark.parametrize("strategy", ["direct", "map", "quote", "rlm"])
async def test_every_way_of_running_opens_in_it(house: House, fake: FakeOllama, strategy: str) -> None:
    """Also where nobody led, and where a question has the sign that it looks for."""
    fake.answer = lambda prompt: "NOTHING" if "Above are" not in prompt else "lit"
    fake.mind("root", lambda seen: "It is lit." if strategy == "direct" else "FINAL(It is lit.)")
    record = await house.ask('Is the "lamp"\nlit?', "note", strategy=strategy, limits=LimitRequest(turns=3))
    log = opened((await house.engine.export(record.run_id, "jsonl"))[0])
    assert log.question == "Is the 'lamp'\nlit?"
    assert log.iterations
    assert (log.answer or "").strip() == (await house.answer(record) or "").strip()


async def test_a_run_that_failed_opens_in_it(house: House, fake: FakeOllama) -> None:
    fake.mind("root", lambda seen: Scripted("no such model", status=404))
    record = await house.ask("Is it lit?", "note", strategy="rlm")
    assert record.state == "failed"
    log = opened((await house.engine.export(record.run_id, "jsonl"))[0])
    assert (log.question, log.answer) == ("Is it lit?", None)
