"""The REPL alone: starts, contexts, cells, callbacks, batches, memory; beside a bare interpreter and the peers' REPLs.

    python -m tests.benchmarks.bench_repl

Part of the table of ``python -m tests.benchmarks``. The host answers at once, so that what is measured is the channel
and the worker. Ours is the worker inside bubblewrap; the note says what it is without.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from rlmd.repl import ReplSession, Workers
from rlmd.repl.process import CagePlan
from rlmd.repl.visible import interpreter
from tests.benchmarks.suite import COLUMNS, Row, machine, peers_python
from tests.repl import CAGES, Context, Host

MB = 1_000_000
#: Seconds that one peer gets for all its measurements; what it has not told by then stays empty.
PEER_SECONDS = 600
#: The floor of a cold start: a bare interpreter that starts and ends.
BARE = "bare interpreter"


@dataclass(frozen=True)
class Counts:
    """How often and how much: starts and cells whose median counts, callbacks in a row, sizes of contexts, and batches
    as slots and characters of each prompt."""

    starts: int = 9
    cells: int = 50
    calls: int = 500
    megabytes: tuple[int, ...] = (40, 400)
    batches: tuple[tuple[int, int], ...] = ((1000, 100), (5000, 100_000))


#: What is measured → the aim in milliseconds (MB for memory); a cold start's is 2.5 × the floor.
AIMS = {"warm start": 5.0, "callback": 0.1, "40 MB": 80.0, "400 MB": 600.0, "idle": 15.0}


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1e3


async def output_of(session: ReplSession, source: str) -> str:
    report = await session.run_cell(source, Host(), seconds=120, output_chars=1000)
    assert report.ok, report.output
    return report.output


async def bare_python() -> None:
    """Starts an interpreter that ends at once; not by asyncio, which adds half of that again."""
    subprocess.run([interpreter(), "-I", "-S", "-c", "pass"], check=True)


# --- ours --------------------------------------------------------------------------------------------------------


async def starts(plan: CagePlan, counts: Counts) -> AsyncIterator[tuple[str, float]]:
    cold = Workers(plans=[plan], spare_workers=0)

    async def start_and_end(source: str = "") -> None:
        session = await cold.acquire()
        if source:
            await output_of(session, source)
        await session.close()

    bare, ours = [], []
    for _ in range(counts.starts):  # in turn, so that both have the same machine
        bare.append(await timed(bare_python))
        ours.append(await timed(start_and_end))
    yield BARE, statistics.median(bare)
    yield "cold start", statistics.median(ours)
    first = [await timed(lambda: start_and_end("1")) for _ in range(counts.starts)]
    yield "cold start and a first cell", statistics.median(first)
    await cold.close()
    warm = Workers(plans=[plan], spare_workers=1)
    await warm.start()
    while warm.alive == 0:
        await asyncio.sleep(0.01)
    yield "warm start", await timed(warm.acquire)
    await warm.close()


async def contexts(workers: Workers, counts: Counts, folder: Path) -> AsyncIterator[tuple[str, float]]:
    for size in counts.megabytes:
        session = await workers.acquire(memory_bytes=4 << 30)
        source = Context(folder, "large", {"d": b"x" * (size * MB)})

        async def first(session: ReplSession = session, source: Context = source) -> None:
            await session.load_contexts([source])
            await output_of(session, "len(context)")

        yield f"{size} MB", await timed(first)
        await session.close()


async def calls(workers: Workers, counts: Counts) -> AsyncIterator[tuple[str, float]]:
    session = await workers.acquire()
    status = Path(f"/proc/{session.pid}/status").read_text()
    yield "idle", int(status.partition("VmRSS:")[2].split()[0]) * 1024 / MB
    yield "cell", statistics.median([await timed(lambda: output_of(session, "1")) for _ in range(counts.cells)])
    clock = "import time\nb = time.perf_counter()\n{work}\ntime.perf_counter() - b"
    source = clock.format(work=f"for n in range({counts.calls}): llm_query('a')")
    yield "callback", float(await output_of(session, source)) * 1e3 / counts.calls
    for slots, chars in counts.batches:
        work = f"r = llm_query_batched([str(n) + 'x' * {chars} for n in range({slots})])\nassert len(ok(r)) == {slots}"
        yield f"{slots} × {chars}", float(await output_of(session, clock.format(work=work))) * 1e3
    await session.close()


async def measured(plan: CagePlan, counts: Counts) -> dict[str, float]:
    found: dict[str, float] = {}
    workers = Workers(plans=[plan], spare_workers=0)
    with tempfile.TemporaryDirectory() as folder:
        for measurements in (starts(plan, counts), contexts(workers, counts, Path(folder)), calls(workers, counts)):
            found |= {what: value async for what, value in measurements}
    await workers.close()
    return found


# --- floors and peers --------------------------------------------------------------------------------------------


def floors(counts: Counts) -> dict[str, float]:
    """Milliseconds that text takes to be decoded out of a mapped file."""
    found = {}
    for size in counts.megabytes:
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * (size * MB))
            file.flush()
            began = time.perf_counter()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                assert len(str(view, "utf-8")) == size * MB
            found[f"{size} MB"] = (time.perf_counter() - began) * 1e3
    return found


def peer(name: str, counts: Counts) -> dict[str, float]:
    """Milliseconds, as far as it came; empty where it cannot be installed or does not run."""
    python = peers_python()
    if python is None:
        return {}
    command = [str(python), str(Path(__file__).parent / "peer_repl.py"), name, json.dumps(dataclasses.asdict(counts))]
    environment = {**os.environ, "DENO_DIR": str(python.parents[1] / "deno")}
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as complaint:
        with subprocess.Popen(command, stdout=told, stderr=complaint, env=environment) as process:
            try:
                status = process.wait(PEER_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
        told.seek(0)
        complaint.seek(0)
        if status:
            print(f"{name}: {complaint.read().decode(errors='replace').splitlines()[-1:]}", file=sys.stderr)
        return {what: seconds * 1e3 for what, seconds in map(json.loads, told.read().splitlines())}


# --- the table ---------------------------------------------------------------------------------------------------


async def rows(counts: Counts = Counts(), peers: tuple[str, ...] = COLUMNS) -> list[Row]:
    """The REPL's lines of the table.

    Args:
        peers: Those that are measured; none for a run that shows only that ours runs.
    """
    inside, without = [await measured(CAGES[name], counts) for name in ("bubblewrap", "landlock")]
    bare = inside.pop(BARE)
    floor = floors(counts) | {"cold start": bare, "cold start and a first cell": bare}
    others = {name: await asyncio.to_thread(peer, name, counts) for name in peers}
    aims = AIMS | {"cold start": 2.5 * floor["cold start"]}
    return [
        Row(
            f"REPL: {what}", ours, "MB" if what == "idle" else "ms", floor=floor.get(what), aim=aims.get(what),
            peers={name: found[what] for name, found in others.items() if what in found},
            note=_note(ours, without[what], floor.get(what)),
        )
        for what, ours in inside.items()
    ]  # fmt: skip


def _note(ours: float, without: float, floor: float | None) -> str:
    if floor is None:
        return f"without bubblewrap {without:.2f}"
    return f"{ours / floor:.2f} × the floor; without bubblewrap {without:.2f}, {without / floor:.2f} ×"


async def main() -> None:
    from tests.benchmarks.__main__ import head, line_of

    print(machine())
    print(head())
    for row in await rows():
        print(line_of(row).rstrip(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
