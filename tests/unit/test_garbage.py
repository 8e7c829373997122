"""Python looks through everything only while nothing is at work. In a process of its own, whose setting it is."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import asyncio, gc, weakref
from rlmd import garbage

class Cycle:
    def __init__(self):
        self.me = self

async def main(idle):
    gc.disable()  # as rlmd.__main__ leaves it
    garbage.settle()
    made = gc.get_stats()[2]["collections"]
    old = Cycle()
    gone = weakref.ref(old)
    gc.collect(1)
    del old  # the young ones are looked through no more for its sake
    kept = [[n] for n in range(1_500_000)]
    assert gc.get_stats()[2]["collections"] == made, "everything was looked through at work"
    assert gc.get_stats()[0]["collections"] > 100, "the young are not looked through"
    task = asyncio.create_task(garbage.collect_when_idle(lambda: idle, every=0))
    for _ in range(10):
        await asyncio.sleep(0)
    print(gone() is None)
    task.cancel()

asyncio.run(main(IDLE))
"""


def looked(*, idle: bool) -> str:
    return subprocess.run(
        [sys.executable, "-c", _CODE.replace("IDLE", str(idle))], capture_output=True, text=True, check=True
    ).stdout


def test_everything_is_looked_through_when_nobody_waits_and_not_before() -> None:
    assert looked(idle=True) == "True\n"
    assert looked(idle=False) == "False\n"
