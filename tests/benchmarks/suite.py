"""What is measured, each against a floor or a peer in the same run. Owns the measurements; ``__main__`` prints them.

Absolute times are this machine's at this moment. What can be held against another day is a ratio: to the floor (the
same work with nothing of ours in between) and to a peer that does the like, both measured minutes apart at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import uuid
import venv
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.benchmarks.besieged import latencies
from tests.benchmarks.peer import WHOLE
from tests.harness import ROOT, Client, Daemon, Folders, Host, config_of, load_path, load_text, new_run, rss_bytes

#: Hosts, slots of each, and seconds of a sub-query: the shape that the issue names.
HOSTS, SLOTS, LATENCY = 4, 8, 0.05
PEERS = ("rlms", "dspy")
#: The table's columns: Deno is what dspy runs cells in by default, where Deno can be had.
COLUMNS = (*PEERS, "deno")
CONTEXT_CHARS = 40_000_000

BATCH = """```repl
import time
began = time.perf_counter()
replies = llm_query_batched([f"prompt {{n}} of {salt}" for n in range({count})])
assert len(ok(replies)) == {count}
elapsed = time.perf_counter() - began
```
FINAL_VAR(elapsed)"""
SEQUENTIAL = """```repl
import time
llm_query("warm up {salt}")
began = time.perf_counter()
for n in range({count}):
    llm_query(f"prompt {{n}} of {salt}")
elapsed = time.perf_counter() - began
```
FINAL_VAR(elapsed)"""
FIRST_CELL = """```repl
size = str(len(context))
```
FINAL_VAR(size)"""


@dataclass(frozen=True)
class Row:
    """One line of the table. ``floor`` is the same without us, ``peers`` by name; all in ``unit``, less is better."""

    what: str
    ours: float
    unit: str
    floor: float | None = None
    aim: float | None = None
    peers: dict[str, float] = field(default_factory=dict)
    note: str = ""


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return (
        f"{os.cpu_count()} × {model}, {memory} GB, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )


# ── servers and peers ───────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def servers(hosts: int, slots: int, latency: float) -> AsyncIterator[list[str]]:
    """Model servers in a process of their own; yields their URLs."""
    command = [sys.executable, "-m", "tests.benchmarks.servers", "--hosts", str(hosts), "--slots", str(slots)]
    process = await asyncio.create_subprocess_exec(
        *command, "--latency", str(latency), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["urls"]
    finally:
        process.terminate()
        await process.wait()


async def script(url: str, *entries: str) -> None:
    given = {"scripts": {"root": list(entries)}}
    async with aiohttp.ClientSession() as session, session.post(url + "/fake/script", json=given) as answer:
        assert answer.status == 200


async def peer(name: str, what: str, count: int) -> float | None:
    """Seconds that a peer takes for the like; None when it cannot be installed here."""
    python = await asyncio.to_thread(peers_python)
    if python is None:
        return None
    async with servers(1, HOSTS * SLOTS, LATENCY) as urls:
        process = await asyncio.create_subprocess_exec(
            str(python),
            str(Path(__file__).parent / "peer.py"),
            *(name, what, urls[0], str(count)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, complaint = await process.communicate()
    if process.returncode:
        print(f"{name} {what}: {complaint.decode(errors='replace').splitlines()[-1:]}", file=sys.stderr)
        return None
    seconds: float = json.loads(told.splitlines()[-1])["seconds"]
    return seconds


def peers_python() -> Path | None:
    """The peers' own virtual environment, made once in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "rlmd-benchmarks" / f"peers-{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    ready = folder / f"ready-{'-'.join(COLUMNS)}"
    if ready.exists():
        return python
    venv.create(folder, with_pip=True, clear=True)
    command = [python, "-m", "pip", "install", "--quiet", *COLUMNS]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        print(f"the peers cannot be installed: {installed.stderr.splitlines()[-1:]}", file=sys.stderr)
        return None
    ready.touch()
    return python


async def peers(what: str, count: int) -> dict[str, float]:
    found = {name: await peer(name, what, count) for name in PEERS}
    return {name: seconds for name, seconds in found.items() if seconds is not None}


# ── the daemon ──────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def daemon_over(urls: list[str], slots: int) -> AsyncIterator[tuple[Daemon, Client]]:
    folders = Folders()
    hosts = [Host(f"h{n}", url, slots, {"root": 32_768, "sub": 8192}) for n, url in enumerate(urls)]
    if hosts:
        folders.write_config(config_of(hosts, root=("h0/root",), sub=tuple(f"h{n}/sub" for n in range(len(urls)))))
    daemon = Daemon(folders)
    try:
        await daemon.ready()
        async with daemon.connect() as client:
            yield daemon, client
    finally:
        await daemon.stop()
        folders.remove()


