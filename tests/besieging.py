"""Hostile cells sent through a daemon's own door, a few at once, while a client asks how it is.

What the cells try is in ``attacks.py``, and beside them what floods, stalls or ends a worker.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from tests.attacks import ATTACKS
from tests.harness import Client, Daemon, RpcFailure
from tests.siege import SECRET, world

#: Cells at once.
TOGETHER = 4
#: What wants to know whether anything stops it stays until something does.
_PATIENT = "def hold():\n    for _ in range(600): time.sleep(0.1)\n    escaped()\n"
_FLOOD = "while True:\n    v = memoryview(f)\n    while v: v = v[os.write(200, v):]"
NUISANCES = {
    "output without end": "while True: print('x' * 10_000)",
    "computing without end": "while True: pass",
    "signals ignored": "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "frames without end": (
        'h = b\'{"t":"cancel","id":9}\'\nf = (struct.pack(\'>II\', len(h), 0) + h) * 1000\n' + _FLOOD
    ),
    "searches that nobody reads": (
        'h = b\'{"t":"search","id":9,"k":0}\'\nf = (struct.pack(\'>II\', len(h), 1) + h + b\'x\') * 1000\n' + _FLOOD
    ),
    "all memory": "b = bytearray(1 << 40)",
    "death": "ctypes.string_at(0)",
    "leaving": "os._exit(0)",
}
EVERYTHING = {name: attack.code for name, attack in ATTACKS.items()} | NUISANCES


def config(*, bubblewrap: bool) -> str:
    """As much memory for a worker as the attacks reckon with; cells that do not end soon are ended."""
    return f"[repl]\nmemory_bytes = {256 << 20}\ncell_seconds = 2\nbubblewrap = {str(bubblewrap).lower()}\n"


async def execute(client: Client, code: str, **more: str) -> str:
    """All that the cell said; its session is one of its own where none is named."""
    try:
        told = await client.call("repl/execute", {"code": code, "run_id": str(uuid.uuid4()), **more})
    except RpcFailure as failure:
        return str(failure)
    return f"{told['output']}\n{told['error']}"


async def besiege(daemon: Daemon, cells: dict[str, str], ask: Callable[[Client], Awaitable[object]]) -> None:
    """Runs the cells, and ``ask`` on another connection again and again until the last of them has ended; fails when
    one gets out or leaves something."""
    with world() as made:
        preamble = made.preamble(daemon.pid) + _PATIENT
        room = asyncio.Semaphore(TOGETHER)
        async with daemon.connect() as attacker, daemon.connect() as watcher:

            async def let_loose(name: str) -> None:
                async with room:
                    said = await execute(attacker, preamble + cells[name])
                assert not {"ESCAPED", SECRET} & set(said.split()), (name, said)

            async with asyncio.TaskGroup() as loose:
                attacks = [loose.create_task(let_loose(name), name=name) for name in cells]
                while not all(attack.done() for attack in attacks):
                    await ask(watcher)
            assert await execute(attacker, "print('works')") == "works\n\nNone"
        assert made.traces() == []
