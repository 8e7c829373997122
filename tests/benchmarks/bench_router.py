"""Our pool beside LiteLLM's Router: the same tasks on the same uneven servers, one after the other in one run.

    python -m tests.benchmarks.bench_router [--count 200] [--drawn 6] [--every] [--peer]

Three hosts of 2, 4 and 2 slots take 0.5, 0.175 and 0.8 s for a task of mean size; sizes are lognormal (σ 0.6), and a
task takes as long as its prompt has characters. The fastest is down from the start, or meets each fault after 30 % of
the bound; ``--every``: each of the three does, after 30 and after 70 %. ``--drawn``: so many sets of hosts drawn at
random. Times are told as ratios to the bound: all work divided by the speed of all slots that are there. CPU is this
process's alone; ``httpx`` is the same requests by a bare client over the same transport.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import structlog
import uvloop
from httpx_aiohttp import AiohttpTransport

from rlmd.config import HostSettings, ModelSettings, Settings
from rlmd.pool import CompletionRequest, Pool
from rlmd.providers.base import Message, Sampling
from tests.benchmarks.uneven import Host, prompt_of, running, sizes_of
from tests.peers import built
from tests.simulation import UNEQUAL, Change, Fault, Machine, drawn, least_seconds

FASTEST = min(UNEQUAL, key=lambda machine: machine.seconds).name
STRATEGIES = (("least-busy", 0), ("least-busy", 16), ("latency-based-routing", 16), ("simple-shuffle", 16))


@dataclass(frozen=True)
class Case:
    """``fault`` befalls ``machine`` after ``share`` of the bound."""

    machine: str
    fault: Fault
    share: float

    def __str__(self) -> str:
        return f"{self.machine} {self.fault} {f'after {self.share:.0%}' if self.share else 'from the start'}"


FAULTS: tuple[Fault, ...] = ("down", "hung", "cut", "broken", "slow")
CASES = (Case(FASTEST, "down", 0.0), *(Case(FASTEST, fault, 0.3) for fault in FAULTS))
EVERY = (
    *(Case(machine.name, "down", 0.0) for machine in UNEQUAL),
    *(Case(machine.name, fault, share) for share in (0.3, 0.7) for fault in FAULTS for machine in UNEQUAL),
)
#: Those that the Router meets: it waits for a host that hangs until its timeout of minutes.
PEER_CASES = tuple(case for case in CASES if case.fault in ("down", "cut"))


@dataclass(frozen=True)
class Row:
    what: str
    cpu_ms: float
    ratio: float | None = None
    lost: int | None = None

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.3f}"
        return f"{self.what:<58}{ratio:>9}{'' if self.lost is None else self.lost:>6}{self.cpu_ms:>8.2f}"


HEAD = f"{'':<58}{'÷ bound':>9}{'lost':>6}{'CPU ms':>8}"


def changes_of(sizes: Sequence[float], case: Case | None) -> list[Change]:
    return [] if case is None else [Change(case.share * least_seconds(UNEQUAL, sizes), case.machine, case.fault)]


async def strike(hosts: Sequence[Host], changes: Sequence[Change]) -> None:
    """Each change at its time from now."""
    began = time.perf_counter()
    for change in changes:
        await asyncio.sleep(began + change.time - time.perf_counter())
        await next(host for host in hosts if host.machine.name == change.machine).strike(change.fault)


# ── ours ────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def pool_over(hosts: Sequence[Host]) -> AsyncIterator[Pool]:
    """Warm, as speeds are remembered from earlier days."""
    models = {"sub": ModelSettings(window=65_536)}
    settings = {
        host.machine.name: HostSettings(url=host.url, provider="ollama", slots=host.machine.slots, models=models)
        for host in hosts
    }
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(Settings(hosts=settings), cache_folder=Path(folder, "cache"), default_url=None, environment={})
        await pool.start()
        try:
            await asyncio.gather(*(ask(pool, size, f"warm {n}") for n, size in enumerate(sizes_of(40, seed=1))))
            yield pool
        finally:
            await pool.close()


async def ask(pool: Pool, size: float, salt: str, run_id: str = "bench") -> float | None:
    """When it was answered; None when it was lost."""
    messages = (Message("user", prompt_of(size, salt)),)
    try:
        await pool.complete(CompletionRequest("sub", messages, Sampling(max_tokens=64), run_id, batch=True))
    except Exception as error:
        print(f"{salt}: {error!r}", file=sys.stderr)
        return None
    return time.perf_counter()


async def ours(
    what: str, sizes: Sequence[float], case: Case | None = None, machines: Sequence[Machine] = UNEQUAL
) -> Row:
    async with running(machines) as hosts, pool_over(hosts) as pool:
        changes = changes_of(sizes, case)
        now = [change for change in changes if not change.time]
        await strike(hosts, now)
        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(strike(hosts, [change for change in changes if change.time]))
            asked = [tasks.create_task(ask(pool, size, f"measured {n}")) for n, size in enumerate(sizes)]
        ended = [task.result() for task in asked]
        cpu = time.process_time() - cpu
    seconds = max(moment for moment in ended if moment is not None) - began
    bound = least_seconds(machines, sizes, changes)
    return Row(f"rlmd, {what}", 1e3 * cpu / len(sizes), seconds / bound, ended.count(None))


async def share(count: int) -> str:
    """Two runs of the same work, asked at once: one of many short requests, one of few long ones."""
    pieces = [("short", 0.5)] * (count * 4 // 5) + [("long", 2.0)] * (count // 5)
    random.Random(3).shuffle(pieces)
    async with running(UNEQUAL) as hosts, pool_over(hosts) as pool:
        began = time.perf_counter()
        ended = await asyncio.gather(*(ask(pool, size, f"{n}", run) for n, (run, size) in enumerate(pieces)))
    assert None not in ended
    took = {
        name: max(moment or 0.0 for moment, (run, _) in zip(ended, pieces, strict=True) if run == name) - began
        for name in ("short", "long")
    }
    ratio = max(took.values()) / min(took.values())
    return f"two runs of the same work, {count} requests: the later ends after {ratio:.3f} × the time of the earlier"


async def bare(sizes: Sequence[float]) -> Row:
    """By a bare httpx client over the same transport, on as many connections."""
    async with running(UNEQUAL) as hosts:
        gates = [asyncio.Semaphore(host.machine.slots) for host in hosts]
        async with httpx.AsyncClient(transport=AiohttpTransport(), timeout=None) as client:

            async def one(number: int, size: float) -> None:
                at = number % len(hosts)
                messages = [{"role": "user", "content": prompt_of(size, f"bare {number}")}]
                body = {"model": "sub", "stream": True, "messages": messages}
                async with gates[at], client.stream("POST", hosts[at].url + "/api/chat", json=body) as reply:
                    async for line in reply.aiter_lines():
                        json.loads(line)

            await asyncio.gather(*(one(number, 0.02) for number in range(24)))
            cpu = time.process_time()
            await asyncio.gather(*(one(number, size) for number, size in enumerate(sizes)))
            return Row("httpx alone", 1e3 * (time.process_time() - cpu) / len(sizes))


# ── theirs ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def theirs(strategy: str, at_once: int, sizes: Sequence[float], case: Case | None = None) -> Row:
    python = await asyncio.to_thread(built.litellm_python)
    changes = changes_of(sizes, case)
    async with running(UNEQUAL) as hosts:
        await strike(hosts, [change for change in changes if not change.time])
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump([prompt_of(size, f"{n}") for n, size in enumerate(sizes)], file)
            file.flush()
            script = str(Path(__file__).with_name("peer_router.py"))
            process = await asyncio.create_subprocess_exec(
                str(python),
                *(script, strategy, str(at_once), file.name, *(host.url for host in hosts)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert process.stdout is not None
            await process.stdout.readline()
            striking = asyncio.create_task(strike(hosts, [change for change in changes if change.time]))
            told, _ = await process.communicate()
            await striking
    found = json.loads(told.splitlines()[-1])
    ratio = found["seconds"] / least_seconds(UNEQUAL, sizes, changes)
    what = f"LiteLLM {strategy}, {at_once or 'all'} at once{f', {case}' if case else ''}"
    return Row(what, found["cpu_ms"], ratio, found["lost"])


# ── all of it ───────────────────────────────────────────────────────────────────────────────────────────────────


async def measure(count: int, sets: int, cases: Sequence[Case], peer: bool) -> AsyncIterator[Row | str]:
    sizes = sizes_of(count)
    yield await ours("three uneven hosts", sizes)
    for case in cases:
        yield await ours(str(case), sizes, case)
    for seed in range(sets):
        machines = drawn(random.Random(seed))
        named = " ".join(f"{machine.slots}×{machine.seconds:.2f}s" for machine in machines)
        yield await ours(named, sizes_of(count, seed), machines=machines)
    yield await bare(sizes)
    if peer:
        for strategy, at_once in STRATEGIES:
            yield await theirs(strategy, at_once, sizes)
        for case in PEER_CASES:
            yield await theirs("least-busy", 16, sizes, case)
    yield await share(3 * count)


async def show(options: argparse.Namespace) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(f"{options.count} tasks\n{HEAD}", flush=True)
    async for row in measure(options.count, options.drawn, EVERY if options.every else CASES, options.peer):
        print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="tasks (default 200)")
    parser.add_argument("--drawn", type=int, default=6, help="sets of hosts drawn at random (default 6)")
    parser.add_argument("--every", action="store_true", help="each fault befalls each host, early and late")
    parser.add_argument("--peer", action="store_true", help="LiteLLM's Router on the same tasks too")
    uvloop.run(show(parser.parse_args()))
