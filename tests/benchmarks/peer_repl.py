"""One peer's REPL alone, in a virtual environment that has it: python peer_repl.py rlms|dspy.

Imports nothing of rlmd. Prints JSON: seconds of a start, of a first cell on 40 MB and 400 MB, and of a small cell;
for dspy also of a callback. (The callback of rlms goes over a socket to its own server, which is not started here.)
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

MB = 1_000_000


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rlms() -> dict[str, float]:
    from rlm.environments.local_repl import LocalREPL

    def first_cell(size: int) -> float:
        text = "x" * size
        return seconds_of(lambda: LocalREPL(context_payload=text).execute_code("print(len(context))"))

    repl = LocalREPL(context_payload="a text")
    return {
        "start": statistics.median(seconds_of(lambda: LocalREPL(context_payload="a")) for _ in range(9)),
        "cell": statistics.median(seconds_of(lambda: repl.execute_code("1")) for _ in range(50)),
        "40 MB": first_cell(40 * MB),
        "400 MB": first_cell(400 * MB),
    }


def dspy() -> dict[str, float]:
    import dspy as package

    def begun(**tools: Any) -> Any:
        interpreter = package.LocalInterpreter(tools=tools)
        interpreter.execute("1")
        return interpreter

    def first_cell(size: int) -> float:
        text, interpreter = "x" * size, package.LocalInterpreter()
        return seconds_of(lambda: interpreter.execute("print(len(context))", variables={"context": text}))

    def asked(prompt: str) -> str:
        return prompt

    calls = 200
    repl = begun(ask=asked)
    found = {
        "start": statistics.median(seconds_of(begun) for _ in range(9)),
        "cell": statistics.median(seconds_of(lambda: repl.execute("1")) for _ in range(50)),
        "40 MB": first_cell(40 * MB),
        "400 MB": first_cell(400 * MB),
    }
    code = f"for n in range({calls}): ask(prompt='a')"
    return found | {"callback": seconds_of(lambda: repl.execute(code)) / calls}


if __name__ == "__main__":
    print(json.dumps({"rlms": rlms, "dspy": dspy}[sys.argv[1]]()))
