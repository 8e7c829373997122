"""Our pool beside LiteLLM's Router: the same tasks on the same uneven servers, one after the other in one run.

    python -m tests.benchmarks.bench_router [COUNT]

Three hosts of 2, 4 and 2 slots take 0.5, 0.175 and 0.8 s for a task of mean size; sizes are lognormal (σ 0.6), and a
task takes as long as its prompt has characters. Times are told as ratios to the bound: all work divided by the speed of
all slots that are there. The servers are fakes, each in a process of its own, so that one can be killed (SIGKILL) or
hang (SIGSTOP). CPU is this process's alone; ``httpx`` is the same requests by a bare client over the same transport.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import uvloop
from httpx_aiohttp import AiohttpTransport

from rlmd.config import HostSettings, ModelSettings, Settings
from rlmd.pool import CompletionRequest, Pool
from rlmd.providers.base import Message, Sampling
from tests.harness import ROOT
from tests.peers import built

#: By name: slots, and seconds for a task of mean size.
SHAPE = {"m40": (2, 0.5), "rtx": (4, 0.175), "p100": (2, 0.8)}
MEAN_CHARS = 4000
STRATEGIES = (("least-busy", 0), ("least-busy", 16), ("latency-based-routing", 16), ("simple-shuffle", 16))


class Host:
    """A fake server in a process of its own."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, url: str) -> None:
        self.name = name
        self.process = process
        self.url = url


@contextlib.asynccontextmanager
async def three() -> AsyncIterator[list[Host]]:
    hosts = []
    try:
        for name, (slots, seconds) in SHAPE.items():
            command = [
                "-m",
                "tests.benchmarks.servers",
                "--hosts",
                "1",
                "--slots",
                str(slots),
                "--latency",
                str(seconds),
            ]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *(*command, "--chars", str(MEAN_CHARS)),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            hosts.append(Host(name, process, json.loads(await process.stdout.readline())["urls"][0]))
        yield hosts
    finally:
        for host in hosts:
            if host.process.returncode is None:
                host.process.kill()
            await host.process.wait()


def sizes_of(count: int, seed: int = 7) -> list[int]:
    """Characters of each task's prompt."""
    chance = random.Random(seed)
    drawn = [chance.lognormvariate(-0.18, 0.6) for _ in range(count)]
    return [max(20, round(MEAN_CHARS * size)) for size in drawn]


def bound(sizes: list[int], gone: str | None = None, at: float = 0.0) -> float:
    """Seconds that the work takes at the speed of all slots; those of ``gone`` are there until ``at``."""
    work = sum(sizes) / MEAN_CHARS
    every = sum(slots / seconds for slots, seconds in SHAPE.values())
    if gone is None:
        return work / every
    slots, seconds = SHAPE[gone]
    return at + max(0.0, work - every * at) / (every - slots / seconds)


# ── ours ────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def pool_over(hosts: list[Host], folder: Path) -> AsyncIterator[Pool]:
    models = {"sub": ModelSettings(window=65_536)}
    settings = {
        host.name: HostSettings(url=host.url, provider="ollama", slots=SHAPE[host.name][0], models=models)
        for host in hosts
    }
    pool = Pool(Settings(hosts=settings), cache_folder=folder / "cache", default_url=None, environment={})
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: Pool, sizes: list[int], salt: str) -> int:
    """All at once; how many were lost."""

    async def one(number: int, size: int) -> bool:
        prompt = f"{salt} {number} ".ljust(size, "x")
        request = CompletionRequest("sub", (Message("user", prompt),), Sampling(max_tokens=64), "bench", batch=True)
        try:
            await pool.complete(request)
        except Exception:
            return False
        return True

    return (await asyncio.gather(*(one(number, size) for number, size in enumerate(sizes)))).count(False)


