"""One run from its first fact to its last: the order of the steps, and nothing else.

``execute`` picks a strategy, follows it to a ``Conclusion``, and ends with citations and a receipt. Every fact goes
through the recorder. Knows no client, no host, no process, no wording and no wall clock: these are handed in.
"""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import structlog

from rlmd.engine import strategies
from rlmd.engine.cells import Asking, error_record, hit_limit
from rlmd.engine.citations import Finder
from rlmd.engine.conclusion import Conclusion
from rlmd.engine.confirming import Confirming
from rlmd.engine.conversation import Conversation
from rlmd.engine.limits import Purse, time_is_over
from rlmd.engine.openruns import OpenRun
from rlmd.engine.parts import Parts, PinnedContext
from rlmd.engine.past import Past
from rlmd.engine.prompts import SubFacts, sub_facts
from rlmd.engine.receipt import receipt
from rlmd.engine.recorder import Recorder
from rlmd.engine.requests import RunRequest
from rlmd.engine.runcells import RunCells
from rlmd.engine.sessions import Session, not_found
from rlmd.engine.typed import AnswerType, quotable
from rlmd.engine.waits import Waits
from rlmd.engine.waking import pinned_again
from rlmd.errors import InternalError, LimitReached, NoHost, NotFound, RlmdError, RunCancelled
from rlmd.events import (
    Citation,
    Note,
    RunEnded,
    RunInterrupted,
    Strategy,
    StrategyChosen,
)
from rlmd.pool import Candidate
from rlmd.repl import ChildQuery

if TYPE_CHECKING:
    from rlmd.engine.children import ChildReport

log = structlog.get_logger(__name__)


