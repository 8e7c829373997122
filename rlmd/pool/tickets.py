"""What is known of a request that somebody waits for, and of each of its attempts. Data; the dispatcher moves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from rlmd.errors import RlmdError
from rlmd.pool.actions import Dispatch, Work
from rlmd.pool.prices import NANO
from rlmd.pool.slots import Target
from rlmd.providers.base import Completion, Message, Sampling

OnDelta = Callable[[int, str], None]

#: No reply is made of longer tokens than this on average (bytes): runs of spaces come near it.
LONGEST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Won:
    """A whole completion and how it came about; durations in seconds."""

    completion: Completion
    target: Target
    queued: float
    first_token: float | None
    seconds: float
    attempts: int
    money: float
    energy: float
    energy_cost: float


@dataclass(slots=True)
class Running:
    """An attempt's task, and what it has said so far."""

    dispatch: Dispatch
    started: float
    task: asyncio.Task[None] | None = None
    first_token: float | None = None
    said: list[str] = field(default_factory=list)
    completion: Completion | None = None
    #: Whether it may have cost money, and what it did: None is as much as was reserved.
    sent: bool = False
    spent: int | None = None
    #: Pieces that came, those of thinking included, and bytes of text.
    pieces: int = 0
    bytes: int = 0

    def heard(self, text: str) -> None:
        """Counts a piece. One of a single byte is none: some gateways cut what they pass on into characters."""
        size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        self.bytes += size
        self.pieces += size != 1

    def wrote_more_than(self, tokens: int) -> bool:
        """Whether it has surely written more: no piece is shorter than a token."""
        return self.pieces > tokens or self.bytes > tokens * LONGEST_TOKENS


@dataclass(slots=True)
class Ticket:
    """A request that somebody waits for. ``speaker``: the attempt whose text is passed on."""

    work: Work
    messages: tuple[Message, ...]
    sampling: Sampling
    on_delta: OnDelta | None
    #: Those that wait for it now; one of them being private makes it so.
    runs: Callable[[], Set[str]]
    submitted: float
    future: asyncio.Future[Won]
    speaker: int | None = None
    passed_on: int = 0
    attempts: int = 0
    settled: bool = False
    #: Nano, watt-hours and what these cost in dollars, of its attempts so far.
    spent: int = 0
    energy: float = 0.0
    energy_cost: float = 0.0
    error: RlmdError | None = None

    def hear(self, running: Running, text: str) -> None:
        """Passes on the text of one attempt at a time; another's begins anew at offset 0."""
        number = running.dispatch.attempt
        running.said.append(text)
        if self.future.done() or self.on_delta is None:
            return
        if self.speaker is None:
            self.speaker, self.passed_on = number, 0
            text = "".join(running.said)
        if self.speaker == number:
            self.on_delta(self.passed_on, text)
            self.passed_on += len(text)

    def win(self, running: Running, now: float) -> None:
        """The attempt was whole before any other. Whoever listened has heard all of it now."""
        completion = running.completion
        assert completion is not None, "only a whole attempt wins"
        if self.on_delta is not None and self.speaker != running.dispatch.attempt:
            self.on_delta(0, completion.text)
        self.future.set_result(
            Won(
                completion=completion,
                target=running.dispatch.target,
                queued=running.started - self.submitted,
                first_token=running.first_token,
                seconds=now - running.started,
                attempts=self.attempts,
                money=self.spent / NANO,
                energy=self.energy,
                energy_cost=self.energy_cost,
            )
        )
