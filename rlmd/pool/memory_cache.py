"""Finished completions of ephemeral text: in memory, bounded, gone with the process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Sequence

from rlmd.pool.cache import CachedCompletion, nothing

#: Characters of replies that are kept; those asked for longest ago go first.
LIMIT_CHARS = 32 << 20


class MemoryCache:
    """A ``CompletionCache``."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, CachedCompletion] = OrderedDict()
        self._chars = 0

    async def get(self, keys: Sequence[str]) -> CachedCompletion | None:
        for key in keys:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        return None

    def put(self, key: str, value: CachedCompletion) -> Awaitable[None]:
        self._remove(key)
        self._entries[key] = value
        self._chars += _chars(value)
        while self._chars > LIMIT_CHARS:
            self._remove(next(iter(self._entries)))
        return nothing()

    async def forget(self, context: str) -> None:
        for key in [key for key, value in self._entries.items() if context in value.contexts]:
            self._remove(key)

    def statistics(self) -> tuple[int, int]:
        return len(self._entries), self._chars

    async def clear(self) -> None:
        self._entries.clear()
        self._chars = 0

    async def close(self) -> None:
        await self.clear()

    def _remove(self, key: str) -> None:
        value = self._entries.pop(key, None)
        self._chars -= _chars(value) if value is not None else 0


def _chars(value: CachedCompletion) -> int:
    return len(value.completion.text) + len(value.completion.thinking)
