"""Hostile cells through the daemon's own door: meanwhile it answers, and afterwards nothing of them is left."""

from __future__ import annotations

import asyncio
import random
import uuid

import pytest

from tests.attacks import ATTACKS
from tests.conftest import StartDaemon
from tests.harness import Client, Daemon, Folders, RpcFailure
from tests.siege import SECRET, world

#: Attacks of the CI tier, and how many at once.
SAMPLE, TOGETHER = 20, 4
#: What wants to know whether anything stops it stays until something does.
PATIENT = "def hold():\n    for _ in range(600): time.sleep(0.1)\n    escaped()\n"
#: Beside the attacks: what floods, stalls or ends a worker.
NUISANCES = {
    "output without end": "while True: print('x' * 10_000)",
    "computing without end": "while True: pass",
    "signals ignored": "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "frames without end": (
        'h = b\'{"t":"cancel","id":9}\'\nf = (struct.pack(\'>II\', len(h), 0) + h) * 1000\n'
        "while True:\n    v = memoryview(f)\n    while v: v = v[os.write(200, v):]"
    ),
    "searches that nobody reads": (
        'h = b\'{"t":"search","id":9,"k":0}\'\nf = (struct.pack(\'>II\', len(h), 1) + h + b\'x\') * 1000\n'
        "while True:\n    v = memoryview(f)\n    while v: v = v[os.write(200, v):]"
    ),
    "all memory": "b = bytearray(1 << 40)",
    "death": "ctypes.string_at(0)",
    "leaving": "os._exit(0)",
}
CONFIG = "[repl]\nmemory_bytes = 268435456\ncell_seconds = 2\nbubblewrap = "


@pytest.fixture(params=["true", "false"], ids=["bubblewrap", "without bubblewrap"])
async def besieged(request: pytest.FixtureRequest, folders: Folders, start_daemon: StartDaemon) -> Daemon:
    folders.write_config(CONFIG + str(request.param) + "\n")
    return await start_daemon()


async def execute(client: Client, code: str, **more: str) -> str:
    """All that the cell said; its session is one of its own where none is named."""
    cell = {"code": code, "run_id": str(uuid.uuid4()), **more}
    try:
        told = await client.call("repl/execute", cell)
    except RpcFailure as failure:
        return str(failure)
    return f"{told['output']}\n{told['error']}"


async def besiege(daemon: Daemon, cells: dict[str, str]) -> None:
    """Runs the cells a few at once; a client asks for the status until the last of them has ended."""
    with world() as made:
        preamble = made.preamble(daemon.pid) + PATIENT + "print('BEGUN')\n"
        room = asyncio.Semaphore(TOGETHER)
        async with daemon.connect() as attacker, daemon.connect() as watcher:

            async def let_loose(name: str) -> None:
                async with room:
                    said = await execute(attacker, preamble + cells[name])
                assert not {"ESCAPED", SECRET} & set(said.split()), (name, said)

            async with asyncio.TaskGroup() as loose:
                attacks = [loose.create_task(let_loose(name)) for name in cells]
                while not all(attack.done() for attack in attacks):
                    assert (await watcher.call("daemon/status"))["pid"] == daemon.pid
            assert await execute(attacker, "print('works')") == "works\n\nNone"
        assert made.traces() == []


async def test_a_besieged_daemon_answers(besieged: Daemon) -> None:
    names = random.Random(5).sample(sorted(ATTACKS), SAMPLE)
    await besiege(besieged, {name: ATTACKS[name].code for name in names} | NUISANCES)


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_a_daemon_besieged_by_every_attack_answers(besieged: Daemon) -> None:
    await besiege(besieged, {name: attack.code for name, attack in ATTACKS.items()} | NUISANCES)


async def test_all_workers_together_keep_to_their_total(folders: Folders, start_daemon: StartDaemon) -> None:
    """Each alone keeps within its own share; the one that has most is ended, and the other goes on."""
    folders.write_config("[repl]\ntotal_memory_bytes = 402653184\n")
    daemon = await start_daemon()
    async with daemon.connect() as client:
        assert await execute(client, f"held = b'x' * {150 << 20}", session="less") == "\nNone"
        fill = f"held = b'x' * {220 << 20}\nimport time\nwhile True: time.sleep(0.01)"
        assert "all REPLs together took" in await execute(client, fill, session="more")
        assert await execute(client, "len(held)", session="less") == f"{150 << 20}\n\nNone"
