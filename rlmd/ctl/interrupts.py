"""Ctrl-C while a run is going: the first one offers to detach, the second one cancels, the third one leaves.

Without a terminal there is nobody to offer anything to, and the first one cancels.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from rlmd.ctl.terminal_line import TerminalLine

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
        self._line = TerminalLine(self.answered)

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
            self._line.stop()

    def interrupted(self) -> None:
        step = self._steps[min(self._count, len(self._steps) - 1)]
        self._count += 1
        if step is self._cancel:
            self._line.stop()
            self._ask("cancelling · Ctrl-C again leaves at once")
        step()

    def answered(self, line: str) -> None:
        """The person's answer to the question."""
        self._line.stop()
        self._ask(None)
        if line.strip().lower() in ("d", "detach"):
            self._detach()
        else:
            self._count = 0

    def _offer(self) -> None:
        self._ask(QUESTION)
        self._line.listen()
