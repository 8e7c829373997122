"""How long ``daemon/status`` takes while hostile cells run, against the same daemon idle."""

from __future__ import annotations

import asyncio
import time

from tests.besieging import EVERYTHING, besiege, config
from tests.harness import Client, Daemon, Folders

#: Questions to the idle daemon; and seconds between two, as a client that looks after it might leave.
_IDLE, _PAUSE = 300, 0.005


async def latencies(*, bubblewrap: bool) -> tuple[list[float], list[float]]:
    """Milliseconds of each answer, sorted: of the idle daemon, and under every attack and nuisance of the tests."""
    folders = Folders()
    folders.write_config(config(bubblewrap=bubblewrap))
    daemon = Daemon(folders)
    idle: list[float] = []
    besieged: list[float] = []
    try:
        await daemon.ready()
        async with daemon.connect() as client:
            for _ in range(_IDLE):
                await _ask(client, idle)
        await besiege(daemon, EVERYTHING, lambda client: _ask(client, besieged))
    finally:
        await daemon.stop()
        folders.remove()
    return sorted(idle), sorted(besieged)


async def _ask(client: Client, taken: list[float]) -> None:
    began = time.perf_counter()
    await client.call("daemon/status")
    taken.append((time.perf_counter() - began) * 1e3)
    await asyncio.sleep(_PAUSE)
