"""How long the daemon's event loop is held where there is much of everything, and what a start costs then.

    python -m tests.benchmarks.crowds [--uvloop] [PHASE…]

100,000 documents, a text of 1 GB, 10,000 runs, 10,000 contexts, 500 clients on one run: told as by ``stalls``. Of each
start: CPU seconds of the process, and seconds by the clock, until its socket answers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.benchmarks.stalls import one, watched
from tests.harness import Client, Daemon, Folders, Json, config_of, load_path, load_text, new_run

DOCUMENTS, RUNS, CONTEXTS, CLIENTS, BYTES = 100_000, 10_000, 10_000, 499, 1 << 30
PATIENCE = 600.0


class Crowd:
    """What is done to the daemon, phase by phase."""

    def __init__(self, client: Client, folders: Folders) -> None:
        self.client, self.folders = client, folders

    def phases(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            f"{RUNS:,} runs": self.runs,
            f"{CONTEXTS:,} contexts": self.contexts,
            f"{DOCUMENTS:,} documents, loaded": lambda: self.load("many", self.folders.home / "many"),
            f"{DOCUMENTS:,} documents, again": lambda: self.load("many", self.folders.home / "many"),
            f"{DOCUMENTS:,} documents, looked at": self.documents,
            f"{DOCUMENTS:,} documents, one changed": self.changed,
            f"{DOCUMENTS:,} documents, searched": lambda: self.search("many", "Document 7777."),
            f"{DOCUMENTS:,} documents, in a cell": lambda: self.cell("len(documents)", "many"),
            f"{DOCUMENTS:,} documents, dropped": lambda: self.call("context/drop", {"name": "many"}),
            "1 GB, loaded": lambda: self.load("large", self.folders.home / "large.txt"),
            "1 GB, looked at": self.peek,
            "1 GB, grown": self.grow,
            "1 GB, searched": lambda: self.regex("large", "number 0{6}9"),
            "1 GB, quoted": lambda: self.call("run/ask", new_run("fox number 0000900", "large", strategy="quote")),
            "1 GB, in a cell": lambda: self.cell("len(context)", "large"),
            f"{CLIENTS + 1} clients": self.clients,
        }

    async def call(self, method: str, params: Json | None = None) -> Json:
        return await self.client.call(method, params or {}, timeout=PATIENCE)

    async def runs(self) -> None:
        assert len((await self.call("run/list", {"limit": 10_000}))["runs"]) == RUNS
        await self.call("run/list")
        await self.call("run/list", {"limit": 50, "state": "failed"})
        await self.call("session/list")
        await self.call("daemon/status")
        await self.call("daemon/gc", {"dry_run": True})

    async def contexts(self) -> None:
        assert len((await self.call("context/list"))["contexts"]) >= CONTEXTS
        await self.call("daemon/status")
        await self.call("daemon/gc", {"dry_run": True})
        await load_text(self.client, "one more", "one more")

    async def load(self, name: str, path: Path) -> None:
        await load_path(self.client, name, path, timeout=PATIENCE)

    async def documents(self) -> None:
        for start in range(0, DOCUMENTS, 10_000):
            await self.call("context/info", {"name": "many", "documents_from": start, "documents_limit": 10_000})
        await self.call("context/peek", {"name": "many", "document": "99/999.txt"})

    async def changed(self) -> None:
        (self.folders.home / "many" / "0" / "0.txt").write_text("Another.\n")
        await self.call("context/update", {"name": "many"})
        await self.call("context/diff", {"name": "many"})

    async def search(self, name: str, query: str) -> None:
        await self.call("context/search", {"name": name, "query": query, "mode": "bm25"})
        await self.regex(name, query)

    async def regex(self, name: str, query: str) -> None:
        await self.call("context/search", {"name": name, "query": query, "mode": "regex", "seconds": 50})

    async def cell(self, code: str, context: str) -> None:
        await self.call("repl/execute", {"run_id": str(uuid.uuid4()), "code": code, "contexts": [context]})

    async def peek(self) -> None:
        for start in range(0, BYTES, BYTES // 50):
            await self.call("context/peek", {"name": "large", "start": start, "chars": 65_536})

    async def grow(self) -> None:
        with (self.folders.home / "large.txt").open("a") as file:
            file.write("One line more.\n")
        await self.call("context/update", {"name": "large"})

    async def clients(self) -> None:
        code = "for n in range(2000):\n    try: llm_query(f'nobody answers {n}')\n    except Exception: pass\n"
        cell = {"run_id": str(uuid.uuid4()), "code": code, "contexts": ["note"]}
        async with contextlib.AsyncExitStack() as stack:
            followers = [await stack.enter_async_context(self.other()) for _ in range(CLIENTS - 2)]
            work = asyncio.create_task(self.call("repl/execute", cell))
            await asyncio.sleep(0.3)
            attach = {"run_id": cell["run_id"]}
            await asyncio.gather(*(one.call("run/attach", attach, timeout=PATIENCE) for one in followers))
            await work

    def other(self) -> contextlib.AbstractAsyncContextManager[Client]:
        return Client.connected(self.folders.socket)


def lay_out(folders: Folders) -> None:
    """What the phases load."""
    for folder in range(DOCUMENTS // 1000):
        (folders.home / "many" / str(folder)).mkdir(parents=True)
        for number in range(1000):
            (folders.home / "many" / str(folder) / f"{number}.txt").write_text(f"Document {folder * 1000 + number}.\n")
    lines = "".join(f"The quick brown fox number {n:07} jumps over the lazy dog; ä.\n" for n in range(16_384))
    with (folders.home / "large.txt").open("w", encoding="utf-8") as file:
        for _ in range(BYTES // (1 << 20)):
            file.write(lines[: 1 << 20])


async def multiply(folders: Folders, runs: int, contexts: int) -> None:
    """Runs and contexts as a daemon of long standing has them: a few real ones, copied in its state."""
    daemon = Daemon(folders)
    await daemon.ready()
    async with daemon.connect() as client:
        await load_text(client, "note", "A text that says something.\n" * 100)
        await client.call("run/ask", new_run("Says what?", "note", strategy="quote"))
        cell = {"run_id": str(uuid.uuid4()), "code": "print(len(context))", "contexts": ["note"], "session": "kept"}
        await client.call("repl/execute", cell)
    await daemon.stop()
    kept = sorted((folders.state / "rlmd" / "runs").iterdir())
    for number in range(len(kept), runs):
        fresh = folders.state / "rlmd" / "runs" / str(uuid.uuid4())
        before = kept[number % len(kept)]
        shutil.copytree(before, fresh)
        journal = fresh / "journal.jsonl"
        text = (
            journal.read_text().replace(before.name, fresh.name).replace('"session":"kept"', f'"session":"s{number}"')
        )
        journal.write_text(text.replace('"session_id":"', f'"session_id":"{number}'))
    if contexts:
        _multiply_contexts(folders.state / "rlmd" / "contexts" / "store" / "catalogue.sqlite", contexts)


def _multiply_contexts(catalogue: Path, contexts: int) -> None:
    with contextlib.closing(sqlite3.connect(catalogue)) as db, db:
        for table in ("contexts", "revisions", "documents", "blobs"):
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            fresh_of = {"contexts": {"id": "n", "name": "'c' || n"}, "documents": {"id": "n", "context": "n"}}
            own = fresh_of.get(table, {"context": "n"})
            chosen = ", ".join(own.get(column, column) for column in columns)
            db.execute(
                "WITH RECURSIVE count(n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM count WHERE n < 999 + ?) "
                f"INSERT INTO {table} SELECT {chosen} FROM {table}, count",
                (contexts,),
            )


async def started(folders: Folders, what: str) -> None:
    """Twice: what the files' cache lacks costs the first start more."""
    for turn in ("first", "second"):
        daemon = Daemon(folders)
        began = time.perf_counter()
        await daemon.ready()
        async with daemon.connect() as client:
            await client.call("daemon/status", timeout=PATIENCE)
            seconds = time.perf_counter() - began
        with open(f"/proc/{daemon.pid}/stat") as file:
            ticks = file.read().rpartition(")")[2].split()[11:13]
        cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        print(f"start with {what}, {turn}: {cpu:.2f} CPU seconds, {seconds:.2f} s", flush=True)
        await daemon.stop()


async def measure(chosen: list[str], *, uvloop: bool) -> None:
    folders = Folders()
    folders.write_config(config_of([]))
    try:
        if not chosen or any("documents" in word or "1 GB" in word for word in chosen):
            await asyncio.to_thread(lay_out, folders)
        if not chosen or any(word in "runs contexts start" for word in chosen):
            await started(folders, "nothing")
            await multiply(folders, 1000, 0)
            await started(folders, "1,000 runs")
            await multiply(folders, RUNS, CONTEXTS)
            await started(folders, f"{RUNS:,} runs and {CONTEXTS:,} contexts")
        log = folders.root / "stalls"
        async with (
            watched(folders, log, uvloop=uvloop),
            Client.connected(folders.socket) as client,
            Client.connected(folders.socket) as other,
        ):
            await load_text(client, "note", "a text")
            for name, phase in Crowd(client, folders).phases().items():
                if not chosen or any(word in name for word in chosen):
                    await one(name, phase, other, log)
    finally:
        await asyncio.to_thread(folders.remove)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phases", nargs="*", metavar="PHASE")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    asyncio.run(measure(options.phases, uvloop=options.uvloop))
