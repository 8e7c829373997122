"""Following one run: an async iterator over its facts, in order and whole, with deltas between them.

It owns the three repairs that a reader would otherwise write: a gap (by ``run/fetch``), a lost connection (by
attaching again after the last fact), and a run that ended meanwhile. Must not know sockets or framing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from pydantic import ConfigDict, ValidationError

from rlmd.client.inbox import Inbox
from rlmd.errors import InternalError, NotConnected, RlmdError
from rlmd.events import FACT, AnyFact, Delta, Fact, RunEnded, RunInterrupted
from rlmd.wire.methods import AttachParams, FetchParams, Params, RunIdParams, RunInfo

#: Facts asked for at once when a gap is filled.
FETCH = 500
#: A run in one of these states may still have facts to come.
GOING = ("queued", "running", "asking", "waiting")


class UnknownFact(Fact):
    """A fact of a type, or with a content, that this client does not know; its fields are kept as they came."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = "unknown"


Event = AnyFact | UnknownFact | Delta
StartT = TypeVar("StartT")


class Caller(Protocol):
    """What a follower uses of the client."""

    async def call_raw(self, method: str, params: Params) -> dict[str, Any]: ...
    async def wait_news(self, inbox: Inbox) -> bool:
        """Waits for news in the inbox; False when the connection has ended, so that none will come."""
        ...

    async def is_back(self) -> bool:
        """Whether the daemon came back by itself within the time that a restart takes; none is started."""
        ...

    def register(self, run_id: str, inbox: Inbox) -> None: ...
    def forget(self, run_id: str, inbox: Inbox) -> None: ...


class Follower:
    """An async context manager and iterator, made by ``Client.start`` and ``Client.follow``.

    Attributes:
        info: The run as it was when following began.
    """

    @property
    def paused(self) -> bool:
        """Whether the last fact said that the run goes on when the daemon is started again."""
        return self._paused is not None

    def __init__(self, caller: Caller, run_id: str, *, from_seq: int = 1, deltas: bool = True) -> None:
        self.run_id = run_id
        self.info: RunInfo | None = None
        self._caller = caller
        self._deltas = deltas
        self._inbox = Inbox(from_seq)
        #: Number of the run's last fact, once that is known.
        self._last: int | None = None
        #: The daemon stopped, and the next one takes the run up again.
        self._paused: RunInterrupted | None = None
        self._over = False
        #: Number of the last fact when following began: an end before it was none, the run was continued.
        self._known_to = 0

    async def begin(self, start: Callable[[], Awaitable[RunInfo]] | None = None) -> None:
        """Attaches; with ``start``, by starting the run, which attaches too."""
        self._caller.register(self.run_id, self._inbox)
        try:
            self._note(await (start() if start else self._attach()))
        except BaseException:
            self._caller.forget(self.run_id, self._inbox)
            raise

    async def __aenter__(self) -> Follower:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stops following. The run goes on."""
        self._caller.forget(self.run_id, self._inbox)
        if not self._over:
            self._over = True
            with contextlib.suppress(RlmdError):
                await self._caller.call_raw("run/detach", RunIdParams(run_id=self.run_id))

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Event:
        """The next fact or delta.

        Raises:
            NotConnected: The daemon went away and did not come back.
        """
        while not self._over:
            if (item := self._inbox.take()) is not None:
                return self._deliver(item)
            if self._last is not None and self._inbox.next_seq > self._last:
                self._over = True
            elif self._inbox.behind:
                await self._with_repair(self._fill)
            elif not await self._caller.wait_news(self._inbox):
                await self._with_repair(self._reattach)
        raise StopAsyncIteration

    def _deliver(self, item: dict[str, Any]) -> Event:
        if "seq" not in item:
            return Delta.model_validate(item)
        event = parse_fact(item)
        self._paused = event if isinstance(event, RunInterrupted) and event.resumable else None
        final = isinstance(event, RunInterrupted) and not event.resumable and self._inbox.known_to == event.seq
        if (isinstance(event, RunEnded) and event.seq >= self._known_to) or final:
            self._last = event.seq
        return event

    async def _fill(self) -> None:
        first = self._inbox.next_seq
        until = min(self._inbox.known_to, first + FETCH - 1)
        params = FetchParams(run_id=self.run_id, from_seq=first, to_seq=until)
        for fact in (await self._caller.call_raw("run/fetch", params)).get("facts", ()):
            self._inbox.put_fact(fact)
        if self._inbox.next_seq == first:
            raise InternalError(f"The daemon announced facts up to {until}, but has none from {first} on.")

    async def _reattach(self) -> None:
        """After the connection has ended. A daemon that stopped in order is not started again for this."""
        if self._paused is not None and not await self._caller.is_back():
            self._last = self._paused.seq
            return
        self._note(await self._attach())

    async def _with_repair(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except NotConnected:
            await self._reattach()

    async def _attach(self) -> RunInfo:
        params = AttachParams(run_id=self.run_id, from_seq=self._inbox.next_seq, deltas=self._deltas)
        return RunInfo.model_validate(await self._caller.call_raw("run/attach", params))

    def _note(self, info: RunInfo) -> None:
        if self.info is None:
            self.info = info
        self._known_to = info.last_seq
        if info.state not in GOING and not (self._paused is not None and info.state == "interrupted"):
            self._last = info.last_seq
            self._inbox.announce(info.last_seq)


def parse_fact(item: dict[str, Any]) -> AnyFact | UnknownFact:
    """A fact as a model; one that this client does not understand is kept as it came."""
    try:
        return FACT.validate_python(item)
    except ValidationError:
        return UnknownFact.model_validate(item)