class Run:
    """Args:
    request: What was asked.
    contexts: The pinned contexts.
    session: Whose REPL is used.
    recorder: Already holds ``run_started``.
    purse: Of this run and its children, and part of its parent's if it has one.
    parts: The collaborators.
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
        #: The conversation of the strategy ``rlm``.
        self.conversation: Conversation | None = None
        self.sub_facts: SubFacts | None = None
        self._egress = egress
        self._turns = 0
        self.stopping: Literal["cancelled", "interrupted"] | None = None
        self._why = ""
        self._deadline: asyncio.Timeout | None = None
        self.confirming = confirming or Confirming(recorder, purse, parts.settings.confirm, self.past, request.confirm)
        self._own_waits = waits is None
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
            children=self._ask_child,
            limit=self.past.limit_of_cells,
            past=self.past,
            held=recorder.record.held,
            confirming=self.confirming,
            patience=lambda: self.waits.patience,
        )
        self.cells = RunCells(self)
        self.answer_type = AnswerType(request.schema) if request.schema is not None else None

    def _know_sub_models(self) -> None:
        facts = sub_facts(self.candidates("sub"), self.purse.limits.sub_queries)
        self.sub_facts = facts if facts.slots else None
        self.asking.piece_chars = facts.piece_chars

    @property
    def private(self) -> bool:
        """Whether what this run handles is private, its session's past included, as things stand."""
        record = self.recorder.record
        return record.private or self.parts.any_private(record.held)

    def next_turn(self) -> int:
        """The number of the next root completion, from 1."""
        self._turns += 1
        return self._turns

    @property
    def pieces(self) -> int:
        """How many pieces the contexts make for the sub-models; 0 without any."""
        facts = self.sub_facts
        return math.ceil(sum(one.pin.chars for one in self.contexts) / facts.piece_chars) if facts else 0

    def candidates(self, role: Literal["root", "sub"]) -> tuple[Candidate, ...]:
        narrowed = self.request.root if role == "root" else self.request.sub
        return self.parts.pool.candidates(role, private=self.private, narrowed_to=narrowed)

    def stop(self, how: Literal["cancelled", "interrupted"], why: str) -> bool:
        """Says how the run is to end. True the first time: then its task is to be cancelled, and never again, because
        a second time would hit it while it writes its last fact."""
        if self.stopping is not None:
            return False
        self.stopping, self._why = how, why
        return True

    async def execute(self) -> None:
        """Runs to the end. Whatever happens, the last fact is written and the session is given back."""
        if self._own_waits:
            self.parts.pool.watch(self.tree, self.waits.heard)
        try:
            await self._run()
        except asyncio.CancelledError:
            await self._stopped()
        finally:
            if self._own_waits:
                self.parts.pool.unwatch(self.tree, self.waits.heard)
            await self.recorder.finish()
            if self.parts.workers.waited_for:
                await self.parts.make_room()

    async def _run(self) -> None:
        try:
            async with self.session.lock:
                self.session.held_by = self.request.run_id
                try:
                    conclusion = await self._concluded()
                    await self._end(conclusion)
                finally:
                    self._no_deadline()
                    await self._give_back()
        except RlmdError as error:
            await self._end(self._failed(error))
        except Exception as error:  # noqa: BLE001  whatever it is, the run has a last fact
            # Places and not the traceback: frames hold prompts.
            places = [f"{place.name}:{place.lineno}" for place in traceback.extract_tb(error.__traceback__)]
            log.error("run failed", run_id=self.request.run_id, error=type(error).__name__, places=places[-8:])
            await self._end(self._failed(InternalError("The run failed by a fault of rlmd.", hint="See the log.")))

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _concluded(self) -> Conclusion:
        """Follows the strategy within the time; a limit that is hit ends in an answer too."""
        if self.past.any:
            await self._take_up()
        if self._own_waits and strategies.asks_a_model(self):
            await self._wait_for_model()
        self._know_sub_models()
        await self._enter_session()
        self.purse.begin(self.past.seconds)
        try:
            # What is of the past takes no time: the deadline is set when the run goes on.
            async with asyncio.timeout(None) as deadline:
                self._deadline = deadline
                self.confirming.follow(self)
                self.waits.follow(self)
                if not self.past.any:
                    self.goes_on()
                return await strategies.answer(self)
        except LimitReached as limit:
            return await self._at_limit(limit)
        except TimeoutError:
            if not deadline.expired():
                raise
            return await self._at_limit(time_is_over(self.purse.limits))

    def _no_deadline(self) -> None:
        """What comes after a limit is bounded by itself."""
        self.confirming.forget(self)
        self.waits.forget(self)
        self._deadline = None

    async def _at_limit(self, limit: LimitReached) -> Conclusion:
        self._no_deadline()
        if self.asking.limit is not limit:
            hit_limit(self.recorder, limit)
        return await strategies.conclude(self, limit)

    async def _take_up(self) -> None:
        """What a run that begins brings along: the daemon has just started, and knows it from the journal alone."""
        await self.parts.pool.find_default_host()
        if self.contexts:
            return  # a child's, by its parent
        pins = self.recorder.record.contexts
        self.contexts = tuple([await pinned_again(self.parts.contexts, pin) for pin in pins])
        self.asking.contexts = self.contexts

    async def _wait_for_model(self) -> None:
        """A configured host that has not answered yet may be the one that is needed. Takes none of the run's time."""
        allowed = self.waits.patience
        await self.parts.pool.wait_for_model(
            self.tree, "root", lambda: not self.candidates("root"), private=self.private, seconds=allowed
        )
        silent = self.parts.pool.unheard("root", private=self.private)
        if self.request.strategy != "auto" and silent and not self.candidates("root"):
            raise NoHost(
                f"No model is known: {', '.join(silent)} did not answer, and {allowed:.0f} s were waited for it.",
                hint="`rlmctl host list` says why; limits.waiting is how long a run waits.",
            )

    async def _enter_session(self) -> None:
        await self.session.recall(self.parts)
        if self._egress and (self.session.private or self.private):
            raise not_found(self.session.name) if self.session.name else _gone()
        if not self.contexts:  # a cell run in a session goes on with what is loaded there
            self.contexts = self.session.contexts or await self.session.load(self.session.log.pins, self.parts)
            self.asking.contexts = self.contexts

    async def _ask_child(self, child_id: str, query: ChildQuery) -> ChildReport:
        return await self.parts.children.ask(self, child_id, query)

    def goes_on(self) -> None:
        """From here on the run does what it never did: its time counts, except while somebody is asked or a host is
        waited for."""
        stands = self.confirming.asking or self.waits.waiting
        if self._deadline is not None and self._deadline.when() is None and not stands:
            self._deadline.reschedule(asyncio.get_running_loop().time() + max(0.0, self.purse.seconds_left))

    def hold_time(self) -> None:
        """Somebody is asked, or a host is waited for, for as long as it takes."""
        if self._deadline is not None and self._deadline.when() is not None:
            self._deadline.reschedule(None)

    def check_time(self) -> None:
        """Raises ``LimitReached`` when the time of a run that goes on is over."""
        if self.going:
            self.purse.check_time()

    @property
    def going(self) -> bool:
        """Whether it has begun to do what it never did."""
        return self._deadline is None or self._deadline.when() is not None

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

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _end(self, conclusion: Conclusion) -> None:
        """Citations, receipt, and the last fact; nothing comes after that."""
        if not self.recorder.record.active:
            return
        loop, threads = asyncio.get_running_loop(), self.parts.threads
        citations = conclusion.citations
        if citations is None:
            hints = await loop.run_in_executor(threads, self.recorder.tally.hints)
            citations = await self._cite(conclusion, Finder(self.contexts, hints, threads))
        answer = await self.recorder.text(conclusion.answer)
        made = await loop.run_in_executor(
            threads,
            lambda: receipt(
                self.recorder.tally, self.contexts, self.purse.seconds_used, model_used=conclusion.model_used
            ),
        )
        if conclusion.outcome in ("answered", "partial"):
            self.session.answered(self.request.question, conclusion.answer)
        self.recorder.add(
            RunEnded,
            outcome=conclusion.outcome,
            answer=answer,
            stream=conclusion.stream,
            why=conclusion.why,
            error=error_record(conclusion.error) if conclusion.error else None,
            citations=citations,
            receipt=made,
            strategy=self.recorder.record.strategy,
            held=self.recorder.record.held,
            private=self.recorder.record.private,
        )

    async def _cite(self, conclusion: Conclusion, finder: Finder) -> tuple[Citation, ...]:
        """The answer's quotes. Of a typed answer its strings may be quotes: those that are found."""
        if self.answer_type is None or conclusion.outcome != "answered":
            return await finder.cite(conclusion.answer)
        found = [one for one in await finder.cite(quotable(conclusion.answer)) if one.verified]
        return tuple(one.model_copy(update={"number": number}) for number, one in enumerate(found, 1))

    async def _stopped(self) -> None:
        """The run's task was cancelled: by a client, or because the daemon stops."""
        if not self.recorder.record.active:
            return
        if self.stopping == "interrupted" or self.stopping is None:
            resumable = not self.recorder.record.ephemeral
            self.recorder.add(RunInterrupted, why=self._why or "the daemon stopped", resumable=resumable)
            return
        error = RunCancelled(f"The run was cancelled: {self._why}.")
        await self._end(Conclusion("cancelled", self.cells.answer, self._why, error=error, citations=()))

    def _failed(self, error: RlmdError) -> Conclusion:
        """What was found so far is handed over even so."""
        if self.cells.answer:
            return Conclusion("partial", self.cells.answer, error.message, error=error)
        return Conclusion("failed", "", error.message, error=error, citations=())

    async def _give_back(self) -> None:
        self.session.held_by = None
        self.session.used = self.parts.now()
        if self.session.name is None:
            await self.session.end_worker()


def _gone() -> NotFound:
    return NotFound("A context of this run does not exist any more.", hint="context/list shows those that there are.")
