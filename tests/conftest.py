"""Fixtures that several test files share: a home of one's own, and real daemons in it that are surely gone after."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import NoReturn

import pytest
from hypothesis import Phase, settings

from tests.harness import Client, Daemon, Folders, all_end, marked

#: The same examples every time. A failing one is shown as it was found: where an example starts processes, shrinking
#: takes minutes; ``--hypothesis-profile shrink`` asks for it.
settings.register_profile("seeded", derandomize=True, deadline=None, phases=(Phase.explicit, Phase.generate))
settings.register_profile("shrink", derandomize=True, deadline=None)
settings.load_profile("seeded")


_TESTS = os.getpid()
_leave = os._exit


def _stay(status: int) -> NoReturn:
    """Code of a worker's side that a test calls here leaves by ``os._exit``: all tests would end without a word, and
    look as though they had passed."""
    if os.getpid() != _TESTS:
        _leave(status)
    raise AssertionError(f"os._exit({status}) would have ended the tests")


os._exit = _stay

# Started in the background of a script, the tests would hand down an ignored SIGINT, and nothing would heed Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="with --full: record the real model servers anew")


StartDaemon = Callable[..., Awaitable[Daemon]]


@pytest.fixture
def folders() -> Iterator[Folders]:
    """A temporary XDG environment (config, state, cache, runtime, home) with paths short enough for a socket."""
    made = Folders()
    yield made
    made.remove()


@pytest.fixture
async def start_daemon(folders: Folders) -> AsyncIterator[StartDaemon]:
    """Starts daemons in ``folders``: ``await start_daemon()`` returns when the socket takes connections.

    Each is stopped after the test, with all that it started; what they wrote to stderr is shown if the test fails.
    """
    started: list[Daemon] = []

    async def start(*arguments: str, **environment: str) -> Daemon:
        daemon = Daemon(folders, *arguments, **environment)
        started.append(daemon)
        return await daemon.ready()

    yield start
    try:
        for daemon in started:
            await daemon.stop()
        await all_end(lambda: marked(folders), lambda: "\n".join(daemon.stderr() for daemon in started))
    finally:
        for daemon in started:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
            print(daemon.stderr())  # pytest shows it when the test failed


@pytest.fixture
async def daemon(start_daemon: StartDaemon) -> Daemon:
    """A running daemon with the config that ``folders`` holds at this moment (none: no host)."""
    return await start_daemon()


@pytest.fixture
async def client(daemon: Daemon) -> AsyncIterator[Client]:
    """A connection to ``daemon`` that speaks JSON lines."""
    async with daemon.connect() as connected:
        yield connected
