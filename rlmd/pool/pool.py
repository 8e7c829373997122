"""The pool's front: a request in, a whole completion with its record out.

The order of a request's steps: candidates → trust → window → single flight → cache → scheduler. Owns the hosts, their
probing, and the tasks of everything in flight. Knows nothing of runs beyond an id, nor of cells, journals or clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import structlog

from rlmd.config import HostSettings, Settings, Trust
from rlmd.errors import Conflict, Draining, NotFound
from rlmd.events import CompletionRecord, CompletionSource
from rlmd.pool.cache import CachedCompletion, CompletionCache, DiskCache, NoCache, asked_digest, cache_key, is_cacheable
from rlmd.pool.choosing import Candidate, Choice, TokenRates, fitting, narrowed, permitted
from rlmd.pool.dispatcher import Deadlines, Dispatcher, OnDelta
from rlmd.pool.flight import Flight
from rlmd.pool.host import Host, OfferedModel
from rlmd.pool.scheduler import Scheduler, Statistics, Work
from rlmd.pool.slots import HostState
from rlmd.providers.base import Completion, Message, Sampling
from rlmd.providers.reading import byte_count

#: Where Ollama listens unless told otherwise. The address, not the name: no look-up.
DEFAULT_URL = "http://127.0.0.1:11434"
DEFAULT_NAME = "local"
#: An Ollama on this machine answers in milliseconds; a missing one is refused at once.
DEFAULT_SECONDS = 1.5
#: How long "there is none" is believed.
DEFAULT_ABSENT_SECONDS = 15.0
#: Seconds between questions to a host that does not answer: from, to.
PROBE_FIRST, PROBE_LAST = 1.0, 60.0
#: How long the start waits for hosts that must first say which models they have.
START_SECONDS = 1.5

Role = Literal["root", "sub"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """``candidates`` narrows the role's (names such as ``host/model``); ``model`` is a cell's choice among them.

    ``sample`` counts repeats of one prompt at temperature above 0; ``fresh`` does not read the cache; ``batch`` comes
    after what a person or a root waits for; requests of one ``prefix_group`` share the beginning of their prompts.
    """

    role: Role
    messages: tuple[Message, ...]
    sampling: Sampling
    run_id: str
    candidates: tuple[str, ...] | None = None
    model: str | None = None
    private: bool = False
    sample: int = 1
    fresh: bool = False
    prefix_group: str = ""
    batch: bool = False


@dataclass(frozen=True, slots=True)
class PooledCompletion:
    completion: Completion
    record: CompletionRecord


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host as a user sees it. ``retry_in``: seconds, when down. ``queued``: requests that it could take."""

    name: str
    url: str
    provider: str
    trust: Trust
    state: HostState
    retry_in: float | None
    slots: int
    slots_used: int
    queued: int
    completed: int
    failed: int
    models: tuple[OfferedModel, ...]
    roles: tuple[str, ...]
    last_error: str | None


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    cache_entries: int
    cache_bytes: int
    cache_hits: int
    joined: int
    completed: int
    queue: Statistics


