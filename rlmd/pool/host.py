"""A host as the pool knows it: its settings, what its server said of itself, and the provider that speaks to it.

Owns which models it offers with which windows, and whether text may go there (trust).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from rlmd.config import HostSettings, ModelSettings, ProviderKind, Trust
from rlmd.errors import ConfigInvalid, RlmdError, Unavailable
from rlmd.pool.calibration import AT_ONCE, Calibration
from rlmd.pool.keys import printed_key, read_key
from rlmd.pool.meter import Meter
from rlmd.pool.prices import Band, Price, price_of
from rlmd.pool.slots import LOAD_SECONDS, HostView, ModelView
from rlmd.providers.addresses import checked_url, is_local_address, looks_up_local
from rlmd.providers.base import DEFAULT_WINDOW, Provider, ServedModel, ServerFacts
from rlmd.providers.detect import make_provider

log = structlog.get_logger(__name__)

#: Programs that complete prompts themselves; a proxy on this machine may send them anywhere.
_OWN_SOFTWARE = {"ollama", "llama.cpp", "vllm"}
#: Connections beyond the slots: the loser of a copy closes while the next request opens; probes.
SPARE_CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that the pool may use on a host. ``identity``: of the weights where the server tells, else the place."""

    name: str
    window: int
    useful_window: int
    max_tokens: int
    temperature: float
    trust: Trust
    identity: str
    digest: str | None
    price: Price | None = None
    #: How many times what was reserved one reply has cost: what is reserved from then on.
    overcharge: float = 1.0


