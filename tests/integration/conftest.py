"""One REPL session in each cage, and a way to run cells in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rlmd.repl import CellReport, ReplSession, Workers
from tests.repl import CAGES, Host, Run


@pytest.fixture(params=sorted(CAGES))
async def session(request: pytest.FixtureRequest) -> AsyncIterator[ReplSession]:
    workers = Workers(plans=[CAGES[request.param]], spare_workers=0)
    yield await workers.acquire()
    await workers.close()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def run(session: ReplSession, host: Host) -> Run:
    async def run_cell(source: str, *, seconds: float = 20.0, output_chars: int = 20_000, **more: float) -> CellReport:
        return await session.run_cell(source, host, seconds=seconds, output_chars=output_chars, **more)

    return run_cell
