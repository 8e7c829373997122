"""Puts the parts together, starts them, serves, and stops them in order.

Every long-lived object is made here and handed down. Starting is an ordered list, and so is stopping; each step
of the latter has its own bound, so that the whole ends before a service manager loses patience.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import cast

import structlog

from rlmd import __version__
from rlmd.claim import Claim
from rlmd.config import Paths, ReplSettings, Settings
from rlmd.contexts import ContextStore, PrivacyRules
from rlmd.engine import Engine
from rlmd.engine.parts import ContextsPart
from rlmd.errors import Draining
from rlmd.garbage import Garbage
from rlmd.logs import set_log_level
from rlmd.nights import Nights
from rlmd.ownprocess import has_terminal
from rlmd.pool import Pool
from rlmd.reloading import Reload, converters_of, retention_of
from rlmd.repl import WorkerGroups, Workers
from rlmd.systemd import ServiceManager, inherited_listener
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Dispatcher, Encoded, Handler
from rlmd.wire.handlers.contexts import ContextHandlers
from rlmd.wire.handlers.daemon import DaemonHandlers
from rlmd.wire.handlers.greeting import GreetingHandlers
from rlmd.wire.handlers.hosts import HostHandlers
from rlmd.wire.handlers.money import MoneyHandlers
from rlmd.wire.handlers.parts import Current, Parts
from rlmd.wire.handlers.programs import ProgramHandlers
from rlmd.wire.handlers.runs import RunHandlers
from rlmd.wire.handlers.sessions import SessionHandlers
from rlmd.wire.methods import METHODS, Params, Result
from rlmd.wire.server import Server

#: Seconds that running runs have to write their last fact.
DRAIN_SECONDS = 10.0
#: Seconds that clients have to read what is left for them after the runs were seen off.
GOODBYE_SECONDS = 3.0
#: What cannot be answered before it is known which runs there are.
_OF_RUNS = frozenset(name for name in METHODS if name.startswith(("run/", "session/", "budget/"))) | {
    "repl/execute",
    "llm/query",
    "context/drop",
    "daemon/status",
    "daemon/gc",
}
#: How long a thread that computes may keep the interpreter from the loop; Python's own measure is 5 ms.
_SWITCH_SECONDS = 0.0005

log = structlog.get_logger(__name__)


async def run(paths: Paths, settings: Settings, *, until_eof: bool = False) -> None:
    """Serves until SIGTERM or SIGINT, or until standard input ends if asked so, or its terminal is closed.

    Raises ``AlreadyRunning``, ``ConfigInvalid``.
    """
    began = time.monotonic()
    sys.setswitchinterval(_SWITCH_SECONDS)
    stop, hung_up = _signals()
    if until_eof:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    manager = ServiceManager()
    # Before any other process of ours is there: the group that is divided must be empty.
    groups = WorkerGroups.delegated(total_bytes=settings.repl.total_memory_bytes)
    async with AsyncExitStack() as stack:
        claim = Claim.of(paths)
        stack.callback(claim.release)
        listener = inherited_listener() or claim.bind()
        stack.callback(listener.close)
        threads = stack.enter_context(ThreadPoolExecutor(4, thread_name_prefix="files"))
        contexts = await ContextStore.open(
            paths.state,
            paths.cache,
            paths.spool,
            PrivacyRules(settings.privacy.private, settings.privacy.ephemeral, paths.own),
            converters_of(settings),
            retention_of(settings),
        )
        stack.push_async_callback(_step, "contexts", contexts.close, 5.0)
        for notice in contexts.notices:
            log.warning("contexts", notice=notice.text, hint=notice.hint)
        pool = Pool(
            settings,
            cache_folder=paths.cache / "completions",
            ledger_file=paths.state / "ledger.sqlite",
            learned_file=paths.state / "speeds.json",
        )
        await pool.start(wait=False)  # whoever needs a host waits for it; a client that asks for the status does not
        stack.push_async_callback(_step, "pool", pool.close, 5.0)
        workers = _workers(settings.repl, groups, settings.limits.depth)
        await workers.start()
        stack.push_async_callback(_step, "workers", workers.close, 5.0)
        current = Current(settings)
        nights = Nights(lambda: current.settings, os.environ)
        nights.start()
        stack.push_async_callback(_step, "nights", nights.close, 2.0)
        engine = Engine(
            contexts=cast("ContextsPart", contexts),  # it takes back only what it gave: its own pinned contexts
            pool=pool,
            workers=workers,
            settings=settings,
            state_folder=paths.state,
            programs_folder=paths.programs,
            watch=nights.changed,
        )
        stack.push_async_callback(_step, "engine", engine.close, 5.0)
        garbage = Garbage(lambda: pool.idle and not server.answering)
        stack.callback(garbage.close)
        reading = asyncio.create_task(_read_runs(engine, garbage, stop), name="runs of earlier daemons")
        stack.callback(reading.cancel)
        parts = Parts(paths, current, contexts, pool, workers, engine, threads, under_manager=manager.present)
        reload = Reload(parts, manager, set_log_level)
        server = Server(listener, Dispatcher(_handlers(parts, reload, reading)))
        await server.start()
        for name, work in (
            ("watchdog", manager.feed_watchdog()),
            ("SIGHUP", _reload_when(hung_up, reload)),
            ("garbage", garbage.collect()),
        ):
            stack.callback(asyncio.create_task(work, name=name).cancel)
        manager.tell(READY=1, STATUS=f"rlmd {__version__} at {paths.socket}")
        log.info("ready", version=__version__, socket=str(paths.socket), seconds=round(time.monotonic() - began, 3))
        await stop.wait()
        manager.tell(STOPPING=1, STATUS="stopping")
        claim.withdraw()
        server.refuse_new()
        if not reading.cancel():
            reading.result()  # had it failed, that is why we stop
        await _step("runs", engine.drain, DRAIN_SECONDS)
        await _step("clients", lambda: server.stop(GOODBYE_SECONDS), GOODBYE_SECONDS + 1)
    log.info("stopped")


async def _read_runs(engine: Engine, garbage: Garbage, failed: asyncio.Event) -> None:
    """Contexts and hosts are there meanwhile: ten thousand runs take a second, and on a disk that is cold some more."""
    began = time.monotonic()
    try:
        await engine.start()
    except BaseException:
        failed.set()
        raise
    garbage.start()
    runs = engine.statistics().runs
    log.info("runs of earlier daemons are known", runs=runs, seconds=round(time.monotonic() - began, 3))


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set when we shall stop, and when we shall read the settings anew. SIGHUP means the former to a daemon in the
    foreground of a terminal, which was closed, and the latter to any other."""
    stop, hung_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, (stop if has_terminal() else hung_up).set)
    return stop, hung_up


