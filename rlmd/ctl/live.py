"""The live display of a run on a terminal's stderr: two lines that are rewritten, and gone at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from rlmd.ctl.progress import Progress
from rlmd.ctl.terminal import Output

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.spinner import Spinner

    from rlmd.client import Event

#: Seconds between repaints: faster than the eye wants, slow enough for ssh.
REPAINT = 0.125


class Display:
    """Shows a ``Progress``; does nothing where stderr is no terminal."""

    def __init__(self, output: Output) -> None:
        self.progress = Progress()
        self._output = output
        self._begun = time.monotonic()
        #: A line to show instead of the details, such as the question whether to detach.
        self.question: str | None = None
        self._spinner: Spinner | None = None

    def apply(self, event: Event) -> None:
        self.progress = self.progress.apply(event)

    def line_typed(self) -> None:
        """The person pressed Enter: the cursor goes back to where the display believes it to be."""
        if self._output.live:
            self._output.err.write("\x1b[A")
            self._output.err.flush()

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Repaints while the block runs."""
        if not self._output.live:
            yield
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._output.err, no_color=not self._output.colour_err, highlight=False)
        with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:

            async def repaint() -> None:
                while True:
                    live.update(self._picture(console.width), refresh=True)
                    await asyncio.sleep(REPAINT)

            task = asyncio.create_task(repaint(), name="rlmctl-display")
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _picture(self, width: int) -> RenderableType:
        from rich.spinner import Spinner
        from rich.text import Text

        # Two lines that surely fit: a wrapped line would not be erased.
        room = max(20, width - 4)
        if self._spinner is None:
            self._spinner = Spinner("dots", style="bold")
        head = self.progress.headline(time.monotonic() - self._begun)
        lower = self.question or self.progress.detail(room)
        text = Text(head[:room], no_wrap=True)
        text.append("\n" + lower[:room], style="bold" if self.question else "dim")
        self._spinner.update(text=text)
        return self._spinner