async def answer_of(client: Client, question: str, context: str, **more: Any) -> str:
    limits = {"sub_queries": 1_000_000}
    run = new_run(question, context, strategy="rlm", limits=limits, confirm="accept", **more)
    asked = await client.call("run/ask", {**run, "attach": False}, timeout=900)
    assert asked["run"]["outcome"] == "answered", asked
    text: str = asked["answer"]
    return text


async def cold_start() -> Row:
    """From the start of the process to the answer to ``daemon/status``; the floor starts the interpreter alone."""

    async def once() -> float:
        folders = Folders()
        began = time.perf_counter()
        daemon = Daemon(folders)
        await daemon.ready()
        async with daemon.connect() as client:
            await client.call("daemon/status")
        seconds = time.perf_counter() - began
        await daemon.stop()
        folders.remove()
        return seconds

    ours = statistics.median([await once() for _ in range(5)])
    return Row("daemon: cold start to first answer", ours * 1e3, "ms", floor=bare_python() * 1e3)


def timed(command: list[str], **environment: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def bare_python() -> float:
    return statistics.median(timed([sys.executable, "-c", "pass"]) for _ in range(7))


async def rlmctl_start() -> Row:
    """``rlmctl status`` against a running daemon."""
    rlmctl = str(Path(sys.executable).parent / "rlmctl")
    async with daemon_over([], 1) as (daemon, _):
        environment = daemon.folders.environment()
        seconds = [await asyncio.to_thread(timed, [rlmctl, "status"], **environment) for _ in range(7)]
    return Row("rlmctl status", statistics.median(seconds) * 1e3, "ms", floor=bare_python() * 1e3)


async def idle_memory() -> Row:
    async with daemon_over([], 1) as (daemon, client):
        await load_text(client, "note", "text")
        await client.call("repl/execute", {"code": "1", "run_id": str(uuid.uuid4()), "contexts": ["note"]})
        own = rss_bytes(daemon.pid)
        others = sum(rss_bytes(one.pid) for one in daemon.look() if one.alive())
    return Row("idle daemon, PSS", own / 2**20, "MB", aim=90, note=f"its workers and helpers {others >> 20} MB")


async def first_cell() -> list[Row]:
    """40 MB from disk to a context, and from the question to the end of the first cell."""
    async with servers(1, 1, 0.0) as urls, daemon_over(urls, 1) as (daemon, client):
        path = daemon.folders.home / "large.txt"
        path.write_text(("a line of eighty characters" * 3)[:79] + "\n" * 1, encoding="utf-8")
        path.write_text(path.read_text() * (CONTEXT_CHARS // 80), encoding="utf-8")
        began = time.perf_counter()
        await load_path(client, "large", path)
        loaded = time.perf_counter() - began
        asked = []
        for number in range(5):
            await script(urls[0], FIRST_CELL)
            began = time.perf_counter()
            assert await answer_of(client, f"How long is it? ({number})", "large") == str(CONTEXT_CHARS)
            asked.append(time.perf_counter() - began)
        copied = shutil_copy_seconds(path)
    others = await peers("context", CONTEXT_CHARS)
    return [
        Row("40 MB file → context (durable)", loaded * 1e3, "ms", floor=copied * 1e3, note="floor: copy and fsync"),
        Row("40 MB context → end of first cell", statistics.median(asked) * 1e3, "ms", aim=300, peers=thousand(others)),
    ]


def shutil_copy_seconds(path: Path) -> float:
    began = time.perf_counter()
    with path.open("rb") as source, path.with_suffix(".copy").open("wb") as target:
        target.write(source.read())
        target.flush()
        os.fsync(target.fileno())
    return time.perf_counter() - began


def thousand(seconds: dict[str, float]) -> dict[str, float]:
    return {name: value * 1e3 for name, value in seconds.items()}


def cpu_seconds(daemon: Daemon) -> float:
    """What the daemon itself has used; that of its workers counts in their cells."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def bare_client(urls: list[str], count: int, at_once: int) -> float:
    """The floor: the same requests by a bare aiohttp client, each host given its share by pulling."""
    gates = [asyncio.Semaphore(at_once // len(urls)) for _ in urls]
    body = {"model": "sub", "stream": True, "options": {"num_ctx": 8192}}

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        at = number % len(urls)
        async with gates[at]:
            messages = [{"role": "user", "content": f"floor {number}"}]
            async with session.post(urls[at] + "/api/chat", json={**body, "messages": messages}) as answer:
                await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(session, number) for number in range(at_once)))
        began = time.perf_counter()
        await asyncio.gather(*(ask(session, number) for number in range(count)))
        return time.perf_counter() - began


async def sequential(count: int = 50) -> Row:
    """What one ``llm_query`` after the other costs above the model's own time."""
    async with servers(1, 1, LATENCY) as urls, daemon_over(urls, 1) as (_, client):
        await load_text(client, "note", "text")
        await script(urls[0], SEQUENTIAL.format(count=count, salt="sequential"))
        ours = float(await answer_of(client, "One by one", "note"))
        floor = await bare_client(urls, count, 1)
    others = await peers("sequential", count)

    def over(seconds: float) -> float:
        return (seconds / count - LATENCY) * 1e3

    return Row(
        "llm_query, one by one: above the model's 50 ms",
        over(ours),
        "ms",
        floor=over(floor),
        aim=2,
        peers={name: over(seconds) for name, seconds in others.items()},
    )


async def batch(count: int) -> Row:
    """``count`` sub-queries of 50 ms at once, four hosts with 32 slots together."""
    async with servers(HOSTS, SLOTS, LATENCY) as urls, daemon_over(urls, SLOTS) as (daemon, client):
        await load_text(client, "note", "text")
        await script(urls[0], BATCH.format(count=64, salt="warm"))
        await answer_of(client, "Warm up", "note")
        await script(urls[0], BATCH.format(count=count, salt="measured"))
        before = cpu_seconds(daemon)
        ours = float(await answer_of(client, f"{count} at once", "note"))
        cpu = (cpu_seconds(daemon) - before) / count * 1e3
        floor = await bare_client(urls, count, HOSTS * SLOTS)
    others = await peers("batch", count) if count <= 500 else {}
    ideal = -(-count // (HOSTS * SLOTS)) * LATENCY
    share = (
        f"{ideal / ours:.0%} of the ideal {ideal * 1e3:.0f} ms, the floor {ideal / floor:.0%}; {cpu:.2f} ms CPU each"
    )
    return Row(
        f"{count} × 50 ms over {HOSTS} hosts, {HOSTS * SLOTS} slots",
        ours * 1e3,
        "ms",
        floor=floor * 1e3,
        aim=ideal / 0.95 * 1e3 if count == 200 else None,
        peers=thousand(others),
        note=share,
    )


async def makespan() -> Row:
    """Forty sub-queries over hosts of 2, 4 and 2 slots and unequal speed, against the best that any order can reach."""
    shape = {"m40": (2, 0.20), "rtx": (4, 0.10), "p100": (2, 0.30)}
    async with contextlib.AsyncExitStack() as stack:
        running = [
            (await stack.enter_async_context(servers(1, slots, seconds)))[0] for slots, seconds in shape.values()
        ]
        folders = Folders()
        stack.callback(folders.remove)
        hosts = [
            Host(name, url, slots, {"root": 32_768, "sub": 8192})
            for (name, (slots, _)), url in zip(shape.items(), running, strict=True)
        ]
        folders.write_config(config_of(hosts, root=("m40/root",), sub=tuple(f"{name}/sub" for name in shape)))
        daemon = Daemon(folders)
        stack.push_async_callback(daemon.stop)
        await daemon.ready()
        client = await stack.enter_async_context(daemon.connect())
        await load_text(client, "note", "text")
        spans = []
        for salt in ("warm", "first", "second", "third"):
            await script(running[0], BATCH.format(count=40, salt=salt))
            spans.append(float(await answer_of(client, f"Forty, {salt}", "note")))
    bound = best_makespan(40, list(shape.values()))
    ours = statistics.median(spans[1:])
    note = f"{ours / bound:.2f} × the bound; first time, speeds unknown: {spans[0] / bound:.2f}"
    return Row("40 over uneven 2/4/2 slots: makespan", ours * 1e3, "ms", floor=bound * 1e3, note=note)


def best_makespan(count: int, shape: list[tuple[int, float]]) -> float:
    """The least time in which hosts of (slots, seconds) can finish ``count`` equal requests."""
    free = [seconds for slots, seconds in shape for _ in range(slots)]
    speed = list(free)
    last = 0.0
    for _ in range(count):
        soonest = min(range(len(free)), key=free.__getitem__)
        last = max(last, free[soonest])
        free[soonest] += speed[soonest]
    return last


async def whole_run() -> list[Row]:
    """Six turns over 40 MB and one batch of 200, by the same script: what a run takes, and what it leaves on disk. Ours
    begins with the file, a peer's with the text in its memory."""
    async with servers(1, HOSTS * SLOTS, LATENCY) as urls, daemon_over(urls, HOSTS * SLOTS) as (daemon, client):
        path = daemon.folders.home / "large.txt"
        path.write_text((("a line of eighty characters" * 3)[:79] + "\n") * (CONTEXT_CHARS // 80), encoding="utf-8")
        await script(urls[0], *(f"```repl\n{cell}\n```" for cell in WHOLE), "FINAL_VAR(result)")
        runs = daemon.folders.state / "rlmd" / "runs"
        used, began = cpu_of_all(daemon), time.perf_counter()
        await load_path(client, "large", path)
        assert await answer_of(client, "How many?", "large") == "200"
        seconds, used = time.perf_counter() - began, cpu_of_all(daemon) - used
        journal = sum(file.stat().st_size for file in runs.rglob("*") if file.is_file())
        ours = {"seconds": seconds, "cpu": used, "journal": float(journal), **await sent(urls[0])}
    theirs = {name: found for name in PEERS if (found := await whole_peer(name)) is not None}

    def row(what: str, unit: str, figure: str, per: float) -> Row:
        others = {name: found[figure] * per for name, found in theirs.items() if found[figure]}
        return Row(f"whole run, 40 MB, 6 turns: {what}", ours[figure] * per, unit, peers=others)

    return [
        row("wall", "ms", "seconds", 1e3),
        row("CPU of all processes", "ms", "cpu", 1e3),
        row("prompts of the root", "kB", "root", 1e-3),
        row("sub-queries", "", "subs", 1),
        row("journal", "kB", "journal", 1e-3),
    ]


async def sent(url: str) -> dict[str, float]:
    """What a server was sent: characters of the root's prompts, and sub-queries."""
    async with aiohttp.ClientSession() as session, session.get(url + "/fake/seen") as answer:
        told = await answer.json()
    subs = sum(one["model"].startswith("sub") for one in told["seen"])
    return {"root": float(told["chars"].get("root:latest", 0)), "subs": float(subs)}


async def whole_peer(name: str) -> dict[str, float] | None:
    python = await asyncio.to_thread(peers_python)
    if python is None:
        return None
    async with servers(1, HOSTS * SLOTS, LATENCY) as urls:
        process = await asyncio.create_subprocess_exec(
            str(python), str(Path(__file__).parent / "peer.py"), name, "whole", urls[0], str(CONTEXT_CHARS),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, complaint = await process.communicate()
        if process.returncode:
            print(f"{name} whole: {complaint.decode(errors='replace').splitlines()[-1:]}", file=sys.stderr)
            return None
        figures: dict[str, float] = json.loads(told.splitlines()[-1])
        return figures | await sent(urls[0])


def cpu_of_all(daemon: Daemon) -> float:
    """Of the daemon, its living processes, and those that have ended."""
    ticks = 0
    for pid in (daemon.pid, *(one.pid for one in daemon.look())):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11 : 15 if pid == daemon.pid else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


async def besieged() -> list[Row]:
    """``daemon/status`` while every attack of the tests runs in cells, four at once; the floor is the idle daemon."""
    rows = []
    for cage, bubblewrap in (("bubblewrap", True), ("own namespaces", False)):
        idle, taken = await latencies(bubblewrap=bubblewrap)
        far, idle_far = (of[len(of) * 99 // 100] for of in (taken, idle))
        note = f"99 % within {far:.1f} ms, idle {idle_far:.1f}; worst of {len(taken):,}: {taken[-1]:.0f}"
        median = statistics.median(taken)
        rows.append(Row(f"status under siege, {cage}", median, "ms", floor=statistics.median(idle), note=note))
    return rows


async def every() -> AsyncIterator[Row]:
    """All measurements, in the order of the table."""
    measurements: list[Callable[[], Coroutine[Any, Any, Row | list[Row]]]] = [
        cold_start,
        rlmctl_start,
        idle_memory,
        first_cell,
        sequential,
        lambda: batch(200),
        lambda: batch(5000),
        makespan,
        whole_run,
        besieged,
    ]
    for measure in measurements:
        rows = await measure()
        for row in rows if isinstance(rows, list) else [rows]:
            yield row
