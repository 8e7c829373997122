"""The REPL alone: starts, contexts, cells, callbacks, batches, memory; beside a bare interpreter and the peers' REPLs.

    python -m tests.benchmarks.bench_repl

Prints a line a measurement: ours in both cages, the floor where there is one, the peers, the aim. The host answers at
once, so that what is measured is the channel and the worker. Without Deno: dspy's runner for it loads modules from
the net.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop

from rlmd.repl import ReplSession, Workers
from rlmd.repl.process import CagePlan, interpreter
from tests.benchmarks.suite import PEERS, machine, peers_python
from tests.repl import CAGES, Context, Host

MB = 1_000_000
#: What is measured → the aim in milliseconds (MB for memory); a cold start's is 2.5 × the floor.
AIMS = {"warm start": 5.0, "callback": 0.1, "40 MB": 80.0, "400 MB": 600.0, "idle MB": 15.0}
#: Our name of a measurement → the peers'.
PEERS_NAMES = {"cold start": "start", "cell": "cell", "40 MB": "40 MB", "400 MB": "400 MB", "callback": "callback"}


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1e3


def bare_python() -> float:
    """Milliseconds that the interpreter itself takes to start and end."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([interpreter(), "-I", "-S", "-c", "pass"], check=True)
        return (time.perf_counter() - began) * 1e3

    return statistics.median(once() for _ in range(9))


async def output_of(session: ReplSession, source: str) -> str:
    report = await session.run_cell(source, Host(), seconds=120, output_chars=1000)
    assert report.ok, report.output
    return report.output


async def starts(plan: CagePlan) -> AsyncIterator[tuple[str, float]]:
    cold = Workers(plans=[plan], spare_workers=0)
    yield "cold start", statistics.median([await timed(lambda: closed(cold)) for _ in range(9)])
    await cold.close()
    warm = Workers(plans=[plan], spare_workers=1)
    await warm.start()
    while warm.alive == 0:
        await asyncio.sleep(0.01)
    yield "warm start", await timed(warm.acquire)
    await warm.close()


async def closed(workers: Workers) -> None:
    await (await workers.acquire()).close()


async def contexts(workers: Workers, folder: Path) -> AsyncIterator[tuple[str, float]]:
    for size in (40, 400):
        session = await workers.acquire(memory_bytes=4 << 30)
        source = Context(folder, "large", {"d": b"x" * (size * MB)})

        async def first(session: ReplSession = session, source: Context = source) -> None:
            await session.load_contexts([source])
            await output_of(session, "len(context)")

        yield f"{size} MB", await timed(first)
        await session.close()


async def calls(workers: Workers) -> AsyncIterator[tuple[str, float]]:
    session = await workers.acquire()
    status = Path(f"/proc/{session.pid}/status").read_text()
    yield "idle MB", int(status.partition("VmRSS:")[2].split()[0]) * 1024 / MB
    yield "cell", statistics.median([await timed(lambda: output_of(session, "1")) for _ in range(50)])
    count = 500
    source = f"import time\nb = time.perf_counter()\nfor n in range({count}): llm_query('a')\ntime.perf_counter() - b"
    yield "callback", float(await output_of(session, source)) * 1e3 / count
    for slots, chars in ((1000, 100), (5000, 100_000)):
        batch = (
            f"import time\np = [f'{{n}} ' + 'x' * {chars} for n in range({slots})]\nb = time.perf_counter()\n"
            f"assert len(ok(llm_query_batched(p))) == {slots}\ntime.perf_counter() - b"
        )
        yield f"{slots} × {chars:,} characters", float(await output_of(session, batch)) * 1e3
    await session.close()


async def measured(plan: CagePlan) -> dict[str, float]:
    found: dict[str, float] = {}
    workers = Workers(plans=[plan], spare_workers=0)
    with tempfile.TemporaryDirectory() as folder:
        for measurements in (starts(plan), contexts(workers, Path(folder)), calls(workers)):
            found |= {what: value async for what, value in measurements}
    await workers.close()
    return found


def peer(name: str) -> dict[str, float]:
    """Milliseconds, by the peers' names; empty where it cannot be installed or does not run."""
    python = peers_python()
    script = Path(__file__).parent / "peer_repl.py"
    done = subprocess.run([python, script, name], capture_output=True, text=True, check=False) if python else None
    if done is None or done.returncode:
        print(f"{name}: {done.stderr.splitlines()[-1:] if done else 'not installed'}")
        return {}
    return {what: seconds * 1e3 for what, seconds in json.loads(done.stdout.splitlines()[-1]).items()}


async def main() -> None:
    print(machine())
    floor = bare_python()
    ours = {name: await measured(plan) for name, plan in CAGES.items()}
    peers = {name: await asyncio.to_thread(peer, name) for name in PEERS}
    aims = AIMS | {"cold start": 2.5 * floor}
    print(f"{'ms':<28}" + "".join(f"{name:>12}" for name in (*ours, "floor", *peers, "aim")))
    for what in next(iter(ours.values())):
        row = [found[what] for found in ours.values()]
        row += [floor if what == "cold start" else None]
        row += [found.get(PEERS_NAMES.get(what, "")) for found in peers.values()]
        row += [aims.get(what)]
        print(f"{what:<28}" + "".join(f"{'–' if value is None else f'{value:,.2f}':>12}" for value in row), flush=True)


if __name__ == "__main__":
    assert os.path.exists(interpreter())
    uvloop.run(main())
