"""Exports of runs: whole, bounded, and safe to open whatever models and texts have put into them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlmd.config import ReplSettings, RoleSettings
from rlmd.engine import ExecuteRequest, RunRequest
from rlmd.engine.exports.markup import code, element, text
from rlmd.errors import Busy, NotFound
from tests.fakes.ollama import FakeOllama, Scripted
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
    assert house.engine.runs() == []
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
