"""Does what the scheduler decides: each ``Dispatch`` is a named task that streams from a host; its end is reported.

Owns attempts' tasks, their deadlines and the deltas of the attempt that speaks. Decides nothing: which host, which
retry, which copy wins is the scheduler's.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from rlmd.errors import (
    CompletionCut,
    CompletionError,
    Draining,
    HostFailed,
    InternalError,
    ModelMissing,
    NoHost,
    PromptTooLong,
    RlmdError,
)
from rlmd.pool.actions import Abort, Action, Dispatch, Ending, Moving, Settle, Stalled, WakeAt, WakeHost, Work
from rlmd.pool.billing import Billing
from rlmd.pool.budget import Budget
from rlmd.pool.eligibility import size_class
from rlmd.pool.host import Host
from rlmd.pool.ledger import Ledger
from rlmd.pool.pulse import Pulse
from rlmd.pool.scheduler import Scheduler
from rlmd.pool.tickets import OnDelta, Running, Ticket, Won
from rlmd.pool.turns import Turns
from rlmd.pool.verdicts import cost_nothing, ending_of, worse
from rlmd.providers.base import Completion, Message, Sampling

#: How long the sending of requests and the handing on of replies may take in one turn of the loop.
_TURN_SECONDS = 0.002

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds without a token. A cold model loads for up to 300 s (Ollama's own limit) before its first."""

    first_token: float = 330.0
    between_tokens: float = 120.0


class HostBook(Protocol):
    """What the dispatcher needs of the hosts."""

    def named(self, name: str) -> Host | None: ...

    def tell_scheduler(self, host: Host) -> None:
        """The host differs: its window turned out to be another."""
        ...

    def wake(self, name: str) -> None:
        """Its machine sleeps, and is needed."""
        ...


class StallBook(Protocol):
    """Who is told that a run waits for a host."""

    def stalled(self, run: str, until: float, hosts: Collection[str]) -> None: ...
    def moving(self, run: str) -> None: ...
    def look(self) -> None: ...


