"""What is large does not hold the loop, in whatever thread it is made or let go of. How long: ``tests.benchmarks``."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rlmd.contexts import ContextStore, InlineSource, PathSource, pinned, threads
from rlmd.contexts.text import Ruler
from rlmd.contexts.threads import Threads

COUNT = 1500


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ContextStore]:
    opened = await ContextStore.open(tmp_path / "state", tmp_path / "cache", tmp_path / "spool")
    yield opened
    await opened.close()


@pytest.fixture
def without_collector() -> Iterator[None]:
    """What is freed is freed by its last reference."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def emptied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many objects were freed one by one, each time."""
    seen: list[int] = []
    empty = threads._empty

    def watched(*collections: list[object] | dict[object, object]) -> None:
        seen.append(sum(map(len, collections)))
        empty(*collections)

    monkeypatch.setattr(threads, "_empty", watched)
    return seen


class Thing:
    def __init__(self, freed: list[str]) -> None:
        self.freed = freed

    def __del__(self) -> None:
        self.freed.append(threading.current_thread().name.split("_")[0])


async def test_many_objects_are_freed_in_a_thread() -> None:
    freed: list[str] = []
    held = Threads()
    things, by_name = [Thing(freed) for _ in range(COUNT)], {n: Thing(freed) for n in range(COUNT)}
    await held.emptied(things, by_name)
    assert (things, by_name) == ([], {})
    assert freed == ["contexts"] * 2 * COUNT
    freed.clear()
    nobodys = tuple(Thing(freed) for _ in range(COUNT))
    held.free_soon(nobodys)
    del nobodys
    await held.in_files(lambda: None)
    await held.in_files(lambda: None)  # on whichever of its threads
    while len(freed) < COUNT:
        await asyncio.sleep(0.01)
    assert set(freed) == {"contexts"}
    held.close()
    held.free_soon([Thing(freed) for _ in range(COUNT)])  # nothing is left to do it: it is done at once
    assert len(freed) == 2 * COUNT


async def test_the_documents_of_a_load_and_of_a_pin_are_let_go_of_one_by_one(
    tmp_path: Path, store: ContextStore, emptied: list[int], without_collector: None
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number}.txt").write_text(f"Document {number}.\n")
    source = PathSource((str(folder),))
    report = await store.load(source, name="many")
    assert report.documents == COUNT
    while len(emptied) < 2:
        await asyncio.sleep(0.01)
    assert sorted(emptied) == [COUNT, COUNT]  # as they were read, and as they went into the catalogue
    emptied.clear()
    assert (await store.load(source, name="many")).change == "unchanged"
    assert emptied == [2 * COUNT]  # what was known, and was kept
    emptied.clear()
    pin = await store.pin("many")
    assert pin.read("7.txt", 0, 100) == "Document 7.\n"
    await store.drop("many")
    assert emptied == [], "somebody holds it still"
    del pin
    while not emptied:
        await asyncio.sleep(0.01)
    assert emptied == [COUNT]


async def test_the_marks_of_a_text_are_made_once(
    tmp_path: Path, store: ContextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a gigabyte they take 4 ms, on the loop."""
    made: list[Ruler] = []

    class Watched(Ruler):
        def __init__(self, *arguments: object) -> None:
            made.append(self)
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pinned, "Ruler", Watched)
    text = "äöü " * 10_000
    for name in map(str, range(20)):
        (tmp_path / f"{name}.txt").write_text(text)
    await store.load(PathSource(tuple(str(tmp_path / f"{n}.txt") for n in range(20))), name="several")
    for start in range(0, 40_000, 1000):
        peek = await store.peek("several", "0.txt", start, 1000)
        assert (peek.text, peek.line) == (text[start : start + 1000], 1)
    assert len(made) == 1
    for number in range(20):
        assert (await store.peek("several", f"{number}.txt", 5, 3)).text == text[5:8]
    assert len(made) == 20
    assert len((await store.pin("several"))._rulers) < 20, "they are kept for ever"


async def test_a_look_beyond_the_end_is_at_the_end_and_one_look_is_bounded(store: ContextStore) -> None:
    await store.load(InlineSource("x" * 100_000), name="text")
    beyond = await store.peek("text", None, 10**9, 5)
    assert (beyond.start, beyond.end, beyond.text) == (100_000, 100_000, "")
    assert len((await store.peek("text", None, 0, 10**9)).text) == 65_536
