"""Which models shall lead runs and which answer sub-queries, from what their servers tell of them.

One model a host, for both roles: a host that changes models loads one in the other's place, which takes longer than
most replies. What leads writes code, so size counts, and models made for code count for more. Knows no terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rlmd.config import Trust
from rlmd.wire.methods import HostInfo, HostProbeResult, ProbedModel

Kind = Literal["code", "chat", "pictures", "embedding"]

#: A model's weight as a root is its size; one that is made for code counts as if it were so much larger.
_CODE_COUNTS = 1.5
#: Billions of parameters below which a model neither leads nor reads, where a larger one is there.
LEAST_ROOT, LEAST_SUB = 7.0, 3.0
#: Tokens: the system prompt, a question and some outputs must find room.
LEAST_WINDOW = 4096
#: Weights of 4 to 5 bits a parameter, with what is around them.
_BYTES_PER_BILLION = 0.62e9

_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("embedding", re.compile(r"embed|minilm|(^|[/:_-])(bge|gte|e5|rerank\w*)([/:_-]|$)", re.IGNORECASE)),
    ("pictures", re.compile(r"llava|vision|bakllava|moondream|(^|[/:_.\d-])vl([/:_-]|$)", re.IGNORECASE)),
    ("code", re.compile(r"cod(e|er)|codestral|devstral", re.IGNORECASE)),
)
#: ``32.8B``, ``8x7b``, ``567M``; not the ``b`` of a longer word.
_SIZE = re.compile(r"(?<![\w.])(?:(\d{1,3})x)?(\d{1,4}(?:\.\d+)?)\s?([bm])(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Offer:
    """A model on a host. ``size``: billions of parameters, None where nobody tells; ``price``: dollars a million."""

    host: str
    model: str
    kind: Kind
    size: float | None
    window: int
    trust: Trust
    price: tuple[float, float] | None = None
    vision: bool = False

    @property
    def candidate(self) -> str:
        return f"{self.host}/{self.model}"

    @property
    def weight(self) -> float:
        return (self.size or 0.0) * (_CODE_COUNTS if self.kind == "code" else 1.0)

    def told(self) -> str:
        """For a person: what it is."""
        size = f"{self.size:g}B" if self.size else "size not told"
        price = f", ${self.price[0]:g} and ${self.price[1]:g} a million tokens" if self.price else ""
        seen = ", reads pictures" if self.vision else ""
        return f"{self.kind}, {size}, {self.window:,} tokens{seen}{price}"


@dataclass(frozen=True, slots=True)
class Roles:
    """Candidates as the config has them, in order of preference."""

    root: tuple[str, ...]
    sub: tuple[str, ...]


def offers_of(host: str, probe: HostProbeResult, trust: Trust, models: Sequence[str] = ()) -> list[Offer]:
    """What a server that was asked offers; ``models``: of them only these."""
    listed = [model for model in probe.models if not models or model.name in models]
    return [
        Offer(
            host,
            model.name,
            _kind(model.name, chat=model.chat),
            _size(model),
            model.window,
            "cloud" if model.remote else trust,
            model.price,
            model.vision,
        )
        for model in listed
    ]


def offers_of_configured(host: HostInfo) -> list[Offer]:
    """What a host offers that the daemon knows: its models' sizes are in their names only."""
    return [
        Offer(host.name, model.name, _kind(model.name), billions(model.name), model.window, host.trust)
        for model in host.models
    ]


def proposed(offers: Iterable[Offer]) -> Roles:
    """Hosts of yours go first; where none is large enough, the largest there is has to do."""
    able = [offer for offer in offers if offer.kind != "embedding"]
    best = _best_of_each_host(able)
    leads = _large_enough([offer for offer in best if offer.window >= LEAST_WINDOW] or best, LEAST_ROOT)
    reads = _large_enough(best, LEAST_SUB)
    root = sorted(leads, key=lambda offer: (offer.trust == "cloud", offer.kind == "pictures", -offer.weight))
    sub = sorted(reads, key=lambda offer: (offer.trust == "cloud", offer.size or 0.0))
    return Roles(tuple(offer.candidate for offer in root), tuple(offer.candidate for offer in sub))


def cheapest(offers: Iterable[Offer]) -> Offer | None:
    """Of a provider's models the one to begin with: the cheapest that is known, else the first; None without any."""
    able = [offer for offer in offers if offer.kind not in ("embedding", "pictures")]
    priced = [offer for offer in able if offer.price is not None and sum(offer.price) > 0]
    return min(priced, key=lambda offer: sum(offer.price or ())) if priced else next(iter(able), None)


def billions(text: str) -> float | None:
    """The size that a name tells, in billions of parameters."""
    found = _SIZE.search(text)
    if found is None:
        return None
    experts, number, unit = found.groups()
    size = float(number) * (int(experts) if experts else 1)
    return size if unit.lower() == "b" else size / 1000


def _best_of_each_host(offers: Sequence[Offer]) -> list[Offer]:
    best: dict[str, Offer] = {}
    for offer in offers:
        known = best.get(offer.host)
        if known is None or _merit(offer) > _merit(known):
            best[offer.host] = offer
    return list(best.values())


def _merit(offer: Offer) -> tuple[bool, bool, bool, float]:
    return (offer.trust == "mine", offer.kind != "pictures", offer.window >= LEAST_WINDOW, offer.weight)


def _large_enough(offers: Sequence[Offer], least: float) -> Sequence[Offer]:
    """A size that nobody tells is believed."""
    return [offer for offer in offers if offer.size is None or offer.size >= least] or offers


def _kind(name: str, *, chat: bool = True) -> Kind:
    if not chat:
        return "embedding"
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), "chat")


def _size(model: ProbedModel) -> float | None:
    told = billions(model.parameters or "") or billions(model.name)
    return told or (round(model.bytes / _BYTES_PER_BILLION, 1) if model.bytes else None)


def by_candidate(offers: Iterable[Offer]) -> Mapping[str, Offer]:
    return {offer.candidate: offer for offer in offers}
