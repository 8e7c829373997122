"""Sessions: a REPL with its names and what was asked of it, held by one run at a time.

A session lives as long as the daemon or until it is dropped; its worker may end earlier (lost, or unused for long) and
is made again when it is next needed. Private is sticky: a session that ever held private text stays private.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from rlmd.engine.parts import Parts, PinnedContext, ReplPart
from rlmd.engine.recorder import Recorder
from rlmd.errors import Busy, NotFound, SessionLost
from rlmd.events import Pin, SessionStarted
from rlmd.repl import Name

#: Earlier questions that a continued session's root is told.
_EXCHANGES_KEPT = 3


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A named session as clients see it; ``used`` is seconds since the epoch."""

    name: str
    held_by: str | None
    contexts: tuple[Pin, ...]
    private: bool
    cells: int
    alive: bool
    used: float


@dataclass(slots=True)
class Session:
    """``contexts`` are those loaded in the worker, ``held`` the names of all that ever were or are waited for;
    ``names`` the variables after the last cell."""

    name: str | None
    used: float
    repl: ReplPart | None = None
    contexts: tuple[PinnedContext, ...] = ()
    held: set[str] = field(default_factory=set)
    private: bool = False
    cells: int = 0
    had_worker: bool = False
    names: tuple[Name, ...] = ()
    exchanges: list[tuple[str, str]] = field(default_factory=list)
    held_by: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def alive(self) -> bool:
        return self.repl is not None and self.repl.alive

    def record(self) -> SessionRecord:
        pins = tuple(context.pin for context in self.contexts)
        return SessionRecord(self.name or "", self.held_by, pins, self.private, self.cells, self.alive, self.used)

    async def worker(self, contexts: Sequence[PinnedContext], parts: Parts, recorder: Recorder) -> ReplPart:
        """The live worker with these contexts loaded; made anew when there is none, which is recorded."""
        if self.repl is None or not self.repl.alive:
            await self.end_worker()
            if parts.workers.full:  # sessions that are only kept must not hold up one that is used
                await parts.make_room()
            self.repl = await parts.workers.acquire(memory_bytes=parts.settings.repl.memory_bytes)
            self.contexts = ()
            self.names = ()
            recorder.add(
                SessionStarted,
                session=self.name or recorder.run_id,
                hash_seed=self.repl.hash_seed,
                random_seed=self.repl.random_seed,
                layers=self.repl.layers,
                lost=self.had_worker,
            )
            self.had_worker = True
        wanted = tuple(contexts)
        if wanted and [one.pin for one in wanted] != [one.pin for one in self.contexts]:
            await self.repl.load_contexts(wanted)  # type: ignore[arg-type]  # the real one is both Protocols
            self.contexts = wanted
        return self.repl

    def answered(self, question: str, answer: str) -> None:
        """Remembers an exchange for the next run's root."""
        self.exchanges = [*self.exchanges, (question[:300], answer[:600])][-_EXCHANGES_KEPT:]

    async def end_worker(self) -> None:
        """Ends the worker, if there is one; its names are gone."""
        repl, self.repl = self.repl, None
        if repl is not None:
            with suppress(SessionLost):
                await repl.close()


class Sessions:
    """The named sessions.

    Args:
        any_private: Whether one of these contexts is private by now.
    """

    def __init__(self, any_private: Callable[[Iterable[str]], bool]) -> None:
        self._named: dict[str, Session] = {}
        self._any_private = any_private

    def private(self, session: Session) -> bool:
        """Whether a session holds private text, or may soon: from then on it always does."""
        session.private = session.private or self._any_private(session.held)
        return session.private

    def __len__(self) -> int:
        return len(self._named)

    def get(self, name: str) -> Session | None:
        return self._named.get(name)

    def records(self, *, egress: bool) -> list[SessionRecord]:
        return [one.record() for one in self._named.values() if not (egress and self.private(one))]

    def choose(self, name: str | None, if_busy: str, now: float, *, egress: bool) -> Session:
        """The session that a run is to use: the named one, or a fresh one without a name.

        Raises:
            Busy: It is held, and ``if_busy`` is ``refuse``.
            NotFound: It is private and the client may not know of it.
        """
        if name is None:
            return Session(None, now)
        session = self._named.get(name)
        if session is None:
            session = self._named[name] = Session(name, now)
        if egress and self.private(session):
            raise not_found(name)
        if session.lock.locked():
            if if_busy == "refuse":
                raise Busy(
                    f"Session {name!r} is held by run {session.held_by}.",
                    hint="Wait for that run, or ask with if_busy=queue or fresh.",
                    session=name,
                )
            if if_busy == "fresh":
                return Session(None, now)
        return session

    async def drop(self, name: str, *, egress: bool) -> None:
        """Ends a session and forgets its names. Raises ``Busy`` while a run holds it."""
        session = self._named.get(name)
        if session is None or (egress and self.private(session)):
            raise not_found(name)
        if session.lock.locked():
            raise Busy(
                f"Session {name!r} is held by run {session.held_by}.", hint="Cancel that run first.", session=name
            )
        del self._named[name]
        await session.end_worker()

    async def make_room(self) -> None:
        """Ends the worker that was unused for longest, of those that no run holds; the session stays."""
        idle = [one for one in self._named.values() if one.repl is not None and not one.lock.locked()]
        if idle:
            session = min(idle, key=lambda one: one.used)
            async with session.lock:
                await session.end_worker()

    async def end_unused(self, before: float) -> None:
        """Ends workers of sessions not used since ``before``; the sessions stay."""
        for session in list(self._named.values()):
            if session.repl is not None and not session.lock.locked() and session.used < before:
                async with session.lock:
                    await session.end_worker()

    async def close(self) -> None:
        for session in list(self._named.values()):
            await session.end_worker()


def not_found(name: str) -> NotFound:
    return NotFound(f"There is no session {name!r}.", hint="List sessions with session/list.", session=name)
