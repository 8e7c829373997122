"""Starts a worker process in its cage, signals it, limits it, reaps it (parent side).

The worker's code is handed over as bytes through a descriptor, so that no path of ours need be visible inside. Its
pid is the one that the kernel attests on the channel (SO_PASSCRED), the same way with and without bubblewrap, and is
held as a pidfd at once, so that no signal reaches a stranger.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.abc
import importlib.util
import json
import marshal
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache

from rlmd.errors import CageUnavailable
from rlmd.repl.cgroup import WorkerGroup, WorkerGroups
from rlmd.repl.packages import Packages
from rlmd.repl.tree import Usage, machine_threads, tree_of, usage_of
from rlmd.repl.visible import bubblewrap_options, interpreter, readable_paths

#: The worker's modules.
MODULES = ("arrivals", "asking", "awaiting", "cage", "cutting", "leaving", "link", "namespaces", "queries", "scaffold",
           "shapes", "spans", "streams", "texts", "values", "worker")  # fmt: skip
#: As many versions of Landlock as there may be; what each adds is in ``cage.py``.
NEWEST = 99
#: From spawn to the sealed worker's first word; 40 ms is usual, a loaded machine may need seconds.
START_SECONDS = 20.0
#: Address space of a worker that holds no context; the interpreter itself takes about 30 MB of it.
BASE_BYTES = 1 << 30
#: Threads of a worker.
MOST_THREADS = 256
#: Descriptors of a worker; how many come in one frame, and how many more it is lent meanwhile, whatever its cells
#: left open: those, and what a map of one takes.
MOST_DESCRIPTORS, MOST_AT_ONCE, _LENT = 256, 60, 64

_BOOT = """
import marshal,os
b,m=marshal.loads(os.pread(0,os.fstat(0).st_size,0))
n={}
exec(b,n)
n['start'](m)
"""


@dataclass(frozen=True, slots=True)
class CagePlan:
    """Which layers a worker gets. Only tests and the doctor turn off more than bubblewrap or Landlock.

    Attributes:
        landlock: The newest version of Landlock that is used, 0 for none.
        namespaces: Namespaces and a root folder that the worker makes for itself; not beside bubblewrap, which does.
        limits: Resource limits that the kernel holds against the worker.
        watch: Looking at what the worker's whole tree takes, and ending it when that is too much.
    """

    bubblewrap: bool
    landlock: int
    namespaces: bool = False
    seccomp: bool = True
    limits: bool = True
    watch: bool = True

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of its layers."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))


class WorkerStartFailed(Exception):
    """The worker did not come up under this plan; the message says what the system said. ``late``: it might have, had
    it been given more time."""

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class WorkerProcess:
    """A running, sealed worker: its channel's socket, its output pipe, its pid."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        end: socket.socket,
        output: int,
        pid: int,
        plan: CagePlan,
        group: WorkerGroup | None,
        *,
        libraries: bool = False,
    ) -> None:
        self.socket, self.output, self.pid = end, output, pid
        self.layers, self.watched = plan.layers, plan.watch
        #: Whether it has packages of the user's, whose libraries may keep threads of their own.
        self.libraries = libraries
        self.processes = 2 if plan.bubblewrap else 1
        self._counts_alone = plan.bubblewrap or plan.namespaces
        self._group, self._popen = group, popen
        self._pidfd = os.pidfd_open(pid)
        self._exit_fd = os.pidfd_open(popen.pid)
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._exit_fd, self._reap)

    @property
    def ended(self) -> bool:
        return self._exited.done()

    @property
    def grouped(self) -> bool:
        """Whether it has a control group of its own."""
        return self._group is not None

    def interrupt(self) -> None:
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL to the worker; inside bubblewrap it is PID 1, so that everything there goes with it."""
        self._signal(signal.SIGKILL)
        if not self.ended:
            self._popen.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Waits for the end; the exit status, negative for a signal."""
        return await asyncio.shield(self._exited)

    def cpu_seconds(self) -> float:
        """CPU time of the whole process so far, by its own clock; the last known when it has ended."""
        try:
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return 0.0

    def usage(self) -> Usage | None:
        """What it and all that descends from it take, by the kernel's count; None where nothing tells."""
        return self._group.usage() if self._group is not None else usage_of(tree_of(self._popen.pid))

    def threads(self) -> int | None:
        """Its threads, by the kernel's count; None where nothing tells. Those of bubblewrap do not count."""
        usage = self.usage()
        return None if usage is None else usage.threads - (self.processes - 1)

    def limit_memory(self, soft: int) -> None:
        """Moves the soft limit of the address space, within the hard one."""
        self._limit(resource.RLIMIT_AS, soft)

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Lends it the descriptors of one frame, between cells."""
        limited = "limits" in self.layers
        if limited:
            self._limit(resource.RLIMIT_NOFILE, MOST_DESCRIPTORS + _LENT)
        try:
            yield
        finally:
            if limited:
                self._limit(resource.RLIMIT_NOFILE, MOST_DESCRIPTORS)

    def limit_threads(self) -> None:
        """Lets it have ``MOST_THREADS`` beside all that the machine runs now.

        Outside a user namespace the kernel counts all of the user's, whose number changes. Root is not held by it.
        """
        if not self._counts_alone and "limits" in self.layers and (running := machine_threads()) is not None:
            self._limit(resource.RLIMIT_NPROC, running + MOST_THREADS)

    def _limit(self, kind: int, soft: int) -> None:
        if self.ended:
            return
        hard = resource.prlimit(self.pid, kind)[1]
        resource.prlimit(self.pid, kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))

    def _signal(self, number: signal.Signals) -> None:
        if not self.ended:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return

    def _reap(self) -> None:
        status = self._popen.poll()
        if status is None:
            return
        if self._group is not None:
            self._group.end()
        self._loop.remove_reader(self._exit_fd)
        os.close(self._exit_fd)
        os.close(self._pidfd)
        self._exited.set_result(status)


async def start_worker(
    plan: CagePlan,
    *,
    memory_bytes: int,
    packages: Packages,
    environment: Iterable[tuple[str, str]],
    hash_seed: int,
    random_seed: int,
    groups: WorkerGroups | None = None,
) -> WorkerProcess:
    """Starts a worker and waits until it is sealed.

    Raises:
        WorkerStartFailed: It did not come up, and is gone.
    """
    command = _command(plan, packages)
    ours, theirs = socket.socketpair()
    output, output_theirs = os.pipe2(os.O_CLOEXEC)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    try:
        variables = dict(environment) | {
            "PYTHONHASHSEED": str(hash_seed), "PYTHONUTF8": "1", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "2",
            **packages.variables,
        }  # fmt: skip
        # On the loop's own thread: PR_SET_PDEATHSIG follows the thread that spawns. vfork and exec take 1 to 2 ms.
        popen = subprocess.Popen(  # noqa: ASYNC220  see the line above
            [*command, str(theirs.fileno())], stdin=_program(), stdout=output_theirs, stderr=output_theirs,
            env=variables, cwd="/", pass_fds=(theirs.fileno(),), start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        ours.close()
        os.close(output)
        raise WorkerStartFailed(str(error)) from error
    finally:
        theirs.close()
        os.close(output_theirs)
    try:
        async with asyncio.timeout(START_SECONDS):
            pid = await _handshake(ours, _start_frame(plan, memory_bytes, packages, random_seed))
        # It sleeps, sealed, until it is told more: whatever it may start is born in the group.
        pids = {popen.pid, pid}
        tasks = MOST_THREADS + len(pids)
        group = groups.enclose(pids, memory_bytes=memory_bytes, tasks=tasks) if groups and plan.watch else None
        return WorkerProcess(popen, ours, output, pid, plan, group, libraries=bool(packages))
    except BaseException as error:
        # The whole group: a bubblewrap killed while it sets up leaves a child that waits for ever.
        _kill_group(popen)
        said = _last_words(output)
        ours.close()
        os.close(output)
        popen.wait()
        if isinstance(error, OSError | EOFError | TimeoutError | WorkerStartFailed):
            told = str(error) if isinstance(error, WorkerStartFailed) else said or str(error)
            raise WorkerStartFailed(told or type(error).__name__, late=isinstance(error, TimeoutError)) from error
        raise


def _start_frame(plan: CagePlan, memory_bytes: int, packages: Packages, random_seed: int) -> bytes:
    header = {
        "t": "start",
        # The parent as the child sees it: inside a pid namespace bubblewrap's own --die-with-parent does the work.
        "parent": 0 if plan.bubblewrap else os.getpid(),
        "random_seed": random_seed,
        "packages": packages.importable,
        "readable": [*readable_paths(), *packages.readable],
        "landlock": plan.landlock,
        "namespaces": plan.namespaces,
        "seccomp": plan.seccomp,
        "limits": _limits(plan, memory_bytes),
    }
    head = marshal.dumps(header)
    return struct.pack(">II", len(head), 0) + head


def _limits(plan: CagePlan, memory_bytes: int) -> list[tuple[int, int, int]]:
    if not plan.limits:
        return []
    limits = [
        (resource.RLIMIT_AS, min(BASE_BYTES, memory_bytes), memory_bytes),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_NOFILE, MOST_DESCRIPTORS, MOST_DESCRIPTORS + _LENT),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ]
    if plan.bubblewrap or plan.namespaces:  # counted in its user namespace; outside, with all of the user's processes
        limits.append((resource.RLIMIT_NPROC, MOST_THREADS, MOST_THREADS))
    return limits


async def _handshake(ours: socket.socket, start: bytes) -> int:
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(ours, start)
    data, pid = b"", 0
    while len(data) < 8 or len(data) < 8 + sum(struct.unpack_from(">II", data)):
        await _wait_readable(ours)
        piece, ancillary, _, _ = ours.recvmsg(4096, socket.CMSG_SPACE(12))
        if not piece:
            raise EOFError
        for _, kind, raw in ancillary:
            if kind == socket.SCM_CREDENTIALS:
                pid = struct.unpack("iii", raw[:12])[0]
        data += piece
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    header = json.loads(data[8:])
    if header.get("t") != "ready":
        raise WorkerStartFailed(str(header.get("message", "no word from the worker"))[:500])
    return pid


async def _wait_readable(end: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(end.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(end.fileno())


def _kill_group(popen: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(popen.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _last_words(output: int) -> str:
    os.set_blocking(output, False)
    try:
        lines = os.read(output, 1 << 14).decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""


# --- its command and its code -----------------------------------------------------------------------------------


def _command(plan: CagePlan, packages: Packages) -> list[str]:
    """The command that starts the worker, but for its last argument: the channel's descriptor."""
    # -s -S -P: no site, no user site, no current folder; not -I, which would ignore the hash seed.
    python = [interpreter(), "-s", "-S", "-P", "-B", "-c", _BOOT]
    if not plan.bubblewrap:
        return python
    found = shutil.which("bwrap")
    if found is None:
        raise WorkerStartFailed("bubblewrap is not installed")
    return [found, *bubblewrap_options((*readable_paths(), *packages.readable)), "--", *python]


@cache
def _program() -> int:
    """A sealed descriptor with the worker's code; made once a process."""
    # Packages have no code; a module is unmarshalled there when it is first imported.
    codes = dict.fromkeys(("rlmd", "rlmd.repl"), b"")
    codes |= {f"rlmd.repl.{name}": marshal.dumps(_code_of(name)) for name in MODULES}
    descriptor = os.memfd_create("rlmd-worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, marshal.dumps((_code_of("boot"), codes)))
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    )
    return descriptor


def _code_of(name: str) -> types.CodeType:
    spec = importlib.util.find_spec(f"rlmd.repl.{name}")
    loader = spec.loader if spec is not None else None
    code = loader.get_code(f"rlmd.repl.{name}") if isinstance(loader, importlib.abc.InspectLoader) else None
    if code is None:
        raise CageUnavailable(f"The worker's module {name} cannot be read", hint="Reinstall rlmd.")
    return _renamed(code, f"<rlmd {name}>")


def _renamed(code: types.CodeType, name: str) -> types.CodeType:
    """The code with another file name throughout: tracebacks in a cell do not show where rlmd is installed."""
    constants = tuple(_renamed(c, name) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=name, co_consts=constants)
