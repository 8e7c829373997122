"""Sessions: a REPL with its names and what was asked of it, held by one run at a time.

A named session lives until it is dropped, across daemons too; its worker may end earlier (lost, unused for long, or
with the daemon) and is woken when it is next needed. Private is sticky: a session that ever held private text stays so.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from rlmd.engine.parts import Parts, PinnedContext, ReplPart, Woken
from rlmd.engine.record import RunRecord
from rlmd.engine.recorder import Recorder
from rlmd.engine.sessionends import SessionEnd, SessionEnds
from rlmd.engine.sessionlog import SessionLog, told_as_lost, what_is_lost
from rlmd.engine.waking import pinned_again
from rlmd.errors import Busy, NotFound, SessionLost
from rlmd.events import Note, Pin, RunStarted, SessionStarted
from rlmd.repl import Name
from rlmd.validation import did_you_mean

#: Runs that are looked at between two turns of the loop.
_AT_ONCE = 500
#: Earlier questions that a continued session's root is told.
_EXCHANGES_KEPT = 3
#: Before the names of sessions of clients whose reading may leave the machine.
_EGRESS = "egress/"


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
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class SessionDetail:
    """What is in a named session: its variables, and the last questions with their answers as its next root is told
    them."""

    session: SessionRecord
    names: tuple[Name, ...]
    exchanges: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Session:
    """``contexts`` are those loaded in the worker, ``held`` the names of all that ever were or are waited for;
    ``names`` the variables after the last cell, ``log`` what made them. ``stored``: what an earlier daemon knew of it
    is in the journals, and not read yet. ``id`` tells it from others that have or had its name."""

    name: str | None
    used: float
    repl: ReplPart | None = None
    contexts: tuple[PinnedContext, ...] = ()
    held: set[str] = field(default_factory=set)
    private: bool = False
    #: It held ephemeral text: from then on nothing of it is written to the disk.
    ephemeral: bool = False
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    stored: bool = False
    log: SessionLog = field(default_factory=SessionLog)
    had_worker: bool = False
    #: How deep its run stands below the one that was asked for.
    level: int = 0
    names: tuple[Name, ...] = ()
    exchanges: list[tuple[str, str]] = field(default_factory=list)
    held_by: str | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: What the next run's root is to be told of names that are gone.
    lost: str = ""

    @property
    def cells(self) -> int:
        """How many cells have ended in it."""
        return self.log.ended

    @property
    def alive(self) -> bool:
        return self.repl is not None and self.repl.alive

    def record(self) -> SessionRecord:
        pins = tuple(context.pin for context in self.contexts) or self.log.pins
        return SessionRecord(
            self.name or "", self.held_by, pins, self.private, self.cells, self.alive, self.used, self.ephemeral
        )

    def detail(self) -> SessionDetail:
        return SessionDetail(self.record(), self.names, tuple(self.exchanges))

    async def recall(self, parts: Parts) -> None:
        """Learns what an earlier daemon knew of it; nothing if that was done."""
        if not self.stored:
            return
        known = await parts.waker.recall(self.id)
        if self.stored:  # who asked at the same time may have been faster
            self.stored = False
            known.log.pins = known.log.pins or self.log.pins
            self.log, self.names = known.log, known.names
            self.had_worker = known.log.ended > 0
            self.exchanges = [(question[:300], answer[:600]) for question, answer in known.exchanges]

    async def look_back(self, *, keep_worker: bool) -> None:
        """What is known of it is to be read from the journals anew, because one of its runs goes on from before its
        end; without the worker, it is woken to how it stood there."""
        self.stored = True
        if not keep_worker:
            await self.end_worker()

    async def worker(self, contexts: Sequence[PinnedContext], parts: Parts, recorder: Recorder) -> ReplPart:
        """The live worker with these contexts loaded; when there is none it is woken or made, which is recorded."""
        repl = self.repl
        if repl is None or not repl.alive:
            await self.end_worker()
            if parts.workers.full(self.level):  # sessions that are only kept must not hold up one that is used
                await parts.make_room()
            if self.log.empty:
                seeds = {"hash_seed": self.log.hash_seed, "random_seed": self.log.random_seed}  # of a cell cut short
                memory = parts.settings.repl.memory_bytes
                woken = Woken(await parts.workers.acquire(memory_bytes=memory, level=self.level, **seeds))
            else:
                woken = await parts.waker.wake(self.log, contexts, self.level)
            self._started(woken, recorder)
            repl = woken.repl
        wanted = tuple(contexts)
        if wanted and [one.pin for one in wanted] != [one.pin for one in self.contexts]:
            await repl.load_contexts(wanted)  # type: ignore[arg-type]  # the real one is both Protocols
            self.contexts = wanted
        return repl

    def _started(self, woken: Woken, recorder: Recorder) -> None:
        self.repl, self.contexts, self.names = woken.repl, woken.contexts, woken.names
        fact = recorder.add(
            SessionStarted,
            session=self.name or recorder.run_id,
            hash_seed=woken.repl.hash_seed,
            random_seed=woken.repl.random_seed,
            layers=woken.repl.layers,
            lost=bool(woken.lost) if woken.cells else self.had_worker,
            woken=woken.cells,
            names_lost=woken.lost,
            names_older=woken.older,
            why=woken.why,
        )
        self.log.apply(fact)
        self.had_worker = True
        if said := what_is_lost(fact):
            recorder.add(Note, text=f"The session was woken, but not all of it. {said}")
        self.lost = told_as_lost(fact)

    async def load(self, pins: Sequence[Pin], parts: Parts) -> tuple[PinnedContext, ...]:
        """The contexts that a cell goes on with when it names none."""
        return tuple([await pinned_again(parts.contexts, pin) for pin in pins])

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
        ends: Which sessions ended by a person's wish.
    """

    def __init__(self, any_private: Callable[[Iterable[str]], bool], ends: SessionEnds) -> None:
        self._ends = ends
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

    async def restore(self, records: Iterable[RunRecord], ends: Mapping[str, SessionEnd]) -> None:
        """Knows again the sessions of an earlier daemon, by their runs in the order in which they were begun; not
        those that have ended."""
        for end in ends.values():
            if end.name is not None and end.became is not None and end.became not in ends:
                log = SessionLog(pins=end.contexts)
                fresh = Session(end.name, 0.0, id=end.became, private=end.private, stored=True, log=log)
                fresh.held.update(end.held)
                self._named[end.name] = fresh
        for number, record in enumerate(records):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            if record.session is None or record.session_id is None or record.session_id in ends:
                continue
            session = self._named.get(record.session)
            if session is None or session.id != record.session_id:
                session = Session(record.session, record.created, id=record.session_id, stored=True)
                self._named[record.session] = session
            session.used = max(session.used, record.ended or record.created)
            session.held.update(record.held)
            session.private = session.private or record.private

    def of(self, started: RunStarted) -> Session | None:
        """The session of a run that is taken up again; None when it has been dropped."""
        session = self._named.get(started.session or "")
        return session if session is not None and session.id == started.session_id else None

    def visible(self, *, egress: bool) -> list[Session]:
        """Those that this client may know of."""
        return [one for one in self._named.values() if not (egress and self.private(one))]

    def choose(self, name: str | None, if_busy: str, now: float, *, egress: bool) -> Session:
        """The session that a run is to use: the named one, or a fresh one without a name.

        Raises:
            Busy: It is held, and ``if_busy`` is ``refuse``.
        """
        if name is None:
            return Session(None, now)
        key = self._key(name, egress)
        session = self._named.get(key)
        if session is None:
            session = self._named[key] = Session(key, now)
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
        """Ends a session and forgets it. Raises ``NotFound``, ``Busy`` while a run holds it."""
        session = self._free(name, egress=egress)
        del self._named[session.name or ""]  # first: who asks meanwhile gets another
        await self._end(session, SessionEnd(id=session.id))

    async def reset(self, name: str, *, egress: bool) -> Session:
        """Begins a session anew: its variables and questions are forgotten; its contexts stay, and that it is private.

        Raises:
            NotFound: There is none of that name for this client.
            Busy: A run holds it.
        """
        old = self._free(name, egress=egress)
        pins = tuple(one.pin for one in old.contexts) or old.log.pins
        name = old.name or ""
        fresh = Session(name, old.used, private=self.private(old), ephemeral=old.ephemeral, log=SessionLog(pins=pins))
        fresh.held.update(old.held)
        self._named[name] = fresh
        held = tuple(sorted(fresh.held))
        end = SessionEnd(id=old.id, became=fresh.id, name=name, private=fresh.private, held=held, contexts=pins)
        await self._end(old, SessionEnd(id=old.id) if old.ephemeral else end)
        return fresh

    async def forget_ended(self, records: Callable[[], Iterable[RunRecord]]) -> None:
        """That a session ended need not be known when none of its runs is left, nothing goes on in its place, and no
        other that must be known ended in it. Raises ``Unavailable``."""
        ends = await self._ends.all()
        ids = {record.session_id for record in records()} | {session.id for session in self._named.values()}
        needed = {end.id for end in ends.values() if end.id in ids or end.became in ids}
        while more := {str(ends[one].became) for one in needed if ends[one].became in ends} - needed:
            needed |= more
        if gone := ends.keys() - needed:
            await self._ends.remove(gone)

    async def _end(self, session: Session, end: SessionEnd) -> None:
        async with session.lock:
            try:
                await self._ends.add(end)
            except BaseException:
                self._named[session.name or ""] = session
                raise
            await session.end_worker()

    def named(self, name: str, *, egress: bool) -> Session:
        """Raises ``NotFound`` when there is none, or none that this client may know of."""
        session = self._named.get(self._key(name, egress))
        if session is None:
            seen = (one for one, there in self._named.items() if not (egress and self.private(there)))
            raise not_found(name, (one.removeprefix(_EGRESS) if egress else one for one in seen))
        return session

    def _free(self, name: str, *, egress: bool) -> Session:
        session = self.named(name, egress=egress)
        if session.lock.locked():
            raise Busy(
                f"Session {name!r} is held by run {session.held_by}.", hint="Cancel that run first.", session=name
            )
        return session

    def _key(self, name: str, egress: bool) -> str:
        """The name under which a client's session is kept.

        For a client whose reading may leave the machine that of a public session is that session. Any other leads to a
        name of such clients' own, whether there is a private session of that name or none: no answer tells which.
        """
        while egress and (name not in self._named or self.private(self._named[name])):
            if name.startswith(_EGRESS) and name not in self._named:
                break
            name = _EGRESS + name
        return name

    async def drop_holding(self, context: str) -> int:
        """Ends the sessions that ever held a context, and forgets them; how many. No run may hold one any more."""
        holding = [session for session in self._named.values() if context in session.held]
        for session in holding:
            del self._named[session.name or ""]
            await self._end(session, SessionEnd(id=session.id))
        await self._ends.forget(context)
        return len(holding)

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


def not_found(name: str, known: Iterable[str] = ()) -> NotFound:
    hint = f"{did_you_mean(name, known)}session/list shows those that there are."
    return NotFound(f"There is no session {name!r}.", hint=hint, session=name)
