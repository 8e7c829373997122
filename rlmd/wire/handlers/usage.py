"""How much disk each part of the daemon takes: counted file by file in a thread, at most once a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Executor

from rlmd.config import Paths
from rlmd.engine.runfolder import bytes_below

#: Seconds for which a count is good.
_FRESH = 60.0


class Usage:
    """Args:
    paths: The daemon's folders.
    threads: Where is counted.
    """

    def __init__(self, paths: Paths, threads: Executor) -> None:
        contexts = paths.state / "contexts"
        self._parts = {
            "texts": contexts / "store",
            "uploads": contexts / "uploads",
            "journals": paths.state / "runs",
            "replies": paths.cache / "completions",
            "indexes": paths.cache / "index",
        }
        self._state = paths.state
        self._threads = threads
        self._counting = asyncio.Lock()
        self._counted = -_FRESH
        self._sizes: Mapping[str, int] = {}

    async def sizes(self) -> Mapping[str, int]:
        """Bytes on disk by part."""
        async with self._counting:
            if time.monotonic() - self._counted >= _FRESH:
                loop = asyncio.get_running_loop()
                self._sizes = await loop.run_in_executor(self._threads, self._count)
                self._counted = time.monotonic()
        return self._sizes

    def _count(self) -> Mapping[str, int]:
        sizes = {name: bytes_below(folder) for name, folder in self._parts.items()}
        ledger = (file.lstat().st_blocks * 512 for file in self._state.glob("ledger.sqlite*") if file.exists())
        return sizes | {"ledger": sum(ledger)}
