"""Cells that attack: each holds in both cages, and (where it is harmless) is shown to work on a bare worker.

An attack prints ESCAPED when it got through; what it leaves outside is looked for as well. What is at stake is made up
here: a key file, a variable of the daemon, sockets that count who calls, a folder that must stay empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlmd.errors import SessionLost
from rlmd.repl import CellReport, ReplSession, Workers
from tests.repl import BARE, CAGES, Context, Host

SECRET = "canary-5f1c9a"


@dataclass
class World:
    """What must not be reached, and whether it was."""

    folder: Path
    sockets: dict[str, socket.socket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "home").mkdir()
        (self.folder / "home" / "key").write_text(SECRET)
        (self.folder / "home" / "key").chmod(0o600)
        (self.folder / "empty").mkdir()
        self._listen("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self._listen("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self._listen("rlmd", socket.AF_UNIX, socket.SOCK_STREAM, str(self.folder / "rlmd.sock"))
        self._listen("notify", socket.AF_UNIX, socket.SOCK_DGRAM, str(self.folder / "notify.sock"))
        self._listen("abstract", socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.folder.name}-rlmd")

    def _listen(self, name: str, family: int, kind: int, address: object) -> None:
        one = self.sockets[name] = socket.socket(family, kind)
        one.bind(address)
        if kind == socket.SOCK_STREAM:
            one.listen()
        one.setblocking(False)

    def preamble(self) -> str:
        """Names for the attacks; they know where to look, the cage must hold all the same."""
        return (
            f"import ctypes, os, socket, struct, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"
            f"PARENT = {os.getpid()}\nKEY = {str(self.folder / 'home' / 'key')!r}\n"
            f"EMPTY = {str(self.folder / 'empty')!r}\n"
            f"ADDRESS = { ({n: s.getsockname() for n, s in self.sockets.items()})!r}\n"
        )

    def traces(self) -> list[str]:
        """What an attack left outside."""
        found = [f"{name} was called" for name, one in self.sockets.items() if _called(one)]
        found += [f"{path} was made" for path in (self.folder / "empty").iterdir()]
        key = self.folder / "home" / "key"
        if not key.exists() or key.read_text() != SECRET or key.stat().st_mode & 0o777 != 0o600:
            found.append("the key file was changed")
        return found

    def close(self) -> None:
        for one in self.sockets.values():
            one.close()


def _called(one: socket.socket) -> bool:
    try:
        if one.type == socket.SOCK_DGRAM:
            return bool(one.recv(100))
        one.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("RLMD_TEST_CANARY", SECRET)
    with tempfile.TemporaryDirectory(prefix="rlmd-") as folder:
        made = World(Path(folder))
        yield made
        made.close()


@pytest.fixture(params=sorted(CAGES))
async def caged(request: pytest.FixtureRequest) -> AsyncIterator[ReplSession]:
    workers = Workers(plans=[CAGES[request.param]], spare_workers=0, memory_bytes=1 << 30)
    yield await workers.acquire()
    await workers.close()


@pytest.fixture
async def bare() -> AsyncIterator[ReplSession]:
    workers = Workers(plans=[BARE], spare_workers=0, memory_bytes=1 << 30)
    yield await workers.acquire()
    await workers.close()


async def attack(session: ReplSession, source: str, *, seconds: float = 20, output_chars: int = 4000) -> CellReport:
    return await session.run_cell(source, Host(), seconds=seconds, output_chars=output_chars)


#: Attack → code. Each succeeds on a bare worker, as root too, and harms nothing there.
ESCAPES = {
    "key file": "print(open(KEY).read())",
    "home folder": "os.listdir(os.path.dirname(KEY)) and print('ESCAPED')",
    "users of the machine": "open('/etc/passwd').read() and print('ESCAPED')",
    "daemon's environment": "b'PATH=' in open(f'/proc/{PARENT}/environ', 'rb').read() and print('ESCAPED')",
    "daemon's memory by /proc": "open(f'/proc/{PARENT}/mem', 'rb') and print('ESCAPED')",
    "daemon's memory by a call": (
        "a, b = (ctypes.c_uint64 * 2)(0, 8), (ctypes.c_uint64 * 2)(0, 8)\n"
        "libc.process_vm_readv(PARENT, a, 1, b, 1, 0)\nctypes.get_errno() == 14 and print('ESCAPED')"
    ),
    "own memory by /proc": "open('/proc/self/mem', 'r+b') and print('ESCAPED')",
    "tcp": "socket.create_connection(ADDRESS['tcp'])",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ADDRESS['udp'])",
    "rlmd's own socket": "socket.socket(socket.AF_UNIX).connect(ADDRESS['rlmd'])",
    "abstract socket": "socket.socket(socket.AF_UNIX).connect(ADDRESS['abstract'])",
    "datagram out of a socketpair": (
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', ADDRESS['notify'])"
    ),
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) and print('ESCAPED')",
    "fork": "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\nprint('ESCAPED')",
    "vfork and exec": "import subprocess\nsubprocess.run(['/bin/true']); print('ESCAPED')",
    "posix_spawn": "os.waitpid(os.posix_spawn('/bin/true', ['x'], {}), 0); print('ESCAPED')",
    "multiprocessing": (
        "import multiprocessing as m\np = m.Process(target=int)\np.start(); p.join(); print('ESCAPED')"
    ),
    "memfd": "os.close(os.memfd_create('x')); print('ESCAPED')",
    "SysV shared memory": ("i = libc.shmget(0, 4096, 0o1600)\ni >= 0 and (libc.shmctl(i, 0, None), print('ESCAPED'))"),
    "SysV message queue": "i = libc.msgget(0, 0o1600)\ni >= 0 and (libc.msgctl(i, 0, None), print('ESCAPED'))",
    "owner of a pipe's signals": (
        "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, PARENT); print('ESCAPED')"
    ),
    "signal of a pipe": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETSIG, 12); print('ESCAPED')",
    "owner by ioctl": (
        "import fcntl\na, b = socket.socketpair()\nfcntl.ioctl(a, 0x8901, struct.pack('i', PARENT)); print('ESCAPED')"
    ),
    "pipes of a megabyte": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(w, 1031, 1 << 20); print('ESCAPED')",
    "signal to the daemon": "os.kill(PARENT, 0); print('ESCAPED')",
    "signal to its group": "os.killpg(os.getpgid(PARENT), 0); print('ESCAPED')",
    "signal by pidfd": "import signal\nsignal.pidfd_send_signal(os.pidfd_open(PARENT), 0); print('ESCAPED')",
    "queued signal": "libc.sigqueue(PARENT, 0, None) == 0 and print('ESCAPED')",
    "daemon's limits": "import resource\nresource.prlimit(PARENT, resource.RLIMIT_CORE); print('ESCAPED')",
    "own limits": (
        "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, r.getrlimit(r.RLIMIT_NOFILE)); print('ESCAPED')"
    ),
    "daemon's scheduling": "os.getpriority(os.PRIO_PROCESS, PARENT); print('ESCAPED')",
    "new file": "open(EMPTY + '/x', 'w').close()",
    "new folder": "os.mkdir(EMPTY + '/x')",
    "new link": "os.symlink('/', EMPTY + '/x')",
    "hard link to the key": "os.link(KEY, EMPTY + '/x')",
    "new socket file": "socket.socket(socket.AF_UNIX).bind(EMPTY + '/x')",
    "new fifo": "os.mkfifo(EMPTY + '/x')",
    "file without a name": "os.open(EMPTY, os.O_TMPFILE | os.O_RDWR); print('ESCAPED')",
    "key file cut": "os.truncate(KEY, 0)",
    "key file removed": "os.unlink(KEY)",
    "key file moved": "os.rename(KEY, EMPTY + '/key')",
    "key file opened to all": "os.chmod(KEY, 0o666)",
    "key file touched": "os.utime(KEY); print('ESCAPED')",
    "key file's attributes": "os.setxattr(KEY, 'user.x', b'1'); print('ESCAPED')",
    "shared memory folder": "open(p := '/dev/shm/rlmd-test', 'w').close(); os.unlink(p); print('ESCAPED')",
    "terminal": "os.open('/dev/ptmx', os.O_RDWR); print('ESCAPED')",
    "new user namespace": "libc.unshare(0x10000000) == 0 and print('ESCAPED')",
    "io_uring": "libc.syscall(425, 4, ctypes.create_string_buffer(120)) >= 0 and print('ESCAPED')",
    "epoll as a process's watcher": "os.pidfd_open(PARENT) >= 0 and print('ESCAPED')",
    "host name": "libc.prctl(4, 1, 0, 0, 0) == 0 and print('ESCAPED')",
}


#: Held by limits that bare workers have too.
ALSO = {
    "POSIX message queue": (
        "i = libc.mq_open(b'/rlmd-test', os.O_CREAT | os.O_RDWR, 0o600, None)\n"
        "i >= 0 and (libc.mq_unlink(b'/rlmd-test'), print('ESCAPED'))"
    ),
}


@pytest.mark.parametrize("name", [*ESCAPES, *ALSO])
async def test_the_cage_holds(name: str, caged: ReplSession, world: World) -> None:
    report = await attack(caged, world.preamble() + (ESCAPES | ALSO)[name])
    assert SECRET not in report.output
    assert "ESCAPED" not in report.output.splitlines()
    assert world.traces() == []
    assert caged.alive
    assert (await attack(caged, "print('alive')")).output == "alive\n"


@pytest.mark.parametrize("name", ESCAPES)
async def test_the_attack_works_where_nothing_holds_it(name: str, bare: ReplSession, world: World) -> None:
    report = await attack(bare, world.preamble() + ESCAPES[name])
    assert SECRET in report.output or "ESCAPED" in report.output.splitlines() or world.traces(), report.output


# --- ends of the process ---------------------------------------------------------------------------------------

ENDS = {
    "os._exit": ("os._exit(0)", "exit status 0"),
    "abort": ("os.abort()", "killed by SIG"),
    "segfault": ("ctypes.string_at(0)", "SIGSEGV"),
    "closed channel": ("for n in range(256):\n    try: os.close(n)\n    except OSError: pass", ""),
    "32-bit calls": (
        (
            "import mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\n"
            "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
        ),
        "SIGSYS",
    ),
    "x32 calls": ("libc.syscall(0x40000000 | 39)", "SIGSYS"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
async def test_a_worker_that_ends_itself_is_a_lost_session_and_no_more(
    name: str, caged: ReplSession, world: World
) -> None:
    source, why = ENDS[name]
    with pytest.raises(SessionLost) as lost:
        await attack(caged, world.preamble() + source)
    assert why in lost.value.message
    assert not caged.alive


STUBBORN = {
    "signal ignored": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "interrupt caught": "import time\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass",
    "loop in C": "sum(range(10 ** 13))",
    "signals blocked": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
}


@pytest.mark.parametrize("name", STUBBORN)
async def test_a_cell_that_will_not_stop_is_killed(name: str, caged: ReplSession) -> None:
    report = await attack(caged, "print('before')\n" + STUBBORN[name], seconds=0.2)
    assert report.lost
    assert report.interrupted
    assert report.error == "CellTimeout: more than 0.2 s of the cell's own time"
    assert report.output.startswith("before\n")
    assert not caged.alive


@pytest.mark.parametrize("number", [9, 19])
async def test_a_worker_that_kills_or_stops_itself_is_lost_sooner_or_later(number: int, caged: ReplSession) -> None:
    """Inside bubblewrap it is PID 1, which its own SIGKILL and SIGSTOP do not reach: the deadline does."""
    with contextlib.suppress(SessionLost):
        report = await attack(caged, f"import os\nos.kill(os.getpid(), {number})\nsum(range(10 ** 13))", seconds=0.2)
        assert report.lost
    assert not caged.alive


async def test_threads_left_behind_end_the_session(caged: ReplSession) -> None:
    report = await attack(caged, "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()")
    assert report.lost
    assert report.error == "threads: 1 left running by the cell"
    assert not caged.alive


async def test_a_timer_left_behind_does_not_fire(caged: ReplSession) -> None:
    await attack(
        caged,
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: print('ESCAPED'))\nsignal.setitimer(0, 0.05, 0.05)",
    )
    report = await attack(caged, "import time\ntime.sleep(0.2)")
    assert report.output == ""


# --- memory, output, frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["x = bytearray(2 << 30)", "x = [0] * 10\nwhile True: x += x", "9 ** 9 ** 9 ** 9", "'x' * (1 << 40)"],
)
async def test_memory_is_bounded(source: str, caged: ReplSession) -> None:
    report = await attack(caged, source, seconds=2)
    assert not report.ok


async def test_a_flood_of_output_is_counted_and_not_kept(caged: ReplSession) -> None:
    host = Host()
    source = "import os\nline = b'x' * 65535 + b'\\n'\nfor _ in range(200): os.write(1, line)"
    report = await caged.run_cell(source, host, seconds=60, output_chars=1000)
    assert report.cut == 200 * 65536 - 1000
    assert len(report.output) < 1100
    assert len(host.printed) <= 200_000


def frame(header: str, body: str = "b''", *, lengths: str | None = None) -> str:
    """Code that writes a frame of its own to the channel, past the worker's program."""
    return (
        "import os, struct\n"
        f"h, b = {header}, {body}\n"
        f"os.write(200, ({lengths or 'struct.pack(chr(62) + chr(73) * 2, len(h), len(b))'}) + h + b)\n"
    )


