"""That something about the hosts may have changed, for those who watch them: one beat for any number of changes."""

from __future__ import annotations

import asyncio
import contextlib


class Pulse:
    """Costs nothing while nobody watches."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()

    def beat(self) -> None:
        for event in self._waiting:
            event.set()

    async def wait(self, at_most: float) -> None:
        """Until the next beat, or for so many seconds."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(at_most):
                    await event.wait()
        finally:
            self._waiting.discard(event)
