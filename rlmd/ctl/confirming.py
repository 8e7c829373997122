"""A run that would take long, at a terminal: what it would take is shown, and the person's answer sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlmd.ctl.terminal import one_line
from rlmd.ctl.terminal_line import TerminalLine
from rlmd.errors import RlmdError
from rlmd.events import Estimated
from rlmd.wire.methods import ConfirmParams

if TYPE_CHECKING:
    from rlmd.client import Client


class Confirming:
    """Args:
    client: Whose run it is.
    run_id: The run.
    show: Shows a question, or takes it away (None).
    detach: The person leaves; the run goes on waiting.
    """

    def __init__(
        self, client: Client, run_id: str, show: Callable[[str | None], None], detach: Callable[[], None]
    ) -> None:
        self._client, self._run_id, self._show, self._detach = client, run_id, show, detach
        self._line = TerminalLine(self._heard)
        self._question: Estimated | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def ask(self, question: Estimated) -> bool:
        """Whether there is a person to ask."""
        self._question = question
        if not self._line.listen():
            return False
        self._show(self._words)
        return True

    def again(self) -> None:
        """Asks once more what was not answered."""
        if self._question is not None:
            self.ask(self._question)

    def hush(self) -> None:
        """Something else is asked first."""
        self._line.stop()

    def settled(self) -> None:
        """It was answered, here or elsewhere."""
        if self._question is not None:
            self._question = None
            self._line.stop()
            self._show(None)

    async def close(self) -> None:
        self._line.stop()
        for task in self._sending:
            await task

    @property
    def _words(self) -> str:
        assert self._question is not None
        others = "".join(f"/{one}" for one in self._question.alternatives)
        return one_line(f"Go on? y/n{others} Enter, d detaches · {self._question.why}")

    def _heard(self, line: str) -> None:
        said = line.strip().lower()
        if self._question is None:
            return
        if said in ("d", "detach"):
            self._line.stop()
            self._detach()
        elif said in ("y", "yes"):
            self._send(ConfirmParams(run_id=self._run_id))
        elif said in ("n", "no"):
            self._send(ConfirmParams(run_id=self._run_id, choice="refuse"))
        elif said in self._question.alternatives:
            self._send(ConfirmParams(run_id=self._run_id, strategy=said))
        else:
            self._show(None)
            self._show(self._words)

    def _send(self, params: ConfirmParams) -> None:
        async def send() -> None:
            with contextlib.suppress(RlmdError):  # somebody else has answered, or the run is no more: its facts tell
                await self._client.call("run/confirm", params)

        task = asyncio.create_task(send(), name="rlmctl-confirm")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
