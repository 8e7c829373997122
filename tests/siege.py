"""Lets the attacks loose on workers with chosen layers, and tells what got through.

``python -m tests.siege PLAN… [-- ATTACK…]``, run as the user that is to be tried; prints one JSON object a line:
attack, plan, outcome, what was said, what was left. Each attack is also the proof that the session after the last
one works. What is at stake is made up here: a key file, sockets that count who calls, an empty folder, another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

from rlmd.errors import SessionLost
from rlmd.repl import SubQuery, SubQueryFailure, SubQueryReply, Workers
from rlmd.repl.process import CagePlan, _program
from rlmd.repl.visible import interpreter
from tests.attacks import ATTACKS, PREAMBLE, Attack
from tests.repl import Host

SECRET = "canary-5f1c9a"
#: Memory of a session under attack, in bytes.
MEMORY = 256 << 20
#: What every worker has that runs cells, beside namespaces of its own: bubblewrap's, or those that it makes itself.
_INNER = ("landlock", "seccomp", "limits", "watch")
LAYERS = ("bubblewrap", "namespaces", *_INNER)


def plan_of(*layers: str) -> CagePlan:
    """The plan with these layers alone; Landlock with nothing above its first version, which is all that we claim."""
    chosen = {name: name in layers for name in LAYERS}
    return CagePlan(**{**chosen, "landlock": int(chosen["landlock"])})


#: The cages that run cells: name → what is around the inner layers, and how one goes on that lacks an inner one.
CAGES = {
    "all": (("bubblewrap",), "all but"),
    "all but bubblewrap": (("namespaces",), "all but bubblewrap and"),
    "no namespaces": ((), "no namespaces, no"),
}
PLANS = {
    "nothing": plan_of(),
    **{cage: plan_of(*outer, *_INNER) for cage, (outer, _) in CAGES.items()},
    **{f"{name} alone": plan_of(name) for name in LAYERS},
    **{
        f"{lacking} {name}": plan_of(*outer, *(n for n in _INNER if n != name))
        for outer, lacking in CAGES.values()
        for name in _INNER
    },
}


def layers_of(plan: CagePlan) -> set[str]:
    """Its layers, with what comes with them."""
    return {*plan.layers, *(("privileges",) if plan.seccomp or plan.landlock or plan.namespaces else ())}


def expected(attack: Attack, plan: CagePlan) -> str | None:
    """``held`` or ``through``, by the table; None where it does not say."""
    layers = layers_of(plan)
    if attack.held_by & layers:
        return "held"
    return None if attack.vacuous or attack.perhaps & layers else "through"


@dataclass
class Finding:
    """How one attack ended under one plan.

    Attributes:
        left: What it left behind when its session was over: nothing may be, in a cage that runs cells.
    """

    attack: str
    plan: str
    outcome: str
    said: str
    left: list[str] = field(default_factory=list)


_VICTIM = """
import ctypes, os, sys
held = ctypes.create_string_buffer(sys.argv[1].encode())
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)  # Yama: whoever may, may trace this
print(ctypes.addressof(held), flush=True)
asked = int(sys.argv[2])
while os.read(asked, 1):
    os.write(1, b"alive")
