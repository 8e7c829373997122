"""``rlmctl eval`` against a real daemon whose models know the truth: what is lost on the way would be seen."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rlmd.evaluation.item import Item
from rlmd.evaluation.tasks import tasks
from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.fakes.oracle import Oracle
from tests.harness import Folders, Host, config_of
from tests.shell import Ended, rlmctl, start

MADE = ("niah", "oolong", "pairs", "code", "hops")
LONG = [pytest.mark.full, pytest.mark.timeout(1800)]


def made(names: Iterable[str], tokens: Iterable[int], count: int) -> list[Item]:
    """The items that ``rlmctl eval`` makes by these numbers."""
    known = tasks()
    lengths = list(tokens)
    return [item for name in names for length in lengths for item in known[name].items(length, count, 0)]


def configure(folders: Folders, fake: FakeOllama, window: int = 8192) -> None:
    host = Host("box", fake.url, fake.slots, {"root": window, "sub": window})
    folders.write_config(config_of([host], ("box/root",), ("box/sub",)))


def rows_of(ended: Ended, kind: str = "row") -> list[dict[str, Any]]:
    assert ended.status == 0, ended.err
    return [row for line in ended.out.splitlines() if (row := json.loads(line))["type"] == kind]


async def evaluated(
    folders: Folders, start_daemon: StartDaemon, oracle: Oracle, *arguments: str, window: int = 8192
) -> tuple[list[dict[str, Any]], FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=8) as fake:
        oracle.speak_in(fake)
        configure(folders, fake, window)
        await start_daemon()
        ended = await rlmctl(folders.environment(), "eval", "--json", *arguments)
        left = await rlmctl(folders.environment(), "context", "list")
        assert left.out == "", "every context was dropped"
        return rows_of(ended), fake


async def test_a_perfect_model_scores_full_in_every_task(folders: Folders, start_daemon: StartDaemon) -> None:
    """With 8K windows, from a text that is as long to one of four times that; base is cut and says so."""
    lengths, count = (8192, 32768), 2
    oracle = Oracle(made(MADE, lengths, count))
    rows, fake = await evaluated(
        folders, start_daemon, oracle, "--length", "8K", "--length", "32K", "--items", str(count), window=8192
    )
    led = [row for row in rows if row["column"] == "rlm"]
    assert [row for row in led if row["score"] != 1.0] == []
    assert len(led) == len(MADE) * len(lengths) * count
    assert max(fake.tokens(seen) + int(seen.options["num_predict"]) for seen in fake.seen) <= 8192
    base = [row for row in rows if row["column"] == "base"]
    direct = [row for row in rows if row["column"] == "direct"]
    assert all(row["cut"] > 0 for row in base if row["tokens"] == 32768)
    assert {row["score"] for row in direct if row["tokens"] == 32768} == {None}
    assert len(base) == len(direct) == len(led)


@pytest.mark.parametrize(
    ("error", "tokens", "count"),
    [(0.15, 8192, 5), *(pytest.param(rate, 32768, 14, marks=LONG) for rate in (0.05, 0.2))],
)
async def test_errors_of_the_model_are_all_that_is_lost(
    folders: Folders, start_daemon: StartDaemon, error: float, tokens: int, count: int
) -> None:
    """A sub-model that is wrong at a known rate: each question scores what its errors alone make of it."""
    names = ("oolong", "pairs", "code", "hops")
    oracle = Oracle(items := made(names, (tokens,), count), error=error, seed=5)
    expected = {(item.task, item.name): oracle.expected(item) for item in items}
    rows, _ = await evaluated(
        folders, start_daemon, oracle, *names, "--column", "rlm", "--length", str(tokens), "--items", str(count)
    )
    assert {(row["task"], row["item"]): pytest.approx(row["score"]) for row in rows} == expected
    assert 0 < sum(expected.values()) < len(expected), "some are right and some are not"
    for name in names:
        scores = [score for (task, _), score in expected.items() if task == name]
        print(f"{name}, wrong in {error:.0%}: {sum(scores) / len(scores):.1%}")


async def test_a_window_smaller_than_told_costs_queries_and_no_answer(
    folders: Folders, start_daemon: StartDaemon
) -> None:
    """The server takes half of what the config says: prompts that it refuses are asked in halves."""
    items = made(("oolong",), (32768,), 2)
    oracle = Oracle(items)

    async with FakeOllama(["root"], slots=8) as big, FakeOllama(["sub"], slots=8) as small:
        oracle.speak_in(big)
        oracle.speak_in(small)
        full = small.tokens

        def tokens(seen: Any) -> int:
            return 3 * full(seen)

        small.tokens = tokens  # type: ignore[method-assign]
        hosts = [Host("big", big.url, 8, {"root": 16384}), Host("small", small.url, 8, {"sub": 8192})]
        folders.write_config(config_of(hosts, ("big/root",), ("small/sub",)))
        await start_daemon()
        ended = await rlmctl(
            folders.environment(), "eval", "oolong", "--json", "--column", "rlm", "--length", "32K", "--items", "2"
        )
        assert [row["score"] for row in rows_of(ended)] == [1.0, 1.0]
        assert small.outcomes("failed") > 0, "some were refused"


async def test_an_evaluation_that_was_stopped_goes_on(
    folders: Folders, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    """Ctrl-C in the middle: nothing stays in the daemon; with --out only what is missing is asked."""
    items = made(("niah",), (8192,), 3)
    oracle, held = Oracle(items), asyncio.Event()
    out = tmp_path / "rows.jsonl"
    arguments = ("eval", "niah", "--column", "rlm", "--length", "8K", "--items", "3", "--out", str(out), "--json")
    async with FakeOllama(["root", "sub"]) as fake:
        configure(folders, fake)

        def root(seen: Any) -> Any:
            if items[1].question in str(seen.messages[1]["content"]):
                held.set()
                return hang
            return oracle.root(seen)

        from tests.fakes.serving import Scripted

        hang = Scripted("…", until=asyncio.Event())
        fake.mind("root", root)
        await start_daemon()
        process = await start(folders.environment(), *arguments)
        await asyncio.wait_for(held.wait(), 60)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            await process.communicate()
        assert process.returncode == 130
        listed = await rlmctl(folders.environment(), "context", "list")
        assert listed.out == ""
        assert len(out.read_text().splitlines()) == 1
        with out.open("a") as torn:
            torn.write('{"type":"row","task"')
        oracle.speak_in(fake)
        before = len(fake.seen)
        rows = rows_of(await rlmctl(folders.environment(), *arguments))
        assert [row["item"] for row in rows] == ["1", "2"], "the first was not asked again"
        assert len(fake.seen) > before
        kept = [json.loads(line) for line in out.read_text().splitlines()]
        assert [(row["item"], row["score"]) for row in kept] == [("0", 1.0), ("1", 1.0), ("2", 1.0)]


async def useful_windows(folders: Folders) -> dict[str, int]:
    listed = json.loads((await rlmctl(folders.environment(), "host", "list", "--json")).out)
    return {model["name"]: model["useful_window"] for host in listed["hosts"] for model in host["models"]}


async def test_what_was_found_of_a_model_decides_how_it_is_asked(folders: Folders, start_daemon: StartDaemon) -> None:
    """Set by hand, as an evaluation sets it: pieces are as large as the model reads well, and no larger; the config
    goes first; what cannot be is refused."""
    async with FakeOllama(["root", "sub"], slots=4) as fake:
        configure(folders, fake)
        await start_daemon()
        text = folders.home / "text.txt"
        text.write_text("".join(f"Line {n} says {n * 7919 % 1000}.\n" for n in range(2000)))

        async def longest(*arguments: str) -> int:
            fake.seen.clear()
            ended = await rlmctl(
                folders.environment(), "ask", "-f", str(text), "--strategy", "map", "--fresh", *arguments, "Which?"
            )
            assert ended.status == 0, ended.err
            return max(map(len, fake.prompts("sub")))

        before = await longest()
        kept = await rlmctl(folders.environment(), "host", "calibrate", "box", "-m", "sub", "--useful-window", "1000")
        assert kept.status == 0, kept.err
        assert "useful window 1,000 of 8,192 tokens" in kept.err
        assert await longest() < before / 3
        for model, tokens, why in (("sub", "9000", "has a window of 8,192"), ("nobody", "500", "offers no model")):
            arguments = ("host", "calibrate", "box", "-m", model, "--useful-window", tokens)
            refused = await rlmctl(folders.environment(), *arguments)
            assert refused.status != 0
            assert why in refused.err
        unnamed = await rlmctl(folders.environment(), "host", "calibrate", "box", "--useful-window", "500")
        assert "one model's" in unnamed.err


async def test_quick_tells_roots_from_subs_and_their_windows(folders: Folders, start_daemon: StartDaemon) -> None:
    """One model that can lead, one that reads half of its window and writes no code, one that says nothing useful."""
    from rlmd.evaluation import code, hops, needles
    from rlmd.evaluation.quick import reading_items

    oracle = Oracle(
        item for task in (needles.TASK, code.task_over(None), hops.TASK) for item in task.items(32768, 1, 0)
    )
    for tokens in (512, 1024, 2048, 4096, 6963):
        for item in reading_items(tokens, 0):
            oracle.add(item)

    def reads_half(seen: Any) -> Any:
        if len(seen.prompt) > 8192:
            return "I do not find them."
        return oracle.root(seen) if len(seen.messages) == 1 else "I would rather not write code."

    async with FakeOllama(["leads", "reads", "talks"], slots=4) as fake:

        def leads(seen: Any) -> Any:
            is_root = seen.messages[0]["role"] == "system" or "magic numbers for" in seen.prompt
            return oracle.root(seen) if is_root else oracle.sub(seen)

        fake.mind("leads", leads)
        fake.mind("reads", reads_half)
        fake.mind("talks", lambda seen: "As a language model, I am glad to help.")
        models = dict.fromkeys(("leads", "reads", "talks"), 8192)
        folders.write_config(config_of([Host("box", fake.url, 4, models)]))
        daemon = await start_daemon()
        ended = await rlmctl(folders.environment(), "eval", "--quick", "--json")
        found = {row["model"]: row for row in rows_of(ended, "verdict")}
        told = {name: (row["root"], row["sub"], row["useful_window"]) for name, row in found.items()}
        assert told["box/leads"] == (True, True, 6963)
        assert told["box/reads"][:2] == (False, True)
        assert 1024 <= told["box/reads"][2] <= 4096
        assert told["box/talks"] == (False, False, None)
        why = {name: row["why"] for name, row in found.items()}
        assert why["box/leads"] == ""
        assert why["box/reads"] == "led 0 of 3 questions right (answered by the program map)"
        assert why["box/talks"] == "of the numbers hidden in 512 tokens it told 0%"
        windows = {"leads": 6963, "reads": told["box/reads"][2], "talks": 4096}
        assert await useful_windows(folders) == windows
        await daemon.kill()
        await start_daemon()
        assert await useful_windows(folders) == windows, "remembered, also by one that was killed"


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_ten_million_tokens(folders: Folders, start_daemon: StartDaemon) -> None:
    """Every task at every length of the paper and beyond, with windows of 64K."""
    names = ("niah", "oolong", "code", "hops")
    for tokens in (1 << 13, 1 << 15, 1 << 17, 1 << 20, 10 << 20):
        oracle = Oracle(made(names, (tokens,), 2))
        rows, _ = await _long(folders, start_daemon, oracle, names, tokens)
        assert [row for row in rows if row["score"] != 1.0] == []
        assert len(rows) == 2 * len(names)
        _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    """What the table of docs/evaluation.md has."""
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        score, seconds, asked = (sum(row[key] for row in own) / len(own) for key in ("score", "seconds", "sub_queries"))
        print(f"{task} {own[0]['tokens']:,}: {score:.0%} · {seconds:.1f} s · {asked:,.0f}")


async def _long(
    folders: Folders, start_daemon: StartDaemon, oracle: Oracle, names: tuple[str, ...], tokens: int
) -> tuple[list[dict[str, Any]], FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=8) as fake:
        oracle.speak_in(fake)
        configure(folders, fake, 65536)
        daemon = await start_daemon()
        process = await start(
            folders.environment(), "eval", *names, "--json", "--column", "rlm", "--length", str(tokens), "--items", "2"
        )
        out, err = await process.communicate()
        await daemon.stop()
        assert process.returncode is not None
        return rows_of(Ended(process.returncode, out.decode(), err.decode())), fake


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_all_twenty_pairs_up_to_131k(folders: Folders, start_daemon: StartDaemon) -> None:
    """Answers of up to 260,000 pairs come out of a variable whole."""
    for tokens in (8192, 32768, 131072):
        oracle = Oracle(made(("pairs",), (tokens,), 20))
        rows, _ = await _pairs(folders, start_daemon, oracle, tokens)
        assert [row for row in rows if row["score"] != 1.0] == []
        assert len(rows) == 20
        _print(rows)


async def _pairs(
    folders: Folders, start_daemon: StartDaemon, oracle: Oracle, tokens: int
) -> tuple[list[dict[str, Any]], FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=8) as fake:
        oracle.speak_in(fake)
        configure(folders, fake)
        daemon = await start_daemon()
        process = await start(
            folders.environment(), "eval", "pairs", "--json", "--column", "rlm", "-l", str(tokens), "-n", "20"
        )
        out, err = await process.communicate()
        await daemon.stop()
        assert process.returncode is not None
        return rows_of(Ended(process.returncode, out.decode(), err.decode())), fake
