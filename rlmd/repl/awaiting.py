"""The event loop of cells that await at their top level (child side, standard library alone).

One loop serves a session's cells, so that what one cell made (a lock, a queue) is of use in the next. Tasks do not
outlive their cell: they would go on, and ask, while another runs.
"""

from __future__ import annotations

from rlmd.repl.scaffold import tell

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any
else:
    Any = object

#: Seconds that cancelled tasks get to end; one that does not listen is left behind with its loop.
_END_SECONDS = 0.2


class CellLoop:
    """asyncio is imported at the first await: it takes 9 MB and 40 ms that most sessions never need."""

    def __init__(self) -> None:
        self._loop: Any = None
        #: Where the coroutine of a cell that was stopped waited.
        self.places: list[tuple[str, int]] = []

    def run(self, coroutine: Any) -> None:
        """Runs a cell's coroutine to its end, and ends the tasks that it leaves."""
        import asyncio

        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        main = self._loop.create_task(coroutine)
        self.places = []
        try:
            self._loop.run_until_complete(main)
        except KeyboardInterrupt:
            self.places = list(_places(coroutine))
            raise
        finally:
            self._end_tasks(asyncio, main)

    def quiet(self) -> set[Any]:
        """Ends the idle threads of the loop's default executor, which are no left-over work; returns them."""
        pool = getattr(self._loop, "_default_executor", None)
        if pool is None:
            return set()
        self._loop._default_executor = None
        pool.shutdown(wait=False, cancel_futures=True)
        return set(pool._threads)

    def _end_tasks(self, asyncio: Any, main: Any) -> None:
        tasks = asyncio.all_tasks(self._loop)
        left = len(tasks - {main})
        if left:
            tell(f"{left} asyncio task{'s were' if left > 1 else ' was'} still running and ended with the cell")
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=_END_SECONDS))
        if asyncio.all_tasks(self._loop) or not main.done():
            self.quiet()
            self._loop.close()


def _places(coroutine: Any) -> Iterator[tuple[str, int]]:
    """File and line at which a coroutine waits, and those that it waits for."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        coroutine = coroutine.cr_await