"""


class World:
    """What must not be reached, and whether it was."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, f"rlmd-siege-{secrets.token_hex(4)}"
        self.number = secrets.randbelow(1 << 30) + 1
        self.key = folder / "home" / "key"
        for inner in ("home", "empty", "covered"):
            (folder / inner).mkdir()
        self._mend()
        self.sockets: dict[str, socket.socket] = {}
        self._called: list[str] = []
        self._listen("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        self._listen("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self._listen("rlmd", socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "rlmd.sock"))
        self._listen("notify", socket.AF_UNIX, socket.SOCK_DGRAM, str(folder / "notify.sock"))
        self._listen("abstract", socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.name}-rlmd")
        self._start_victim()

    def _listen(self, name: str, family: int, kind: int, address: object) -> None:
        one = self.sockets[name] = socket.socket(family, kind)
        one.bind(address)
        if kind == socket.SOCK_STREAM:
            one.listen()
        one.setblocking(False)
        asyncio.get_running_loop().add_reader(one, self._hear, name)

    def _hear(self, name: str) -> None:
        """Answers whoever called: that is how a caller knows that it got through, however late the kernel delivers."""
        one = self.sockets[name]
        with contextlib.suppress(BlockingIOError):
            while True:
                if one.type == socket.SOCK_STREAM:
                    caller = one.accept()[0]
                    self._called.append(name)
                    with contextlib.suppress(OSError), caller:
                        caller.send(b"y")
                else:
                    _, sender = one.recvfrom(100)
                    self._called.append(name)
                    if sender:
                        one.sendto(b"y", sender)

    def _mend(self) -> None:
        for path in (self.folder / "empty").iterdir() if (self.folder / "empty").exists() else ():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        (self.folder / "empty").mkdir(exist_ok=True)
        self.key.unlink(missing_ok=True)
        self.key.write_text(SECRET)
        self.key.chmod(0o600)

    def _start_victim(self) -> None:
        asked, self._ask = os.pipe()
        with open(self.key) as stdin:
            self.victim = subprocess.Popen(
                [interpreter(), "-S", "-c", _VICTIM, SECRET, str(asked)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                pass_fds=[asked],
                start_new_session=True,
            )
        os.close(asked)
        assert self.victim.stdout is not None
        self._answer = self.victim.stdout.fileno()
        self.secret_at = int(self.victim.stdout.readline())

    def _victim_lives(self) -> bool:
        """Asks it: a signal that was sent before the question ends it before the answer, however slow dying is."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._ask, b"?")
            return os.read(self._answer, 100) == b"alive"
        return False

    def _end_victim(self) -> None:
        os.close(self._ask)
        self.victim.kill()
        self.victim.wait()
        self.victim.stdout.close()  # type: ignore[union-attr]

    def preamble(self, daemon: int | None = None) -> str:
        """Names for the attacks; they know where to look, the cage must hold all the same.

        Args:
            daemon: The process that runs the workers; by default this one.
        """
        names = {
            "KEY": str(self.key), "EMPTY": str(self.folder / "empty"), "FOLDER": str(self.folder / "covered"),
            "ADDRESS": {name: one.getsockname() for name, one in self.sockets.items()}, "PARENT": daemon or os.getpid(),
            "VICTIM": self.victim.pid, "SECRET_AT": self.secret_at, "HOST": os.uname().nodename, "NAME": self.name,
            "NUMBER": self.number, "MEMORY": MEMORY, "PYTHON": interpreter(),
        }  # fmt: skip
        return PREAMBLE + "".join(f"{name} = {value!r}\n" for name, value in names.items())

    def traces(self) -> list[str]:
        """What an attack left outside; all is as before afterwards."""
        for name in self.sockets:
            self._hear(name)
        found, self._called = [f"{name} was called" for name in self._called], []
        found += [f"{path.name} was made" for path in (self.folder / "empty").glob("*")]
        found += ["the folder is gone"] * (not (self.folder / "empty").exists())
        if not self.key.exists() or self.key.read_text() != SECRET or self.key.stat().st_mode & 0o777 != 0o600:
            found.append("the key file was changed")
        if not self._victim_lives():
            found.append("another process was ended")
            self._end_victim()
            self._start_victim()
        self._mend()
        return found + self._system_v()

    def _system_v(self) -> list[str]:
        found, libc = [], ctypes.CDLL(None)
        for kind, remove in (("shm", lambda n: libc.shmctl(n, 0, None)), ("msg", lambda n: libc.msgctl(n, 0, None))):
            for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]:
                key, number = line.split()[:2]
                if int(key) == self.number:
                    remove(int(number))
                    found.append(f"System V {kind} was left")
        return found

    def close(self) -> None:
        for one in self.sockets.values():
            asyncio.get_running_loop().remove_reader(one)
            one.close()
        self._end_victim()


@contextlib.contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="rlmd-") as folder:
        made = World(Path(folder))
        try:
            yield made
        finally:
            made.close()


class WatchedWorkers(Workers):
    """Tells when the watch has looked at a cell."""

    def __init__(self, plan: CagePlan) -> None:
        super().__init__(plans=[plan], spare_workers=0, memory_bytes=MEMORY)
        self.watched = plan.watch
        self._looked = asyncio.Event()

    def _add_up(self) -> None:
        super()._add_up()
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()

    async def until_looked(self) -> None:
        """Until the watch has looked at what is now and found nothing: a look that finds something is the last one."""
        for _ in range(2 if self.watched else 0):
            await self._looked.wait()


class Onlooker(Host):
    """Answers an attack that wants to know whether anything stops it, once all that may has had its turn."""

    def __init__(self, workers: WatchedWorkers) -> None:
        super().__init__()
        self._workers = workers

    async def answer(self, query: SubQuery, *, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        await self._workers.until_looked()
        return await super().answer(query, batch=batch, slot=slot)


async def attack(name: str, plan: str, world: World, workers: WatchedWorkers) -> Finding:
    """One attack in a session of its own; what the session left is looked for when it is closed."""
    before = _standing(world)
    session = await workers.acquire()
    source = world.preamble() + "print('BEGUN')\n" + ATTACKS[name].code
    try:
        report = await session.run_cell(source, Onlooker(workers), seconds=60, output_chars=4000)
        said = report.output + (report.error or "")
        begun = "BEGUN\n" in said
    except SessionLost as lost:
        said, begun = lost.message, True
    finally:
        await session.close()
    if plan in CAGES:
        await _until_ended(world)
    left = world.traces()
    through = left or SECRET in said or "ESCAPED" in said.splitlines()
    left = [*left, *(f"{what} was left" for what in _standing(world) - before)]
    _end_strays(world)
    return Finding(name, plan, "through" if through else "held" if begun else "not begun", said[-300:], left)


def _standing(world: World) -> set[str]:
    """Processes, descriptors, mounts, names in shared folders, as they are now."""
    names = [path for folder in ("/tmp", "/dev/shm", "/") for path in Path(folder).glob(f"{world.name}*")]
    return {
        *(f"process {pid}" for pid in _strays(world)),
        *(f"descriptor {n}" for n in os.listdir("/proc/self/fd")),
        *Path("/proc/self/mountinfo").read_text().splitlines(),
        *map(str, names),
    }


def _strays(world: World) -> list[int]:
    """Living children of this process, which inherits all orphans and reaps them; not the victim."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid == world.victim.pid:
                break
            os.waitpid(ended.si_pid, 0)
    children = chain.from_iterable(p.read_text().split() for p in Path("/proc/self/task").glob("*/children"))
    return [int(pid) for pid in children if int(pid) != world.victim.pid]


async def _until_ended(world: World) -> None:
    """Gives processes that were killed the moment that dying takes, which is long where much memory is to be freed."""
    for _ in range(3000):
        if not _strays(world):
            return
        await asyncio.sleep(0.01)


def _end_strays(world: World) -> None:
    while strays := _strays(world):
        for pid in strays:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    for folder in ("/tmp", "/dev/shm", "/"):
        for path in Path(folder).glob(f"{world.name}*"):
            path.unlink()


async def main(plans: Sequence[str], attacks: Sequence[str]) -> None:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    os.umask(0o022)
    _program()  # its descriptor stays for good
    with world() as made:
        for plan in plans:
            workers = WatchedWorkers(PLANS[plan])
            for name in attacks:
                if not ATTACKS[name].root or os.geteuid() == 0:
                    print(json.dumps(asdict(await attack(name, plan, made, workers))), flush=True)
            await workers.close()


if __name__ == "__main__":
    plans, _, attacks = "\n".join(sys.argv[1:]).partition("\n--\n")
    asyncio.run(main(plans.split("\n"), attacks.split("\n") if attacks else list(ATTACKS)))
