"""A real daemon for a test: its folders, its process, and a small client that knows JSON-RPC and nothing of rlmd.

Owns what several test files share; fixtures over it stand in conftest.py. The client is written on purpose without
``rlmd.client`` and ``rlmd.wire``: a mistake in those cannot hide itself here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Longest path that ``sun_path`` takes with its closing NUL (Linux: 108 bytes).
SOCKET_BYTES = 107
#: Bounds of a hang, never a measure: what is waited for comes in a fraction of it on a slow machine.
PATIENCE = 60.0

#: A test run that is killed takes its daemons along; the wrapper becomes the command, so the process is the same.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")

Json = dict[str, Any]


class Folders:
    """A home of one's own with short paths: a daemon that gets ``environment()`` sees nothing of the machine's user."""

    def __init__(self, below: Path | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="rlmd-", dir=below))
        self.home = self.root / "h"
        self.runtime = self.root / "r"
        self.state = self.root / "s"
        self.cache = self.root / "c"
        self.config = self.root / "e"
        for folder in (self.home, self.runtime, self.state, self.cache, self.config):
            folder.mkdir(mode=0o700)
        assert len(os.fsencode(self.socket)) < SOCKET_BYTES, f"{self.socket} is too long for a socket: set TMPDIR"

    @property
    def socket(self) -> Path:
        return self.runtime / "rlmd" / "rlmd.sock"

    @property
    def spool(self) -> Path:
        return self.runtime / "rlmd" / "spool"

    def environment(self, **more: str) -> dict[str, str]:
        """What a login would give, and no more: proxies, keys and locale of the caller stay out."""
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(self.state),
            "XDG_CACHE_HOME": str(self.cache),
            "XDG_CONFIG_HOME": str(self.config),
            **more,
        }

    def write_config(self, text: str, file: str = "config.toml") -> Path:
        """Writes ``text`` as the daemon's config, or as a file of ``config.d`` (``config.d/x.toml``)."""
        path = self.config / "rlmd" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class Host:
    """One host of a config: ``models`` are name → window."""

    name: str
    url: str
    slots: int = 1
    models: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"sub": 8192})
    provider: str = "ollama"


def config_of(hosts: list[Host], root: tuple[str, ...] = (), sub: tuple[str, ...] = (), more: str = "") -> str:
    """The text of a config.toml with these hosts and roles (``host/model``)."""
    lines = ["[roles]", f"root = {json.dumps(list(root))}", f"sub = {json.dumps(list(sub))}"]
    for host in hosts:
        lines += [f"[hosts.{host.name}]", f'url = "{host.url}"', f'provider = "{host.provider}"']
        lines += [f"slots = {host.slots}"]
        for model, window in host.models.items():
            lines += [f'[hosts.{host.name}.models."{model}"]', f"window = {window}"]
    return "\n".join([*lines, more, ""])


class RpcFailure(Exception):
    """An error answer: ``code``, ``message`` and ``data`` as sent."""

    def __init__(self, error: Json) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')} {error.get('data')}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Json = error.get("data") or {}


class Client:
    """One connection. Notifications are kept in order; whoever waits for one is woken."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, headers: bool) -> None:
        self.reader, self.writer, self.headers = reader, writer, headers
        self.notifications: list[Json] = []
        self.ended = False
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._read(), name="test client")

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, path: Path, *, headers: bool = False) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=64 << 20)
        client = cls(reader, writer, headers=headers)
        try:
            yield client
        finally:
            await client.close()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, message: object) -> None:
        data = json.dumps(message, ensure_ascii=False).encode()
        head = b"Content-Length: %d\r\n\r\n" % len(data) if self.headers else b""
        self.writer.write(head + data + (b"" if self.headers else b"\n"))
        await self.writer.drain()

    async def call(self, method: str, params: Json | None = None, *, timeout: float = PATIENCE) -> Json:
        """The result of a request.

        Raises:
            RpcFailure: when it was answered with an error.
        """
        number = len(self._answers) + 1
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}})
        answer = await asyncio.wait_for(self._answers[number], timeout)
        if "error" in answer:
            raise RpcFailure(answer["error"])
        result: Json = answer["result"]
        return result

    # ── what the daemon tells ───────────────────────────────────────────────────────────────────────────────

    def facts(self, run_id: str, kind: str | None = None) -> list[Json]:
        told = (note["params"] for note in self.notifications if note["method"] == "run/fact")
        return [fact for fact in told if fact["run_id"] == run_id and kind in (None, fact["type"])]

    def deltas(self, run_id: str) -> list[Json]:
        told = (note["params"] for note in self.notifications if note["method"] == "run/delta")
        return [delta for delta in told if delta["run_id"] == run_id]

    async def until(self, condition: Callable[[], object], *, timeout: float = PATIENCE) -> None:
        """Waits until what was told makes ``condition`` true; fails when the connection ends first."""
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(lambda: condition() or self.ended)
        assert condition(), "the daemon hung up before it happened"

    async def ended_run(self, run_id: str, *, timeout: float = PATIENCE) -> Json:
        """The last fact of a run that this connection follows."""
        await self.until(lambda: self.facts(run_id, "run_ended"), timeout=timeout)
        return self.facts(run_id, "run_ended")[-1]

    async def _read(self) -> None:
        try:
            while message := await self._message():
                if "method" in message:
                    self.notifications.append(message)
                elif (future := self._answers.get(message["id"])) and not future.done():
                    future.set_result(message)
                async with self._news:
                    self._news.notify_all()
        finally:
            self.ended = True
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(ConnectionError("the daemon hung up"))
                    future.exception()  # whoever waits sees it; nobody waiting is no warning
            async with self._news:
                self._news.notify_all()

    async def _message(self) -> Json | None:
        try:
            if not self.headers:
                line = await self.reader.readline()
                return json.loads(line) if line else None
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"con"))
            message: Json = json.loads(await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return message


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Process:
    """A process by number and start, so that a number used again is not mistaken for it."""

    pid: int
    started: str
    parent: int
    command: str

    def alive(self) -> bool:
        found = look_at(self.pid)
        return found is not None and found.started == self.started


def look_at(pid: int) -> Process | None:
    """The process, or None when it is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    return None if stat[0] in "ZX" else Process(pid, stat[19], int(stat[1]), command[:200])