async def _reload_when(hung_up: asyncio.Event, reload: Reload) -> None:
    while await hung_up.wait():
        hung_up.clear()
        await reload.asked_by_signal()


async def _step(name: str, work: Callable[[], Awaitable[object]], seconds: float) -> None:
    """One step of the stop: it may fail or take too long, the next one comes all the same."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            await work()
    except Exception as error:  # noqa: BLE001  the next step must come whatever this one met
        log.error("stopping failed", step=name, exception=type(error).__name__)
    else:
        log.info("stopping", step=name, seconds=round(time.monotonic() - began, 3))


def _workers(settings: ReplSettings, groups: WorkerGroups | None, depth: int) -> Workers:
    return Workers(
        max_workers=settings.max_workers,
        depth=depth,
        spare_workers=settings.spare_workers,
        memory_bytes=settings.memory_bytes,
        total_bytes=settings.total_memory_bytes,
        packages=settings.environment,
        bubblewrap=settings.bubblewrap,
        groups=groups,
    )


def _handlers(parts: Parts, reload: Reload, reading: asyncio.Task[None]) -> dict[str, Handler[Connection]]:
    table = {
        **GreetingHandlers(parts.paths).table(),
        **ContextHandlers(parts.contexts, parts.engine).table(),
        **RunHandlers(parts.engine).table(),
        **SessionHandlers(parts.engine).table(),
        **ProgramHandlers(parts).table(),
        **HostHandlers(parts).table(),
        **MoneyHandlers(parts).table(),
        **DaemonHandlers(parts, reload).table(),
    }
    return {name: _when(reading, handler) if name in _OF_RUNS else handler for name, handler in table.items()}


def _when(reading: asyncio.Task[None], handler: Handler[Connection]) -> Handler[Connection]:
    """Waits until it is known which runs there are."""

    async def handle(client: Connection, params: Params) -> Result | Encoded:
        if not reading.done():
            await asyncio.wait([reading])
        if reading.cancelled():
            raise Draining("The daemon is stopping.", hint="Ask again when it has restarted.")
        return await handler(client, params)

    return handle