class Host:
    """One configured (or found) server."""

    def __init__(self, name: str, settings: HostSettings, environment: Mapping[str, str]) -> None:
        self.name = name
        self.settings = settings
        #: What the settings say, else what was measured, else one.
        self.slots = settings.slots
        self._provider: Provider | None = None
        self._environment = environment
        self._key = read_key(name, settings, environment)
        self.facts: ServerFacts | None = None
        self.ready = False
        #: Whether anything answered when it was last asked what it is.
        self.answers = False
        #: Its key cannot be had: it is not asked again by itself, as that might ask a person each time.
        self.unusable = False
        #: Set once it has been asked what it is, whatever came of it.
        self.asked = asyncio.Event()
        self.last_error: str | None = None
        #: Why the command that wakes its machine did not.
        self.wake_error: str | None = None
        #: Ask it again now. ``resting``: it was sent to sleep, and asking might disturb that.
        self.nudged = asyncio.Event()
        self.resting = False
        self._local = is_local_address(checked_url(settings.url))
        self.paused = False
        self.meter = Meter()
        #: The scheduler's seconds a unit by model, from earlier days.
        self.pace: Mapping[str, float] = {}
        self.calibrated: dict[str, Calibration] = {}
        #: By model, from earlier days: digests of the weights, and tokens up to which it reads well.
        self.digests: dict[str, str] = {}
        self.useful: dict[str, int] = {}
        #: Requests of others that its server worked on when it was last asked.
        self.foreign = 0
        #: It is being calibrated.
        self.measured = False
        self._offered: dict[tuple[str, ...], dict[str, OfferedModel]] = {}
        #: Windows of models without settings, as first seen.
        self._fixed: dict[str, int] = {}
        #: Windows that the server turned out to have, where they are smaller than thought.
        self._learned: dict[str, int] = {}
        self._overcharges: dict[str, float] = {}
        self._last_model = ""

    def __repr__(self) -> str:
        return f"Host({self.name})"

    @property
    def trouble(self) -> str | None:
        """What a person should know of its failures."""
        return self.wake_error or self.last_error

    @property
    def trust(self) -> Trust:
        """Of models that nothing is known of."""
        return self._trust(None)

    @property
    def provider(self) -> Provider:
        """What speaks to it; made when it is first asked what it is, before anything else is asked of it."""
        if self._provider is None:
            raise Unavailable(f"Host {self.name} has not been asked what it is.")
        return self._provider

    async def close(self) -> None:
        if self._provider is not None:
            await self._provider.close()

    async def probe(self) -> None:
        """Asks the server what it is. Afterwards it is ``ready`` unless nothing answered: a server without a list of
        models can still complete. Raises nothing of the server's."""
        try:
            if self._provider is None:
                self._provider = await self._made_provider()
            self.facts = await self._provider.probe()
            self._learn_digests(self.facts)
            self.ready = self.answers = True
        except ConfigInvalid as failure:
            self.last_error = failure.message
            self.unusable = True
        except Unavailable as failure:
            self.last_error = failure.message
            self.answers = False
            self.ready = self.ready and not self.settings.wake  # it sleeps; others are left to their breaker
        except RlmdError as failure:
            self.last_error = failure.message
            self.ready = self.answers = True
        except Exception as fault:  # noqa: BLE001  a server may answer anything; it must not end the others' tasks
            log.warning("probe_crashed", host=self.name, error=type(fault).__name__)
            self.last_error = f"{self.name} describes itself in a way that rlmd does not understand."
            self.ready = self.answers = True
        finally:
            self._offered.clear()
            self.asked.set()

    def _learn_digests(self, facts: ServerFacts) -> None:
        """Other weights read otherwise than those that were evaluated."""
        for model in facts.models:
            if model.digest is not None and model.digest != self.digests.get(model.name, model.digest):
                self.useful.pop(model.name, None)
        self.digests |= {model.name: model.digest for model in facts.models if model.digest is not None}

    async def _made_provider(self) -> Provider:
        """Raises ``ConfigInvalid`` when a command that is to print the key prints none."""
        key = self._key
        if key is None and self.settings.api_key_command:
            key = await printed_key(self.name, self.settings.api_key_command, self._environment)
        connections = max(self.settings.slots, *AT_ONCE) + SPARE_CONNECTIONS
        return await make_provider(
            self.settings.provider,
            self.settings.url,
            api_key=key,
            connections=connections,
            keep_loaded=self.settings.keep_loaded_seconds,
        )

    def remember(self, found: Mapping[str, Calibration]) -> None:
        """Takes over what was measured, now or on an earlier day: its slots too, unless the settings have them."""
        self.calibrated |= found
        self.pace = {**self.pace, **{model: one.pace for model, one in found.items()}}
        if found and "slots" not in self.settings.model_fields_set:
            self.slots = max(one.slots for one in self.calibrated.values())

    def keep_useful_window(self, model: str, tokens: int) -> None:
        """Goes before half of the window; what the settings say goes before it."""
        self.useful[model] = tokens
        self._offered.clear()

    def keep_only(self, names: Iterable[str]) -> None:
        """Offers these models and no others."""
        chosen = {name: ModelSettings(window=self.models()[name].window) for name in names}
        self.settings = self.settings.model_copy(update={"models": chosen})
        self._offered.clear()

    def silent(self, *, private: bool) -> bool:
        """Whether it never said which models it has, and may yet bring one to which such text may go."""
        unheard = self.facts is None and not self.answers and not self.unusable and not self.settings.models
        return unheard and (not private or self.trust == "mine")

    def learn_window(self, model: str, window: int) -> bool:
        """The server said that its window is this; True when that is news."""
        offered = self.models().get(model)
        if offered is None or window >= offered.window:
            return False
        self._learned[model] = window
        self._offered.clear()
        return True

    def overcharged(self, model: str, factor: float) -> None:
        """A reply there cost so many times what was reserved: more than it was allowed to write."""
        self._overcharges[model] = max(factor, self._overcharges.get(model, 1.0))
        self._offered.clear()

    def models(self, extra: tuple[str, ...] = ()) -> dict[str, OfferedModel]:
        """Those of the config, else every chat model that the server lists; and ``extra``, which a role names. Asked
        for each request, so kept until something changes."""
        if (known := self._offered.get(extra)) is not None:
            return known
        served = {model.name: model for model in self.facts.models} if self.facts else {}
        names = [*self.settings.models] or [name for name, model in served.items() if model.chat]
        names += [name for name in extra if name not in names and f"{name}:latest" not in names]
        offered = self._offered[extra] = {name: self._offer(name, _find(served, name)) for name in names}
        return offered

    def view(self, extra: tuple[str, ...] = ()) -> HostView:
        models = {name: ModelView(model.window, model.trust) for name, model in self.models(extra).items()}
        return HostView(
            self.name,
            self.slots,
            models,
            ready=self.ready,
            paused=self.paused,
            resident=tuple(name for name in models if self._is_resident(name)),
            pace=self.pace,
            foreign=self.foreign,
            asleep=bool(self.settings.wake) and not self.ready,
            boot_seconds=self.settings.boot_seconds,
            swaps=self.settings.provider == "ollama",
            load_seconds=max((one.load_seconds or 0.0 for one in self.calibrated.values()), default=0) or LOAD_SECONDS,
        )

    def served_window(self, name: str) -> int | None:
        """The window that the server told of when it was last asked."""
        served = _find({model.name: model for model in self.facts.models}, name) if self.facts else None
        return served.window if served else None

    def answered_by(self, model: str) -> None:
        """One of its models has begun to answer. Where it was not in memory when the server was last asked, the server
        is asked again: others may have had to go for it, or may not."""
        if self.settings.provider == "ollama" and model != self._last_model and not self._is_resident(model):
            self.nudged.set()
        self._last_model = model

    def _is_resident(self, name: str) -> bool:
        served = _find({model.name: model for model in self.facts.models}, name) if self.facts else None
        return served is not None and served.resident

    @property
    def resident(self) -> tuple[str, ...]:
        """Models in memory when the server was last asked."""
        return tuple(model.name for model in self.facts.models if model.resident) if self.facts else ()

    def _offer(self, name: str, served: ServedModel | None) -> OfferedModel:
        settings = self.settings.models.get(name)
        if settings is None:
            window = max(256, (served.window if served else None) or DEFAULT_WINDOW)
            if served is not None:  # kept for good: another num_ctx makes Ollama load the model again
                window = self._fixed.setdefault(name, window)
            settings = ModelSettings(window=window)
        window = min(settings.window, self._learned.get(name, settings.window))
        digest = served.digest if served else self._digest_of_old(name)
        return OfferedModel(
            name=name,
            window=window,
            useful_window=min(window, settings.useful_window or self.useful.get(name) or window // 2),
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            trust=self._trust(served),
            identity=digest or f"{self.settings.url} {name}",
            digest=digest,
            price=self._price(name, settings, served),
            overcharge=self._overcharges.get(name, 1.0),
        )

    def _digest_of_old(self, name: str) -> str | None:
        """Until the server has said what it serves."""
        return None if self.facts is not None else self.digests.get(name) or self.digests.get(f"{name}:latest")

    def _price(self, name: str, settings: ModelSettings, served: ServedModel | None) -> Price | None:
        known = price_of(self.settings.url, name, settings.price, datetime.now(UTC).date())
        if known is None and served is not None and served.price is not None:
            return Price(Band(*served.price))
        return known

    def _trust(self, served: ServedModel | None) -> Trust:
        """A model that its server sends elsewhere is cloud whatever is said of the server: its machine may be mine,
        the one that reads the prompt is not."""
        if served is not None and served.remote:
            return "cloud"
        return self.settings.trust or self._default_trust(served)

    def _default_trust(self, served: ServedModel | None) -> Trust:
        """Mine: a program that completes prompts itself, on this machine or in a private range by address, with a
        model that it does not send elsewhere. Before the server has told, its address counts; nothing is sent
        before it has."""
        if not self._local:
            return "cloud"
        if self.facts is None:
            return "cloud" if self.ready else "mine"
        if self.facts.software not in _OWN_SOFTWARE:
            return "cloud"
        if served is None:  # llama.cpp serves its one model under any name; Ollama may pass an unlisted one on
            return "cloud" if self.facts.software == "ollama" else "mine"
        return "mine"


_KIND_OF: dict[str, ProviderKind] = {"ollama": "ollama", "openai": "openai", "anthropic": "anthropic"}


def _find(served: Mapping[str, ServedModel], name: str) -> ServedModel | None:
    """Ollama lists ``name:latest`` for a model that is called ``name``."""
    return served.get(name) or served.get(f"{name}:latest")


def trusted_by_address(url: str, facts: ServerFacts) -> bool:
    """Whether a host that nothing else is said of is mine: a server of our own kind at a private address."""
    return is_local_address(checked_url(url)) and facts.software in _OWN_SOFTWARE


async def trusted_by_lookup(url: str, facts: ServerFacts) -> str | None:
    """The private address behind a host's name, if a server of our own kind answers there: reason to trust it."""
    url = checked_url(url)
    if is_local_address(url) or facts.software not in _OWN_SOFTWARE:
        return None
    return await looks_up_local(url)


def settings_for(
    url: str,
    facts: ServerFacts,
    *,
    models: tuple[str, ...] = (),
    slots: int | None = None,
    window: int | None = None,
    trust: Trust | None = None,
    api_key_env: str | None = None,
    api_key_file: str | None = None,
    api_key_command: tuple[str, ...] = (),
) -> HostSettings:
    """Settings for a server that was just asked what it is, with the given choices instead of its own."""
    served = {model.name: model for model in facts.models}
    names = models or tuple(model.name for model in facts.models if model.chat)
    chosen: dict[str, ModelSettings] = {}
    for name in names:
        known = _find(served, name)
        chosen[name] = ModelSettings(window=max(256, window or (known.window if known else None) or DEFAULT_WINDOW))
    settings = HostSettings(
        url=checked_url(url),
        provider=_KIND_OF.get(facts.provider, "openai"),
        trust=trust,
        api_key_env=api_key_env,
        api_key_file=api_key_file,
        api_key_command=api_key_command,
        models=chosen,
    )
    told = slots or facts.slots
    return settings.model_copy(update={"slots": told}) if told else settings  # else one, or what will be measured


async def close_after(finished: Awaitable[None], host: Host) -> None:
    try:
        await finished
    finally:
        await host.close()


def differ(one: HostSettings, other: HostSettings) -> bool:
    """Slots that nobody set are measured, whatever number stands there."""
    return one != other or ("slots" in one.model_fields_set) != ("slots" in other.model_fields_set)
