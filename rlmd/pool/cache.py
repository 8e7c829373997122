"""Finished completions that are kept: what is kept of one, under which key, and what a cache must do.

The cache is a convenience: every fault of it is a miss, and the journal is what a run's truth rests on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlmd.providers.base import Completion, Message, Sampling

VERSION = 1


@dataclass(frozen=True, slots=True)
class CachedCompletion:
    """``contexts``: those whose text the prompt may have held."""

    completion: Completion
    host: str
    model: str
    contexts: tuple[str, ...] = ()


class CompletionCache(Protocol):
    """What the pool needs of a cache."""

    async def get(self, keys: Sequence[str]) -> CachedCompletion | None:
        """The first of the keys that is there."""
        ...

    def put(self, key: str, value: CachedCompletion) -> Awaitable[None]:
        """Stores; a ``get`` that is asked later finds it. Who awaits it knows that a kill does not lose it."""
        ...

    async def forget(self, context: str) -> None:
        """Erases what was stored of prompts that may have held a context's text."""
        ...

    def statistics(self) -> tuple[int, int]:
        """Entries and bytes."""
        ...

    async def clear(self) -> None:
        """Forgets everything."""
        ...

    async def close(self) -> None: ...


class NoCache:
    """For a daemon without a cache folder."""

    async def get(self, keys: Sequence[str]) -> CachedCompletion | None:
        return None

    def put(self, key: str, value: CachedCompletion) -> Awaitable[None]:
        return nothing()

    async def forget(self, context: str) -> None:
        return None

    def statistics(self) -> tuple[int, int]:
        return 0, 0

    async def clear(self) -> None:
        return None

    async def close(self) -> None:
        return None


async def nothing() -> None:
    """A ``put`` that is done already."""


def asked_digest(
    messages: tuple[Message, ...],
    sampling: Sampling,
    *,
    private: bool,
    sample: int,
    schema: str | None = None,
    ephemeral: bool = False,
) -> bytes:
    """Digest of all that is asked, whoever answers."""
    fixed: list[object] = [
        VERSION,
        sampling.temperature,
        sampling.max_tokens,
        sampling.seed,
        list(sampling.stop),
        private,
        sample,
    ]
    fixed += [] if schema is None else [schema]
    fixed += ["ephemeral"] * ephemeral  # an equal prompt that is none must not bring its reply to the disk
    hashed = hashlib.sha256()
    for part in (json.dumps(fixed), *(text for message in messages for text in (message.role, message.content))):
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(b"%d:" % len(data))
        hashed.update(data)
    return hashed.digest()


def cache_key(identity: str, asked: bytes) -> str:
    """``identity`` is the model's. A request has one key for each model that may answer it, so that a new host does
    not empty the cache."""
    return hashlib.sha256(asked + identity.encode("utf-8", "surrogatepass")).hexdigest()


def is_cacheable(completion: Completion) -> bool:
    """Whole and of use: a reply that ran into its token limit is not the answer, and an empty one is none."""
    return completion.finish == "stop" and bool(completion.text.strip())
