"""Starts a daemon when none runs: through systemd's socket unit where there is one, else as a detached process.

The daemon gets the same environment whoever starts it, and nothing of the shell that happened to be first:
otherwise a key exported in one terminal, or a proxy, would live on in the service. A unit that exists but is
masked is the user's "no".
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rlmd.client.failures import lost
from rlmd.config import Paths
from rlmd.errors import NotConnected

UNIT = "rlmd.socket"
#: A log that has grown beyond this is set aside as ``daemon.log.1`` at the next start (bytes).
MAX_LOG = 5 << 20
#: Seconds between looks at a daemon that is starting. A cold start takes 0.3 to 1 s, on a slow disk several;
#: together the waits are 20 s.
BACK_OFF = (0.02, 0.03, 0.05, *(0.1,) * 9, *(0.25,) * 8, *(0.5,) * 14, *(1.0,) * 10)

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Told:
    """What a command said and how it ended."""

    code: int
    output: str


async def start_daemon(paths: Paths, environment: Mapping[str, str] = os.environ) -> None:
    """Returns when a daemon listens on ``paths.socket``.

    Raises:
        NotConnected: It cannot be started, or did not listen in time; the message names the log.
    """
    if await _start_unit(paths, environment):
        return
    await start_detached(paths, environment)


async def start_detached(
    paths: Paths, environment: Mapping[str, str] = os.environ, *, back_off: tuple[float, ...] = BACK_OFF
) -> None:
    """Starts ``python -m rlmd`` in a session of its own and waits until it listens."""
    log = open_log(paths)
    try:
        pid = _spawn(paths, environment, log)
    finally:
        os.close(log)
    code: int | None = None
    for seconds in back_off:
        await asyncio.sleep(seconds)
        if await listens(paths.socket):
            return
        # A daemon that ends at once may have lost a race: another client started one, which will listen soon.
        if code is not None and seconds >= 0.25:
            break
        code = code if code is not None else _ended(pid)
    for folder in (paths.state, paths.cache, paths.runtime):
        if folder.is_dir() and shutil.disk_usage(folder).free < _LEAST_ROOM:
            raise lost(
                f"The daemon cannot start: the disk of {folder} is full.", hint="Free some space, and try again."
            )
    raise lost(
        "The daemon did not start." if code is None else f"The daemon ended at once with status {code}.",
        hint=f"{last_words(paths)}The log is {log_file(paths)}; rlmctl config check looks at the settings.",
    )


def log_file(paths: Paths) -> Path:
    """Where a detached daemon logs; under systemd it is the journal."""
    return paths.state / "daemon.log"


async def listens(socket: Path) -> bool:
    """Whether somebody accepts connections there."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True


def daemon_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What of the environment a detached daemon is given."""
    kept = {name: value for name, value in environment.items() if name.startswith("XDG_") or name in _KEPT}
    kept.setdefault("HOME", str(Path("~").expanduser()))
    kept.setdefault("PATH", os.defpath)
    return kept


#: Bytes without which it opens no database.
_LEAST_ROOM = 1 << 20
_KEPT = ("HOME", "PATH", "LANG")


async def _start_unit(paths: Paths, environment: Mapping[str, str]) -> bool:
    """True when systemd listens now; False when it has nothing to do with this socket."""
    systemctl = shutil.which("systemctl", path=environment.get("PATH"))
    ours = Paths.from_environment(environment)
    manager = Path(environment.get("XDG_RUNTIME_DIR", "/nonexistent")) / "systemd"
    if systemctl is None or paths.socket != ours.socket or not manager.is_dir():
        return False
    state = await _told(systemctl, "--user", "show", "--property=LoadState", "--value", UNIT, environment=environment)
    if state.code != 0 or state.output == "not-found":
        return False
    if state.output == "masked":
        raise lost(f"{UNIT} is masked.", hint=f"Allow it again with: systemctl --user unmask {UNIT}")
    started = await _told(systemctl, "--user", "start", UNIT, environment=environment)
    if started.code != 0:
        raise lost(f"systemd could not start {UNIT}: {started.output}", hint=f"systemctl --user status {UNIT}")
    return True


async def _told(*command: str, environment: Mapping[str, str]) -> Told:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(environment),
    )
    output, _ = await process.communicate()
    return Told(process.returncode or 0, output.decode(errors="replace").strip())


def open_log(paths: Paths) -> int:
    """A descriptor of the log, to append to."""
    path = log_file(paths)
    try:
        paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size > MAX_LOG:
            path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotConnected(
            f"The daemon's log {path} cannot be written: {error.strerror}.",
            hint="rlmd keeps its state there; see the folder's owner and mode, and the free space.",
        ) from error


def _spawn(paths: Paths, environment: Mapping[str, str], log: int) -> int:
    """The process id. ``-P``: a file in the current folder must not stand in for a module of the daemon."""
    command = [sys.executable, "-P", "-m", "rlmd"]
    if paths.socket != Paths.from_environment(environment).socket:
        command += ["--socket", str(paths.socket)]
    actions = (
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    )
    return os.posix_spawn(sys.executable, command, daemon_environment(environment), file_actions=actions, setsid=True)


def _ended(pid: int) -> int | None:
    """The exit status of a child that has ended; None while it lives."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if found else None


def last_words(paths: Paths) -> str:
    """The log's last line, which never holds private text, as a sentence; empty when there is none."""
    try:
        with log_file(paths).open("rb") as log:
            log.seek(max(0, log_file(paths).stat().st_size - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f"Its last words: {lines[-1][:400]}\n" if lines else ""
