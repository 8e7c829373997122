"""Ctrl-C while a run is going: the first one offers to detach, the second one cancels, the third one leaves.

Without a terminal there is nobody to offer anything to, and the first one cancels.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator

QUESTION = "Ctrl-C again cancels · d Enter detaches (the run goes on) · Enter keeps waiting"


class Interrupts:
    """Turns signals and answers into three callbacks, all called on the loop.

    Args:
        interactive: Whether there is a person at a terminal to ask.
        ask: Shows a question, or takes it away (None).
        cancel: The run shall be cancelled.
        detach: The run shall go on alone.
        leave: Go at once.
        terminate: This program shall end (SIGTERM, SIGHUP), which is no word about the run.
    """

    def __init__(
        self,
        *,
        interactive: bool,
        ask: Callable[[str | None], None],
        cancel: Callable[[], None],
        detach: Callable[[], None],
        leave: Callable[[], None],
        terminate: Callable[[], None],
    ) -> None:
        self._steps = [self._offer, cancel, leave] if interactive else [cancel, leave]
        self._ask = ask
        self._detach = detach
        self._cancel = cancel
        self._terminate = terminate
        self._count = 0
        self._terminal: int | None = None

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catches the signals while the block runs: the terminal is left as it was, whatever comes."""
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGINT: self.interrupted, signal.SIGTERM: self._terminate, signal.SIGHUP: self._terminate}
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
            self._stop_listening()

    def interrupted(self) -> None:
        step = self._steps[min(self._count, len(self._steps) - 1)]
        self._count += 1
        if step is self._cancel:
            self._stop_listening()
            self._ask("cancelling · Ctrl-C again leaves at once")
        step()

    def answered(self, line: str) -> None:
        """The person's answer to the question."""
        self._stop_listening()
        self._ask(None)
        if line.strip().lower() in ("d", "detach"):
            self._detach()
        else:
            self._count = 0

    def _offer(self) -> None:
        self._ask(QUESTION)
        # Standard input may be the text that was asked about: the person is at the controlling terminal.
        with contextlib.suppress(OSError):
            self._terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            asyncio.get_running_loop().add_reader(self._terminal, self._read)

    def _read(self) -> None:
        assert self._terminal is not None
        try:
            line = os.read(self._terminal, 1024)
        except BlockingIOError:
            return
        except OSError:
            line = b""
        if line:
            self.answered(line.decode(errors="replace"))
        else:
            self._stop_listening()  # the terminal hung up: wait for the run without asking anybody

    def _stop_listening(self) -> None:
        if self._terminal is not None:
            asyncio.get_running_loop().remove_reader(self._terminal)
            os.close(self._terminal)
            self._terminal = None
