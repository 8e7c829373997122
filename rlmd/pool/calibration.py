"""Measures a model on a host that does nothing else meanwhile: how long it loads, reads, writes, and how many at once.

A dozen short requests, some seconds on a GPU. Every prompt is new, so that no cache of the server's answers for it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from rlmd.pool.slots import BASE_CHARS
from rlmd.providers.base import Message, Provider, Sampling, Usage
from rlmd.providers.reading import BYTES_PER_TOKEN

#: Tokens of the prompt whose reading is timed, of usual text, and of the replies whose writing is.
READ_TOKENS, WRITE_TOKENS = 1500, 48
#: Requests at once that are tried; more at once must raise the tokens a second by this much to count as slots.
AT_ONCE = (2, 4, 8, 16)
GAIN = 1.2
#: A first token that comes so much later than the second request's says that the model was loaded for it (seconds).
LOADED = 0.5
#: Seconds for one request; a cold model may load for 300.
PATIENCE = 400.0
#: Characters of a prompt of middling size, for which the scheduler's seconds a unit are worked out.
TYPICAL_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one model on one host. Speeds are tokens a second: of one prompt, of one reply alone, of all replies at once
    when ``slots`` are. ``load_seconds`` is None when the model was in memory already."""

    model: str
    prompt_speed: float
    output_speed: float
    total_speed: float
    slots: int
    first_token: float
    load_seconds: float | None = None
    window: int | None = None

    @property
    def pace(self) -> float:
        """The scheduler's seconds a unit, with all slots at work."""
        written = BASE_CHARS / BYTES_PER_TOKEN / (self.total_speed / self.slots)
        return (TYPICAL_CHARS / BYTES_PER_TOKEN / self.prompt_speed + written) / (TYPICAL_CHARS + BASE_CHARS)


@dataclass(frozen=True, slots=True)
class _Timed:
    first: float
    seconds: float
    usage: Usage


async def calibrated(
    provider: Provider, model: str, window: int, *, clock: Callable[[], float] = time.perf_counter
) -> Calibration:
    """Raises what the provider raises."""
    asking = _Asking(provider, model, window, clock)
    cold = await asking.once("Say yes.", 1)
    warm = await asking.once("Say no.", 1)
    # words that nobody knows may be a token a letter
    read = await asking.once(_noise(min(round(READ_TOKENS * BYTES_PER_TOKEN), window // 2)), 1)
    alone = await asking.once("Count from one to a hundred, in words.", WRITE_TOKENS)
    slots, total = 1, _written(alone.usage) / max(1e-6, alone.seconds)
    for number in AT_ONCE:
        speed = await asking.many(number)
        if speed < GAIN * total:
            break
        slots, total = number, speed
    load = cold.first - warm.first
    return Calibration(
        model=model,
        prompt_speed=max(1, read.usage.prompt_tokens - read.usage.cached_tokens)
        / max(1e-4, read.first - min(warm.first, 0.9 * read.first)),
        output_speed=_written(alone.usage) / max(1e-4, alone.seconds - alone.first),
        total_speed=total,
        slots=slots,
        first_token=warm.first,
        load_seconds=load if load > LOADED else None,
    )


class _Asking:
    def __init__(self, provider: Provider, model: str, window: int, clock: Callable[[], float]) -> None:
        self._provider, self._model, self._window, self._clock = provider, model, window, clock

    async def once(self, prompt: str, tokens: int) -> _Timed:
        began, first = self._clock(), 0.0

        def heard(_: str) -> None:
            nonlocal first
            first = first or self._clock() - began

        message = Message("user", f"{_noise(12)} {prompt}")
        async with asyncio.timeout(PATIENCE):
            done = await self._provider.complete(
                self._model, self._window, (message,), Sampling(max_tokens=tokens), heard
            )
        seconds = self._clock() - began
        return _Timed(first or seconds, seconds, done.usage)

    async def many(self, number: int) -> float:
        """Tokens a second of all replies, so many at once."""
        began = self._clock()
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self.once("Count from one, in words.", WRITE_TOKENS)) for _ in range(number)]
        return sum(_written(task.result().usage) for task in asked) / max(1e-6, self._clock() - began)


def _written(usage: Usage) -> int:
    return max(1, usage.completion_tokens)


def _noise(chars: int) -> str:
    """Words of chance, which no cache has seen."""
    chance = random.SystemRandom()
    words = []
    while chars > 0:
        words.append("".join(chance.choices("abcdefghijklmnoprstuvwz", k=chance.randint(2, 8))))
        chars -= len(words[-1]) + 1
    return " ".join(words)
