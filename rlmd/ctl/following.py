"""A run on the screen: follow it, show how it goes, take Ctrl-C, print what it came to."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Literal

from rlmd.client import Client, Follower
from rlmd.ctl.answer import print_answer
from rlmd.ctl.confirming import Confirming
from rlmd.ctl.exits import Exit, exit_of_run
from rlmd.ctl.interrupts import Interrupts
from rlmd.ctl.live import Display
from rlmd.ctl.progress import waits_until
from rlmd.ctl.terminal import Output
from rlmd.errors import RlmdError
from rlmd.events import Confirmed, Delta, Estimated, Note, RunEnded, Waiting
from rlmd.wire.methods import CancelParams, RunIdParams

Form = Literal["text", "json", "events"]


async def follow_to_end(client: Client, run: Follower, output: Output, form: Form) -> Exit:
    """Shows the run until it ends or the person leaves; the exit status."""
    watcher = _Watcher(client, run, output, form)
    left = await watcher.watch()
    if left is not None:
        return left
    result = await client.call("run/show", RunIdParams(run_id=run.run_id))
    if form == "json":
        output.model(result)
    elif form == "text":
        print_answer(output, result, watcher.notes)
        output.hint(watcher.hint)
    return exit_of_run(result.run.state, result.run.outcome)


class _Watcher:
    """Follows one run. Ends by its end, by detaching, or by leaving at once."""

    def __init__(self, client: Client, run: Follower, output: Output, form: Form) -> None:
        self._client = client
        self._run = run
        self._output = output
        self._form = form
        self._display = Display(output)
        #: What the run had to say to the person, in order.
        self.notes: list[str] = []
        #: What to do about the error that it ended with.
        self.hint = ""
        self._left: Exit | None = None
        self._confirming = Confirming(client, run.run_id, self._show, self._detach)
        self._detached = self._paused = False
        self._task: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Task[None] | None = None

    async def watch(self) -> Exit | None:
        """None when the run has ended, else the status to leave with."""
        interrupts = Interrupts(
            interactive=self._output.live and sys.stdin is not None,
            ask=self._ask,
            cancel=self._cancel,
            detach=self._detach,
            leave=self._leave,
            terminate=lambda: self._stop(Exit.TERMINATED),
        )
        self._task = asyncio.create_task(self._read(), name="rlmctl-follow")
        with interrupts.caught():
            async with self._display.shown():
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task
        await self._confirming.close()
        if self._cancelling is not None:
            await self._cancelling
        if self._detached:  # said below the display, which erases itself and all that was said meanwhile
            self._output.remark(f"The run goes on. To come back: rlmctl run attach {self._run.run_id}", None)
        if self._paused:
            back = f"To come back: rlmctl run attach {self._run.run_id}"
            self._output.remark(f"The daemon stopped. The run goes on when it is started again. {back}", None)
        return self._left

    async def _read(self) -> None:
        async for event in self._run:
            self._display.apply(event)
            if self._form == "events" and not isinstance(event, Delta):
                self._output.json_line(event)
            if isinstance(event, Estimated) and event.asks and not self._asks(event):
                return
            if isinstance(event, Confirmed):
                self._confirming.settled()
            if isinstance(event, Waiting) and not self._output.live:
                self._output.remark(f"{event.why} {waits_until(event)}.", None)
            if isinstance(event, Note):
                self.notes.append(event.text)
            if isinstance(event, RunEnded):
                self.hint = event.error.hint if event.error else ""
                return
        self._paused = self._run.paused
        if self._paused:  # and to ask the daemon for it would start it again
            self._left = Exit.UNANSWERED

    def _asks(self, question: Estimated) -> bool:
        """Asks the person; False where there is nobody to ask, so that it ends here while the run waits."""
        info = self._run.info
        if info is not None and question.seq <= info.last_seq and (info.asks is None or info.asks.seq != question.seq):
            return True  # one of the past
        if self._output.live and self._confirming.ask(question):
            return True
        say = f"{question.why[:1].upper()}{question.why[1:]}"
        self._output.remark(f"{say}. The run waits for a yes: rlmctl run confirm {self._run.run_id}", None)
        self._output.remark("Or ask with --yes, which asks nobody.", None)
        self._left = Exit.ASKING
        return False

    def _show(self, question: str | None) -> None:
        self._display.question = question
        if question is None:
            self._display.line_typed()

    def _ask(self, question: str | None) -> None:
        """What Ctrl-C asks goes before what the run asks."""
        if question is not None:
            self._confirming.hush()
        self._show(question)
        if question is None:
            self._confirming.again()
        if question and not self._output.live:
            self._output.remark(question)

    def _cancel(self) -> None:
        self._cancelling = asyncio.create_task(self._send_cancel(), name="rlmctl-cancel")

    async def _send_cancel(self) -> None:
        with contextlib.suppress(RlmdError):  # it ended just now, or the daemon is gone: the follower tells
            await self._client.call("run/cancel", CancelParams(run_id=self._run.run_id, why="Ctrl-C"))

    def _detach(self) -> None:
        self._detached = True
        self._stop(Exit.DONE)

    def _leave(self) -> None:
        if self._cancelling is not None:
            self._cancelling.cancel()
            self._cancelling = None
        self._stop(Exit.CANCELLED)

    def _stop(self, status: Exit) -> None:
        self._left = status
        if self._task is not None:
            self._task.cancel()
