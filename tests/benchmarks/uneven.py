"""Uneven hosts for the benchmarks of the pool: fake servers, each in a process of its own, and what befalls them.

The machines, the faults and the bound are those of the simulation (``tests.simulation``). A host that is ``down`` gets
SIGKILL, one that is ``hung`` SIGSTOP; the others are told to fail and go on listening.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence

import httpx

from tests.harness import ROOT
from tests.simulation import Fault, Machine, lognormal

#: Characters of a prompt of size 1.
MEAN_CHARS = 4000


class Host:
    """A fake server in a process of its own."""

    def __init__(self, machine: Machine, process: asyncio.subprocess.Process, url: str) -> None:
        self.machine = machine
        self.process = process
        self.url = url

    async def strike(self, fault: Fault) -> None:
        match fault:
            case "down":
                self.process.kill()
                await self.process.wait()
            case "hung":
                self.process.send_signal(signal.SIGSTOP)
            case _:
                async with httpx.AsyncClient(timeout=60) as client:
                    (await client.post(self.url + "/fake/fault", json={"fault": fault})).raise_for_status()


@contextlib.asynccontextmanager
async def _one(machine: Machine) -> AsyncIterator[Host]:
    command = ["--slots", str(machine.slots), "--latency", str(machine.seconds), "--chars", str(MEAN_CHARS)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.servers", *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield Host(machine, process, json.loads(await process.stdout.readline())["urls"][0])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def running(machines: Sequence[Machine]) -> AsyncIterator[list[Host]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_one(machine)) for machine in machines]


def sizes_of(count: int, seed: int = 7) -> list[float]:
    """Of ``count`` prompts: lognormal, of mean 1."""
    return lognormal(count, random.Random(seed))


def prompt_of(size: float, salt: str) -> str:
    """One that takes a machine ``size`` times its seconds."""
    return salt.ljust(max(len(salt), round(MEAN_CHARS * size)), "x")
