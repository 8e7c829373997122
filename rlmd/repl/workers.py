"""The supply of REPL workers: chooses the layers once, keeps spares warm, holds the cap (parent side)."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlmd.errors import CageUnavailable, Draining
from rlmd.repl.cgroup import WorkerGroups
from rlmd.repl.packages import Packages, packages_of
from rlmd.repl.process import NEWEST, CagePlan, WorkerProcess, WorkerStartFailed, start_worker
from rlmd.repl.proof import Proof, prove_alone, prove_together
from rlmd.repl.room import Room
from rlmd.repl.session import ReplSession
from rlmd.repl.watch import most_for_all

#: Preferred first; the first that comes up is kept for the life of the daemon, unless one before it was only late.
PLANS = (
    CagePlan(bubblewrap=True, landlock=NEWEST),
    CagePlan(bubblewrap=True, landlock=0),
    CagePlan(bubblewrap=False, landlock=NEWEST, namespaces=True),
    CagePlan(bubblewrap=False, landlock=0, namespaces=True),
    CagePlan(bubblewrap=False, landlock=NEWEST),
)
#: How often a plan may come up too late, as on a busy machine, before one with fewer layers is kept.
_MOST_LATE = 3
_REMEDY = "Install bubblewrap (bwrap) and allow user namespaces, or use a kernel with Landlock (5.13 or later)."


@dataclass(frozen=True, slots=True)
class Birth:
    """What cannot be changed once a worker lives; seeds are drawn where they are None."""

    memory_bytes: int
    environment: tuple[tuple[str, str], ...] = ()
    hash_seed: int | None = None
    random_seed: int | None = None


class Workers:
    """Starts workers and counts them.

    Args:
        max_workers: Sessions in use at once; ``acquire`` waits for one to be closed.
        depth: Levels of child runs, for each of which a place is kept.
        spare_workers: Sealed workers kept ready beside those in use (11 MB each).
        memory_bytes: Address space of a worker at most; spares are born with it as their hard limit.
        total_bytes: Memory of all workers together at most; beyond it the one that has most is ended.
        packages: A virtual environment whose packages cells may import.
        bubblewrap: False leaves bubblewrap out even where it works.
        groups: The daemon's delegated control group, where there is one.
        plans: Tests hand in others.
    """

    def __init__(
        self,
        *,
        max_workers: int = 16,
        depth: int = 0,
        spare_workers: int = 1,
        memory_bytes: int = 4 << 30,
        total_bytes: int | None = None,
        packages: Path | None = None,
        bubblewrap: bool = True,
        groups: WorkerGroups | None = None,
        plans: Sequence[CagePlan] = PLANS,
    ) -> None:
        self._memory_bytes, self._spare_workers = memory_bytes, spare_workers
        self._total_bytes, self._groups = total_bytes or most_for_all(), groups
        self._packages = packages
        self._plans = [plan for plan in plans if bubblewrap or not plan.bubblewrap]
        self._chosen: CagePlan | None = None
        self._late = 0
        self._choosing = asyncio.Lock()
        self._room = Room(max_workers, depth)
        self._spares: deque[ReplSession] = deque()
        self._sessions: set[ReplSession] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Warms the spares in the background; a machine without a cage is told at the first ``acquire``."""
        self._warm()

    async def acquire(
        self,
        *,
        memory_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
        hash_seed: int | None = None,
        random_seed: int | None = None,
        level: int = 0,
    ) -> ReplSession:
        """A fresh session; the caller closes it. Waits while ``max_workers`` are in use.

        Args:
            memory_bytes: Its address space at most; by default that of all workers.
            environment: Variables for the worker, which gets none of the daemon's.
            hash_seed: For a replay: that of the recorded session.
            random_seed: The same for ``random`` and ``numpy.random``.
            level: How deep the run stands below the one that was asked for.

        Raises:
            CageUnavailable: This machine offers too few layers to run model-written code.
            Draining: ``close`` was called.
        """
        await self._room.take(level)
        try:
            if self._closed:
                raise Draining("The daemon is stopping")
            birth = Birth(
                memory_bytes or self._memory_bytes, tuple((environment or {}).items()), hash_seed, random_seed
            )
            plain = birth == Birth(birth.memory_bytes) and birth.memory_bytes <= self._memory_bytes
            session = (self._take_spare() if plain else None) or await self._start(birth)
            if self._closed:  # while it started
                await session.close()
                raise Draining("The daemon is stopping")
        except BaseException:
            self._room.give_back(level)
            raise
        if memory_bytes is not None:
            session.allow_memory(memory_bytes)
        session.when_ended(lambda _: self._room.give_back(level))
        self._warm()
        return session

    async def prove_layers(self) -> list[Proof]:
        """Tries from inside what each layer forbids; for ``doctor``. Each proof is (layer, ok, message, hint)."""
        try:
            session = await self._start(Birth(self._memory_bytes))
        except CageUnavailable as error:
            return [Proof("cage", False, error.message, error.hint)]
        try:
            together = await prove_together(session, self._memory_bytes)
            wanted = any(plan.bubblewrap for plan in self._plans)
            alone = await prove_alone(
                self._start_weakened, self._memory_bytes, bubblewrap=wanted,
                namespaces="bubblewrap" not in session.layers,
            )  # fmt: skip
            return [*together, *alone]
        finally:
            await session.close()

    @property
    def alive(self) -> int:
        """Workers that live, spares included."""
        return sum(session.alive for session in self._sessions)

    def full(self, level: int = 0) -> bool:
        """Whether ``acquire`` would wait now."""
        return self._room.full(level)

    def deepen(self, depth: int) -> None:
        """Keeps places for so many levels of child runs from now on, if it were fewer."""
        self._room.deepen(depth)

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits in ``acquire`` for a worker to be closed."""
        return self._room.waiting > 0

    async def close(self) -> None:
        """Ends all workers, in use or not."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(session.close() for session in list(self._sessions)))
        self._spares.clear()

    # Starting.

    async def _start(self, birth: Birth) -> ReplSession:
        hash_seed = 1 + secrets.randbelow((1 << 32) - 1) if birth.hash_seed is None else birth.hash_seed
        random_seed = secrets.randbelow(1 << 53) if birth.random_seed is None else birth.random_seed
        process = await self._launch(birth, hash_seed, random_seed)
        session = ReplSession(
            process, hash_seed=hash_seed, random_seed=random_seed, memory_bytes=birth.memory_bytes,
            when_measured=self._add_up,
        )  # fmt: skip
        self._sessions.add(session)
        session.when_ended(self._sessions.discard)
        return session

    async def _start_weakened(self, plan: CagePlan) -> ReplSession:
        """A worker for a probe of ours; raises ``WorkerStartFailed`` where its layers cannot be put on."""
        process = await start_worker(
            plan, memory_bytes=self._memory_bytes, packages=Packages(), environment=(), hash_seed=1, random_seed=1
        )
        session = ReplSession(process, hash_seed=1, random_seed=1, memory_bytes=self._memory_bytes)
        self._sessions.add(session)
        session.when_ended(self._sessions.discard)
        return session

    async def _launch(self, birth: Birth, hash_seed: int, random_seed: int) -> WorkerProcess:
        """Starts under the plan that works here; while nobody knows, one worker at a time finds it out."""
        if self._chosen is None:
            async with self._choosing:
                if self._chosen is None:
                    return await self._try(self._plans, birth, hash_seed, random_seed)
        return await self._try((self._chosen,), birth, hash_seed, random_seed)

    async def _try(self, plans: Sequence[CagePlan], birth: Birth, hash_seed: int, random_seed: int) -> WorkerProcess:
        packages = packages_of(self._packages)
        reasons, late = [], False
        for plan in plans:
            try:
                process = await start_worker(
                    plan, memory_bytes=birth.memory_bytes, packages=packages, environment=birth.environment,
                    hash_seed=hash_seed, random_seed=random_seed, groups=self._groups,
                )  # fmt: skip
            except WorkerStartFailed as failure:
                reasons.append(f"{plan}: {failure}")
                late = late or failure.late
                continue
            self._late += late
            if not late or self._late >= _MOST_LATE:
                self._chosen = plan
            return process
        raise CageUnavailable(f"No caged worker can be started here ({'; '.join(reasons)})", hint=_REMEDY)

    def _add_up(self) -> None:
        """Holds all workers together to the total; several that each keep their limit could still fill the machine."""
        living = [session for session in self._sessions if session.alive]
        taken = sum(session.memory_taken for session in living)
        if taken > self._total_bytes:
            largest = max(living, key=lambda session: session.memory_taken)
            largest.give_up(
                f"all REPLs together took {taken >> 20:,} MiB of {self._total_bytes >> 20:,} MiB, and this one most"
            )

    def _take_spare(self) -> ReplSession | None:
        while self._spares:
            spare = self._spares.popleft()
            if spare.alive:
                return spare
        return None

    def _warm(self) -> None:
        if not self._closed and not self._tasks and len(self._spares) < self._spare_workers:
            task = asyncio.get_running_loop().create_task(self._fill(), name="warm REPL spares")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fill(self) -> None:
        while not self._closed and len(self._spares) < self._spare_workers:
            try:
                self._spares.append(await self._start(Birth(self._memory_bytes)))
            except CageUnavailable:
                return  # the next acquire tries again, and tells
