"""A host as a person, and as a run, sees it. Data."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlmd.config import HostSettings, Trust
from rlmd.pool.choosing import Candidate
from rlmd.pool.host import Host, OfferedModel
from rlmd.pool.meter import Meter
from rlmd.pool.slots import HostState, Slots


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
    #: Models in memory; speeds and what it took, as measured.
    resident: tuple[str, ...] = ()
    #: A model that it is bringing into memory.
    loading: str | None = None
    meter: Meter = field(default_factory=Meter)
    #: Requests of others that it works on, where its server tells.
    foreign: int = 0


def unusable(name: str, settings: HostSettings, why: str) -> HostStatus:
    return HostStatus(
        name=name,
        url=settings.url,
        provider=settings.provider,
        trust=settings.trust or "cloud",
        state="down",
        retry_in=None,
        slots=settings.slots,
        slots_used=0,
        queued=0,
        completed=0,
        failed=0,
        models=(),
        roles=(),
        last_error=why,
    )


def candidate_of(host: Host, offered: OfferedModel) -> Candidate:
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


def status_of(
    host: Host, slots: Slots, models: tuple[OfferedModel, ...], roles: tuple[str, ...], queued: int, now: float
) -> HostStatus:
    """A host as it stands at ``now`` (the scheduler's clock)."""
    opens, state = slots.opens_at(now), slots.state(now)
    return HostStatus(
        name=host.name,
        url=host.settings.url,
        provider=host.settings.provider,
        trust=host.trust if not models else "mine" if any(model.trust == "mine" for model in models) else "cloud",
        state="down" if state == "unknown" and host.last_error else state,
        retry_in=max(0.0, opens - now) if state == "down" and opens is not None else None,
        slots=host.slots,
        slots_used=len(slots.in_flight),
        queued=queued,
        completed=slots.completed,
        failed=slots.failed,
        models=models,
        roles=roles,
        last_error=host.wake_error if state in ("asleep", "waking") else host.trouble,
        foreign=host.foreign,
        resident=host.resident or ((slots.resident,) if slots.resident else ()),
        loading=slots.loading,
        meter=host.meter,
    )
