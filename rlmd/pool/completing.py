"""A request's way to its completion: candidates → trust → window → single flight → cache → scheduler.

Owns what is under way and what was answered: the flights, the caches, and the tokens that prompts turned out to have.
Knows nothing of runs beyond an id, nor of cells, journals or clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Set
from dataclasses import replace
from pathlib import Path

from rlmd.errors import RlmdError
from rlmd.pool.actions import Work
from rlmd.pool.budget import Budget
from rlmd.pool.cache import CachedCompletion, CompletionCache, NoCache, is_cacheable
from rlmd.pool.choosing import Choice, TokenRates, fitting, permitted, priced, unheard_of, worst_costs
from rlmd.pool.completions import (
    CompletionRequest,
    PooledCompletion,
    flight_name,
    from_cache,
    keys_of,
    record_of,
    shared_as,
)
from rlmd.pool.disk_cache import DiskCache
from rlmd.pool.dispatcher import Dispatcher
from rlmd.pool.flight import Flight
from rlmd.pool.hosts import Hosts
from rlmd.pool.memory_cache import MemoryCache
from rlmd.pool.slots import Target
from rlmd.pool.tickets import OnDelta
from rlmd.pool.unheard import Unheard
from rlmd.providers.reading import byte_count


class Completing:
    """Args:
    hosts: Who may answer.
    unheard: Waits for those that have not said yet which models they have.
    dispatcher: Asks them.
    budget: Whether a price must be known.
    running: The group that owns what is under way; raises ``Draining``.
    cache_folder: Where finished completions are kept; None keeps none.
    cache_bytes: At most so much of them.
    """

    def __init__(
        self,
        hosts: Hosts,
        unheard: Unheard,
        dispatcher: Dispatcher,
        budget: Budget,
        running: Callable[[], asyncio.TaskGroup],
        cache_folder: Path | None,
        cache_bytes: int,
    ) -> None:
        self._hosts, self._unheard, self._dispatcher = hosts, unheard, dispatcher
        self._budget, self._running = budget, running
        self._disk = DiskCache(cache_folder, cache_bytes) if cache_folder is not None else None
        self._cache: CompletionCache = self._disk or NoCache()
        self._in_memory = MemoryCache()
        self._rates = TokenRates()
        self._flights: dict[str, Flight[PooledCompletion]] = {}
        #: Requests that wait for what hosts say of themselves.
        self._unsent: dict[object, CompletionRequest] = {}
        #: Answered from the cache, by an equal request in flight, and by hosts.
        self.hits = self.joined = self.completed = 0

    async def open(self) -> None:
        if self._disk is not None:
            await self._disk.open()

    async def close(self) -> None:
        await self._cache.close()

    async def forget(self, context: str) -> None:
        """Erases the cached replies to prompts that may have held a context's text."""
        await self._cache.forget(context)
        await self._in_memory.forget(context)

    async def clear(self) -> None:
        await self._cache.clear()
        await self._in_memory.clear()

    def cached(self) -> tuple[int, int]:
        """How many completions are on disk, and their bytes."""
        return self._cache.statistics()

    def under_way(self) -> Iterator[Set[str]]:
        """Of each reply that is not there yet, the runs that wait for it."""
        return (flight.runs for flight in self._flights.values() if not flight.landed)

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> PooledCompletion:
        """See ``Pool.complete``."""
        request = await self._when_heard(request)
        choices = self._choose(request)
        keys = keys_of(choices, request)
        flight = self._flights.get(name := flight_name(request, keys))
        if flight is None or flight.landed:
            flight = self._launch(name, request, choices, keys)
            flight.runs.add(request.run_id)
            return await flight.wait(on_delta)
        self.joined += 1
        flight.runs.add(request.run_id)
        return shared_as(await flight.wait(on_delta), "flight")

    async def holds(self, request: CompletionRequest) -> bool:
        """Whether it would be answered without asking any host, or refused as it is."""
        try:
            keys = keys_of(self._choose(request), request)
        except RlmdError:
            return True
        if request.fresh:
            return False
        return await self._cache.get(list(dict.fromkeys(keys))) is not None

    def make_private(self, runs: Set[str]) -> None:
        """What is in flight for these runs is not cached under a public key; what is not sent yet is private."""
        for key, request in self._unsent.items():
            if request.run_id in runs:
                self._unsent[key] = replace(request, private=True)
        for flight in self._flights.values():
            flight.private = flight.private or not runs.isdisjoint(flight.runs)

    async def _when_heard(self, request: CompletionRequest) -> CompletionRequest:
        """The request, as private as it is by then, when the hosts that may answer have said what they are. Raises
        ``NoHost`` when the only ones that might never did."""
        self._unsent[key := object()] = request

        def awaited() -> tuple[str, ...]:
            now = self._unsent[key]
            return self._hosts.roles.awaited(now.role, *_narrowings(now), private=now.private)

        try:
            await self._hosts.introduced()
            if awaited():
                await self._unheard.wait(request.run_id, awaited, request.patience)
                if silent := awaited():
                    raise unheard_of(silent, request.patience)
            return self._unsent[key]
        finally:
            del self._unsent[key]

    def _choose(self, request: CompletionRequest) -> list[Choice]:
        choices = self._hosts.roles.narrowed(request.role, *_narrowings(request))
        choices = permitted(choices, request.role, private=request.private)
        if self._budget.needs_price(request.run_id):
            choices = priced(choices, request.role)
        size = byte_count(request.messages)
        return fitting(choices, request.messages, size, request.sampling.max_tokens, self._rates)

    def _key_of(self, request: CompletionRequest, target: Target) -> str | None:
        """By what is known of a model's weights now: a host that had not said what it is when the request came has by
        the time it answers. None when the target has gone meanwhile."""
        now = [choice for choice in self._hosts.roles.choices(request.role) if choice.target == target]
        return keys_of(now, request)[0] if now else None

    def _launch(
        self, name: str, request: CompletionRequest, choices: list[Choice], keys: list[str]
    ) -> Flight[PooledCompletion]:
        group = self._running()
        flight: Flight[PooledCompletion] = Flight()
        self._flights[name] = flight
        flight.start(
            lambda: self._fly(flight, request, choices, keys),
            group,
            f"completion for {request.run_id}",
            ended=lambda: self._land(name, flight),
        )
        return flight

    def _land(self, name: str, flight: Flight[PooledCompletion]) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]

    async def _fly(
        self, flight: Flight[PooledCompletion], request: CompletionRequest, choices: list[Choice], keys: list[str]
    ) -> PooledCompletion:
        found = None if request.fresh else await self._cache_of(request).get(list(dict.fromkeys(keys)))
        if found is None:
            return await self._ask_hosts(flight, request, choices, keys)
        self.hits += 1
        flight.hear(0, found.completion.text)
        return from_cache(found)

    async def _ask_hosts(
        self, flight: Flight[PooledCompletion], request: CompletionRequest, choices: list[Choice], keys: list[str]
    ) -> PooledCompletion:
        size = byte_count(request.messages)
        work = Work(
            id=self._dispatcher.next_id(),
            run=request.run_id,
            targets=tuple(choice.target for choice in choices),
            chars=size,
            interactive=not request.batch,
            ordered=request.role == "root",
            private=request.private,
            prefix=request.prefix_group,
            costs=worst_costs(choices, size, len(request.messages), request.sampling.max_tokens),
            patience=request.patience,
        )
        won = await self._dispatcher.complete(
            work, request.messages, request.sampling, flight.hear, lambda: flight.runs, lambda: flight.private
        )
        completion, usage = won.completion, won.completion.usage
        self.completed += 1
        if not usage.estimated:
            self._rates.report(won.target.model, size, len(request.messages), usage.prompt_tokens)
        if is_cacheable(completion) and not flight.private:
            key = self._key_of(request, won.target) or next(
                key for choice, key in zip(choices, keys, strict=True) if choice.target == won.target
            )
            # Before anyone is told: what was answered is never asked again, whatever is killed.
            await self._cache_of(request).put(
                key, CachedCompletion(completion, won.target.host, won.target.model, request.contexts)
            )
        return PooledCompletion(completion, record_of(won))

    def _cache_of(self, request: CompletionRequest) -> CompletionCache:
        return self._in_memory if request.ephemeral else self._cache


def _narrowings(request: CompletionRequest) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    return request.candidates, (request.model,) if request.model is not None else None