async def ours(sizes: list[int], fault: signal.Signals | None = None, *, share: float = 0.3) -> dict[str, float]:
    """Warm, as speeds are remembered from earlier days. ``fault`` befalls the fastest host after ``share`` of the
    bound."""
    async with three() as hosts:
        with tempfile.TemporaryDirectory() as folder:
            async with pool_over(hosts, Path(folder)) as pool:
                await ask(pool, sizes_of(40, seed=1), "warm")
                at = share * bound(sizes)
                began, cpu = time.perf_counter(), time.process_time()
                asking = asyncio.create_task(ask(pool, sizes, "measured"))
                if fault is not None:
                    await asyncio.sleep(at)
                    hosts[1].process.send_signal(fault)
                lost = await asking
                seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
                if fault == signal.SIGSTOP:
                    hosts[1].process.send_signal(signal.SIGCONT)
    best = bound(sizes, "rtx", at) if fault is not None else bound(sizes)
    return {"ratio": seconds / best, "lost": lost, "cpu_ms": 1e3 * cpu / len(sizes)}


async def bare(sizes: list[int]) -> float:
    """CPU milliseconds of a request by a bare httpx client over the same transport, on as many connections."""
    async with three() as hosts:
        gates = {host.name: asyncio.Semaphore(SHAPE[host.name][0]) for host in hosts}
        async with httpx.AsyncClient(transport=AiohttpTransport(), timeout=None) as client:

            async def one(number: int, size: int) -> None:
                host = hosts[number % 3]
                content = f"bare {number} ".ljust(size, "x")
                body = {"model": "sub", "stream": True, "messages": [{"role": "user", "content": content}]}
                async with gates[host.name], client.stream("POST", host.url + "/api/chat", json=body) as reply:
                    async for line in reply.aiter_lines():
                        json.loads(line)

            await asyncio.gather(*(one(number, 100) for number in range(24)))
            cpu = time.process_time()
            await asyncio.gather(*(one(number, size) for number, size in enumerate(sizes)))
            return 1e3 * (time.process_time() - cpu) / len(sizes)


# ── theirs ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def theirs(strategy: str, at_once: int, sizes: list[int], *, down: bool = False) -> dict[str, float]:
    """``down``: the fastest host is down from the start."""
    python = await asyncio.to_thread(built.litellm_python)
    async with three() as hosts:
        if down:
            hosts[1].process.kill()
            await hosts[1].process.wait()
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(sizes, file)
            file.flush()
            script = str(Path(__file__).with_name("peer_router.py"))
            process = await asyncio.create_subprocess_exec(
                str(python),
                *(script, strategy, str(at_once), file.name, *(host.url for host in hosts)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            told, _ = await process.communicate()
    found = json.loads(told.splitlines()[-1])
    best = bound(sizes, "rtx" if down else None)
    return {"ratio": found["seconds"] / best, "lost": found["lost"], "cpu_ms": found["cpu_ms"]}


async def measure(count: int) -> dict[str, dict[str, float]]:
    sizes = sizes_of(count)
    table = {"rlmd": await ours(sizes)}
    table["rlmd, fastest host killed"] = await ours(sizes, signal.SIGKILL)
    table["rlmd, fastest host down"] = await ours(sizes, signal.SIGKILL, share=0.0)
    table["rlmd, fastest host hangs"] = await ours(sizes, signal.SIGSTOP)
    table["httpx alone"] = {"cpu_ms": await bare(sizes)}
    if count <= 500:
        for strategy, at_once in STRATEGIES:
            table[f"LiteLLM {strategy}, {at_once or 'all'} at once"] = await theirs(strategy, at_once, sizes)
        table["LiteLLM least-busy, 16 at once, fastest host down"] = await theirs("least-busy", 16, sizes, down=True)
    return table


def shown(table: dict[str, dict[str, float]]) -> str:
    lines = [f"{'':<52}{'÷ bound':>9}{'lost':>6}{'CPU ms':>8}"]
    for name, row in table.items():
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        lines.append(f"{name:<52}{ratio:>9}{row.get('lost', ''):>6}{row['cpu_ms']:>8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    for number in [int(text) for text in sys.argv[1:]] or [200]:
        print(f"{number} tasks\n{shown(uvloop.run(measure(number)))}", flush=True)
