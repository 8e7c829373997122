"""The pool's front: makes its parts, starts and ends them in order, and hands on what it is asked.

Owns the tasks of everything in flight. Knows nothing of runs beyond an id, nor of cells, journals or clients.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog

from rlmd.config import HostSettings, Settings
from rlmd.errors import Draining
from rlmd.pool.budget import Account, Budget
from rlmd.pool.calibration import Calibration
from rlmd.pool.choosing import Candidate
from rlmd.pool.completing import Completing
from rlmd.pool.completions import CompletionRequest, PooledCompletion, PoolStatistics
from rlmd.pool.dispatcher import Deadlines, Dispatcher
from rlmd.pool.estimating import Expected, expected
from rlmd.pool.hosts import DEFAULT_URL, Hosts
from rlmd.pool.ledger import Ledger
from rlmd.pool.meter import read_learned, write_learned
from rlmd.pool.pulse import Pulse
from rlmd.pool.roles import Role
from rlmd.pool.scheduler import Scheduler
from rlmd.pool.stalls import Stalls, Told
from rlmd.pool.status import HostStatus
from rlmd.pool.tickets import OnDelta
from rlmd.pool.unheard import Unheard

log = structlog.get_logger(__name__)


class Pool:
    """See the module's docstring. ``start`` before use, ``close`` after.

    Args:
        settings: Hosts, roles and the cache's size.
        cache_folder: Where finished completions are kept; None keeps none.
        ledger_file: Where is written down what was spent; None forgets it at the end.
        learned_file: Where the hosts' speeds are remembered; None forgets them at the end.
        environment: Where ``api_key_env`` is looked up.
        default_url: Where a host is looked for when none is configured; None looks nowhere.
        deadlines: Seconds without a token after which an attempt is given up.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        cache_folder: Path | None = None,
        ledger_file: Path | None = None,
        learned_file: Path | None = None,
        environment: Mapping[str, str] | None = None,
        default_url: str | None = DEFAULT_URL,
        deadlines: Deadlines | None = None,
    ) -> None:
        zone = ZoneInfo(settings.budget.time_zone) if settings.budget.time_zone else None
        self._budget = Budget(settings.budget, time.time, zone)
        self._ledger = Ledger(ledger_file, self._budget)
        self._overflow_after = settings.budget.overflow_after
        self._scheduler = Scheduler(self._budget, self._overflow_after)
        self._pulse = Pulse()
        self._stalls = Stalls(
            self.hosts,
            lambda: self._completing.under_way(),
            self._scheduler.goes_on,
            lambda names: self._hosts.ask_soon(names),
            lambda: asyncio.get_running_loop().time(),
        )
        self._dispatcher = Dispatcher(
            self._scheduler, deadlines or Deadlines(), self._ledger, self._stalls, self._pulse
        )
        self._hosts = Hosts(
            settings,
            self._scheduler,
            self._dispatcher.do,
            environment=os.environ if environment is None else environment,
            default_url=default_url,
            learned=read_learned(learned_file) if learned_file is not None else {},
            awaits=self._stalls.awaits,
        )
        self._unheard = Unheard(self._hosts, self._stalls)
        self._learned_file = learned_file
        self._completing = Completing(
            self._hosts,
            self._unheard,
            self._dispatcher,
            self._budget,
            self._running,
            cache_folder,
            settings.cache.bytes,
        )
        self._group: asyncio.TaskGroup | None = None
        self._owner: asyncio.Task[None] | None = None

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, *, wait: bool = True) -> None:
        """Opens the cache and asks every host what it is. Waits only for hosts whose models are not configured, and
        not long; the others, and without ``wait`` these too, are asked in the background."""
        await self._completing.open()
        await self._ledger.open()
        begun = asyncio.Event()
        self._owner = asyncio.create_task(self._own(begun), name="pool")
        await begun.wait()
        await self._hosts.start(self._running(), wait=wait)

    async def use(self, settings: Settings) -> None:
        """Takes hosts, roles and budget as they are now, but for the budget's time zone."""
        self._budget.use(settings.budget)
        self._overflow_after = settings.budget.overflow_after
        await self._hosts.use(settings, self._dispatcher.finished)
        self._dispatcher.do(self._scheduler.overflow_after(self._overflow_after, asyncio.get_running_loop().time()))

    async def forget(self, context: str) -> None:
        """Erases the cached replies to prompts that may have held a context's text."""
        await self._completing.forget(context)

    async def sum_up(self) -> None:
        """What was spent long ago is kept by day and run, no longer by attempt."""
        await self._ledger.sum_up()

    async def close(self) -> None:
        """Ends in order: nothing new, attempts and probes, connections, the cache."""
        self._dispatcher.stop()
        if self._learned_file is not None:
            write_learned(self._learned_file, self._hosts.learned())
        self._group = None
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.wait([self._owner])
            self._owner = None
        await self._hosts.close()
        await self._ledger.close()
        await self._completing.close()

    async def _own(self, begun: asyncio.Event) -> None:
        """Holds every task of the pool; ends them all when it is cancelled. Should one of them break the rule that it
        does not raise, whoever waits is told instead of waiting for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._dispatcher.start(group, self._hosts)
                begun.set()
                await asyncio.Event().wait()
        except* Exception as faults:  # noqa: BLE001  a bug, whatever it is
            log.error("pool_broken", errors=[type(fault).__name__ for fault in faults.exceptions])
        finally:
            self._group = None
            self._dispatcher.stop()

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
        return await self._completing.complete(request, on_delta)

    async def holds(self, request: CompletionRequest) -> bool:
        """Whether it would be answered without asking any host, or refused as it is."""
        return await self._completing.holds(request)

    def expect(
        self, role: Role, requests: int, chars: int, *, private: bool, narrowed_to: tuple[str, ...] | None
    ) -> Expected:
        """What so many requests with so many characters together would take, none of them being in the cache.

        Raises:
            NotFound: ``narrowed_to`` names none of the role's candidates.
        """
        choices = self._hosts.roles.narrowed(role, narrowed_to)
        now = asyncio.get_running_loop().time()
        return expected(
            [choice for choice in choices if not private or choice.candidate.trust == "mine"],
            self._scheduler.hosts(),
            self._hosts.watts(),
            price_per_kwh=self._budget.price_per_kwh,
            requests=requests,
            chars=chars,
            ahead=self._scheduler.waiting_units,
            overflow_after=self._overflow_after,
            now=now,
        )

    def make_private(self, runs: Set[str]) -> None:
        """A context of these runs was marked private: what they have asked and what is in flight for them goes to
        trusted hosts only; attempts elsewhere are aborted at once, and nothing of it is cached under a public key."""
        self._completing.make_private(runs)
        self._dispatcher.make_private(runs)

    def watch(self, tree: str, told: Told) -> None:
        """``told`` hears when nothing of a tree of runs goes on before a host is back (None: when it does again), until
        ``unwatch``."""
        self._stalls.watch(tree, told)

    def unwatch(self, tree: str, told: Told) -> None:
        self._stalls.unwatch(tree, told)

    def awaited(
        self, role: Role, *, private: bool = False, narrowed_to: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """While there is no candidate: the configured hosts that never said which models they have, and may yet bring
        one. Raises ``NotFound``."""
        return self._hosts.roles.awaited(role, narrowed_to, private=private)

    async def wait_for_model(self, tree: str, awaited: Callable[[], tuple[str, ...]], seconds: float) -> None:
        """Waits until no host is awaited any more, at most so many seconds; who watches the tree is told."""
        await self._unheard.wait(tree, awaited, seconds)

    # ── money ───────────────────────────────────────────────────────────────────────────────────────────────

    def accounts(self, tree: str | None = None) -> list[Account]:
        """What was spent today, this month and by a run."""
        return self._budget.accounts(tree)

    def allow_spending(self, tree: str) -> None:
        """The user said that this run may spend, where ``budget.ask`` is on."""
        self._budget.allow(tree)
        self._dispatcher.do(self._scheduler.tick(asyncio.get_running_loop().time()))

    def limit_spending(self, tree: str, dollars: float) -> None:
        """This run may spend so much, if no other limit is lower."""
        self._budget.limit(tree, dollars)

    def grant(self, tree: str, dollars: float) -> None:
        """The user said that this run may spend so much more than any run, in all."""
        self._budget.grant(tree, dollars)
        self.allow_spending(tree)

    @property
    def spending_blocked(self) -> str:
        """Why nothing may be spent at all; empty as a rule."""
        return self._budget.blocked

    async def clear_cache(self) -> None:
        await self._completing.clear()

    # ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────

    def candidates(
        self, role: Role, *, private: bool = False, narrowed_to: tuple[str, ...] | None = None
    ) -> tuple[Candidate, ...]:
        """Who may answer, in order of preference; empty when no model can be used. Raises ``NotFound``."""
        choices = self._hosts.roles.narrowed(role, narrowed_to)
        return tuple(choice.candidate for choice in choices if not private or choice.candidate.trust == "mine")

    @property
    def idle(self) -> bool:
        """Whether nothing is asked of any host."""
        return self._scheduler.idle

    def hosts(self) -> list[HostStatus]:
        return self._hosts.statuses()

    async def hosts_changed(self, at_most: float) -> None:
        """Waits until something about the hosts may differ, or for so many seconds."""
        await self._pulse.wait(at_most)

    async def add_host(self, name: str, settings: HostSettings) -> HostStatus:
        """Adds it and asks it what it is. Raises ``Conflict`` for a name that is taken, ``ConfigInvalid``."""
        self._running()
        return await self._hosts.add(name, settings)

    async def remove_host(self, name: str) -> None:
        """What is in flight there goes elsewhere. Raises ``NotFound``."""
        await self._hosts.remove(name)

    def pause_host(self, name: str, *, paused: bool) -> HostStatus:
        """Gives a host nothing more until it is resumed. Raises ``NotFound``."""
        return self._hosts.pause(name, paused=paused)

    def wake_host(self, name: str) -> HostStatus:
        """Wakes a host's machine now. Raises ``NotFound``; ``Conflict``: no command is known that does."""
        return self._hosts.rouse(name)

    async def calibrate_host(self, name: str, model: str | None = None) -> tuple[HostStatus, list[Calibration]]:
        """Measures a host's speeds and slots while it does nothing else, and remembers them. What waits, waits on.

        Raises:
            NotFound, Unavailable, Conflict: it cannot be measured, and why.
            CompletionError: what its server answered instead.
        """
        found = await self._hosts.calibrate(name, model, self._dispatcher.idle)
        if self._learned_file is not None:
            write_learned(self._learned_file, self._hosts.learned())
        return found

    def keep_useful_window(self, name: str, model: str | None, tokens: int) -> HostStatus:
        """Remembers up to how many tokens a model of a host reads well. Raises ``NotFound``, ``InvalidParams``."""
        status = self._hosts.keep_useful_window(name, model, tokens)
        if self._learned_file is not None:
            write_learned(self._learned_file, self._hosts.learned())
        return status

    async def find_default_host(self) -> None:
        """Learns which models there are: waits for hosts that have not said yet; with none configured, looks for a
        usable chat model on this machine (and again later, if there is none)."""
        await self._hosts.find_default()

    def _running(self) -> asyncio.TaskGroup:
        if self._group is None:
            raise Draining("The pool is not running.")
        return self._group

    # ── showing ─────────────────────────────────────────────────────────────────────────────────────────────

    def statistics(self) -> PoolStatistics:
        (entries, size), done = self._completing.cached(), self._completing
        queue = self._scheduler.statistics(asyncio.get_running_loop().time())
        return PoolStatistics(entries, size, done.hits, done.joined, done.completed, queue)
