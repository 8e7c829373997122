"""One line that a person types while something else is on the screen, read without blocking.

Standard input may be the text that was asked about: the person is at the controlling terminal.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class TerminalLine:
    """Args:
    heard: Called with each line, on the loop.
    """

    def __init__(self, heard: Callable[[str], None]) -> None:
        self._heard = heard
        self._terminal: int | None = None

    def listen(self) -> bool:
        """Whether there is a terminal to listen to."""
        if self._terminal is None:
            try:
                self._terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
                asyncio.get_running_loop().add_reader(self._terminal, self._read)
            except OSError:
                return False
        return True

    def stop(self) -> None:
        if self._terminal is not None:
            asyncio.get_running_loop().remove_reader(self._terminal)
            os.close(self._terminal)
            self._terminal = None

    def _read(self) -> None:
        assert self._terminal is not None
        try:
            line = os.read(self._terminal, 1024)
        except BlockingIOError:
            return
        except OSError:
            line = b""
        if line:
            self._heard(line.decode(errors="replace"))
        else:
            self.stop()  # the terminal hung up: wait for the run without asking anybody
