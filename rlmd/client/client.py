"""The client of the daemon's socket: connects, starts the daemon if need be, calls, follows runs.

It outlives connections: a call after the daemon went away connects anew, and a follower attaches again after
its last fact. Calls that were open at that moment fail with ``NotConnected``; only their caller knows whether they
may be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from rlmd import __version__
from rlmd.client.calls import Calls
from rlmd.client.failures import lost
from rlmd.client.follow import Follower
from rlmd.client.framing import Framing
from rlmd.client.inbox import Inbox
from rlmd.client.link import Link
from rlmd.errors import NotConnected, RlmdError
from rlmd.wire.methods import (
    ClientName,
    ContinueParams,
    HostListResult,
    HostSubscribeParams,
    InitializeParams,
    InitializeResult,
    Params,
    RunInfo,
    RunParams,
)

#: Seconds between attempts to connect to a daemon that was there a moment ago; together about 10 s, which is
#: ten times what a restart under systemd takes.
BACK_OFF = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2)

#: Seconds that the greeting may take. Under systemd a connection is there before the daemon is; where that cannot
#: start, nobody would ever answer.
GREETING = 90.0

Starter = Callable[[], Awaitable[None]]


class Client(Calls):
    """Made by ``connect``; an async context manager.

    Args:
        socket: Path of the daemon's socket.
        start: Starts the daemon when nothing listens there; None means that this is an error.
        name: Who calls, for the daemon's log.
        egress: Whether what is read here may leave the machine. Then private contexts do not exist.
    """

    def __init__(
        self,
        socket: Path,
        *,
        start: Starter | None = None,
        name: str = "rlmd.client",
        egress: bool = False,
        framing: Framing = "lines",
        back_off: tuple[float, ...] = BACK_OFF,
        patience: float = GREETING,
    ) -> None:
        self._patience = patience
        self.socket = socket
        self._start = start
        self._hello = InitializeParams(client=ClientName(name=name, version=__version__), egress=egress)
        self._framing: Framing = framing
        self._back_off = back_off
        self._link: Link | None = None
        self._linking = asyncio.Lock()
        self._closed = False
        self._inboxes: dict[str, Inbox] = {}
        self._server: InitializeResult | None = None
        #: The hosts as last told, and whether somebody watches them: set when something differs.
        self._hosts = HostListResult(hosts=())
        self._hosts_changed: asyncio.Event | None = None

    async def __aenter__(self) -> Client:
        await self._linked()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._closed = True
        if self._link is not None:
            await self._link.close()

    @property
    def server(self) -> InitializeResult:
        """What the daemon said of itself: version, spool folder, methods."""
        if self._server is None:
            raise lost("This client is not connected.", hint="Use it inside: async with connect() as client.")
        return self._server

    async def call_raw(self, method: str, params: Params) -> dict[str, Any]:
        link = await self._linked()
        result = await link.request(method, _plain(params))
        return result if isinstance(result, dict) else {}

    async def call_json(self, method: str, params: dict[str, Any]) -> Any:
        """Calls a method by its name with parameters as JSON has them, and gives the result so: what a newer daemon
        knows and this client does not goes through."""
        link = await self._linked()
        return await link.request(method, params)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.asynccontextmanager
    async def start(self, params: RunParams) -> AsyncIterator[Follower]:
        """Starts a run and follows it from its first fact. Leaving the block early lets the run go on.

        Repeated by itself when the connection ends before the answer: a run id starts at most one run.
        """

        async def start() -> RunInfo:
            with contextlib.suppress(NotConnected):
                return await self.call("run/start", params)
            return await self.call("run/start", params)

        follower = Follower(self, params.run_id)
        await follower.begin(start)
        async with follower:
            yield follower

    @contextlib.asynccontextmanager
    async def continue_run(self, params: ContinueParams) -> AsyncIterator[Follower]:
        """Continues a run that ended at a limit, and follows it from there; ``params.last_seq`` must be given.

        Repeated by itself when the connection ends before the answer: with that number it is continued once.
        """

        async def start() -> RunInfo:
            with contextlib.suppress(NotConnected):
                return await self.call("run/continue", params)
            return await self.call("run/continue", params)

        if params.last_seq is None:
            raise ValueError("without last_seq a repeated call could grant twice")
        follower = Follower(self, params.run_id, from_seq=params.last_seq + 1)
        await follower.begin(start)
        async with follower:
            yield follower

    @contextlib.asynccontextmanager
    async def follow(self, run_id: str, *, from_seq: int = 1, deltas: bool = True) -> AsyncIterator[Follower]:
        """Follows a run that exists, from a fact's number on: those of the past first, then as they come."""
        follower = Follower(self, run_id, from_seq=from_seq, deltas=deltas)
        await follower.begin()
        async with follower:
            yield follower

    async def watch_hosts(self, seconds: float = 0.5) -> AsyncIterator[HostListResult]:
        """The hosts as they stand, and again whenever something differs, ``seconds`` apart at least.

        Raises:
            NotConnected: The daemon went away.
        """
        self._hosts_changed = changed = asyncio.Event()
        subscribed: Link | None = None
        try:
            while True:
                if subscribed is not (link := await self._linked(start=False)):  # it was lost, and is there again
                    subscribed = link
                    self._hosts = await self.call("host/subscribe", HostSubscribeParams(seconds=seconds))
                changed.clear()
                yield self._hosts
                await changed.wait()
        finally:
            self._hosts_changed = None
            if self._link is not None and self._link.alive:
                with contextlib.suppress(RlmdError):
                    await self.call("host/subscribe", HostSubscribeParams(on=False))

    def register(self, run_id: str, inbox: Inbox) -> None:
        if run_id in self._inboxes:
            raise ValueError("this client follows that run already; use another client for a second reader")
        self._inboxes[run_id] = inbox

    def forget(self, run_id: str, inbox: Inbox) -> None:
        if self._inboxes.get(run_id) is inbox:
            del self._inboxes[run_id]

    async def wait_news(self, inbox: Inbox) -> bool:
        if self._link is None or not self._link.alive:
            return False
        await inbox.news.wait()
        return True

    async def is_back(self) -> bool:
        try:
            await self._linked(start=False)
        except NotConnected:
            return False
        return True

    # ── the connection ──────────────────────────────────────────────────────────────────────────────────────

    async def _linked(self, *, start: bool = True) -> Link:
        async with self._linking:
            if self._closed:
                raise lost("This client is closed.", hint=" ")
            if self._link is None or not self._link.alive:
                first = self._link is None
                self._link = None
                self._link = await (self._connect() if first else self._connect_again(start=start))
            return self._link

    async def _connect(self, *, start: bool = True) -> Link:
        try:
            return await self._open()
        except (FileNotFoundError, ConnectionRefusedError):
            if self._start is None or not start:
                raise NotConnected(
                    f"No daemon listens on {self.socket}.",
                    hint="Start it with rlmctl daemon start, or: systemctl --user start rlmd.socket",
                ) from None
        await self._start()
        try:
            return await self._open()
        except OSError as error:
            raise self._unreachable(error) from error

    async def _connect_again(self, *, start: bool = True) -> Link:
        """The daemon was there: give a restart its time before concluding that it is gone."""
        for seconds in self._back_off:
            with contextlib.suppress(NotConnected):
                return await self._connect(start=start)
            await asyncio.sleep(seconds)
        return await self._connect(start=start)

    async def _open(self) -> Link:
        """A daemon that was just stopped may take a connection and answer no more: the next one, or systemd, does."""
        try:
            async with asyncio.timeout(self._patience):
                with contextlib.suppress(NotConnected):
                    return await self._greeted()
                await asyncio.sleep(BACK_OFF[1])
                return await self._greeted()
        except TimeoutError:
            raise NotConnected(
                f"The daemon at {self.socket} has not answered for {self._patience:.0f} s.",
                hint="It may be failing to start again and again: journalctl --user -u rlmd, or rlmctl daemon start",
            ) from None

    async def _greeted(self) -> Link:
        try:
            link = await Link.open(
                self.socket, framing=self._framing, notified=self._on_notification, ended=self._on_end
            )
        except (FileNotFoundError, ConnectionRefusedError):
            raise
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            told = await link.request("initialize", _plain(self._hello))
            self._server = InitializeResult.model_validate(told)
        except BaseException:
            await link.close()
            raise
        return link

    def _unreachable(self, error: OSError) -> NotConnected:
        return NotConnected(
            f"The socket {self.socket} cannot be used: {error.strerror or error}.",
            hint="It must belong to you; see its mode and that of its folder.",
        )

    def _on_notification(self, method: str, params: dict[str, Any]) -> None:
        if method == "host/changed" and self._hosts_changed is not None:
            self._hosts = HostListResult.model_validate(params)
            self._hosts_changed.set()
            return
        inbox = self._inboxes.get(str(params.get("run_id")))
        if inbox is None:
            return
        match method:
            case "run/fact":
                inbox.put_fact(params)
            case "run/delta":
                inbox.put_delta(params)
            case "run/gap" if isinstance(params.get("to_seq"), int):
                inbox.announce(params["to_seq"])

    def _on_end(self) -> None:
        for inbox in self._inboxes.values():
            inbox.news.set()
        if self._hosts_changed is not None:
            self._hosts_changed.set()


#: Sent in any case: what tells one kind of object from another, and what is agreed on.
_ALWAYS = ("kind", "protocol")


def _plain(params: Params) -> dict[str, Any]:
    """The parameters as they are sent: without what has its default, so that a daemon of an earlier release, which
    refuses what it does not know, is told of a later field only when it is used."""
    told = params.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    whole = params.model_dump(mode="json", by_alias=True, exclude_none=True)
    return _with_kinds(told, whole)


def _with_kinds(told: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    for name, value in whole.items():
        if name in _ALWAYS:
            told[name] = value
        elif isinstance(value, dict) and isinstance(told.get(name), dict):
            told[name] = _with_kinds(told[name], value)
    return told
