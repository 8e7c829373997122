"""What a completion costs: prices as dated data, the dearest that one may become, and what one was.

Money is whole billionths of a dollar (``nano``), rounded up, so that sums are exact. Prices are dollars a million
tokens; those of the settings go before those of the table. Energy is watt-hours, estimated from the hosts' watts;
what it costs is a plain number of dollars, as it is told and never charged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from urllib.parse import urlsplit

from rlmd.config import PriceSettings
from rlmd.providers.base import Usage
from rlmd.providers.reading import TOKENS_PER_MESSAGE

#: Behind a model's name: the number of a later one, whose price is another; a date is none.
_NEXT = re.compile(r"[-.]?\d{1,2}(?!\d)")
NANO = 1_000_000_000
#: When the table was last compared with the providers' own pages.
CHECKED = date(2026, 10, 27)


@dataclass(frozen=True, slots=True)
class Band:
    """Dollars a million tokens; ``cached`` for prompt tokens read from the provider's cache, ``write`` for those put
    into it."""

    prompt: float
    completion: float
    cached: float | None = None
    write: float | None = None

    def nano(self, usage: Usage) -> int:
        plain = max(0, usage.prompt_tokens - usage.cached_tokens - usage.written_tokens)
        cached = self.prompt if self.cached is None else self.cached
        write = self.prompt if self.write is None else self.write
        dollars = (
            plain * self.prompt
            + usage.cached_tokens * cached
            + usage.written_tokens * write
            + usage.completion_tokens * self.completion
        ) / 1_000_000
        return math.ceil(round(dollars * NANO, 3))

    def times(self, factor: float) -> Band:
        cached = None if self.cached is None else self.cached * factor
        write = None if self.write is None else self.write * factor
        return Band(self.prompt * factor, self.completion * factor, cached, write)


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs from ``since`` on. ``long``: the band of a request whose prompt has more than ``long_tokens``.
    ``peak``: factor on weekdays between the UTC hours of ``peaks``."""

    band: Band
    since: date = date.min
    long: Band | None = None
    long_tokens: int = 0
    peak: float = 1.0
    peaks: tuple[tuple[time, time], ...] = ()

    def _band(self, prompt_tokens: int, at: datetime) -> Band:
        band = self.long if self.long and prompt_tokens > self.long_tokens else self.band
        return band.times(self.peak) if self._is_peak(at) else band

    def _is_peak(self, at: datetime) -> bool:
        clock = at.astimezone(UTC)
        return clock.weekday() < 5 and any(start <= clock.time() < end for start, end in self.peaks)

    def cost(self, usage: Usage, moments: Iterable[datetime]) -> int:
        """Nano; at the dearest of the moments, as a request may begin and end on two sides of an hour."""
        return max(self._band(usage.prompt_tokens, at).nano(usage) for at in moments)

    def worst(self, prompt_bytes: int, messages: int, max_tokens: int) -> int:
        """Nano that a request can cost at most: no token is shorter than a byte, the dearest hour, nothing cached but
        all of it put into the cache."""
        tokens = prompt_bytes + TOKENS_PER_MESSAGE * messages
        usages = (
            Usage(tokens, max_tokens),
            Usage(tokens, max_tokens, written_tokens=tokens),
        )
        bands = [self.band] + ([self.long] if self.long and tokens > self.long_tokens else [])
        return max(band.times(self.peak).nano(usage) for band in bands for usage in usages)


_DEEPSEEK_PEAKS = ((time(1), time(4)), (time(6), time(10)))
#: By the end of the server's name, then by the beginning of the model's; of one model the latest that has begun counts.
TABLE: dict[str, dict[str, tuple[Price, ...]]] = {
    "deepseek.com": {
        "deepseek-flash": (Price(Band(0.15, 0.60, 0.003), peak=2.0, peaks=_DEEPSEEK_PEAKS),),
        "deepseek-v4-flash": (Price(Band(0.15, 0.60, 0.003), peak=2.0, peaks=_DEEPSEEK_PEAKS),),
        "deepseek-v4-pro": (Price(Band(0.66, 1.98, 0.022), peak=2.0, peaks=_DEEPSEEK_PEAKS),),
    },
    "anthropic.com": {
        "claude-haiku-5-5": (
            Price(Band(0.10, 0.50, 0.01, 0.125), long=Band(0.50, 2.50, 0.05, 0.625), long_tokens=100_000),
        ),
        "claude-sonnet-5-5": (
            Price(Band(2.0, 10.0, 0.20, 2.5)),
            Price(Band(2.0, 10.0, 0.10, 2.5), since=date(2026, 10, 7)),
        ),
        "claude-opus-5-5": (Price(Band(4.0, 20.0, 0.20, 5.0)),),
        "claude-fable-5-1": (Price(Band(10.0, 50.0, 0.25, 12.5)),),
        "claude-fable-5": (Price(Band(10.0, 50.0, 1.0, 12.5)),),
        "claude-opus-5": (Price(Band(5.0, 25.0, 0.50, 6.25)),),
        "claude-opus-4-8": (Price(Band(5.0, 25.0, 0.50, 6.25)),),
        "claude-opus-4-7": (Price(Band(5.0, 25.0, 0.50, 6.25)),),
        "claude-opus-4-6": (Price(Band(5.0, 25.0, 0.50, 6.25)),),
        "claude-sonnet-5": (Price(Band(2.0, 10.0, 0.20, 2.5)),),
        "claude-haiku-4-5": (Price(Band(1.0, 5.0, 0.10, 1.25)),),
    },
    "z.ai": {
        "glm-5.3-flash": (Price(Band(0.15, 0.50, 0.03)),),
        "glm-5.3": (Price(Band(1.4, 4.4, 0.26)),),
        "glm-4.7-flash": (Price(Band(0.0, 0.0)),),
        "glm-4.7": (Price(Band(0.6, 2.2)),),
    },
}


def price_of(url: str, model: str, settings: PriceSettings | None, today: date) -> Price | None:
    """The price of a model there, or None when nobody knows it."""
    if settings is not None:
        return Price(Band(settings.prompt, settings.completion, settings.cached, settings.cache_write))
    host = urlsplit(url if "//" in url else "//" + url).hostname or ""
    models = next((models for end, models in TABLE.items() if host == end or host.endswith("." + end)), {})
    name = model.rpartition("/")[2].replace("_", "-")
    found = [prefix for prefix in models if name.startswith(prefix) and not _NEXT.match(name, len(prefix))]
    if not found:
        return None
    begun = [price for price in models[max(found, key=len)] if price.since <= today]
    return max(begun, key=lambda price: price.since, default=None)


def energy(watts: float | None, seconds: float, slots: int) -> float:
    """Watt-hours of an attempt: its slot's share of what the host draws while it works."""
    return (watts or 0.0) * seconds / 3600 / max(1, slots)


def energy_cost(watt_hours: float, price_per_kwh: float | None) -> float:
    """Dollars; 0 where nobody said what energy costs."""
    return watt_hours / 1000 * (price_per_kwh or 0.0)