class Dispatcher:
    """``start`` it with the group that owns its tasks; ``stop`` it before that group ends."""

    def __init__(
        self, scheduler: Scheduler, deadlines: Deadlines, ledger: Ledger, stalls: StallBook, pulse: Pulse
    ) -> None:
        self._scheduler = scheduler
        self._billing = Billing(ledger)
        self._budget: Budget = ledger.budget
        self._deadlines = deadlines
        self._stalls = stalls
        self._pulse = pulse
        self._hosts: HostBook | None = None
        self._tickets: dict[int, Ticket] = {}
        self._running: dict[int, Running] = {}
        self._next_id = 1
        self._turns = Turns(_TURN_SECONDS, time.perf_counter)
        self._group: asyncio.TaskGroup | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = 0.0

    def start(self, group: asyncio.TaskGroup, hosts: HostBook) -> None:
        """``group`` owns every attempt from now on; ``hosts`` says who is behind a name."""
        self._group = group
        self._hosts = hosts

    def stop(self) -> None:
        """Nothing is sent any more; whoever waits is told. The attempts end with their group."""
        self._group = None
        if self._timer is not None:
            self._timer.cancel()
        for ticket in list(self._tickets.values()):
            if not ticket.future.done():
                ticket.future.set_exception(Draining("The daemon is stopping."))

    def _host_named(self, name: str) -> Host | None:
        return self._hosts.named(name) if self._hosts is not None else None

    def next_id(self) -> int:
        self._next_id += 1
        return self._next_id

    async def complete(
        self,
        work: Work,
        messages: tuple[Message, ...],
        sampling: Sampling,
        on_delta: OnDelta | None,
        runs: Callable[[], Set[str]] | None = None,
        private: Callable[[], bool] = lambda: False,
    ) -> Won:
        """Waits for a whole completion. Cancelled: aborts the attempts; their slots are free when they have ended.
        ``private``: whether the text turned out to be so since the work was described."""
        await self._turns.take()  # ten thousand that are asked at one moment do not hold the loop for all of them
        loop = asyncio.get_running_loop()
        if self._group is None:
            raise Draining("The pool is not running.")
        work = replace(work, private=work.private or private())
        runs = runs or (lambda: {work.run})
        ticket = Ticket(work, messages, sampling, on_delta, runs, loop.time(), loop.create_future())
        self._tickets[work.id] = ticket
        try:
            self.do(self._scheduler.submit(work, loop.time()))
            won = await ticket.future
            await self._turns.take()
            return won
        finally:
            if ticket.future.done() and not ticket.future.cancelled():
                ticket.future.exception()  # seen, even if we were cancelled at the same moment
            del self._tickets[work.id]
            if not ticket.settled:
                self.do(self._scheduler.cancel(work.id, loop.time()))

    async def idle(self, host: str) -> None:
        """Waits until nothing is in flight at a host that gets nothing more."""
        while tasks := [one.task for one in self._running.values() if one.task and one.dispatch.target.host == host]:
            await asyncio.wait(tasks)

    async def finished(self, host: str) -> None:
        """Waits for what is in flight at a host now, and for nothing that comes after."""
        if tasks := [one.task for one in self._running.values() if one.task and one.dispatch.target.host == host]:
            await asyncio.wait(tasks)

    def make_private(self, runs: Set[str]) -> None:
        """What these runs have asked goes to trusted hosts only from now on."""
        asked = [number for number, ticket in self._tickets.items() if not runs.isdisjoint(ticket.runs())]
        self.do(self._scheduler.make_private(asked, asyncio.get_running_loop().time()))

    def do(self, actions: list[Action]) -> None:
        """Whatever the scheduler was told, and so whatever differs about a host, comes by here."""
        self._pulse.beat()
        for action in actions:
            match action:
                case Dispatch():
                    self._dispatch(action)
                case Abort(attempt):
                    running = self._running[attempt]
                    if running.task is not None:
                        running.task.cancel()
                case Settle():
                    self._settle(action)
                case WakeAt(time):
                    self._wake(time)
                case WakeHost(name):
                    if self._hosts is not None:
                        self._hosts.wake(name)
                case Stalled(run, until):
                    self._stalls.stalled(run, until, self._wanted_by(run))
                case Moving(run):
                    self._stalls.moving(run)
        self._stalls.look()

    def _wanted_by(self, run: str) -> list[str]:
        """Hosts that may take what a run waits for."""
        asked = (ticket.work for ticket in self._tickets.values() if ticket.work.run == run and not ticket.settled)
        return list(dict.fromkeys(target.host for work in asked for target in work.targets))

    # ── attempts ────────────────────────────────────────────────────────────────────────────────────────────

    def _dispatch(self, dispatch: Dispatch) -> None:
        running = self._running[dispatch.attempt] = Running(dispatch, asyncio.get_running_loop().time())
        self._tickets[dispatch.request].attempts += 1
        if self._group is None:
            return  # stopping: the attempt never begins, and the scheduler goes with us
        name = f"attempt {dispatch.attempt} at {dispatch.target.host}/{dispatch.target.model}"
        running.task = self._group.create_task(self._attempt(running), name=name)
        # a task that is cancelled before its first step runs no line of its own
        running.task.add_done_callback(lambda _: self._ended(running, Ending("aborted")))

    async def _attempt(self, running: Running) -> None:
        ending = Ending("aborted")
        ticket = self._tickets.get(running.dispatch.request)
        try:
            if ticket is not None:
                await self._turns.take()
                running.completion = await self._stream(running, ticket)
                _check_answers(running.completion, running.dispatch.target.host)
                ending = Ending("whole")
                await self._turns.take()  # cancelled here it is whole all the same
        except RlmdError as error:
            ending = self._judge(error, running, ticket)
        except Exception as error:  # noqa: BLE001  a fault of ours must not end the group that owns all attempts
            # the place and not the traceback: frames hold prompts
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("attempt_crashed", error=type(error).__name__, file=place.filename, line=place.lineno)
            ending = Ending("fatal")
            if ticket is not None:
                ticket.error = InternalError("An attempt failed by a fault of rlmd's own.")
        finally:
            self._ended(running, ending)

    async def _stream(self, running: Running, ticket: Ticket) -> Completion:
        target = running.dispatch.target
        host = self._host_named(target.host)
        offered = host.models((target.model,)).get(target.model) if host else None
        if host is None or offered is None:
            raise ModelMissing(f"Host {target.host} no longer offers {target.model}.")
        await self._billing.reserve(running)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._deadlines.first_token) as deadline:

                def heard(text: str) -> None:
                    now = loop.time()
                    if running.first_token is None:
                        running.first_token = now - running.started
                        host.answered_by(target.model)
                        self.do(self._scheduler.attempt_spoke(running.dispatch.attempt, now))
                    deadline.reschedule(now + self._deadlines.between_tokens)
                    running.heard(text)
                    if running.dispatch.entry is not None and running.wrote_more_than(ticket.sampling.max_tokens):
                        raise _overrun(target.host, ticket.sampling.max_tokens)
                    if text and ticket.on_delta is not None:
                        ticket.hear(running, text)

                return await host.provider.complete(
                    target.model, offered.window, ticket.messages, ticket.sampling, heard
                )
        except TimeoutError:
            silent = self._deadlines.first_token if running.first_token is None else self._deadlines.between_tokens
            raise HostFailed(f"Host {target.host} sent no token for {silent:g} s.") from None

    def _judge(self, error: RlmdError, running: Running, ticket: Ticket | None) -> Ending:
        target = running.dispatch.target
        host = self._host_named(target.host)
        if ticket is not None:
            ticket.error = worse(ticket.error, error)
        if host is not None:
            host.last_error = error.message
            if isinstance(error, HostFailed) and (host.settings.wake or error.details.get("refused")):
                host.nudged.set()  # it may have fallen asleep, or ended; from now on it is asked until it answers
            window = error.details.get("window")
            if isinstance(error, PromptTooLong) and isinstance(window, int) and host.learn_window(target.model, window):
                assert self._hosts is not None
                self._hosts.tell_scheduler(host)
        ending = ending_of(error)
        if running.first_token is None and cost_nothing(error):
            running.spent = 0
        run = ticket.work.run if ticket is not None else None
        log.info(
            "attempt_failed", run_id=run, host=target.host, model=target.model, error=error.kind,
            verdict=ending.verdict,
        )  # fmt: skip
        return ending

    def _ended(self, running: Running, ending: Ending) -> None:
        number = running.dispatch.attempt
        if self._running.get(number) is not running:
            return
        ticket = self._tickets.get(running.dispatch.request)
        if ticket is not None and ticket.speaker == number and ending.verdict != "whole":
            ticket.speaker = None
        host = self._host_named(running.dispatch.target.host)
        seconds = asyncio.get_running_loop().time() - running.started
        overcharged = self._billing.settle(running, ticket, host, seconds)
        actions = self._scheduler.attempt_ended(number, ending, asyncio.get_running_loop().time())
        self.do(actions)
        del self._running[number]
        if overcharged and host is not None and self._hosts is not None:
            self._hosts.tell_scheduler(host)

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self, settle: Settle) -> None:
        ticket = self._tickets.get(settle.request)
        if ticket is None:
            return
        ticket.settled = True
        if ticket.future.done():
            return
        if settle.attempt is None:
            ticket.future.set_exception(self._failure(ticket, settle))
            return
        ticket.win(self._running[settle.attempt], asyncio.get_running_loop().time())

    def _failure(self, ticket: Ticket, settle: Settle) -> RlmdError:
        if settle.outcome != "no_host" and ticket.error is not None:
            return ticket.error
        if isinstance(ticket.error, CompletionError):
            return ticket.error
        names = dict.fromkeys(target.host for target in ticket.work.targets)
        hosts = [host for name in names if (host := self._host_named(name)) is not None]
        if ticket.work.costs and all(
            self._budget.room(ticket.work.run, size_class(cost)) == "never" for cost in ticket.work.costs.values()
        ):
            hosts = [host for host in hosts if all(target.host != host.name for target in ticket.work.costs)]
            paid = f"those that cost money: {self._budget.why_not(ticket.work.run)}"
            said = "; ".join([*(f"{host.name}: {host.trouble or 'has not answered yet'}" for host in hosts), paid])
            hint = "`rlmctl budget` shows what was spent."
            return NoHost(f"No host may take this request: {said}.", hint=hint, limit="money")
        said = "; ".join(f"{host.name}: {host.trouble or 'has not answered yet'}" for host in hosts)
        waited = f"; {ticket.work.patience:.0f} s were waited" if ticket.work.patience else ""
        return NoHost(
            f"No host that may take this request is up ({said or 'none is left'}{waited})".replace(".)", ")") + ".",
            hint="`rlmctl host list` shows their states; limits.waiting is how long a run waits for one.",
        )

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────

    def _wake(self, time: float) -> None:
        if self._timer is not None:
            if self._wake_at <= time:
                return
            self._timer.cancel()
        if self._group is not None:
            self._wake_at = time
            self._timer = asyncio.get_running_loop().call_at(time, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.do(self._scheduler.tick(asyncio.get_running_loop().time()))


def _check_answers(completion: Completion, host: str) -> None:
    """Raises ``CompletionCut`` for a reply that ended while the model still thought: nothing of it is an answer."""
    if completion.finish == "stop" and completion.thinking.strip() and not completion.text.strip():
        raise CompletionCut(
            f"Host {host} ended the reply while the model still thought: it holds no answer.",
            hint="Ask for less thinking, or take another model.",
            no_answer=True,
        )


def _overrun(host: str, tokens: int) -> CompletionCut:
    return CompletionCut(
        f"Host {host} wrote more than the {tokens} tokens that it was allowed, which are all that is paid for.",
        hint="It disregards max_tokens; give it no price and no budget, or take another host.",
        overrun=True,
    )
