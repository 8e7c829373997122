"""Calibration over a server made of arithmetic: what it finds is what the server is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from rlmd.pool.calibration import calibrated
from rlmd.providers.base import Completion, Message, Sampling, ServerFacts, Usage
from rlmd.providers.reading import byte_count, estimated_tokens


class Arithmetic:
    """A server with ``slots``, which reads and writes so many tokens a second; ``now`` is its clock."""

    kind = "ollama"

    def __init__(self, *, slots: int, reads: float, writes: float, loads: float = 0.0) -> None:
        self.reads, self.writes, self.loads = reads, writes, loads
        self.now = 0.0
        self.free = [0.0] * slots

    async def probe(self) -> ServerFacts:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def complete(
        self,
        model: str,
        window: int,
        messages: tuple[Message, ...],
        sampling: Sampling,
        on_delta: Callable[[str], None],
    ) -> Completion:
        asked = self.now
        await asyncio.sleep(0)  # those that are asked at once are asked at one moment
        tokens = estimated_tokens(byte_count(messages), 1)
        begins = max(asked, min(self.free)) + self.loads
        self.loads = 0.0
        first = begins + 0.02 + (tokens + 1) / self.reads
        ends = first + (sampling.max_tokens - 1) / self.writes
        self.free[self.free.index(min(self.free))] = ends
        self.now = first
        on_delta("x")
        self.now = max(self.free)
        return Completion("x", "", "length", Usage(tokens, sampling.max_tokens))


@pytest.mark.parametrize(
    ("slots", "reads", "writes", "loads"), [(1, 400, 10, 30.0), (4, 3000, 45, 0.0), (8, 900, 20, 4.0)]
)
async def test_what_is_measured_is_what_the_server_is(slots: int, reads: float, writes: float, loads: float) -> None:
    server = Arithmetic(slots=slots, reads=reads, writes=writes, loads=loads)
    found = await calibrated(server, "m", 8192, clock=lambda: server.now)
    assert found.slots == slots
    assert found.prompt_speed == pytest.approx(reads, rel=0.1)
    assert found.output_speed == pytest.approx(writes, rel=0.1)
    assert found.total_speed == pytest.approx(slots * writes, rel=0.2)
    assert found.load_seconds == (pytest.approx(loads, abs=0.1) if loads else None)
    seconds = 4000 / 3.6 / reads + 1000 / 3.6 / writes
    assert found.pace * 5000 == pytest.approx(seconds, rel=0.2), "a typical request takes as long as the parts say"
