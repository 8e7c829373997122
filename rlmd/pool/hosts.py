"""The hosts of the pool: configured ones, added ones, the one found on this machine; what they are, and who may answer.

Owns their probing: each is asked until it has answered. Tells the scheduler and the roles of every change; decides
nothing about requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping

import structlog

from rlmd.config import HostSettings, Settings
from rlmd.errors import ConfigInvalid, Conflict, NotFound
from rlmd.pool.actions import Action
from rlmd.pool.calibration import Calibration
from rlmd.pool.foreign import Foreign
from rlmd.pool.host import Host, close_after, differ
from rlmd.pool.measuring import measured, to_measure, with_useful_window
from rlmd.pool.meter import Learned, Meter
from rlmd.pool.roles import Roles
from rlmd.pool.scheduler import Scheduler
from rlmd.pool.sleeping import Sleep, nudge_or
from rlmd.pool.status import HostStatus, status_of, unusable
from rlmd.providers.addresses import listens
from rlmd.validation import did_you_mean

#: Where Ollama listens unless told otherwise. The address, not the name: no look-up.
DEFAULT_URL = "http://127.0.0.1:11434"
DEFAULT_NAME = "local"
#: An Ollama on this machine answers in milliseconds; a missing one is refused at once.
DEFAULT_SECONDS = 1.5
#: How long "there is none" is believed.
DEFAULT_ABSENT_SECONDS = 15.0
#: Seconds between questions to a host that does not answer: from, to.
PROBE_FIRST, PROBE_LAST = 1.0, 15.0
#: The longest while something waits for it.
PROBE_AWAITED = 3.0
#: Seconds between questions to a host that answers.
REFRESH = 300.0
#: How long to wait for hosts that must first say which models they have, and of what digest.
START_SECONDS = 1.5

log = structlog.get_logger(__name__)


class Hosts:
    """See the module's docstring. ``do`` executes the scheduler's actions, ``awaits`` says whether something waits for
    a host."""

    def __init__(
        self,
        settings: Settings,
        scheduler: Scheduler,
        do: Callable[[list[Action]], None],
        *,
        environment: Mapping[str, str],
        default_url: str | None,
        learned: Mapping[str, Learned],
        awaits: Callable[[str], bool],
    ) -> None:
        self._learned = learned
        self._awaits = awaits
        self._settings = settings
        self._scheduler = scheduler
        self._do = do
        self._environment = environment
        self._default_url = default_url
        self._hosts: dict[str, Host] = {}
        self.roles = Roles(self._hosts, settings.roles)
        self._probing: dict[str, asyncio.Task[None]] = {}
        self._foreign = Foreign(scheduler, self.tell_scheduler)
        self._sleep = Sleep(scheduler, self.tell_scheduler, environment)
        self._patient_until = 0.0
        #: Configured hosts that cannot be used as configured, and why.
        self._unusable: dict[str, str] = {}
        self._group: asyncio.TaskGroup | None = None
        self._default: str | None = None
        self._default_asked = -DEFAULT_ABSENT_SECONDS
        self._default_lock = asyncio.Lock()

    async def start(self, group: asyncio.TaskGroup, *, wait: bool = True) -> None:
        """Asks every host what it is; ``group`` owns the asking. Waits, unless told not to, for hosts whose models are
        not configured, and not long."""
        self._group = group
        self._patient_until = _now() + START_SECONDS
        for name, settings in self._settings.hosts.items():
            if (host := self._made(name, settings)) is not None:
                self._add(host)
        if wait:
            await self.find_default()
        else:
            group.create_task(self.find_default(), name="look for a host on this machine")

    async def use(self, settings: Settings, finished: Callable[[str], Awaitable[None]]) -> None:
        """Takes hosts and roles as they are now. What is in flight at a host that changed ends where it began, unless
        its model or trust is gone; at one that is no longer there it is aborted and goes elsewhere.

        Args:
            settings: All of them.
            finished: Waits for what is in flight at a host now.
        """
        self._settings = settings
        self.roles.use(settings.roles)
        for name in [name for name in self._hosts if name not in settings.hosts and name != self._default]:
            await self.remove(name)
        for name, one in settings.hosts.items():
            known = self._hosts.get(name)
            if known is None or name == self._default or differ(known.settings, one):
                await self._renew(name, one, finished)
        for host in self._hosts.values():  # a role may name models that the settings of their host do not
            self.tell_scheduler(host)

    async def _renew(self, name: str, settings: HostSettings, finished: Callable[[str], Awaitable[None]]) -> None:
        host, before = self._made(name, settings), self._hosts.get(name)
        if host is None:
            if before is not None:
                await self.remove(name)
            return
        if self._default is not None and name != self._default:  # it was found only because none was configured
            await self.remove(self._default)
        self._default = None
        if before is not None:
            host.paused = before.paused
            self._leave(name)
            assert self._group is not None, "settings change while the pool runs"
            self._group.create_task(close_after(finished(name), before), name=f"former {name}")
        self._add(host)

    def _made(self, name: str, settings: HostSettings) -> Host | None:
        """None where its key cannot be had: that must not take the other hosts along."""
        self._unusable.pop(name, None)
        try:
            return Host(name, settings, self._environment)
        except ConfigInvalid as error:
            log.error("host_unusable", host=name, error=error.message)
            self._unusable[name] = error.message
            return None

    async def introduced(self) -> None:
        """Waits, at the pool's start and not long, for hosts that have not been asked yet what they are: a model's
        digest is part of what its replies are kept under."""
        unknown = [host for host in self._hosts.values() if not host.asked.is_set()]
        if unknown and (left := self._patient_until - _now()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    for host in unknown:
                        await host.asked.wait()

    async def close(self) -> None:
        for host in self._hosts.values():
            await host.close()

    def named(self, name: str) -> Host | None:
        return self._hosts.get(name)

    def _known(self, name: str) -> Host:
        if (host := self._hosts.get(name)) is None:
            near = did_you_mean(name, self._hosts)
            raise NotFound(f"There is no host {name[:100]!r}.", hint=f"{near}host/list shows those that there are.")
        return host

    # ── hosts ───────────────────────────────────────────────────────────────────────────────────────────────

    def statuses(self) -> list[HostStatus]:
        queued = self._scheduler.statistics().queued_for
        self._foreign.watched(_now())
        return [
            *(self._status(host, queued) for host in self._hosts.values()),
            *(unusable(name, self._settings.hosts[name], why) for name, why in self._unusable.items()),
        ]

    async def add(self, name: str, settings: HostSettings) -> HostStatus:
        """Adds it and asks it what it is. Raises ``Conflict`` for a name that is taken, ``ConfigInvalid``."""
        if name in self._hosts and name != self._default:
            raise Conflict(f"There is a host {name} already.", hint=f"`rlmctl host remove {name}` first.")
        host = Host(name, settings, self._environment)
        if self._default is not None:  # it was found only because none was configured
            await self.remove(self._default)
        self._unusable.pop(name, None)
        self._add(host)
        await host.asked.wait()
        return self._status(host, self._scheduler.statistics().queued_for)

    async def remove(self, name: str) -> None:
        """What is in flight there goes elsewhere. Raises ``NotFound``."""
        if self._unusable.pop(name, None) is not None:
            return
        host = self._known(name)
        del self._hosts[name]
        self._leave(name)
        if name == self._default:
            self._default = None
        self.roles.host_changed()
        self._do(self._scheduler.host_removed(name, _now()))
        await host.close()

    def _leave(self, name: str) -> None:
        """Ends what looks after a host."""
        if (task := self._probing.pop(name, None)) is not None:
            task.cancel()
        self._sleep.forget(name)
        self._foreign.forget(name)

    async def find_default(self) -> None:
        """Learns which models there are: waits for hosts that have not said yet; with none configured, looks for a
        usable chat model on this machine (and again later, if there is none)."""
        unknown = [host for host in self._hosts.values() if not host.ready and not host.settings.models]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                for host in unknown:
                    await host.asked.wait()
        async with self._default_lock:
            if self._default is not None and self._scheduler.hosts()[self._default].state(_now()) == "down":
                await self.remove(self._default)  # it has gone; a run must not wait for it
                self._default_asked = -DEFAULT_ABSENT_SECONDS
            if self._hosts or self._unusable or _now() - self._default_asked < DEFAULT_ABSENT_SECONDS:
                return
            self._default_asked = _now()
            if self._default_url is not None and self._group is not None:
                await self._look_at(self._default_url)

    async def _look_at(self, url: str) -> None:
        """Takes the host there, with the models that it runs itself: others need a person's consent."""
        if not await listens(url, DEFAULT_SECONDS):
            return  # before all that speaks HTTP is loaded for nothing
        host = Host(DEFAULT_NAME, HostSettings(url=url, provider="ollama"), {})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEFAULT_SECONDS):
                await host.probe()
        own = [name for name, model in host.models().items() if model.trust == "mine"]
        if host.ready and own:
            host.keep_only(own)
            self._hosts[host.name] = host
            self._default = host.name
            self.tell_scheduler(host)
        else:
            await host.close()

    def pause(self, name: str, *, paused: bool) -> HostStatus:
        """Gives it nothing more until it is resumed; what is in flight there goes on. Raises ``NotFound``."""
        host = self._known(name)
        host.paused = paused
        if not paused and host.unusable:  # the key may be there by now
            host.unusable = False
            self._ask(host)
        self.tell_scheduler(host)
        return self._status(host, self._scheduler.statistics().queued_for)

    def rouse(self, name: str) -> HostStatus:
        """Wakes its machine now, whether anything waits for it or not.

        Raises:
            NotFound: There is no such host.
            Conflict: No command is known that wakes it.
        """
        host = self._known(name)
        if not host.settings.wake:
            raise Conflict(
                f"Nothing is known that wakes host {name}.",
                hint=f'Set wake in [hosts.{name}] of the config, such as ["wakeonlan", "38:d5:47:aa:bb:cc"].',
            )
        self._do(self._scheduler.wake_host(name, _now()))
        return self._status(host, self._scheduler.statistics().queued_for)

    async def calibrate(
        self, name: str, model: str | None, idle: Callable[[str], Awaitable[None]]
    ) -> tuple[HostStatus, list[Calibration]]:
        """Measures a model of a host, or each; it gets no work meanwhile. ``idle`` waits until nothing is in flight.

        Raises:
            NotFound, Unavailable: no such host or model, or it does not answer.
            Conflict: its requests cost money, or it is being measured already.
        """
        host = self._known(name)
        await host.asked.wait()  # one that came a moment ago is not one that does not answer

        def tell() -> None:
            if self._hosts.get(name) is host:
                self.tell_scheduler(host)

        found = await measured(host, to_measure(host, model), tell, idle)
        return self._status(host, self._scheduler.statistics().queued_for), found

    def keep_useful_window(self, name: str, model: str | None, tokens: int) -> HostStatus:
        """Up to how many tokens a model of a host reads well: an evaluation found it.

        Raises:
            NotFound: no such host or model.
            InvalidParams: no model is named, or its window is smaller.
        """
        host = self._known(name)
        offered = host.models(self.roles.models_named(name))
        host.keep_useful_window(with_useful_window(host, offered, model, tokens), tokens)
        self.tell_scheduler(host)
        return self._status(host, self._scheduler.statistics().queued_for)

    def watts(self) -> dict[str, float | None]:
        """What each draws while it works."""
        return {name: host.settings.watts for name, host in self._hosts.items()}

    def learned(self) -> dict[str, Learned]:
        """What is worth remembering of each, those that are not here now included."""
        slots = self._scheduler.hosts()
        now = {
            name: Learned(
                dict(slots[name].pace),
                host.meter.output_speed,
                host.meter.prompt_speed,
                host.meter.first_token,
                host.calibrated,
                host.digests,
                host.useful,
            )
            for name, host in self._hosts.items()
        }
        return {**self._learned, **now}

    def _add(self, host: Host) -> None:
        self._hosts[host.name] = host
        if (learned := self._learned.get(host.name)) is not None:
            host.pace = learned.pace
            host.meter = Meter(learned.output_speed, learned.prompt_speed, learned.first_token)
            host.remember(learned.calibrated)
            host.pace = {**host.pace, **learned.pace}
            host.digests, host.useful = dict(learned.digests), dict(learned.useful)
        self.tell_scheduler(host)
        self._ask(host)

    def _ask(self, host: Host) -> None:
        assert self._group is not None, "hosts are added while the pool runs"
        if host.settings.provider == "openai":
            self._foreign.look_at(host, self._group)
        if host.settings.suspend:
            self._sleep.rest(host, self._group)
        self._probing[host.name] = self._group.create_task(self._keep_asking(host), name=f"probe of {host.name}")

    async def _keep_asking(self, host: Host) -> None:
        """Asks until the host has said what it is, and now and then again: models come and go."""
        pause = PROBE_FIRST
        while True:
            known, was_ready, answered = host.facts, host.ready, host.answers
            await host.probe()
            if host.ready:
                host.resting = False
            if host.ready != was_ready or host.facts != known or known is None:
                log.info("host_asked", host=host.name, ready=host.ready, models=len(host.models()))
            if host.ready != was_ready or host.facts != known or not host.ready or known is None:
                self.tell_scheduler(host)
            if host.answers and not answered:
                self._do(self._scheduler.host_answers(host.name, _now()))
            if host.unusable:
                return
            await nudge_or(host, REFRESH if host.answers or host.resting else pause)
            last = PROBE_AWAITED if self._awaits(host.name) else PROBE_LAST
            pause = PROBE_FIRST if host.answers else min(last, pause * 2)

    def ask_soon(self, names: Collection[str]) -> None:
        """Something waits for these hosts: those that did not answer are asked again now."""
        for name in names:
            if (host := self._hosts.get(name)) is not None and not host.answers:
                host.nudged.set()

    def wake(self, name: str) -> None:
        """Work waits that is worth waking its machine for."""
        host = self._hosts.get(name)
        if host is not None and self._group is not None:
            self._sleep.wake(host, self._group)

    def wake_sleeping(self, name: str) -> None:
        """Wakes its machine, if a command is known that does: it is waited for, though nothing is queued for it."""
        if self._hosts[name].settings.wake:
            self._do(self._scheduler.wake_host(name, _now()))

    def tell_scheduler(self, host: Host) -> None:
        self.roles.host_changed()
        view = host.view(self.roles.models_named(host.name))
        self._do(self._scheduler.host_changed(view, _now()))

    def _status(self, host: Host, queued: Mapping[str, int]) -> HostStatus:
        models = tuple(host.models(self.roles.models_named(host.name)).values())
        roles, slots = self.roles.roles_of(host.name), self._scheduler.hosts()[host.name]
        return status_of(host, slots, models, roles, queued.get(host.name, 0), _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
