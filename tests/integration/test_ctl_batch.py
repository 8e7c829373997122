"""``rlmctl batch``: in order, resumable, each question asked once whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.fakes.serving import Scripted
from tests.harness import Client, Folders, Host, config_of, load_text
from tests.shell import rlmctl, start

SLOTS = 8


@pytest.fixture
async def model(folders: Folders) -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root"], slots=SLOTS) as fake:
        host = Host("m40", fake.url, slots=SLOTS, models={"root": 32_768})
        folders.write_config(config_of([host], root=("m40/root",), sub=("m40/root",)))
        yield fake


def questions(folders: Folders, *lines: Any) -> Path:
    file = folders.root / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def numbered(count: int) -> list[dict[str, object]]:
    return [{"question": f"question number {number}?", "id": number} for number in range(count)]


def number_of(prompt: str) -> int:
    return int(prompt.split("question number ")[1].split("?")[0])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_results_come_in_the_order_of_the_questions(model: FakeOllama, folders: Folders, client: Client) -> None:
    gate = asyncio.Event()
    first_held = asyncio.Event()

    def reply(prompt: str) -> Scripted:
        """The first is answered after the second."""
        if number_of(prompt) == 0:
            first_held.set()
            return Scripted("It is 0.", until=gate)
        if number_of(prompt) == 1:
            gate.set()
        return Scripted(f"It is {number_of(prompt)}.")

    model.answer = reply
    await load_text(client, "short", "a short text")
    ended = await rlmctl(folders.environment(), "batch", str(questions(folders, *numbered(3))), "-c", "short")
    assert ended.status == 0, ended.err
    found = lines(ended.out)
    assert [(one["index"], one["id"], one["answer"]) for one in found] == [
        (number, number, f"It is {number}.") for number in range(3)
    ]
    assert len({one["run_id"] for one in found}) == 3


async def killed_in_the_middle(
    model: FakeOllama, folders: Folders, start_daemon: StartDaemon, count: int
) -> list[dict[str, Any]]:
    """A batch under which the daemon is killed while a third of it is answered; what it wrote."""
    held, middle = asyncio.Event(), asyncio.Event()

    def reply(prompt: str) -> Scripted:
        if model.outcomes("answered") >= count // 3 and not held.is_set():
            middle.set()
            return Scripted(f"It is {number_of(prompt)}.", until=held)
        return Scripted(f"It is {number_of(prompt)}.")

    model.answer = reply
    daemon = await start_daemon()
    async with daemon.connect() as client:
        await load_text(client, "short", "a short text")
    output = folders.root / "answers.jsonl"
    file = questions(folders, *numbered(count))
    batch = await start(folders.environment(), "batch", str(file), "-c", "short", "-o", str(output), "--quiet")
    await middle.wait()
    await daemon.kill()
    held.set()
    _, err = await batch.communicate()  # it starts the next daemon by itself
    assert batch.returncode == 0, err.decode()
    assert (await rlmctl(folders.environment(), "daemon", "stop")).status == 0
    return lines(output.read_text())


def each_was_asked_once(model: FakeOllama, found: list[dict[str, Any]], count: int) -> None:
    assert [one["index"] for one in found] == list(range(count))
    assert [one["answer"] for one in found] == [f"It is {number}." for number in range(count)]
    whole = Counter(number_of(seen.prompt) for seen in model.seen if seen.outcome == "answered")
    # What the model had said in full, but not yet to the journal, at the kill is asked again: no more than the slots.
    assert sum(times - 1 for times in whole.values()) <= SLOTS, whole
    assert max(whole.values()) <= 2
    assert len(model.seen) <= count + 2 * SLOTS


async def test_a_kill_in_the_middle_is_survived(model: FakeOllama, folders: Folders, start_daemon: StartDaemon) -> None:
    each_was_asked_once(model, await killed_in_the_middle(model, folders, start_daemon, 40), 40)


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_a_kill_in_the_middle_of_a_thousand_is_survived(
    model: FakeOllama, folders: Folders, start_daemon: StartDaemon
) -> None:
    each_was_asked_once(model, await killed_in_the_middle(model, folders, start_daemon, 1000), 1000)


async def test_a_batch_that_was_killed_goes_on_where_it_was(
    model: FakeOllama, folders: Folders, client: Client
) -> None:
    gate = asyncio.Event()
    model.answer = lambda prompt: (
        Scripted("late", until=gate) if number_of(prompt) >= 5 else Scripted(f"It is {number_of(prompt)}.")
    )
    await load_text(client, "short", "a short text")
    output = folders.root / "answers.jsonl"
    file = questions(folders, *numbered(12))
    arguments = ("batch", str(file), "-c", "short", "-o", str(output), "--parallel", "3")
    batch = await start(folders.environment(), *arguments)
    assert batch.stderr is not None
    while b"5/12" not in await batch.stderr.readline():
        pass
    await model.until(lambda: model.held == 3)
    batch.kill()
    await batch.wait()
    written = output.read_text()
    output.write_text(written + '{"batch": "torn')
    gate.set()
    ended = await rlmctl(folders.environment(), *arguments)
    assert ended.status == 0, ended.err
    found = lines(output.read_text())
    assert output.read_text().startswith(written)
    assert [one["index"] for one in found] == list(range(12))
    assert max(Counter(number_of(seen.prompt) for seen in model.seen).values()) == 1
    again = await rlmctl(folders.environment(), *arguments)
    assert (again.status, lines(output.read_text())) == (0, found)


async def test_what_is_wrong_is_said_before_anything_is_asked(
    model: FakeOllama, folders: Folders, client: Client
) -> None:
    await load_text(client, "short", "a short text")
    output = folders.root / "answers.jsonl"
    good, bad = questions(folders, {"question": "q"}), folders.root / "bad.jsonl"
    bad.write_text('{"question": "q"}\n\n{"qestion": "r"}\n')
    for arguments, status, said in (
        (("batch", str(bad), "-c", "short"), 2, "Line 3: qestion is not known"),
        (("batch", str(good)), 2, "names no contexts"),
        (("batch", str(folders.root / "none")), 4, "There is no file"),
        (("batch", str(folders.home), "-c", "short"), 1, "cannot be read"),
    ):
        ended = await rlmctl(folders.environment(), *arguments)
        assert (ended.status, ended.out) == (status, ""), ended.err
        assert said in ended.err
    output.write_text('{"something": "else"}\n')
    ended = await rlmctl(folders.environment(), "batch", str(good), "-c", "short", "-o", str(output))
    assert (ended.status, output.read_text()) == (1, '{"something": "else"}\n'), ended.err
    assert model.seen == []


async def test_one_question_that_fails_does_not_end_the_others(
    model: FakeOllama, folders: Folders, client: Client
) -> None:
    await load_text(client, "short", "a short text")
    file = questions(folders, {"question": "q", "contexts": ["nowhere"]}, *numbered(1))
    ended = await rlmctl(folders.environment(), "batch", str(file), "-c", "short")
    assert ended.status == 3
    found = lines(ended.out)
    assert [one["outcome"] for one in found] == ["failed", "answered"]
    assert found[0]["error"]["kind"] == "not_found"
