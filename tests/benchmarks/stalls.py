"""How long the daemon's event loop is held, and by what: the whole daemon, loaded by a client in another process.

    python -m tests.benchmarks.stalls [--uvloop] [PHASE…]

For each phase: the longest time for which one step of the loop held it, in CPU time of the loop's own thread (so that
a busy machine does not count), which step that was, and how long ``daemon/status`` took meanwhile. With ``--uvloop``
the loop is the product's, and what is told is how much the loop's thread computed between two ticks of 1 ms; without,
it is asyncio's, which lets each step be timed by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.suite import script, servers
from tests.harness import DIES_WITH_US, ROOT, Client, Folders, Host, config_of, load_path, load_text

#: Steps shorter than this are not told.
LEAST = 0.001
HOSTS, SLOTS = 4, 8
CHARS = 40_000_000

ROOT_REPLY = """```repl
replies = llm_query_batched([f"{{n}} {salt} " + {body} for n in range({count})])
```
FINAL_VAR(replies)"""


# ── in the daemon's process ─────────────────────────────────────────────────────────────────────────────────────


def serve(log: str, *, uvloop: bool) -> None:
    """The daemon as it is, on a loop that is watched; each long step is a line of ``log``."""
    gc.disable()  # as rlmd.__main__ does
    from rlmd.config import Paths, check_settings
    from rlmd.daemon import run

    paths = Paths.from_environment()
    settings, problems = check_settings(paths)
    assert settings is not None, problems
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(cpu: float, wall: float, what: str) -> None:
        line = {"at": time.monotonic(), "cpu": cpu * 1e3, "wall": wall * 1e3, "what": what[:300]}
        os.write(descriptor, json.dumps(line).encode() + b"\n")

    if uvloop:
        import uvloop as uv

        async def ticked() -> None:
            ticking = asyncio.create_task(tick(tell))
            await run(paths, settings)
            ticking.cancel()

        uv.run(ticked())
        return
    collecting = [0.0, 0.0]

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            collecting[0] = time.thread_time()
        else:
            collecting[1] += time.thread_time() - collecting[0]

    gc.callbacks.append(collected)
    handle_run = asyncio.events.Handle._run

    def timed(self: asyncio.Handle) -> None:
        wall, cpu = time.monotonic(), time.thread_time()
        collecting[1] = 0.0
        handle_run(self)
        took = time.thread_time() - cpu
        if took > LEAST:
            tell(took, time.monotonic() - wall, f"({collecting[1] * 1e3:.1f} of it collecting garbage) {self!r}")

    asyncio.events.Handle._run = timed  # type: ignore[method-assign]
    asyncio.run(run(paths, settings))


async def tick(tell: Callable[[float, float, str], None]) -> None:
    while True:
        wall, cpu = time.monotonic(), time.thread_time()
        await asyncio.sleep(0.001)
        took = time.thread_time() - cpu
        if took > LEAST:
            tell(took, time.monotonic() - wall - 0.001, "between two ticks")


# ── outside ─────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def watched(folders: Folders, log: Path, *, uvloop: bool) -> AsyncIterator[None]:
    command = [*DIES_WITH_US, sys.executable, "-m", "tests.benchmarks.stalls", "--serve", str(log)]
    command += ["--uvloop"] if uvloop else []
    errors = folders.root / "stderr"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(command, env=folders.environment(), cwd=ROOT, stdout=stderr, stderr=stderr)
    try:
        while not folders.socket.exists():
            assert process.poll() is None, errors.read_text()
            await asyncio.sleep(0.02)
        yield
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
        if os.environ.get("STALLS_STDERR"):
            print(errors.read_text(), file=sys.stderr)


class Load:
    """What is done to the daemon, phase by phase."""

    def __init__(self, client: Client, folders: Folders, urls: list[str]) -> None:
        self.client, self.folders, self.urls = client, folders, urls
        self.big_run = ""

    def phases(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            "load 40 MB by path": self.by_path,
            "load 40 MB by spool": self.by_spool,
            "search and peek": self.search,
            "10,000 documents": self.documents,
            "first cell on 40 MB": lambda: self.cell("len(context)", "large"),
            "output of 20 MB": lambda: self.cell("for n in range(20): print('x' * 1_000_000)", "note"),
            "output of 200,000 lines": lambda: self.cell("for n in range(200_000): print(n)", "note"),
            "an expression of 1 MB": lambda: self.cell("'y' * 1_000_000", "note"),
            "5,000 × 2 KB": lambda: self.batch(5000, "'y ' * 1000"),
            "5,000 × 2 KB of the context": lambda: self.batch(5000, "context[n * 2000 : n * 2000 + 2000]", "large"),
            "500 × 100 KB": lambda: self.batch(500, "'y ' * 50_000"),
            "100,000 slots, cancelled": self.manifest,
            "run/show": lambda: self.client.call("run/show", {"run_id": self.big_run}),
            "run/list": lambda: self.client.call("run/list", {"limit": 1000}),
            "run/attach": self.attach,
            "run/fetch": lambda: self.client.call("run/fetch", {"run_id": self.big_run, "from_seq": 1}, timeout=300),
            "inline 250 KB": lambda: load_text(self.client, "inline", "z\n" * 125_000),
            "a question of 1 MB": self.question,
        }

    async def prepare(self) -> None:
        await load_text(self.client, "note", "a text")
        self.path = self.folders.home / "large.txt"
        line = "The quick brown fox number %07d jumps over the lazy dog, and nobody saw it; ä.\n"
        self.path.write_text("".join(line % n for n in range(CHARS // 80)), encoding="utf-8")

    async def by_path(self) -> None:
        await load_path(self.client, "large", self.path)

    async def by_spool(self) -> None:
        (self.folders.spool / "one").write_text(self.path.read_text(encoding="utf-8") + "more\n", encoding="utf-8")
        source = {"kind": "spool", "file": "one", "origin": None}
        await self.client.call("context/load", {"name": "spooled", "source": source}, timeout=300)

    async def search(self) -> None:
        await load_path(self.client, "large", self.path)
        for mode in ("bm25", "regex"):
            params = {"name": "large", "query": "fox number 0400000", "mode": mode, "limit": 20}
            await self.client.call("context/search", params, timeout=300)
        document = (await self.client.call("context/info", {"name": "large"}))["documents"][0]["name"]
        for start in range(0, CHARS, CHARS // 50):
            params = {"name": "large", "document": document, "start": start, "chars": 65_536}
            await self.client.call("context/peek", params)

    async def documents(self) -> None:
        folder = self.folders.home / "many"
        folder.mkdir(exist_ok=True)
        for number in range(10_000):
            (folder / f"{number}.txt").write_text(f"Document {number}.\n")
        await load_path(self.client, "many", folder)
        for _ in range(5):
            page = {"name": "many", "documents_limit": 10_000}
            assert len((await self.client.call("context/info", page))["documents"]) == 10_000
        await self.client.call("context/list")
        (folder / "0.txt").write_text("Another.\n")
        await self.client.call("context/update", {"name": "many"})
        await self.client.call("context/diff", {"name": "many", "limit": 1000})

    async def cell(self, code: str, context: str) -> None:
        params = {"run_id": str(uuid.uuid4()), "code": code, "contexts": [context]}
        await self.client.call("repl/execute", params, timeout=300)

    async def batch(self, count: int, body: str, context: str = "note") -> None:
        salt = uuid.uuid4().hex[:6]
        await script(self.urls[0], ROOT_REPLY.format(count=count, body=body, salt=salt))
        run = {"run_id": str(uuid.uuid4()), "question": f"All {salt}", "contexts": [context], "strategy": "rlm"}
        await self.client.call("run/ask", {**run, "confirm": "accept", "limits": {"sub_queries": 100_000}}, timeout=900)
        if count == 5000:
            self.big_run = run["run_id"]

    async def manifest(self) -> None:
        await script(self.urls[0], ROOT_REPLY.format(count=100_000, body="'y'", salt="many"))
        run = {"run_id": str(uuid.uuid4()), "question": "Many", "contexts": ["note"], "strategy": "rlm"}
        await self.client.call("run/start", {**run, "confirm": "accept", "limits": {"sub_queries": 100_000}})
        await self.client.until(lambda: len(self.client.facts(run["run_id"], "subquery_replied")) > 100, timeout=300)
        await self.client.call("run/cancel", {"run_id": run["run_id"], "why": "enough"})

    async def attach(self) -> None:
        before = len(self.client.facts(self.big_run, "run_ended"))
        await self.client.call("run/attach", {"run_id": self.big_run})
        facts = self.client.facts
        await self.client.until(lambda: len(facts(self.big_run, "run_ended")) > before, timeout=300)

    async def question(self) -> None:
        await script(self.urls[0], "FINAL(yes)")
        run = {"run_id": str(uuid.uuid4()), "question": "why? " * 200_000, "contexts": ["note"], "strategy": "rlm"}
        with contextlib.suppress(Exception):
            await self.client.call("run/ask", run, timeout=300)


async def latencies(client: Client, over: asyncio.Event) -> list[float]:
    """How long ``daemon/status`` takes, again and again until it is over."""
    taken: list[float] = []
    while not over.is_set():
        began = time.perf_counter()
        await client.call("daemon/status")
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)
    return taken


def stalls(log: Path, since: float) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return sorted((line for line in lines if line["at"] >= since), key=lambda line: -line["cpu"])


async def measure(chosen: list[str], *, uvloop: bool) -> None:
    folders = Folders()
    log = folders.root / "stalls"
    try:
        async with servers(HOSTS, SLOTS, 0.005) as urls:
            hosts = [Host(f"h{n}", url, SLOTS, {"root": 32_768, "sub": 131_072}) for n, url in enumerate(urls)]
            folders.write_config(config_of(hosts, ("h0/root",), tuple(f"h{n}/sub" for n in range(HOSTS))))
            async with (
                watched(folders, log, uvloop=uvloop),
                Client.connected(folders.socket) as client,
                Client.connected(folders.socket) as other,
            ):
                load = Load(client, folders, urls)
                await load.prepare()
                for name, phase in load.phases().items():
                    if not chosen or any(word in name for word in chosen):
                        await one(name, phase, other, log)
    finally:
        folders.remove()


async def one(name: str, phase: Callable[[], Awaitable[object]], other: Client, log: Path) -> None:
    since, began = time.monotonic(), time.perf_counter()
    over = asyncio.Event()
    watching = asyncio.create_task(latencies(other, over))
    await asyncio.sleep(0.02)
    try:
        await phase()
    except Exception as error:
        print(f"{name}: {type(error).__name__} {str(error)[:200]}")
    seconds = time.perf_counter() - began
    over.set()
    taken = await watching
    held = stalls(log, since)
    longest = f"{held[0]['cpu']:6.1f} (wall {held[0]['wall']:.0f})" if held else "     –"
    long = sum(line["cpu"] > 5 for line in held)
    told = f"status {statistics.median(taken) * 1e3:.1f} / {max(taken) * 1e3:.0f} ms"
    print(f"{name:<30}{seconds:7.2f} s  held {longest} ms, {long} over 5; {told}", flush=True)
    seen: set[str] = set()
    for line in held:
        what = line["what"].split(" wait_for=")[0]
        if line["cpu"] > 1.0 and what not in seen and len(seen) < 4:
            seen.add(what)
            print(f"    {line['cpu']:7.1f} ms  {what}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phases", nargs="*", metavar="PHASE")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--serve", metavar="LOG", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, uvloop=options.uvloop)
    else:
        asyncio.run(measure(options.phases, uvloop=options.uvloop))