def processes() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := look_at(int(entry))):
            yield found


def descendants(pid: int) -> list[Process]:
    everyone = list(processes())
    family, found = {pid}, []
    while fresh := [one for one in everyone if one.parent in family and one.pid not in family]:
        family |= {one.pid for one in fresh}
        found += fresh
    return found


def rss_bytes(pid: int) -> int:
    """Resident memory, with pages shared with others counted in proportion (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no Pss")


class Daemon:
    """One ``python -m rlmd`` and whatever it starts. Stopping it checks that nothing of it lives on."""

    def __init__(self, folders: Folders, *arguments: str, **environment: str) -> None:
        self.folders = folders
        self.log = folders.root / f"stderr-{uuid.uuid4().hex[:6]}"
        self._family: dict[tuple[int, str], Process] = {}
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*DIES_WITH_US, sys.executable, "-m", "rlmd", *arguments],
                env=folders.environment(**environment),
                cwd=folders.home,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def stderr(self) -> str:
        return self.log.read_text(errors="replace")

    def connect(self, *, headers: bool = False) -> contextlib.AbstractAsyncContextManager[Client]:
        return Client.connected(self.folders.socket, headers=headers)

    async def ready(self) -> Daemon:
        """Waits until the socket takes a connection."""
        deadline = time.monotonic() + PATIENCE
        while not self._takes_connections():
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.stderr()}"
            assert time.monotonic() < deadline, f"the daemon did not open {self.folders.socket}:\n{self.stderr()}"
            await asyncio.sleep(0.01)
        return self

    def _takes_connections(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.folders.socket))
            except OSError:
                return False
            return True

    def look(self) -> list[Process]:
        """The daemon's descendants as they are now; remembered for ``gone``."""
        now = descendants(self.pid)
        self._family |= {(one.pid, one.started): one for one in now}
        return now

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends the daemon by a signal and waits until it and all that it started are gone; its exit status."""
        self.look()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = await asyncio.to_thread(self.process.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon did not stop on signal {number}:\n{self.stderr()}") from None
        await self.gone()
        return status

    async def kill(self) -> None:
        """As if the power had failed for the daemon: its workers must end by themselves."""
        await self.stop(signal.SIGKILL)

    async def gone(self) -> None:
        """Fails when a process that the daemon started outlives it."""
        await all_end(lambda: self._family.values(), self.stderr)


def marked(folders: Folders) -> Iterator[Process]:
    """Processes that carry these folders in their environment: helpers that left the family tree."""
    mark = b"XDG_RUNTIME_DIR=" + os.fsencode(folders.runtime) + b"\0"
    for one in processes():
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{one.pid}/environ").read_bytes():
                yield one


async def all_end(suspects: Callable[[], Iterable[Process]], story: Callable[[], str]) -> None:
    """Waits until no suspect is alive; kills those that stay and fails with the story."""
    deadline = time.monotonic() + PATIENCE
    while left := [one for one in suspects() if one.alive()]:
        if time.monotonic() > deadline:
            for one in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
            told = "\n".join(f"  {one.pid} {one.command}" for one in left)
            raise AssertionError(f"left over from the daemon:\n{told}\n{story()}")
        await asyncio.sleep(0.02)


# ── the work of a client, in words ──────────────────────────────────────────────────────────────────────────────


def new_run(question: str, *contexts: str, **more: Any) -> Json:
    """Parameters of ``run/start`` or ``run/ask`` under a fresh id."""
    return {"run_id": str(uuid.uuid4()), "question": question, "contexts": list(contexts), **more}


async def load_text(client: Client, name: str, text: str) -> Json:
    return await client.call("context/load", {"name": name, "source": {"kind": "inline", "text": text}})


async def load_path(client: Client, name: str | None, *paths: Path, timeout: float = PATIENCE) -> Json:
    source = {"kind": "path", "paths": [str(path) for path in paths]}
    params: Json = {"source": source} if name is None else {"name": name, "source": source}
    return await client.call("context/load", params, timeout=timeout)


async def start_run(client: Client, params: Json, *, timeout: float = PATIENCE) -> Json:
    """Starts a run, follows it and returns its last fact; facts must be numbered from 1 without a gap."""
    await client.call("run/start", params, timeout=timeout)
    ended = await client.ended_run(params["run_id"], timeout=timeout)
    numbers = [fact["seq"] for fact in client.facts(params["run_id"])]
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    return ended


async def whole_text(client: Client, run_id: str, text: Json) -> str:
    """A text of a fact, fetched when it is named by digest."""
    if text.get("text") is not None:
        inline: str = text["text"]
        return inline
    fetched = await client.call("run/fetch", {"run_id": run_id, "digest": text["digest"]})
    stored: str = fetched["text"]
    return stored
