"""One run from its first fact to its last: the order of the steps, and nothing else.

``execute`` picks a strategy, follows it to a ``Conclusion``, and ends with citations and a receipt. Every fact goes
through the recorder.
"""

from __future__ import annotations

import asyncio
import traceback

import structlog

from rlmd.engine import strategies
from rlmd.engine.cells import error_record, hit_limit
from rlmd.engine.citations import Finder
from rlmd.engine.conclusion import Conclusion
from rlmd.engine.limits import time_is_over
from rlmd.engine.receipt import receipt
from rlmd.engine.run import Run
from rlmd.engine.sessions import not_found
from rlmd.engine.typed import quotable
from rlmd.engine.waking import pinned_again
from rlmd.errors import InternalError, LimitReached, NotFound, RlmdError, RunCancelled
from rlmd.events import Citation, RunEnded, RunInterrupted
from rlmd.pool import unheard_of

log = structlog.get_logger(__name__)


class Course:
    """Args:
    run: Which is led from here on.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    async def execute(self) -> None:
        """Runs to the end. Whatever happens, the last fact is written and the session is given back."""
        run = self._run
        if run.own_waits:
            run.parts.pool.watch(run.tree, run.waits.heard)
        try:
            await self._lead()
        except asyncio.CancelledError:
            await self._stopped()
        finally:
            if run.own_waits:
                run.parts.pool.unwatch(run.tree, run.waits.heard)
            run.purse.give_back()
            await run.recorder.finish()
            if run.parts.workers.waited_for:
                await run.parts.make_room()

    async def _lead(self) -> None:
        run = self._run
        try:
            async with run.session.lock:
                run.session.held_by = run.request.run_id
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
            log.error("run failed", run_id=run.request.run_id, error=type(error).__name__, places=places[-8:])
            await self._end(self._failed(InternalError("The run failed by a fault of rlmd.", hint="See the log.")))

    async def _concluded(self) -> Conclusion:
        """Follows the strategy within the time; a limit that is hit ends in an answer too."""
        run = self._run
        if run.past.any:
            await self._take_up()
        await self._wait_for_models()
        run.know_sub_models()
        await self._enter_session()
        run.purse.begin(run.past.seconds)
        try:
            # What is of the past takes no time: the deadline is set when the run goes on.
            async with asyncio.timeout(None) as deadline:
                run.deadline = deadline
                run.confirming.follow(run)
                run.waits.follow(run)
                if not run.past.any:
                    run.goes_on()
                return await strategies.answer(run)
        except LimitReached as limit:
            return await self._at_limit(limit)
        except TimeoutError:
            if not deadline.expired():
                raise
            return await self._at_limit(time_is_over(run.purse.limits))

    def _no_deadline(self) -> None:
        """What comes after a limit is bounded by itself."""
        run = self._run
        run.confirming.forget(run)
        run.waits.forget(run)
        run.deadline = None

    async def _at_limit(self, limit: LimitReached) -> Conclusion:
        run = self._run
        self._no_deadline()
        if run.asking.limit is not limit:
            hit_limit(run.recorder, limit)
        return await strategies.conclude(run, limit)

    async def _take_up(self) -> None:
        """What a run that begins brings along: the daemon has just started, and knows it from the journal alone."""
        run = self._run
        await run.parts.pool.find_default_host()
        if run.contexts:
            return  # a child's, by its parent
        pins = run.recorder.record.contexts
        run.contexts = tuple([await pinned_again(run.parts.contexts, pin) for pin in pins])
        run.asking.contexts = run.contexts

    async def _wait_for_models(self) -> None:
        """A configured host that has not answered yet may be the one that is needed. Takes none of the run's time."""
        run = self._run
        if strategies.asks_a_model(run) and (lacking := await run.wait_for_model("root")):
            if run.request.strategy != "auto":
                raise unheard_of(lacking, run.waits.patience)
        elif await strategies.asks_sub_models(run) and (lacking := await run.wait_for_model("sub")):
            raise unheard_of(lacking, run.waits.patience)

    async def _enter_session(self) -> None:
        run = self._run
        await run.session.recall(run.parts)
        if run.egress and (run.session.private or run.private):
            raise not_found(run.session.name) if run.session.name else _gone()
        if not run.contexts:  # a cell run in a session goes on with what is loaded there
            run.contexts = run.session.contexts or await run.session.load(run.session.log.pins, run.parts)
            run.asking.contexts = run.contexts

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _end(self, conclusion: Conclusion) -> None:
        """Citations, receipt, and the last fact; nothing comes after that."""
        run = self._run
        if not run.recorder.record.active:
            return
        loop, threads = asyncio.get_running_loop(), run.parts.threads
        citations = conclusion.citations
        if citations is None:
            hints = await loop.run_in_executor(threads, run.recorder.tally.hints)
            citations = await self._cite(conclusion, Finder(run.contexts, hints, threads))
        answer = await run.recorder.text(conclusion.answer)
        made = await loop.run_in_executor(
            threads,
            lambda: receipt(
                run.recorder.tally,
                run.contexts,
                run.purse.seconds_used,
                model_used=conclusion.model_used,
            ),
        )
        if conclusion.outcome in ("answered", "partial"):
            run.session.answered(run.request.question, conclusion.answer)
        run.recorder.add(
            RunEnded,
            outcome=conclusion.outcome,
            answer=answer,
            stream=conclusion.stream,
            why=conclusion.why,
            error=error_record(conclusion.error) if conclusion.error else None,
            citations=citations,
            receipt=made,
            strategy=run.recorder.record.strategy,
            held=run.recorder.record.held,
            private=run.recorder.record.private,
        )

    async def _cite(self, conclusion: Conclusion, finder: Finder) -> tuple[Citation, ...]:
        """The answer's quotes. Of a typed answer its strings may be quotes: those that are found."""
        if self._run.answer_type is None or conclusion.outcome != "answered":
            return await finder.cite(conclusion.answer)
        found = [one for one in await finder.cite(quotable(conclusion.answer)) if one.verified]
        return tuple(one.model_copy(update={"number": number}) for number, one in enumerate(found, 1))

    async def _stopped(self) -> None:
        """The run's task was cancelled: by a client, or because the daemon stops."""
        run = self._run
        if not run.recorder.record.active:
            return
        if run.stopping == "interrupted" or run.stopping is None:
            resumable = not run.recorder.record.ephemeral
            run.recorder.add(RunInterrupted, why=run.why or "the daemon stopped", resumable=resumable)
            return
        error = RunCancelled(f"The run was cancelled: {run.why}.")
        await self._end(Conclusion("cancelled", run.cells.answer, run.why, error=error, citations=()))

    def _failed(self, error: RlmdError) -> Conclusion:
        """What was found so far is handed over even so."""
        if self._run.cells.answer:
            return Conclusion("partial", self._run.cells.answer, error.message, error=error)
        return Conclusion("failed", "", error.message, error=error, citations=())

    async def _give_back(self) -> None:
        run = self._run
        run.session.held_by = None
        run.session.used = run.parts.now()
        if run.session.name is None:
            await run.session.end_worker()


def _gone() -> NotFound:
    return NotFound("A context of this run does not exist any more.", hint="context/list shows those that there are.")
