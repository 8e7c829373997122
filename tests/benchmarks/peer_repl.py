"""One peer's REPL alone, in a virtual environment that has it: python peer_repl.py rlms|dspy|deno COUNTS.

Imports nothing of rlmd. COUNTS is JSON with the fields of ``bench_repl.Counts``. Prints a JSON line a measurement, as
soon as it is made: its name and seconds. Sub-models answer at once, so that what is measured is the way to them.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MB = 1_000_000
#: dspy's runner takes one module from the net; this is its only function, by the same name.
READ_LINES = """
export async function* readLines(reader) {
  const decoder = new TextDecoder(), block = new Uint8Array(1 << 16);
  let rest = [];
  for (let n = await reader.read(block); n !== null; n = await reader.read(block)) {
    const lines = decoder.decode(block.subarray(0, n), { stream: true }).split("\\n");
    rest.push(lines[0]);
    for (const line of lines.slice(1)) { yield rest.join(""); rest = [line]; }
  }
  if (rest.join("")) yield rest.join("");
}
"""
Measurement = tuple[str, float]


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_of(count: int, work: Callable[[], object]) -> float:
    return statistics.median(seconds_of(work) for _ in range(count))


def loop(counts: Any, call: str) -> str:
    return f"for n in range({counts['calls']}):\n    {call}\n"


def batch(slots: int, chars: int, call: str) -> str:
    prompts = f"[str(n) + chr(120) * {chars} for n in range({slots})]"
    return f"r = {call.format(prompts=prompts)}\nassert len(r) == {slots}\n"


def rlms(counts: Any) -> Iterator[Measurement]:
    from rlm.clients.base_lm import BaseLM
    from rlm.core.lm_handler import LMHandler
    from rlm.core.types import ModelUsageSummary, UsageSummary
    from rlm.environments.local_repl import LocalREPL

    class AtOnce(BaseLM):
        def completion(self, prompt: Any) -> str:
            return "ok"

        async def acompletion(self, prompt: Any) -> str:
            return "ok"

        def get_usage_summary(self) -> Any:
            return UsageSummary({})

        def get_last_usage(self) -> Any:
            return ModelUsageSummary(1, 1, 1)

    def done(repl: Any, code: str) -> None:
        told = repl.execute_code(code)
        assert not told.stderr, told.stderr

    yield "cold start", median_of(counts["starts"], lambda: LocalREPL(context_payload="a"))
    repl = LocalREPL(context_payload="a text", lm_handler_address=LMHandler(AtOnce("sub")).start())
    yield "cell", median_of(counts["cells"], lambda: done(repl, "1"))
    yield "callback", seconds_of(lambda: done(repl, loop(counts, "assert llm_query('a') == 'ok'"))) / counts["calls"]
    for size in counts["megabytes"]:
        text = "x" * (size * MB)
        yield f"{size} MB", seconds_of(lambda: done(LocalREPL(context_payload=text), "print(len(context))"))  # noqa: B023
    for slots, chars in counts["batches"]:
        code = batch(slots, chars, "llm_query_batched({prompts})")
        yield f"{slots} × {chars}", seconds_of(lambda: done(repl, code))  # noqa: B023


def dspy(counts: Any) -> Iterator[Measurement]:
    import dspy as package

    yield from interpreted(counts, lambda **more: package.LocalInterpreter(**more))


def deno(counts: Any) -> Iterator[Measurement]:
    import dspy as package
    from deno import find_deno_bin

    folder = Path(sys.prefix) / "deno"
    folder.mkdir(exist_ok=True)
    (folder / "lines.mjs").write_text(READ_LINES)
    missing = {"https://deno.land/std@0.186.0/io/mod.ts": str(folder / "lines.mjs")}
    (folder / "map.json").write_text(json.dumps({"imports": missing}))
    runner = Path(package.__file__).parent / "primitives" / "runner.js"
    options = ["--no-config", "--no-lock", "--node-modules-dir=false", f"--import-map={folder / 'map.json'}"]
    options += [f"--allow-read={folder},{runner}", str(runner), "", f"--dspy-deno-dir={folder}"]
    command = [find_deno_bin(), "run", *options]
    yield from interpreted(counts, lambda **more: package.PythonInterpreter(deno_command=command, **more))


def interpreted(counts: Any, make: Callable[..., Any]) -> Iterator[Measurement]:
    """Both of dspy's interpreters take the same calls."""
    import dspy as package

    model = package.RLM("context -> answer", max_llm_calls=10**9, sub_lm=lambda prompt: ["ok"])
    tools = model._make_llm_tools()

    def begun() -> Any:
        interpreter = make(tools=tools)
        interpreter.execute("1")
        return interpreter

    def ended() -> None:
        begun().shutdown()

    def first_cell(text: str) -> None:
        interpreter = make()
        interpreter.execute("print(len(context))", variables={"context": text})
        interpreter.shutdown()

    yield "cold start", median_of(counts["starts"], ended)
    repl = begun()
    yield "cell", median_of(counts["cells"], lambda: repl.execute("1"))
    yield "callback", seconds_of(lambda: repl.execute(loop(counts, "llm_query(prompt='a')"))) / counts["calls"]
    for size in counts["megabytes"]:
        text = "x" * (size * MB)
        yield f"{size} MB", seconds_of(lambda: first_cell(text))  # noqa: B023
    for slots, chars in counts["batches"]:
        code = batch(slots, chars, "llm_query_batched(prompts={prompts})")
        yield f"{slots} × {chars}", seconds_of(lambda: repl.execute(code))  # noqa: B023


if __name__ == "__main__":
    for name, seconds in {"rlms": rlms, "dspy": dspy, "deno": deno}[sys.argv[1]](json.loads(sys.argv[2])):
        print(json.dumps([name, seconds]), flush=True)
