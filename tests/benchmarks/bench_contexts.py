"""Contexts: a large text by its path, looking at it, searching it, many documents; and clients that do not read.

    python -m tests.benchmarks.bench_contexts

Part of the table of ``python -m tests.benchmarks``. The floor is the same over a bare mmap of the file in this process,
without a socket; of many documents it is reading the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import random
import re
import socket
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.suite import Row, machine
from tests.harness import Client, Daemon, Folders, load_path, load_text

MB = 1_000_000
#: Resident memory of the daemon itself may grow by so many MB, whatever is loaded.
GROWTH_AIM = 64
_NEEDLE = "the needle 4711"
#: Where in the text it stands.
_PLACE = 0.9


@dataclass(frozen=True)
class Counts:
    megabytes: int = 1000
    peeks: int = 200
    documents: int = 100_000
    calls: int = 60


@contextlib.asynccontextmanager
async def daemon() -> AsyncIterator[tuple[Daemon, Client]]:
    folders = Folders()
    started = Daemon(folders)
    try:
        await started.ready()
        async with started.connect() as client:
            yield started, client
    finally:
        await started.stop()
        folders.remove()


def anonymous_bytes(pid: int) -> int:
    """Memory of a process's own: pages of mapped files, which the kernel may take back, left out."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]


def write_text(file: Path, megabytes: int) -> None:
    line = "A line of an ordinary log with some words, and a number that is not sought.\n"
    block = (line * (MB // len(line))).encode()
    with file.open("wb") as out:
        for number in range(megabytes):
            out.write(f"{_NEEDLE}\n".encode() if number == int(megabytes * _PLACE) else b"")
            out.write(block)


async def one_large(counts: Counts) -> list[Row]:
    async with daemon() as (started, client):
        file = started.folders.home / "large.log"
        await asyncio.to_thread(write_text, file, counts.megabytes)
        await load_text(client, "small", "a text\n")
        before, began = anonymous_bytes(started.pid), time.perf_counter()
        loaded = await load_path(client, "large", file, timeout=600)
        seconds = time.perf_counter() - began
        growth = (anonymous_bytes(started.pid) - before) / MB
        floor = await asyncio.to_thread(copied, file)
        what = f"{counts.megabytes} MB"
        return [
            Row(f"{what} by path", seconds * 1e3, "ms", floor=floor * 1e3, note="the floor copies the file"),
            Row(f"{what} by path: own memory grows", growth, "MB", aim=GROWTH_AIM),
            await peeks(client, file, loaded["chars"], counts.peeks, what),
            await first_hit(client, file, what),
        ]


def copied(file: Path) -> float:
    began = time.perf_counter()
    target = file.with_suffix(".copy")
    with file.open("rb") as source, target.open("wb") as out:
        while piece := source.read(1 << 20):
            out.write(piece)
    target.unlink()
    return time.perf_counter() - began


async def peeks(client: Client, file: Path, chars: int, count: int, what: str) -> Row:
    chance = random.Random(7)
    places = [chance.randrange(chars - 500) for _ in range(count)]
    ours = []
    for start in places:
        began = time.perf_counter()
        await client.call("context/peek", {"name": "large", "start": start, "chars": 500})
        ours.append(time.perf_counter() - began)
    answered = []
    for _ in places:
        began = time.perf_counter()
        await client.call("budget/show")
        answered.append(time.perf_counter() - began)
    with mapped(file) as data:
        bare = []
        for start in places:
            began = time.perf_counter()
            data[start : start + 500].decode()
            bare.append(time.perf_counter() - began)
    note = f"a call that reads nothing {statistics.median(answered) * 1e3:.2f} ms"
    there, bare_there = statistics.median(ours) * 1e3, statistics.median(bare) * 1e3
    return Row(f"{what}: 500 characters anywhere", there, "ms", floor=bare_there, note=note)


async def first_hit(client: Client, file: Path, what: str) -> Row:
    asked = {"name": "large", "query": r"needle \d+", "mode": "regex", "limit": 1, "seconds": 50}
    await client.call("context/search", {**asked, "query": "A line"})  # its helper runs
    began = time.perf_counter()
    found = await client.call("context/search", asked, timeout=120)
    ours = time.perf_counter() - began
    assert found["hits"][0]["text"] == _NEEDLE
    with mapped(file) as data:
        began = time.perf_counter()
        assert re.search(rb"needle \d+", data)
        bare = time.perf_counter() - began
    return Row(f"{what}: first hit of a regex, at {_PLACE:.0%}", ours * 1e3, "ms", bare * 1e3, note="the floor is re")


@contextlib.contextmanager
def mapped(file: Path) -> Iterator[mmap.mmap]:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as data:
        yield data


async def many_documents(count: int) -> list[Row]:
    """Loaded, loaded again, listed, and in a cell."""
    async with daemon() as (started, client):
        folder = started.folders.home / "many"
        await asyncio.to_thread(write_documents, folder, count)
        before, began = anonymous_bytes(started.pid), time.perf_counter()
        loaded = await load_path(client, "many", folder, timeout=1200)
        first = time.perf_counter() - began
        assert loaded["documents"] == count
        began = time.perf_counter()
        assert (await load_path(client, "many", folder, timeout=1200))["change"] == "unchanged"
        again = time.perf_counter() - began
        began, listed = time.perf_counter(), 0
        while listed < count:
            page = {"name": "many", "documents_from": listed, "documents_limit": 10_000}
            listed += len((await client.call("context/info", page, timeout=120))["documents"])
        listing = time.perf_counter() - began
        cell = {"run_id": str(uuid.uuid4()), "code": "print(len(documents))", "contexts": ["many"]}
        began = time.perf_counter()
        told = await client.call("repl/execute", cell, timeout=600)
        in_cell = time.perf_counter() - began
        assert told["output"].strip() == str(count), told
        growth = (anonymous_bytes(started.pid) - before) / MB
        began = time.perf_counter()
        await asyncio.to_thread(lambda: [path.read_bytes() for path in folder.rglob("*.txt")])
        floor = time.perf_counter() - began
    what = f"{count:,} documents"
    return [
        Row(f"{what}: load", first * 1e3, "ms", floor=floor * 1e3, note="the floor reads the files"),
        Row(f"{what}: load again, unchanged", again * 1e3, "ms", floor=floor * 1e3),
        Row(f"{what}: list all", listing * 1e3, "ms"),
        Row(f"{what}: a first cell", in_cell * 1e3, "ms"),
        Row(f"{what}: own memory grows", growth, "MB"),
    ]


def write_documents(folder: Path, count: int) -> None:
    for number in range(count):
        if number % 1000 == 0:
            below = folder / f"{number // 1000:03}"
            below.mkdir(parents=True)
        (below / f"{number}.txt").write_text(f"Document {number} tells of {number * 7}.\n")


async def deaf_clients(calls: int) -> Row:
    """Calls of a reader while 20 clients ask for much and read nothing; the floor is without them, by turns."""
    async with daemon() as (started, reader), contextlib.AsyncExitStack() as stack:
        await load_text(reader, "note", "x" * 200_000)
        peek = {"jsonrpc": "2.0", "id": 1, "method": "context/peek", "params": {"name": "note", "chars": 65_000}}
        taken: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(6):
            for _ in range(20 * (turn % 2)):
                deaf = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
                deaf.connect(str(started.folders.socket))
                deaf.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    deaf.send((json.dumps(peek) + "\n").encode() * 300)
            for _ in range(calls):
                began = time.perf_counter()
                await reader.call("daemon/status")
                taken[bool(turn % 2)].append(time.perf_counter() - began)
            if turn % 2:
                await stack.pop_all().aclose()
    quiet, deafened = statistics.median(taken[False]), statistics.median(taken[True])
    return Row("a call among 20 clients that do not read", deafened * 1e3, "ms", floor=quiet * 1e3)


async def rows(counts: Counts = Counts()) -> list[Row]:
    return [*await one_large(counts), *await many_documents(counts.documents), await deaf_clients(counts.calls)]


async def main() -> None:
    from tests.benchmarks.__main__ import head, line_of

    print(machine(), head(), sep="\n")
    for row in await rows():
        print(line_of(row).rstrip(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
