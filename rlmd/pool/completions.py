"""What the pool is asked for and what it gives: a request for a completion, the completion with its record, its counts.

Data, and how a reply that was not asked for anew tells where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlmd.events import CompletionRecord, CompletionSource
from rlmd.pool.actions import PATIENCE, Statistics
from rlmd.pool.cache import CachedCompletion, asked_digest, cache_key
from rlmd.pool.choosing import Choice
from rlmd.pool.roles import Role
from rlmd.pool.tickets import Won
from rlmd.providers.base import Completion, Message, Sampling


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """``candidates`` narrows the role's (names such as ``host/model``); ``model`` is a cell's choice among them.

    ``sample`` counts repeats of one prompt at temperature above 0; ``fresh`` does not read the cache; ``batch`` comes
    after what a person or a root waits for; requests of one ``prefix_group`` share the beginning of their prompts.
    ``schema`` is the JSON schema (as JSON) that the reply is to fit.
    ``contexts`` are those whose text the prompt may hold; ``ephemeral``: neither it nor its reply may reach a disk.
    ``run_id``: the head of a tree of runs, which pays for all. ``patience``: seconds for which a host is waited for
    when all that could answer are down, asleep or paused.
    """

    role: Role
    messages: tuple[Message, ...]
    sampling: Sampling
    run_id: str
    candidates: tuple[str, ...] | None = None
    model: str | None = None
    private: bool = False
    ephemeral: bool = False
    contexts: tuple[str, ...] = ()
    sample: int = 1
    fresh: bool = False
    prefix_group: str = ""
    batch: bool = False
    schema: str | None = None
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True)
class PooledCompletion:
    completion: Completion
    record: CompletionRecord


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    cache_entries: int
    cache_bytes: int
    cache_hits: int
    joined: int
    completed: int
    queue: Statistics


def flight_name(request: CompletionRequest, keys: list[str]) -> str:
    """Equal for requests of which one answer serves all."""
    return f"{request.role} {request.fresh} {' '.join(keys)}"


def shared_as(pooled: PooledCompletion, source: CompletionSource) -> PooledCompletion:
    return replace(pooled, record=pooled.record.model_copy(update={"source": source}))


def from_cache(found: CachedCompletion) -> PooledCompletion:
    usage = found.completion.usage
    record = CompletionRecord(
        host=found.host,
        model=found.model,
        source="cache",
        finish=found.completion.finish,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        attempts=0,
    )
    return PooledCompletion(found.completion, record)


def record_of(won: Won) -> CompletionRecord:
    """How a completion that a host gave came about."""
    usage = won.completion.usage
    return CompletionRecord(
        host=won.target.host,
        model=won.target.model,
        source="model",
        finish=won.completion.finish,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        queue_seconds=won.queued,
        first_token_seconds=won.first_token,
        seconds=won.seconds,
        attempts=won.attempts,
        money=won.money,
        energy=won.energy,
        energy_cost=won.energy_cost,
    )


def keys_of(choices: Sequence[Choice], request: CompletionRequest) -> list[str]:
    """Under which its reply is kept, one for each model that may give it."""
    sample = request.sample if request.sampling.temperature > 0 else 1
    asked = asked_digest(
        request.messages,
        request.sampling,
        private=request.private,
        sample=sample,
        schema=request.schema,
        ephemeral=request.ephemeral,
    )
    return [cache_key(choice.offered.identity, asked) for choice in choices]
