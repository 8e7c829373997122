"""Who goes where next: takes what happened, returns what to do. Pure: no asyncio, clock, HTTP or prompt text.

A central queue from which hosts pull: work is handed out only against a free slot. The order of decision is that of the
design: who may take it (targets, trust, breaker, avoided hosts), class, run, prefix group, longest first; then the
tail: a slow host leaves work that a faster one would finish sooner, and a free slot takes a second copy of a request
that is far beyond its estimate. The dispatcher executes the actions and reports every attempt's end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from rlmd.pool.actions import Abort, Action, Dispatch, Ending, Outcome, Settle, Statistics, WakeAt, WakeHost, Work
from rlmd.pool.copies import Copies
from rlmd.pool.eligibility import Eligibility, Purse, size_class, worth_a_swap
from rlmd.pool.outlook import Outlook
from rlmd.pool.patience import Patience
from rlmd.pool.requests import MAX_ATTEMPTS, Request
from rlmd.pool.slots import Attempt, HostView, Slots, Target, units_of
from rlmd.pool.waiting import Bucket, Key, Waiting


def _speed(host: Slots) -> tuple[float, str]:
    """Seconds for a request of one size, to compare hosts; unmeasured ones first, so that they are measured."""
    return min(host.pace.values(), default=0.0), host.view.name


class Scheduler:
    """See the module's docstring. Every public method returns the actions to execute, in order."""

    def __init__(self, purse: Purse | None = None, overflow_after: float = math.inf) -> None:
        self._purse = purse
        self._hosts: dict[str, Slots] = {}
        self._requests: dict[int, Request] = {}
        self._attempts: dict[int, Attempt] = {}
        self._waiting = Waiting()
        self._outlook = Outlook(self._hosts, self._waiting)
        self._may = Eligibility(self._hosts, self._outlook, purse, overflow_after)
        self._copies = Copies(self._hosts, self._requests, self._attempts, self._outlook)
        self._patience = Patience(self._hosts, self._waiting, self._attempts, self._requests, self._may)
        #: Fair share: units handed out to each run that has work, on a common scale.
        self._served: dict[str, float] = {}
        self._scale = 0.0
        #: How many requests each run has here.
        self._asked: Counter[str] = Counter()
        self._next_attempt = 1
        self._settled = 0
        self._copied = 0
        #: Attempts in flight for which a person or a root waits.
        self._interactive = 0

    # ── events ──────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, work: Work, now: float) -> list[Action]:
        assert work.id not in self._requests, "a request is submitted once"
        request = self._requests[work.id] = Request(work, units_of(work.chars), now)
        self._asked[work.run] += 1
        self._copies.largest = max(self._copies.largest, request.units)
        self._served[work.run] = max(self._served.get(work.run, 0.0), self._scale)
        actions: list[Action] = []
        self._queue(request, actions)
        return self._advance(actions, now)

    def cancel(self, request_id: int, now: float) -> list[Action]:
        """Nobody waits for it any more. Its attempts hold their slots until their ends are reported."""
        actions: list[Action] = []
        if request_id in self._requests:
            self._settle(self._requests[request_id], "cancelled", None, actions)
        return self._advance(actions, now)

    def make_private(self, request_ids: Iterable[int], now: float) -> list[Action]:
        """Their text turned out to be private: what is not at a trusted host is aborted, and goes to none."""
        actions: list[Action] = []
        for number in request_ids:
            request = self._requests.get(number)
            if request is not None and not request.work.private:
                request.work = replace(request.work, private=True)
                if number in self._waiting:
                    self._waiting.remove(number)
                    self._queue(request, actions)
        self._recall(actions)
        return self._advance(actions, now)

    def attempt_spoke(self, attempt_id: int, now: float) -> list[Action]:
        """Its first token has come: a host that was not known to be back is."""
        attempt = self._attempts.get(attempt_id)
        if attempt is None or attempt.spoke:
            return []
        attempt.spoke = True
        self._hosts[attempt.target.host].spoken = attempt.target.model
        return self._advance([], now) if self._patience.told else []

    def attempt_ended(self, attempt_id: int, ending: Ending, now: float) -> list[Action]:
        attempt = self._attempts.pop(attempt_id)
        self._interactive -= attempt.interactive
        self._account(attempt, ending, now)
        actions: list[Action] = []
        request = self._requests.get(attempt.request)
        if request is not None and request.attempts.pop(attempt_id, None) is not None:
            if ending.verdict == "whole":
                self._settle(request, "whole", attempt_id, actions)
            else:
                self._after_failure(request, attempt, ending, actions)
        return self._advance(actions, now)

    def host_changed(self, view: HostView, now: float) -> list[Action]:
        """A host is new, or differs: slots, models, trust, readiness, pause."""
        host = self._hosts.get(view.name)
        if host is None:
            self._hosts[view.name] = Slots(view, now)
        else:
            host.removed = False
            host.change(view, now)
        actions: list[Action] = []
        self._recall(actions)
        return self._advance(actions, now)

    def host_answers(self, name: str, now: float) -> list[Action]:
        """Something listens there again: the next request may try it at once."""
        if (host := self._hosts.get(name)) is not None:
            host.try_now(now)
        return self._advance([], now)

    def wake_host(self, name: str, now: float) -> list[Action]:
        """Somebody wants its machine to be woken, whatever waits for it."""
        host = self._hosts[name]
        if not host.view.asleep or host.waking_until is not None:
            return []
        host.wake(now)
        return self._advance([WakeHost(name)], now)

    def host_removed(self, name: str, now: float) -> list[Action]:
        """It gets nothing more; what is in flight there is aborted and goes elsewhere."""
        actions: list[Action] = []
        if name in self._hosts:
            host = self._hosts[name]
            host.change(HostView(name, host.view.slots, {}, ready=False), now)
            host.removed = True
            self._recall(actions)
            self._drop_if_removed(host)
        return self._advance(actions, now)

    def overflow_after(self, seconds: float, now: float) -> list[Action]:
        """Cloud hosts help from another drain time on; see ``Eligibility``."""
        self._may.overflow_after = seconds
        return self._advance([], now)

    def tick(self, now: float) -> list[Action]:
        return self._advance([], now)

    # ── settling ────────────────────────────────────────────────────────────────────────────────────────────

    def _account(self, attempt: Attempt, ending: Ending, now: float) -> None:
        """What the end says of the host."""
        host = self._hosts[attempt.target.host]
        host.end(attempt, now)
        match ending.verdict:
            case "whole":
                host.succeed(attempt, now)
            case "failed" | "refused":
                host.fail(attempt, now, refused=ending.verdict == "refused")
                host.unreached = ending.verdict == "refused"
            case "overloaded":
                host.overload(attempt, now, ending.retry_after)
            case "barred":
                host.recover(attempt, now)
                host.bar(attempt.target.model, now)
            case "cut":
                host.cut(attempt, now)
            case "unfit" | "fatal":
                host.recover(attempt, now)
            case "aborted":
                host.give_up_trial(attempt)
                if attempt.overtaken:
                    host.learn_slowness(attempt, now)
        self._drop_if_removed(host)

    def _drop_if_removed(self, host: Slots) -> None:
        if host.removed and not host.in_flight:
            del self._hosts[host.view.name]

    def _after_failure(self, request: Request, attempt: Attempt, ending: Ending, actions: list[Action]) -> None:
        target = attempt.target
        match ending.verdict:
            case "fatal":
                self._settle(request, "fatal", None, actions)
                return
            case "unfit":
                request.unfit |= {target} | self._no_larger(request, ending.window)
            case "overloaded":
                request.overloads += 1
                request.tries -= 1
            case "aborted" | "barred":
                request.tries -= 1
            case "refused":  # it reached nobody; the breaker says when it may again
                request.tries -= 1
                request.avoided.add(target.host)
            case _:
                request.avoided.add(target.host)
        if not request.attempts:
            self._queue(request, actions)

    def _no_larger(self, request: Request, window: int | None) -> set[Target]:
        if window is None:
            return set()
        views = ((target, self._hosts.get(target.host)) for target in request.work.targets)
        return {
            target
            for target, host in views
            if host and target.model in host.view.models and host.view.models[target.model].window <= window
        }

    def _queue(self, request: Request, actions: list[Action]) -> None:
        """Puts it (back) into the queue, or settles it when nothing is left to try."""
        work = request.work
        targets = tuple(target for target in work.targets if target not in request.unfit)
        if not targets:
            self._settle(request, "unfit" if request.unfit else "no_host", None, actions)
        elif request.tried_out:
            self._settle(request, "given_up", None, actions)
        else:
            avoided = frozenset(request.avoided)
            costs = tuple(size_class(work.costs.get(target, 0)) for target in targets) if work.costs else ()
            key = Key(work.interactive, work.run, targets, avoided, work.ordered, work.private, costs, work.patience)
            self._waiting.add(work.id, key, request.units, work.prefix, request.since)

    def _settle(self, request: Request, outcome: Outcome, winner: int | None, actions: list[Action]) -> None:
        if request.work.id in self._waiting:
            self._waiting.remove(request.work.id)
        del self._requests[request.work.id]
        self._asked[request.work.run] -= 1
        if not self._asked[request.work.run]:
            del self._asked[request.work.run]
        self._settled += 1
        actions.append(Settle(request.work.id, outcome, winner))
        for attempt in request.attempts.values():
            attempt.overtaken = winner is not None and not attempt.backup
            self._abort(attempt, actions)

    def _abort(self, attempt: Attempt, actions: list[Action]) -> None:
        if not attempt.aborting:
            attempt.aborting = True
            actions.append(Abort(attempt.id))

    def _recall(self, actions: list[Action]) -> None:
        """Aborts attempts that may no longer be where they are: a model gone, a host removed, trust withdrawn."""
        for attempt in self._attempts.values():
            request, host = self._requests.get(attempt.request), self._hosts[attempt.target.host]
            if request is not None and not host.allows(attempt.target.model, request.work.private):
                self._abort(attempt, actions)

    # ── handing out ─────────────────────────────────────────────────────────────────────────────────────────

    def _advance(self, actions: list[Action], now: float) -> list[Action]:
        """Fills free slots, then ends what waits in vain, then says when to look again."""
        wake: list[float] = []
        self._may.withheld = False
        self._outlook.forget()
        free = sorted((host for host in self._hosts.values() if host.free(now)), key=_speed)
        late = self._late(free, now, []) if free and len(self._waiting) else []
        for host in free:
            while host.free(now) and (
                found := self._copies.best_for(host, late, now, wake) or self._next_for(host, now, wake)
            ):
                self._start(self._requests[found[0]], found[1], now, actions)
        free = [host for host in free if host.free(now)]
        late = self._late(free, now, wake) if free and self._attempts else []
        for host in free:
            while host.free(now) and (found := self._copies.best_for(host, late, now, wake)):
                self._start(self._requests[found[0]], found[1], now, actions)
        if len(self._waiting) or self._patience.told:
            self._rouse(now, actions, wake)
            for number in self._patience.look(now, actions, wake):
                self._settle(self._requests[number], "no_host", None, actions)
            wake += (time for host in self._hosts.values() if (time := host.opens_at(now)) is not None)
            if self._may.withheld:
                wake.append(now + self._may.overflow_after)
        if later := [time for time in wake if now < time < math.inf]:
            actions.append(WakeAt(min(later)))
        self._forget_idle_runs()
        return actions

    def _late(self, free: list[Slots], now: float, wake: list[float]) -> list[tuple[float, Attempt]]:
        return self._copies.stragglers(free, now, wake, interactive=bool(self._interactive))

    def _next_for(self, host: Slots, now: float, wake: list[float]) -> tuple[int, Target] | None:
        """The request that this host should take next: class, then run, then resident model, prefix and length."""
        may = [(bucket, target) for bucket in self._waiting if (target := self._may.target(bucket.key, host, now))]
        may.sort(key=lambda pair: self._rank(pair[0], pair[1], host))
        for bucket, target in worth_a_swap(may, host, now, wake):
            request = bucket.head(host.prefix, self._outlook.longest_in_time(bucket, target, now))
            later = self._outlook.better_left(bucket, request, target, now, self._root_prefix_units(bucket, host))
            if later is None:
                return request, target
            wake.append(now + later)
        return None

    def _root_prefix_units(self, bucket: Bucket, host: Slots) -> int:
        """What reading a root's cached prompt again costs, if this one-slot host took something else now."""
        if host.root_prefix is None or bucket.key.interactive or host.root_prefix[0] not in self._served:
            return 0
        return host.root_prefix[1]

    def _rank(self, bucket: Bucket, target: Target, host: Slots) -> tuple[bool, bool, float, str, bool, int]:
        key = bucket.key
        # a request that failed here is a poor trial: it may be its own fault
        spoilt = host.open_until is not None and host.view.name in key.avoided
        swap = host.needs_swap(target.model)
        return (spoilt, not key.interactive, self._served[key.run], key.run, swap, -bucket.longest)

    def _start(self, request: Request, target: Target, now: float, actions: list[Action]) -> None:
        work, host = request.work, self._hosts[target.host]
        copy = bool(request.attempts)
        cost, entry = work.costs.get(target, 0), None
        if cost and self._purse is not None:
            entry = self._purse.reserve(work.run, target.host, target.model, cost).number
        attempt = Attempt(self._next_attempt, work.id, target, now, request.units, work.interactive, backup=copy)
        attempt.cost = cost
        self._interactive += work.interactive
        self._next_attempt += 1
        request.tries += 1
        request.attempts[attempt.id] = self._attempts[attempt.id] = attempt
        host.begin(attempt, prefix=work.prefix, root_run=work.run if work.ordered else None)
        if copy:
            self._copied += 1
        else:
            self._waiting.remove(work.id)
            self._scale = max(self._scale, self._served[work.run])
            self._served[work.run] += request.units
        self._outlook.forget()
        actions.append(Dispatch(attempt.id, work.id, target, entry))

    # ── giving up ───────────────────────────────────────────────────────────────────────────────────────────

    def _rouse(self, now: float, actions: list[Action], wake: list[float]) -> None:
        """Wakes machines for which enough waits, the fastest first."""
        asleep = [host for host in self._hosts.values() if host.view.asleep]
        for host in sorted(asleep, key=_speed):
            host.end_waking(now)
            if host.can_be_woken(now) and self._may.worth_waking(host, self._waiting, now):
                host.wake(now)
                actions.append(WakeHost(host.view.name))
            if host.waking_until is not None:
                wake.append(host.waking_until)

    def _forget_idle_runs(self) -> None:
        if len(self._served) > 2 * len(self._requests) + 8:
            alive = {request.work.run for request in self._requests.values()}
            self._served = {run: served for run, served in self._served.items() if run in alive}

    # ── showing and checking ────────────────────────────────────────────────────────────────────────────────

    def hosts(self) -> dict[str, Slots]:
        return self._hosts

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self._requests and not self._attempts

    def goes_on(self, run: str) -> bool:
        """Whether something of a run is under way, and not only waits for a host that is out of reach."""
        return run in self._asked and not self._patience.stalled(run)

    @property
    def waiting_units(self) -> int:
        """How much waits for a slot."""
        return self._waiting.units

    def statistics(self, now: float | None = None) -> Statistics:
        """``now`` only for ``drain``."""
        queued_for = dict.fromkeys(self._hosts, 0)
        for bucket in self._waiting:
            for name in {target.host for target in bucket.key.targets} & queued_for.keys():
                queued_for[name] += len(bucket.members)
        drain = None if now is None else self._outlook.drain(now)
        drain = None if drain == math.inf else drain
        return Statistics(len(self._waiting), len(self._attempts), self._copied, self._settled, queued_for, drain)

    def check(self) -> None:
        """The invariants; raises ``AssertionError``."""
        for host in self._hosts.values():
            assert len(host.in_flight) <= host.ceiling, f"{host.view.name} holds {len(host.in_flight)}"
            for attempt in host.in_flight.values():
                assert self._attempts.get(attempt.id) is attempt, "a host's attempt is unknown"
        assert sum(len(host.in_flight) for host in self._hosts.values()) == len(self._attempts), "a slot leaked"
        for number, request in self._requests.items():
            assert (number in self._waiting) != bool(request.attempts), f"{number} is not in exactly one place"
            assert len(request.attempts) <= 2, f"{number} has more than one copy"
            assert request.tries <= MAX_ATTEMPTS, f"{number} was tried too often"
            for attempt in request.attempts.values():
                assert self._attempts[attempt.id] is attempt, "a request's attempt is unknown"
                view = self._hosts[attempt.target.host].view.models.get(attempt.target.model)
                trusted = view is not None and view.trust == "mine"
                assert trusted or attempt.aborting or not request.work.private, f"{number} is private"
        assert self._asked == Counter(one.work.run for one in self._requests.values()), "requests are miscounted"
        for attempt in self._attempts.values():
            assert attempt.request in self._requests or attempt.aborting, f"attempt {attempt.id} has no purpose"
        if self._purse is not None:
            assert self._purse.reserved == sum(attempt.cost for attempt in self._attempts.values()), "money leaked"
        assert set(self._waiting.requests()) <= self._requests.keys(), "a settled request waits"
