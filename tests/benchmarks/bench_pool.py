"""The pool alone: sub-queries of 50 ms over four hosts with 32 slots.

    python -m tests.benchmarks.bench_pool [COUNT…]

For each count: the ratio of the time taken to the ideal (rounds of 50 ms on all slots), CPU of this process a
sub-query, and the worst delay of the event loop. The hosts are fakes in a process of their own; on two cores they
compete with the pool for CPU, so the ratio is an upper bound. Prints one JSON line a measurement.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from rlmd.config import HostSettings, Settings
from rlmd.pool import CompletionRequest, Pool
from rlmd.providers.base import Message, Sampling

HOSTS, SLOTS, LATENCY = 4, 8, 0.05
#: As the engine does: one session's batch has this many sub-queries in flight.
CREDIT = 128


async def measure(urls: list[str], count: int, folder: Path) -> dict[str, float]:
    hosts = {f"h{number}": HostSettings(url=url, provider="ollama", slots=SLOTS) for number, url in enumerate(urls)}
    pool = Pool(Settings(hosts=hosts), cache_folder=folder, default_url=None, environment={})
    await pool.start()
    try:
        name = next(candidate.model for candidate in pool.candidates("sub") if "sub" in candidate.model)
        await _ask(pool, name, "warm", HOSTS * SLOTS)
        lag = asyncio.create_task(_worst_lag())
        began, cpu = time.perf_counter(), time.process_time()
        await _ask(pool, name, "prompt", count)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        lag.cancel()
        worst = await lag
        began_cached = time.perf_counter()
        await _ask(pool, name, "prompt", count)
        cached = time.perf_counter() - began_cached
    finally:
        await pool.close()
    ideal = math.ceil(count / (HOSTS * SLOTS)) * LATENCY
    return {
        "count": count,
        "seconds": round(seconds, 3),
        "ideal": round(ideal, 3),
        "ratio": round(seconds / ideal, 3),
        "cpu_ms": round(1000 * cpu / count, 3),
        "worst_lag_ms": round(1000 * worst, 1),
        "cached_ms": round(1000 * cached / count, 3),
    }


async def _ask(pool: Pool, model: str, text: str, count: int) -> None:
    gate = asyncio.Semaphore(CREDIT)

    async def one(number: int) -> None:
        async with gate:
            messages = (Message("user", f"{text} {number}"),)
            request = CompletionRequest("sub", messages, Sampling(), "bench", model=model, batch=True)
            await pool.complete(request)

    await asyncio.gather(*(one(number) for number in range(count)))


async def _worst_lag() -> float:
    """How late a timer of 1 ms came at worst."""
    worst = 0.0
    try:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - began - 0.001)
    except asyncio.CancelledError:
        return worst


def main(counts: list[int]) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.servers"]
    command += ["--hosts", str(HOSTS), "--slots", str(SLOTS), "--latency", str(LATENCY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as servers:
        try:
            assert servers.stdout is not None
            urls = json.loads(servers.stdout.readline())["urls"]
            for count in counts:
                with tempfile.TemporaryDirectory() as folder:
                    print(json.dumps(uvloop.run(measure(urls, count, Path(folder, "cache")))), flush=True)
        finally:
            servers.terminate()


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [200, 5000])
