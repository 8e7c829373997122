"""Which models may answer a request: the role's candidates, narrowed by the run, by ``model=``, privacy and window.

Owns the names that people use for candidates, the errors that list them, and how many tokens a prompt has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlmd.config import Trust
from rlmd.errors import NoHost, NotFound, PromptTooLong
from rlmd.pool.host import OfferedModel
from rlmd.pool.slots import Target
from rlmd.providers.base import Message
from rlmd.providers.reading import BYTES_PER_TOKEN, TOKENS_PER_MESSAGE

#: Weight of the newest report of a model's tokens a byte; prompts below this size say little about it.
RATE_WEIGHT, RATE_MIN_BYTES = 0.2, 500
#: Room for a reply that a window must have beside the prompt: this many tokens, or a share of a small window.
REPLY_TOKENS, REPLY_SHARE = 256, 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model on a host that may answer for a role. Windows in tokens."""

    host: str
    model: str
    window: int
    useful_window: int
    slots: int
    max_tokens: int
    temperature: float
    trust: Trust

    @property
    def name(self) -> str:
        return f"{self.host}/{self.model}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate with what the pool needs to send and to cache."""

    candidate: Candidate
    offered: OfferedModel

    @property
    def target(self) -> Target:
        return Target(self.candidate.host, self.candidate.model)


class TokenRates:
    """Tokens a byte for each model, learned from what servers report."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def report(self, model: str, byte_total: int, messages: int, tokens: int) -> None:
        if byte_total < RATE_MIN_BYTES or tokens <= 0:
            return
        sample = max(0.05, min(1.5, (tokens - TOKENS_PER_MESSAGE * messages) / byte_total))
        known = self._rates.get(model, 1 / BYTES_PER_TOKEN)
        self._rates[model] = known + RATE_WEIGHT * (sample - known)

    def tokens(self, model: str, byte_total: int, messages: int) -> int:
        return round(byte_total * self._rates.get(model, 1 / BYTES_PER_TOKEN)) + TOKENS_PER_MESSAGE * messages

    def bytes(self, model: str, tokens: int) -> int:
        return int(tokens / self._rates.get(model, 1 / BYTES_PER_TOKEN))


def _names(choice: Choice) -> set[str]:
    """What a person or a model may call it."""
    candidate = choice.candidate
    short = candidate.model.removesuffix(":latest")
    return {candidate.name, f"{candidate.host}/{short}", candidate.model, short, candidate.host}


@dataclass(frozen=True, slots=True)
class Silent:
    """A host that never said which models it has. ``models``: those that it had on an earlier day."""

    host: str
    models: frozenset[str] = frozenset()

    def may_be(self, name: str) -> bool:
        """Whether a person may mean one of its models by the name."""
        had = not self.models.isdisjoint((name, f"{name}:latest"))
        return had or name == self.host or name.startswith(f"{self.host}/")


def narrowed(
    choices: Sequence[Choice], silent: Sequence[Silent], wanted: Iterable[str], role: str
) -> tuple[list[Choice], list[Silent]]:
    """Those that the names mean, in the order of the names, and silent hosts that they may mean.

    Raises:
        NotFound: A name means none, and can mean none.
    """
    found: list[Choice] = []
    awaited: list[Silent] = []
    for name in wanted:
        exact = [choice for choice in choices if name in (choice.candidate.name, choice.candidate.model)]
        matches = exact or [choice for choice in choices if name in _names(choice)]
        coming = [one for one in silent if one.may_be(name)]
        if not matches and not coming:
            raise _no_candidate(name, choices, silent, role)
        found += [choice for choice in matches if choice not in found]
        awaited += [one for one in coming if one not in awaited]
    return found, awaited


def _no_candidate(name: str, choices: Sequence[Choice], silent: Sequence[Silent], role: str) -> NotFound:
    known = ", ".join(choice.candidate.name for choice in choices) or "none"
    quiet = ", ".join(one.host for one in silent)
    if quiet:
        hint = f"Not heard yet which models there are: {quiet}. {silent[0].host}/MODEL waits for one of them."
    else:
        hint = f"Name one of them, or leave {role} out. roles.{role} in the config says who may be one."
    return NotFound(f"{name[:100]!r} is no candidate for {role}; the candidates are: {known}.", hint=hint)


def unheard_of(silent: Sequence[str], seconds: float) -> NoHost:
    """Nobody knows of a model, because these hosts never said which they have."""
    return NoHost(
        f"No model is known: {', '.join(silent)} did not answer, and {seconds:.0f} s were waited for it.",
        hint="`rlmctl host list` says why; limits.waiting is how long a run waits.",
    )


def permitted(choices: Sequence[Choice], role: str, *, private: bool) -> list[Choice]:
    """Those to which the text may go. Raises ``NoHost`` when there are none."""
    if not choices:
        raise NoHost(
            f"No host is configured that can be {role}.",
            hint="Add one: `rlmctl host add NAME URL`, or start Ollama on this machine.",
        )
    allowed = [choice for choice in choices if not private or choice.candidate.trust == "mine"]
    if not allowed:
        names = ", ".join(choice.candidate.name for choice in choices)
        raise NoHost(
            f"The text is private, and no candidate for {role} runs on a trusted host ({names}).",
            hint='Set trust = "mine" for a host that is yours.',
        )
    return allowed


def priced(choices: Sequence[Choice], role: str) -> list[Choice]:
    """Those of mine, and those whose price is known. Raises ``NoHost`` when there are none."""
    found = [choice for choice in choices if choice.candidate.trust == "mine" or choice.offered.price is not None]
    if not found:
        names = ", ".join(choice.candidate.name for choice in choices)
        raise NoHost(
            f"There is a budget, and nobody knows what a candidate for {role} costs ({names}).",
            hint="Say so: [hosts.NAME.models.MODEL.price] with prompt and completion, in dollars a million tokens.",
        )
    return found


def fitting(
    choices: Sequence[Choice], messages: tuple[Message, ...], byte_total: int, max_tokens: int, rates: TokenRates
) -> list[Choice]:
    """Those whose window holds the prompt and some reply. Raises ``PromptTooLong`` naming the largest."""
    sized = [
        (choice, rates.tokens(choice.candidate.model, byte_total, len(messages)), choice.candidate.window)
        for choice in choices
    ]
    fits = [choice for choice, tokens, window in sized if tokens + _reply_room(window, max_tokens) <= window]
    if fits:
        return fits
    choice, tokens, window = max(sized, key=lambda item: item[2] - item[1])
    room = rates.bytes(choice.candidate.model, window - _reply_room(window, max_tokens) - TOKENS_PER_MESSAGE)
    raise PromptTooLong(
        f"The prompt has about {tokens} tokens; the largest window among the candidates is {window} tokens "
        f"({choice.candidate.name}).",
        hint=f"Send at most about {max(room, 0)} characters at a time.",
        tokens=tokens,
        window=window,
    )


def worst_costs(choices: Sequence[Choice], byte_total: int, messages: int, max_tokens: int) -> dict[Target, int]:
    """The most that each may cost, in nano; those that cost nothing are left out."""
    worst = (
        (
            choice.target,
            math.ceil(choice.offered.price.worst(byte_total, messages, max_tokens) * choice.offered.overcharge),
        )
        for choice in choices
        if choice.offered.price is not None
    )
    return {target: cost for target, cost in worst if cost}


def _reply_room(window: int, max_tokens: int) -> int:
    return min(max_tokens, REPLY_TOKENS, window // REPLY_SHARE)
