"""A run: what was asked, what it asks with, what it holds, and how it stands. What strategies work with.

Its steps are in ``course.py``. Knows no client, no host, no process, no wording and no wall clock: these are handed in.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from rlmd.engine.cells import Asking
from rlmd.engine.child_asking import ChildReport
from rlmd.engine.conclusion import LastWord
from rlmd.engine.confirming import Confirming
from rlmd.engine.limits import Purse
from rlmd.engine.openruns import OpenRun, Stop
from rlmd.engine.parts import Parts, PinnedContext
from rlmd.engine.past import Past
from rlmd.engine.prompts import SubFacts, sub_facts
from rlmd.engine.recorder import Recorder
from rlmd.engine.requests import RunRequest
from rlmd.engine.runcells import RunCells
from rlmd.engine.sessions import Session
from rlmd.engine.typed import AnswerType
from rlmd.engine.waits import Waits
from rlmd.events import (
    Note,
    Strategy,
    StrategyChosen,
)
from rlmd.pool import Candidate
from rlmd.repl import ChildQuery

#: Runs a child to its end: the run that asks, the child's id, what is asked.
AskChildOf = Callable[["Run", str, ChildQuery], Awaitable[ChildReport]]


class Run:
    """Args:
    request: What was asked.
    contexts: The pinned contexts.
    session: Whose REPL is used.
    recorder: Already holds ``run_started``.
    purse: Of this run and its children, and part of its parent's if it has one.
    parts: The collaborators.
    ask_child: Runs a child of it to its end.
    egress: What the asking client reads may leave the machine.
    tree: The run at whose asking this one runs, by default itself: the pool shares its slots among those, and takes
        private work of one away from others' hosts at once.
    within: The open run that this one belongs to.
    confirming: The tree's, by default its own.
    waits: The tree's, by default its own.
    past: What the journal of a run that is taken up again holds. Its contexts are pinned when it has its turn.
    """

    def __init__(
        self,
        request: RunRequest,
        contexts: Sequence[PinnedContext],
        session: Session,
        recorder: Recorder,
        purse: Purse,
        parts: Parts,
        ask_child: AskChildOf,
        *,
        egress: bool,
        past: Past | None = None,
        tree: str | None = None,
        within: Run | None = None,
        confirming: Confirming | None = None,
        waits: Waits | None = None,
    ) -> None:
        self.past = past or Past()
        self.request = request
        self.within = within
        #: What it holds while it is open.
        self.open = OpenRun()
        self.tree: str = tree or (within.tree if within is not None else request.within) or request.run_id
        self.contexts = tuple(contexts)
        self.session = session
        self.recorder = recorder
        self.purse = purse
        self.parts = parts
        self.ask_child = ask_child
        #: The conversation of the strategy ``rlm``.
        self.conversation: LastWord | None = None
        self.sub_facts: SubFacts | None = None
        self.egress = egress
        self._turns = 0
        self.stopping: Stop | None = None
        self.why = ""
        self.deadline: asyncio.Timeout | None = None
        self.confirming = confirming or Confirming(recorder, purse, parts.settings.confirm, self.past, request.confirm)
        self.own_waits = waits is None
        self.waits = waits or Waits(recorder, purse, parts.now, lambda: self.stopping is not None)
        self.asking = Asking(
            run_id=self.tree,
            parts=parts,
            purse=purse,
            contexts=self.contexts,
            private=lambda: self.private,
            ephemeral=recorder.record.ephemeral,
            sub=request.sub,
            fresh=request.fresh,
            piece_chars=0,
            children=lambda child_id, query: ask_child(self, child_id, query),
            limit=self.past.limit_of_cells,
            past=self.past,
            held=recorder.record.held,
            confirming=self.confirming,
            patience=lambda: self.waits.patience,
        )
        self.cells = RunCells(self)
        self.answer_type = AnswerType(request.schema) if request.schema is not None else None

    def know_sub_models(self) -> None:
        """Who answers its sub-queries, and how large the pieces are that they are given."""
        facts = sub_facts(self.candidates("sub"), self.purse.limits.sub_queries)
        self.sub_facts = facts if facts.slots else None
        self.asking.piece_chars = facts.piece_chars

    @property
    def private(self) -> bool:
        """Whether what this run handles is private, its session's past included, as things stand."""
        record = self.recorder.record
        return record.private or self.parts.any_private(record.held)

    def claim_turn(self, *, last_word: bool = False) -> int:
        """Takes a turn for the next root completion, and gives its number, from 1.

        Args:
            last_word: At a limit one more is needed, which is set aside.

        Raises:
            LimitReached: None is left.
        """
        number = self._turns + 1
        if not last_word:
            self.purse.give_back()
        elif number > self.past.turns_before:  # of what it was continued with
            self.purse.set_aside()
        if self.past.claimed(number):
            self.purse.restore({"turns": 1})
        elif (limit := self.past.limit_of_turns) is not None:
            raise limit
        else:
            self.purse.claim("turns")
        self._turns = number
        return number

    def claim_last_turn(self) -> int:
        """Takes the turn of the last word, and gives its number. Raises ``LimitReached`` where none is left."""
        self.purse.give_back()
        self._turns += 1
        if self._turns <= self.past.last_turn:
            self.purse.restore({"turns": 1})
        else:
            self.purse.claim("turns")
        return self._turns

    @property
    def pieces(self) -> int:
        """How many pieces the contexts make for the sub-models; 0 without any."""
        facts = self.sub_facts
        return math.ceil(sum(one.pin.chars for one in self.contexts) / facts.piece_chars) if facts else 0

    def candidates(self, role: Literal["root", "sub"]) -> tuple[Candidate, ...]:
        narrowed = self.request.root if role == "root" else self.request.sub
        return self.parts.pool.candidates(role, private=self.private, narrowed_to=narrowed)

    def awaited(self, role: Literal["root", "sub"]) -> tuple[str, ...]:
        """Hosts of which one may yet bring a candidate, while there is none."""
        narrowed = self.request.root if role == "root" else self.request.sub
        return self.parts.pool.awaited(role, private=self.private, narrowed_to=narrowed)

    async def wait_for_model(self, role: Literal["root", "sub"]) -> tuple[str, ...]:
        """Waits while there is none, and a host may bring one; the hosts that did not."""
        await self.parts.pool.wait_for_model(self.tree, lambda: self.awaited(role), self.waits.patience)
        return self.awaited(role)

    def stop(self, how: Stop, why: str) -> bool:
        """Says how the run is to end. True the first time: then its task is to be cancelled, and never again, because
        a second time would hit it while it writes its last fact."""
        if self.stopping is not None:
            return False
        self.stopping, self.why = how, why
        return True

    def goes_on(self) -> None:
        """From here on the run does what it never did: its time counts, except while somebody is asked or a host is
        waited for."""
        stands = self.confirming.asking or self.waits.waiting
        if self.deadline is not None and self.deadline.when() is None and not stands:
            self.deadline.reschedule(asyncio.get_running_loop().time() + max(0.0, self.purse.seconds_left))

    def hold_time(self) -> None:
        """Somebody is asked, or a host is waited for, for as long as it takes."""
        if self.deadline is not None and self.deadline.when() is not None:
            self.deadline.reschedule(None)

    def check_time(self) -> None:
        """Raises ``LimitReached`` when the time of a run that goes on is over."""
        if self.going:
            self.purse.check_time()

    @property
    def going(self) -> bool:
        """Whether it has begun to do what it never did."""
        return self.deadline is None or self.deadline.when() is not None

    async def wake(self) -> None:
        """Brings the names of the session back, if it had any, before anyone is told of them."""
        if not self.session.alive and not self.session.log.empty:
            await self.session.worker(self.contexts, self.parts, self.recorder)

    def take_lost(self, turn: int) -> str:
        """What the root is to be told before a turn of names that are gone; of what has just gone once."""
        lost = self.past.lost_before(turn)
        if turn <= self.past.last_turn:
            return lost
        just, self.session.lost = self.session.lost, ""
        return "\n".join(filter(None, (lost, just)))

    # ── what strategies use ─────────────────────────────────────────────────────────────────────────────────

    def chosen(self, strategy: Strategy, why: str) -> None:
        """Tells which strategy is followed from now on."""
        self.recorder.add(StrategyChosen, strategy=strategy, why=why)

    def note(self, text: str) -> None:
        """A sentence for the person."""
        self.recorder.add(Note, text=text)
