"""One run as one connection is told of it: facts in order, gaps named, streams whole from their beginning.

The engine's ``Sink``. A fact that finds no room opens a gap, which is told as ``run/gap`` when there is room again;
the client reads what it missed by ``run/fetch``. A stream of which a piece was dropped is not sent further, so
that what a client has of a stream is always its beginning; the fact that closes it brings the whole text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rlmd.events import AnyFact, Delta
from rlmd.wire.methods import RunGap
from rlmd.wire.outbox import Outbox, notification, notification_of


class Subscription(Protocol):
    """What the engine gives for a sink; closing it twice does no harm."""

    def close(self) -> None: ...


class Follower:
    """Args:
    run_id: The run.
    outbox: Where its notifications go.
    deltas: Whether the client wants text that is still being written.
    on_end: Called once, after the run's last fact or a close.
    """

    def __init__(
        self,
        run_id: str,
        outbox: Outbox,
        *,
        deltas: bool,
        on_end: Callable[[], None],
    ) -> None:
        self._run_id = run_id
        self._outbox = outbox
        self._deltas = deltas
        self._on_end = on_end
        self._gap: tuple[int, int] | None = None
        #: How far each open stream was sent, in code points; None once a piece was dropped.
        self._streams: dict[str, int | None] = {}
        self._subscription: Subscription | None = None
        self._ended = False

    def attached(self, subscription: Subscription) -> None:
        """Takes charge of the subscription, which may have ended already."""
        self._subscription = subscription
        if self._ended:
            subscription.close()

    async def ready(self) -> None:
        await self._outbox.wait_room()

    def fact(self, fact: AnyFact) -> None:
        if stream := getattr(fact, "stream", None):
            self._forget_closed(fact, stream)
        if self._gap is not None or not self._offer(fact):
            self._widen(fact.seq)

    def delta(self, delta: Delta) -> None:
        if not self._deltas:
            return
        sent = self._streams.get(delta.stream, 0)
        begins = delta.offset == 0
        if not begins and (sent is None or delta.offset > sent):
            self._streams[delta.stream] = None
            return
        told = self._outbox.offer_delta(delta)
        self._streams[delta.stream] = delta.offset + len(delta.text) if told else None

    def ended(self) -> None:
        """The run goes no further, with or without a last fact that says so: it may have been interrupted."""
        self.close()

    def close(self) -> None:
        """Ends the following; a gap that is still open is told all the same."""
        if self._ended:
            return
        self._ended = True
        if self._subscription is not None:
            self._subscription.close()
        self._on_end()

    def _offer(self, fact: AnyFact) -> bool:
        return self._outbox.offer(notification_of("run/fact", fact))

    def _forget_closed(self, fact: AnyFact, stream: str) -> None:
        if fact.type not in ("turn_started", "cell_started"):
            self._streams.pop(stream, None)

    def _widen(self, seq: int) -> None:
        if self._gap is None:
            self._gap = (seq, seq)
            self._outbox.when_room(self._tell_gap)
        else:
            self._gap = (self._gap[0], seq)

    def _tell_gap(self) -> None:
        assert self._gap is not None
        first, last = self._gap
        gap = RunGap(run_id=self._run_id, from_seq=first, to_seq=last)
        if self._outbox.offer(notification("run/gap", gap.model_dump(mode="json"))):
            self._gap = None
        else:
            self._outbox.when_room(self._tell_gap)
