"""One REPL session in each cage, and a way to run cells in it; a user manager of systemd."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rlmd.repl import CellReport, ReplSession, Workers
from tests.repl import CAGES, Host, Run
from tests.user_manager import UserManager


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


@pytest.fixture(scope="module")
def manager() -> Iterator[UserManager]:
    # /tmp and not pytest's folder: that one is closed to other users.
    with tempfile.TemporaryDirectory(prefix="rlmd-") as work:
        made = UserManager(Path(work))
        try:
            made.wait_up()
            made.systemctl("daemon-reload")
            made.systemctl("enable", "--now", "rlmd.socket")
            yield made
        finally:
            made.end()