def forged(body: bytes = b"", **fields: object) -> str:
    return frame(repr(json.dumps(fields).encode()), repr(body))


def sizes(*numbers: int) -> bytes:
    """The manifest of a batch."""
    return struct.pack(f">{len(numbers)}I", *numbers)


def end(**fields: object) -> str:
    """A forged end of the first cell."""
    honest = {"t": "done", "cell": 1, "ok": True, "stopped": False, "error": None, "final": None, "answer": None}
    return forged(**(honest | {"names": [], "threads": 1} | fields))


FORGED = {
    "too long": frame("b''", lengths="struct.pack('>II', 9 << 20, 0)"),
    "too long in sum": frame("b''", lengths="struct.pack('>II', 5 << 20, 5 << 20)"),
    "not JSON": frame("b'{'"),
    "not an object": frame("b'[1]'"),
    "nested": frame("b'[' * 100000"),
    "no type": frame("b'{}'"),
    "unknown type": forged(t="nonsense"),
    "start again": forged(t="ready", layers=["all"]),
    "loaded, unasked": forged(t="loaded"),
    "value, unasked": forged(t="value", id=1, found=True),
    "batch of none": forged(t="batch", id=1, total=0, model=None, spans=[]),
    "batch of too many": forged(sizes(*[1] * 100_001), t="batch", id=1, total=100_001, model=None),
    "batch of huge size": forged(sizes(2_000_000, 3), t="batch", id=1, total=2, model=None),
    "batch of a fraction": forged(sizes(1, 1), t="batch", id=1, total=2.0, model=None),
    "batch with fewer sizes": forged(sizes(1), t="batch", id=1, total=2, model=None),
    "batch with half a size": forged(sizes(1, 1)[:-1], t="batch", id=1, total=2, model=None),
    "batch with more sizes": forged(sizes(1, 1, 1), t="batch", id=1, total=2, model=None),
    "batch with id true": forged(sizes(1, 2), t="batch", id=True, total=2, model=None),
    "batch with a model that is no text": forged(sizes(1, 2), t="batch", id=1, total=2, model={"a": 1}),
    "lone prompt that is too long": frame(
        repr(b'{"t": "batch", "id": 1, "total": 1, "model": null, "spans": []}'), "b'x' * 1_900_001"
    ),
    "prompt of another length": (
        forged(sizes(7, 7), t="batch", id=1, total=2, model=None) + forged(b"x", t="prompt", id=1, slot=0, spans=[])
    ),
    "prompt that nobody asked for": (
        forged(sizes(0, 0), t="batch", id=1, total=2, model=None) + forged(t="prompt", id=1, slot=9, spans=[])
    ),
    "batch twice": forged(sizes(1, 1), t="batch", id=1, total=2, model=None) * 2,
    "spans that are none": forged(t="batch", id=1, total=1, model=None, spans=[[1, 2]]),
    "surrogate in a name": frame(r"""b'{"t":"batch","id":1,"total":2,"model":"\\ud800"}'"""),
    "body that is no UTF-8": frame("b'{\"t\":\"search\",\"id\":1,\"k\":3}'", r"b'\xff'"),
    "end of another cell": end(cell=99),
    "end with names that are none": end(names=[1]),
    "end with a wrong final": end(final=[5, "FINAL", None]),
    "end with a final of another kind": end(final=[0, "MINE", None]),
    "end with ok 1": end(ok=1),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_frame_ends_the_session(name: str, caged: ReplSession) -> None:
    with pytest.raises(SessionLost, match="broke the protocol"):
        await attack(caged, FORGED[name] + "while True: pass", seconds=30)
    assert not caged.alive


async def test_a_forged_end_gains_nothing(caged: ReplSession) -> None:
    """The cell that says it ended while it goes on is found out at the next word that it says."""

    async def pretend_and_go_on() -> None:
        assert (await attack(caged, end() + "llm_query('x')")).ok
        await attack(caged, "1")

    with pytest.raises(SessionLost, match="broke the protocol"):
        await pretend_and_go_on()
    assert not caged.alive


async def test_a_flood_of_small_frames_does_not_hold_up_the_loop(caged: ReplSession) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counter = asyncio.ensure_future(count())
    one = 'h = b\'{"t":"cancel","id":7}\'\nimport struct, os\nf = (struct.pack(\'>II\', len(h), 0) + h) * 1000\n'
    report = await attack(
        caged, one + "for _ in range(20):\n    v = memoryview(f)\n    while v: v = v[os.write(200, v):]"
    )
    counter.cancel()
    assert report.ok
    assert turns > 20_000 / 64  # 20,000 frames, 32 a turn at most: the loop came round in between


async def test_descriptors_sent_to_the_daemon_are_closed(caged: ReplSession) -> None:
    before = len(os.listdir("/proc/self/fd"))
    source = (
        'import socket, os, struct, array\ns = socket.socket(fileno=os.dup(200))\nh = b\'{"t":"cancel","id":7}\'\n'
        "for _ in range(20):\n"
        "    s.sendmsg([struct.pack('>II', len(h), 0) + h], [(1, 1, array.array('i', [1] * 10))])"
    )
    assert (await attack(caged, source)).ok
    assert len(os.listdir("/proc/self/fd")) == before


async def test_nothing_is_open_in_a_cell_but_its_streams_and_the_channel(caged: ReplSession, tmp_path: Path) -> None:
    await caged.load_contexts([Context(tmp_path, "c", {"d": b"text"})])
    report = await attack(
        caged,
        "import os, fcntl\ndef is_open(n):\n    try: fcntl.fcntl(n, 1); return True\n    except OSError: return False\n"
        "print([n for n in range(1024) if is_open(n)])",
    )
    assert report.output == "[0, 1, 2, 200, 201]\n"


async def test_computing_behind_a_forged_end_is_found_out(caged: ReplSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlmd.repl.session._IDLE_LOOK", 0.7)
    done = end()
    ended = asyncio.Event()
    caged.when_ended(lambda _: ended.set())
    await attack(caged, done + "while True: pass")
    async with asyncio.timeout(30):
        await ended.wait()
    with pytest.raises(SessionLost, match="computed after the end of its cell"):
        await attack(caged, "1")


async def test_computing_while_sub_queries_are_out_is_charged(caged: ReplSession) -> None:
    host = Host()
    host.gate.clear()
    source = "import threading\nthreading.Thread(target=llm_query, args=('x',), daemon=True).start()\nwhile True: pass"
    report = await caged.run_cell(source, host, seconds=0.5, output_chars=1000)
    assert report.error is not None
    assert report.error.startswith("CellTimeout")
    assert host.in_flight == 0
    assert host.cancelled == 1
    with contextlib.suppress(SessionLost):
        await caged.close()