class Pool:
    """See the module's docstring. ``start`` before use, ``close`` after.

    Args:
        settings: Hosts, roles and the cache's size.
        cache_folder: Where finished completions are kept; None keeps none.
        environment: Where ``api_key_env`` is looked up.
        default_url: Where a host is looked for when none is configured; None looks nowhere.
        deadlines: Seconds without a token after which an attempt is given up.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        cache_folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        default_url: str | None = DEFAULT_URL,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._settings = settings
        self._environment = os.environ if environment is None else environment
        self._default_url = default_url
        self._scheduler = Scheduler()
        self._dispatcher = Dispatcher(
            self._scheduler,
            self._host_named,
            window_learned=self._tell_scheduler,
            deadlines=deadlines or Deadlines(),
        )
        self._hosts: dict[str, Host] = {}
        self._role_choices: dict[Role, list[Choice]] = {}
        self._probing: dict[str, asyncio.Task[None]] = {}
        self._disk = DiskCache(cache_folder, settings.cache.bytes) if cache_folder is not None else None
        self._cache: CompletionCache = self._disk or NoCache()
        self._rates = TokenRates()
        self._flights: dict[str, Flight[PooledCompletion]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._owner: asyncio.Task[None] | None = None
        self._default_asked = -DEFAULT_ABSENT_SECONDS
        self._default_lock = asyncio.Lock()
        self._hits = self._joined = self._completed = 0

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Opens the cache and asks every host what it is. Waits only for hosts whose models are not configured, and
        not long; the others are asked in the background."""
        if self._disk is not None:
            await self._disk.open()
        begun = asyncio.Event()
        self._owner = asyncio.create_task(self._own(begun), name="pool")
        await begun.wait()
        for name, settings in self._settings.hosts.items():
            self._add(Host(name, settings, self._environment))
        await self.find_default_host()

    async def close(self) -> None:
        """Ends in order: nothing new, attempts and probes, connections, the cache."""
        self._dispatcher.stop()
        self._group = None
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.wait([self._owner])
            self._owner = None
        for host in self._hosts.values():
            await host.provider.close()
        await self._cache.close()

    async def _own(self, begun: asyncio.Event) -> None:
        """Holds every task of the pool; ends them all when it is cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._dispatcher.start(group)
            begun.set()
            await asyncio.Event().wait()

    # ── completing ──────────────────────────────────────────────────────────────────────────────────────────

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> PooledCompletion:
        """Waits for a whole completion, from the cache, from an equal request in flight, or from a host.

        Deltas are ``on_delta(offset, text)``; offset 0 begins anew (another host took over). A cached answer comes as
        one. Cancelling it gives up the claim; the last claim gone aborts what was sent.

        Raises:
            NotFound: ``model`` or ``candidates`` name none of the role's candidates; the message lists them.
            NoHost: none is configured, trusted or up.
            PromptTooLong: it fits no candidate's window; ``tokens`` and ``window`` in the details.
            CompletionError: every host that could answer refused or cut this request.
        """
        choices = self._choose(request)
        keys = self._keys(choices, request)
        flight = self._flights.get(name := _flight_name(request, keys))
        if flight is None or flight.landed:
            flight = self._launch(name, request, choices, keys)
            return await flight.wait(on_delta)
        self._joined += 1
        return _as(await flight.wait(on_delta), "flight")

    def _choose(self, request: CompletionRequest) -> list[Choice]:
        choices = self._choices(request.role)
        if request.candidates is not None and choices:
            choices = narrowed(choices, request.candidates, request.role)
        if request.model is not None and choices:
            choices = narrowed(choices, (request.model,), request.role)
        choices = permitted(choices, request.role, private=request.private)
        size = byte_count(request.messages)
        return fitting(choices, request.messages, size, request.sampling.max_tokens, self._rates)

    def _keys(self, choices: list[Choice], request: CompletionRequest) -> list[str]:
        sample = request.sample if request.sampling.temperature > 0 else 1
        asked = asked_digest(request.messages, request.sampling, private=request.private, sample=sample)
        return [cache_key(choice.offered.identity, asked) for choice in choices]

    def _launch(
        self, name: str, request: CompletionRequest, choices: list[Choice], keys: list[str]
    ) -> Flight[PooledCompletion]:
        if self._group is None:
            raise Draining("The pool is not running.")
        flight: Flight[PooledCompletion] = Flight()
        self._flights[name] = flight
        flight.start(self._fly(flight, name, request, choices, keys), self._group, f"completion for {request.run_id}")
        return flight

    async def _fly(
        self,
        flight: Flight[PooledCompletion],
        name: str,
        request: CompletionRequest,
        choices: list[Choice],
        keys: list[str],
    ) -> PooledCompletion:
        try:
            found = None if request.fresh else await self._cache.get(list(dict.fromkeys(keys)))
            if found is not None:
                self._hits += 1
                flight.hear(0, found.completion.text)
                return _from_cache(found)
            return await self._ask_hosts(flight, request, choices, keys)
        finally:
            if self._flights.get(name) is flight:
                del self._flights[name]

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
        )
        won = await self._dispatcher.complete(work, request.messages, request.sampling, flight.hear)
        completion, usage = won.completion, won.completion.usage
        self._completed += 1
        if not usage.estimated:
            self._rates.report(won.target.model, size, len(request.messages), usage.prompt_tokens)
        if is_cacheable(completion):
            key = next(key for choice, key in zip(choices, keys, strict=True) if choice.target == won.target)
            self._cache.put(key, CachedCompletion(completion, won.target.host, won.target.model))
        record = CompletionRecord(
            host=won.target.host,
            model=won.target.model,
            source="model",
            finish=completion.finish,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            queue_seconds=won.queued,
            first_token_seconds=won.first_token,
            seconds=won.seconds,
            attempts=won.attempts,
        )
        return PooledCompletion(completion, record)

    # ── candidates ──────────────────────────────────────────────────────────────────────────────────────────

    def candidates(
        self, role: Role, *, private: bool = False, narrowed_to: tuple[str, ...] | None = None
    ) -> tuple[Candidate, ...]:
        """Who may answer, in order of preference; empty when no model can be used. Raises ``NotFound``."""
        choices = self._choices(role)
        if narrowed_to is not None and choices:
            choices = narrowed(choices, narrowed_to, role)
        return tuple(choice.candidate for choice in choices if not private or choice.candidate.trust == "mine")

    def _choices(self, role: Role) -> list[Choice]:
        """The role's candidates as configured; without any, every model of every host. Kept until a host changes."""
        if (known := self._role_choices.get(role)) is None:
            known = self._role_choices[role] = self._find_choices(role)
        return known

    def _find_choices(self, role: Role) -> list[Choice]:
        offers = {
            Choice(_candidate(host, offered), offered): None
            for host in self._hosts.values()
            for offered in host.models(self._named_in_roles(host.name)).values()
        }
        named = getattr(self._settings.roles, role)
        if not named:
            return list(offers)
        by_name = {choice.candidate.name: choice for choice in offers}
        found = (by_name.get(name) or by_name.get(f"{name}:latest") for name in named)
        return [choice for choice in found if choice is not None]

    def _named_in_roles(self, host: str) -> tuple[str, ...]:
        roles = (*self._settings.roles.root, *self._settings.roles.sub)
        return tuple(dict.fromkeys(name.removeprefix(host + "/") for name in roles if name.startswith(host + "/")))

    # ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────

    def hosts(self) -> list[HostStatus]:
        queued = self._scheduler.statistics().queued_for
        return [self._status(host, queued) for host in self._hosts.values()]

    async def add_host(self, name: str, settings: HostSettings) -> HostStatus:
        """Adds it and asks it what it is. Raises ``Conflict`` for a name that is taken, ``ConfigInvalid``."""
        if name in self._hosts and not self._is_default(name):
            raise Conflict(f"There is a host {name} already.", hint=f"`rlmctl host remove {name}` first.")
        host = Host(name, settings, self._environment)
        for found in [existing for existing in self._hosts if self._is_default(existing)]:
            await self.remove_host(found)
        self._add(host)
        await host.asked.wait()
        return self._status(host, self._scheduler.statistics().queued_for)

    async def remove_host(self, name: str) -> None:
        """What is in flight there goes elsewhere. Raises ``NotFound``."""
        host = self._hosts.pop(name, None)
        if host is None:
            raise NotFound(f"There is no host {name[:100]!r}.", hint="`rlmctl host list` shows those there are.")
        if (task := self._probing.pop(name, None)) is not None:
            task.cancel()
        self._role_choices.clear()
        self._dispatcher.do(self._scheduler.host_removed(name, _now()))
        await host.provider.close()

    async def find_default_host(self) -> None:
        """Learns which models there are: waits for hosts that have not said yet; with none configured, looks for a
        usable chat model on this machine (and again later, if there is none)."""
        unknown = [host for host in self._hosts.values() if not host.ready and not host.settings.models]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                for host in unknown:
                    await host.asked.wait()
        async with self._default_lock:
            if self._hosts or self._default_url is None or _now() - self._default_asked < DEFAULT_ABSENT_SECONDS:
                return
            self._default_asked = _now()
            host = Host(DEFAULT_NAME, HostSettings(url=self._default_url, provider="ollama"), {})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DEFAULT_SECONDS):
                    await host.probe()
            if host.ready and any(model.trust == "mine" for model in host.models().values()):
                self._hosts[host.name] = host
                self._tell_scheduler(host)
            else:
                await host.provider.close()

    def _host_named(self, name: str) -> Host | None:
        return self._hosts.get(name)

    def _is_default(self, name: str) -> bool:
        return name not in self._settings.hosts and self._hosts[name].settings.url == self._default_url

    def _add(self, host: Host) -> None:
        self._hosts[host.name] = host
        self._tell_scheduler(host)
        self._probing[host.name] = self._spawn(self._keep_asking(host), f"probe of {host.name}")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            raise Draining("The pool is not running.")
        return self._group.create_task(work, name=name)

    async def _keep_asking(self, host: Host) -> None:
        """Asks until the host has said what it is."""
        pause = PROBE_FIRST
        while True:
            await host.probe()
            self._tell_scheduler(host)
            if host.ready:
                log.info("host_ready", host=host.name, models=len(host.models()))
                return
            log.info("host_silent", host=host.name, error=host.last_error, again_in=pause)
            await asyncio.sleep(pause)
            pause = min(PROBE_LAST, pause * 2)

    def _tell_scheduler(self, host: Host) -> None:
        self._role_choices.clear()
        view = host.view(self._named_in_roles(host.name))
        self._dispatcher.do(self._scheduler.host_changed(view, _now()))

    def _status(self, host: Host, queued: Mapping[str, int]) -> HostStatus:
        slots = self._scheduler.hosts()[host.name]
        models = tuple(host.models(self._named_in_roles(host.name)).values())
        opens = slots.opens_at(_now())
        state = slots.state(_now())
        return HostStatus(
            name=host.name,
            url=host.settings.url,
            provider=host.settings.provider,
            trust=host.settings.trust or ("mine" if any(model.trust == "mine" for model in models) else "cloud"),
            state="down" if state == "unknown" and host.last_error else state,
            retry_in=max(0.0, opens - _now()) if state == "down" and opens is not None else None,
            slots=host.slots,
            slots_used=len(slots.in_flight),
            queued=queued.get(host.name, 0),
            completed=slots.completed,
            failed=slots.failed,
            models=models,
            roles=tuple(role for role in ("root", "sub") if self._serves(host.name, role)),
            last_error=host.last_error,
        )

    def _serves(self, host: str, role: Role) -> bool:
        return any(choice.candidate.host == host for choice in self._choices(role))

    # ── showing ─────────────────────────────────────────────────────────────────────────────────────────────

    def statistics(self) -> PoolStatistics:
        entries, size = self._cache.statistics()
        queue = self._scheduler.statistics()
        return PoolStatistics(entries, size, self._hits, self._joined, self._completed, queue)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _candidate(host: Host, offered: OfferedModel) -> Candidate:
    return Candidate(
        host=host.name,
        model=offered.name,
        window=offered.window,
        useful_window=offered.useful_window,
        slots=host.slots,
        max_tokens=offered.max_tokens,
        temperature=offered.temperature,
        trust=offered.trust,
    )


def _flight_name(request: CompletionRequest, keys: list[str]) -> str:
    """Equal for requests of which one answer serves all."""
    return f"{request.role} {request.fresh} {' '.join(keys)}"


def _as(pooled: PooledCompletion, source: CompletionSource) -> PooledCompletion:
    return replace(pooled, record=pooled.record.model_copy(update={"source": source}))


def _from_cache(found: CachedCompletion) -> PooledCompletion:
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
