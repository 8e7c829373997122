"""rlmctl as a person meets it: a real process, in pipes or on a real pseudo-terminal, in folders of its own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

COMMAND = (sys.executable, "-W", "error", "-m", "rlmd.ctl.main")
#: Bound of a hang, never a measure.
PATIENCE = 60.0


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str


async def rlmctl(
    environment: Mapping[str, str], *arguments: str | bytes, stdin: bytes | None = None, cwd: str | None = None
) -> Ended:
    """Runs a command in pipes to its end; ``stdin`` None is /dev/null."""
    process = await start(environment, *arguments, stdin=stdin is not None, cwd=cwd)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def start(
    environment: Mapping[str, str], *arguments: str | bytes, stdin: bool = False, cwd: str | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=dict(environment),
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


class Terminal:
    """A command on a pseudo-terminal of its own, which is also its controlling terminal."""

    def __init__(self, environment: Mapping[str, str], *arguments: str, columns: int = 100) -> None:
        pid, self._master = pty.fork()
        if pid == 0:
            os.execve(COMMAND[0], [*COMMAND, *arguments], {"TERM": "xterm-256color", **environment})
        self._pid = pid
        self._seen = bytearray()
        self._news = asyncio.Event()
        self._status: int | None = None
        self.over = False
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", 30, columns, 0, 0))
        os.set_blocking(self._master, False)
        asyncio.get_running_loop().add_reader(self._master, self._read)

    @property
    def screen(self) -> str:
        """Everything written so far, with its control sequences."""
        return self._seen.decode(errors="replace")

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process has left the terminal
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
            self.over = True
        self._seen += data
        self._news.set()

    async def wait_shown(self, text: str, *, after: int = 0) -> int:
        """Waits until it is written, ``after`` so many characters; returns how many there are up to its end."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (found := self.screen.find(text, after)) < 0:
                    assert not self.over, f"ended before it showed {text!r}:\n{self.screen}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"it does not show {text!r}:\n{self.screen}") from None
        return found + len(text)

    async def wait_shown_after(self, position: int, text: str) -> None:
        """Waits for a text in what is written from here on."""
        async with asyncio.timeout(PATIENCE):
            while text not in self.screen[position:]:
                assert not self.over, f"ended before it showed {text!r}:\n{self.screen}"
                self._news.clear()
                await self._news.wait()

    def type(self, text: str) -> None:
        """As from the keyboard: \\x03 becomes SIGINT by the terminal's own doing."""
        os.write(self._master, text.encode())

    def send_signal(self, number: int) -> None:
        os.kill(self._pid, number)

    async def wait_ended(self) -> int:
        """The exit status, when the command has ended and all its output was read."""
        async with asyncio.timeout(PATIENCE):
            while not self.over:
                self._news.clear()
                await self._news.wait()
        if self._status is None:
            _, status = os.waitpid(self._pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def close(self) -> None:
        if not self.over:
            asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


@contextlib.contextmanager
def on_terminal(environment: Mapping[str, str], *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(environment, *arguments)
    try:
        yield terminal
    finally:
        terminal.close()
