"""What requests would take, before they are sent: time, money and energy at the speeds that were measured. Pure.

List scheduling keeps every slot busy until the end, so that the time is the work divided by the speed of all slots,
and no less than the time of one request. Hosts that were never measured do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rlmd.pool.choosing import Choice
from rlmd.pool.prices import NANO, energy, energy_cost
from rlmd.pool.slots import BASE_CHARS, Slots
from rlmd.providers.base import Usage
from rlmd.providers.reading import BYTES_PER_TOKEN

#: Tokens of a reply, as the scheduler's estimates take them too.
_REPLY_TOKENS = BASE_CHARS // 4


@dataclass(frozen=True, slots=True)
class Expected:
    """``seconds`` is None as long as no host that may take the work was measured. Dollars, watt-hours, and what
    these cost in dollars besides."""

    seconds: float | None
    money: float = 0.0
    energy: float = 0.0
    energy_cost: float = 0.0


@dataclass(frozen=True, slots=True)
class _Place:
    """A host that may take the work, by its first choice of model; ``pace`` is seconds a unit on one slot."""

    choice: Choice
    host: Slots
    pace: float
    watts: float | None

    @property
    def cloud(self) -> bool:
        return self.choice.candidate.trust == "cloud"

    @property
    def speed(self) -> float:
        return max(1, self.host.usable) / self.pace


def expected(
    choices: Sequence[Choice],
    hosts: Mapping[str, Slots],
    watts: Mapping[str, float | None],
    *,
    price_per_kwh: float | None = None,
    requests: int,
    chars: int,
    ahead: int,
    overflow_after: float,
    now: float,
) -> Expected:
    """What so many requests would take.

    Args:
        choices: Who may answer them, in order of preference.
        hosts: All hosts as the scheduler sees them.
        watts: What each host draws while it works.
        price_per_kwh: Dollars, where somebody said.
        requests: How many.
        chars: Characters of all their prompts together.
        ahead: Units of work that wait already.
        overflow_after: Seconds that hosts of mine may need before cloud hosts help.
        now: Seconds of the scheduler's clock.
    """
    places = list(_places(choices, hosts, watts, now))
    if not places or not requests:
        return Expected(0.0 if not requests else None)
    units = chars + BASE_CHARS * requests
    mine = [place for place in places if not place.cloud]
    working = mine or places
    seconds = _seconds(working, units, requests, ahead)
    if mine and len(mine) < len(places) and seconds > overflow_after:
        working = places
        seconds = _seconds(working, units, requests, ahead)
    speed = sum(place.speed for place in working)
    shares = [(place, place.speed / speed) for place in working]
    drawn = sum(energy(place.watts, share * units * place.pace, place.host.view.slots) for place, share in shares)
    return Expected(
        seconds,
        sum(_money(place.choice, share * requests, share * chars) for place, share in shares),
        drawn,
        energy_cost(drawn, price_per_kwh),
    )


def _places(
    choices: Sequence[Choice], hosts: Mapping[str, Slots], watts: Mapping[str, float | None], now: float
) -> list[_Place]:
    found: dict[str, _Place] = {}
    for choice in choices:
        name, model = choice.target
        host = hosts.get(name)
        if name in found or host is None or not host.serviceable(now):
            continue
        if (pace := host.estimate(model, 1)) is not None:
            found[name] = _Place(choice, host, pace, watts.get(name))
    return list(found.values())


def _seconds(places: Sequence[_Place], units: int, requests: int, ahead: int) -> float:
    longest = units / requests * min(place.pace for place in places)
    return max(longest, (ahead + units) / sum(place.speed for place in places))


def _money(choice: Choice, requests: float, chars: float) -> float:
    price = choice.offered.price
    if price is None or requests <= 0:
        return 0.0
    one = Usage(int(chars / requests / BYTES_PER_TOKEN), _REPLY_TOKENS)
    return requests * price.cost(one, (datetime.now(UTC),)) / NANO
