"""Hostile cells through the daemon's own door: meanwhile it answers, and afterwards nothing of them is left."""

from __future__ import annotations

import random

import pytest

from tests.attacks import ATTACKS
from tests.besieging import EVERYTHING, NUISANCES, besiege, config, execute
from tests.conftest import StartDaemon
from tests.harness import Client, Daemon, Folders

#: Attacks of the CI tier.
SAMPLE = 20


@pytest.fixture(params=[True, False], ids=["bubblewrap", "without bubblewrap"])
async def besieged(request: pytest.FixtureRequest, folders: Folders, start_daemon: StartDaemon) -> Daemon:
    folders.write_config(config(bubblewrap=request.param))
    return await start_daemon()


async def answers_while(daemon: Daemon, cells: dict[str, str]) -> None:
    async def ask(client: Client) -> None:
        assert (await client.call("daemon/status"))["pid"] == daemon.pid

    await besiege(daemon, cells, ask)


async def test_a_besieged_daemon_answers(besieged: Daemon) -> None:
    names = random.Random(5).sample(sorted(ATTACKS), SAMPLE)
    await answers_while(besieged, {name: EVERYTHING[name] for name in (*names, *NUISANCES)})


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_a_daemon_besieged_by_every_attack_answers(besieged: Daemon) -> None:
    await answers_while(besieged, EVERYTHING)


async def test_all_workers_together_keep_to_their_total(folders: Folders, start_daemon: StartDaemon) -> None:
    """Each alone keeps within its own share; the one that has most is ended, and the other goes on."""
    folders.write_config(f"[repl]\ntotal_memory_bytes = {384 << 20}\n")
    daemon = await start_daemon()
    async with daemon.connect() as client:
        assert await execute(client, f"held = b'x' * {150 << 20}", session="less") == "\nNone"
        fill = f"held = b'x' * {220 << 20}\nimport time\nwhile True: time.sleep(0.01)"
        assert "all REPLs together took" in await execute(client, fill, session="more")
        assert await execute(client, "len(held)", session="less") == f"{150 << 20}\n\nNone"
