"""The scheduler alone: events in, actions out; its invariants under random events; its makespan in simulation."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rlmd.config import BudgetSettings
from rlmd.pool.actions import (
    PATIENCE,
    Abort,
    Action,
    Dispatch,
    Ending,
    Moving,
    Settle,
    Stalled,
    Verdict,
    WakeAt,
    WakeHost,
    Work,
)
from rlmd.pool.budget import Budget
from rlmd.pool.patience import GRACE
from rlmd.pool.prices import NANO
from rlmd.pool.requests import MAX_ATTEMPTS
from rlmd.pool.scheduler import Scheduler
from rlmd.pool.slots import WAKE_AGAIN_SECONDS, Attempt, HostView, ModelView, Slots, Target, units_of

WHOLE = Ending("whole")


def view(name: str, slots: int = 1, trust: str = "mine", ready: bool = True, window: int = 8192) -> HostView:
    return HostView(name, slots, {"m": ModelView(window, trust)}, ready=ready)  # type: ignore[arg-type]


@dataclass
class Story:
    """A scheduler with a hand-turned clock that keeps every call, and checks the invariants after each."""

    scheduler: Scheduler = field(default_factory=Scheduler)
    budget: Budget | None = None
    now: float = 0.0
    calls: list[str] = field(default_factory=list)
    flying: dict[int, Dispatch] = field(default_factory=dict)
    aborted: set[int] = field(default_factory=set)
    settled: dict[int, Settle] = field(default_factory=dict)
    wake: float | None = None
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, name: str, *arguments: object) -> list[Action]:
        actions: list[Action] = getattr(self.scheduler, name)(*arguments, self.now)
        self.calls.append(f"{self.now:8.3f} {name}{arguments} -> {actions}")
        self.wake = None
        for action in actions:
            match action:
                case Dispatch():
                    self.flying[action.attempt] = action
                case Abort(attempt):
                    self.aborted.add(attempt)
                case Settle():
                    assert action.request not in self.settled, self.tale("settled twice")
                    self.settled[action.request] = action
                case WakeAt(time):
                    self.wake = time
        try:
            self.scheduler.check()
        except AssertionError as broken:
            raise AssertionError(self.tale(str(broken))) from broken
        return actions

    def tale(self, what: str) -> str:
        return what + "\n" + "\n".join(self.calls[-40:])

    def hosts(self, *views: HostView) -> None:
        for each in views:
            self.call("host_changed", each)

    def submit(self, *hosts: str, chars: int = 1000, run: str = "run", **more: object) -> int:
        number = next(self.ids)
        targets = tuple(Target(host, "m") for host in hosts)
        if (cost := more.pop("cost", 0)) and isinstance(cost, int):
            more["costs"] = {target: cost for target in targets if target.host.startswith("cloud")}
        self.call("submit", Work(number, run, targets, chars, **more))  # type: ignore[arg-type]
        return number

    def end(self, attempt: int, ending: Ending = WHOLE, spent: int | None = None) -> None:
        entry = self.flying.pop(attempt).entry
        if entry is not None and self.budget is not None:
            self.budget.settle(entry, spent)
        self.aborted.discard(attempt)
        self.call("attempt_ended", attempt, ending)

    def end_of(self, request: int, ending: Ending = WHOLE) -> None:
        attempt = min(number for number, one in self.flying.items() if one.request == request)
        self.end(attempt, ending)

    def at(self, request: int) -> list[str]:
        return [one.target.host for one in self.flying.values() if one.request == request]

    def order(self) -> list[int]:
        return [one.request for one in self.flying.values()]

    def drain(self) -> list[int]:
        """Ends attempts one by one; returns the order in which requests were handed out."""
        seen: list[int] = []
        while self.flying:
            attempt, dispatch = next(iter(self.flying.items()))
            seen.append(dispatch.request)
            self.now += 1
            self.end(attempt, Ending("aborted") if attempt in self.aborted else WHOLE)
        return seen


# ── who may take it ─────────────────────────────────────────────────────────────────────────────────────────────


def test_work_is_handed_out_against_free_slots_only() -> None:
    story = Story()
    story.hosts(view("a", 2), view("b", 1))
    for _ in range(5):
        story.submit("a", "b")
    assert sorted(one.target.host for one in story.flying.values()) == ["a", "a", "b"]
    assert story.scheduler.statistics().queued == 2
    assert story.scheduler.statistics().queued_for == {"a": 2, "b": 2}


def test_private_work_never_goes_to_a_cloud_host_even_when_trust_is_withdrawn() -> None:
    story = Story()
    story.hosts(view("cloud", 4, trust="cloud"))
    request = story.submit("cloud", private=True)
    assert story.settled[request].outcome == "no_host"
    story.hosts(view("mine", 1))
    held = story.submit("mine", private=True)
    story.hosts(view("mine", 1, trust="cloud"))
    attempt = next(iter(story.flying))
    assert story.aborted == {attempt}
    story.end(attempt, Ending("aborted"))
    assert story.settled[held].outcome == "no_host"


def test_nothing_is_sent_to_a_host_that_has_not_said_what_it_is() -> None:
    story = Story()
    story.hosts(view("a", ready=False))
    request = story.submit("a")
    assert not story.flying
    story.hosts(view("a"))
    assert story.at(request) == ["a"]


# ── in which order ──────────────────────────────────────────────────────────────────────────────────────────────


def test_interactive_comes_before_batch_and_longest_first_within_a_batch() -> None:
    story = Story()
    story.hosts(view("a"))
    first = story.submit("a")
    short, long = story.submit("a", chars=10), story.submit("a", chars=9000)
    person = story.submit("a", chars=5, interactive=True)
    assert story.drain() == [first, person, long, short]


def test_runs_share_a_host_by_work_done_not_by_arrival() -> None:
    story = Story()
    story.hosts(view("a"))
    big = [story.submit("a", run="big") for _ in range(6)]
    late = [story.submit("a", run="late") for _ in range(3)]
    order = story.drain()
    assert order.index(late[2]) < order.index(big[4]), story.tale(str(order))


def test_equal_requests_go_in_the_order_in_which_they_came_whether_the_host_is_measured_or_not() -> None:
    story = Story()
    story.hosts(view("a"), view("b"))
    for known in (False, True):
        blockers = [story.submit("a", "b") for _ in range(2)]
        waiting = [story.submit("a", "b") for _ in range(4)]
        if known:
            assert all(host.pace for host in story.scheduler.hosts().values())
        for blocker in blockers:
            story.end_of(blocker, Ending("fatal") if not known else WHOLE)
        assert sorted(story.order()) == waiting[:2]
        story.drain()


def test_a_prefix_group_stays_together_on_a_host() -> None:
    story = Story()
    story.hosts(view("a"))
    story.submit("a", prefix="x", chars=100)
    other = story.submit("a", prefix="y", chars=9000)
    same = [story.submit("a", prefix="x", chars=50), story.submit("a", prefix="x", chars=70)]
    assert story.drain()[1:] == [same[1], same[0], other]


def test_a_root_prefers_its_first_candidate_and_waits_for_its_slot() -> None:
    story = Story()
    story.hosts(view("strong"), view("weak"))
    busy = story.submit("strong")
    root = story.submit("strong", "weak", ordered=True, interactive=True)
    assert story.at(root) == []
    story.end_of(busy)
    assert story.at(root) == ["strong"]


def test_a_root_goes_to_the_next_candidate_when_the_first_is_down() -> None:
    story = Story()
    story.hosts(view("strong"), view("weak"))
    root = story.submit("strong", "weak", ordered=True, interactive=True)
    story.end_of(root, Ending("refused"))
    assert story.at(root) == ["weak"]


def test_a_root_on_a_one_slot_host_waits_for_one_sub_query_at_most() -> None:
    story = Story()
    story.hosts(view("only"))
    subs = [story.submit("only", run="batch") for _ in range(20)]
    root = story.submit("only", run="other", ordered=True, interactive=True)
    story.end_of(subs[0])
    assert story.at(root) == ["only"]


# ── money ───────────────────────────────────────────────────────────────────────────────────────────────────────


def paying(overflow_after: float = 0.0, **limits: float) -> Story:
    """A story with a budget in billionths of a dollar; hosts whose name begins with ``cloud`` cost."""
    dollars = {name: limit / NANO for name, limit in limits.items()}
    budget = Budget(BudgetSettings.model_validate(dollars), lambda: 0.0)
    return Story(Scheduler(budget, overflow_after), budget)


def test_what_is_in_flight_counts_against_the_budget_and_what_is_settled_frees_the_rest() -> None:
    story = paying(day=100)
    story.hosts(view("cloud", 8, trust="cloud"))
    requests = [story.submit("cloud", cost=40, run="t") for _ in range(4)]
    assert len(story.flying) == 2, "the third might break the budget"
    story.end_of(requests[0], WHOLE)
    assert len(story.flying) == 1, "it cost all that was reserved"
    attempt = next(iter(story.flying))
    story.end(attempt, WHOLE, spent=5)
    assert len(story.flying) == 1, "it cost less: there is room for one more"
    story.end(next(iter(story.flying)), WHOLE, spent=40)
    assert {story.settled[request].outcome for request in requests} == {"whole", "no_host"}


def test_at_the_end_of_the_budget_local_hosts_do_the_rest() -> None:
    story = paying(day=100)
    story.hosts(view("cloud", 4, trust="cloud"), view("local"))
    requests = [story.submit("cloud", "local", cost=60, run="t") for _ in range(5)]
    assert [one.target.host for one in story.flying.values()].count("cloud") == 1
    story.drain()
    assert {story.settled[request].outcome for request in requests} == {"whole"}
    assert story.budget is not None
    assert [round(account.spent * NANO) for account in story.budget.accounts()] == [60, 60]


def test_cloud_hosts_help_only_when_local_ones_would_take_too_long_or_are_down() -> None:
    story = paying(overflow_after=10.0)
    story.hosts(view("local"))
    first = story.submit("local")
    story.now = 4.0
    story.end_of(first)
    story.hosts(view("cloud", 4, trust="cloud"))
    for _ in range(3):
        story.submit("local", "cloud", cost=1, run="t")
    assert [one.target.host for one in story.flying.values()] == ["local"], "8 s of work wait"
    story.submit("local", "cloud", cost=1, run="t")
    assert [one.target.host for one in story.flying.values()] == ["local", "cloud"], "12 s of work wait"
    story.end(next(iter(story.flying)), Ending("refused"))
    assert [one.target.host for one in story.flying.values()].count("cloud") == 4, "and now it is down"


def test_when_the_cloud_fails_local_hosts_do_it() -> None:
    story = paying()
    story.hosts(view("cloud", 1, trust="cloud"))
    request = story.submit("cloud", "local", cost=1, run="t")
    story.hosts(view("local"))
    story.end_of(request, Ending("refused"))
    assert story.at(request) == ["local"]


def test_a_run_that_nobody_allowed_to_spend_spends_nothing() -> None:
    budget = Budget(BudgetSettings(ask=True), lambda: 0.0)
    story = Story(Scheduler(budget, 0.0), budget)
    story.hosts(view("cloud", 2, trust="cloud"))
    denied = story.submit("cloud", cost=1, run="t")
    assert story.settled[denied].outcome == "no_host"
    budget.allow("t")
    assert story.at(story.submit("cloud", cost=1, run="t")) == ["cloud"]


def test_slots_that_others_use_are_not_ours_but_one_always_is() -> None:
    story = Story()
    story.hosts(replace(view("a", 4), foreign=3))
    requests = [story.submit("a") for _ in range(6)]
    assert len(story.flying) == 1
    story.hosts(replace(view("a", 4), foreign=1))
    assert len(story.flying) == 3
    story.hosts(replace(view("a", 4), foreign=9))
    story.drain()
    assert {story.settled[request].outcome for request in requests} == {"whole"}


# ── which model is in memory ────────────────────────────────────────────────────────────────────────────────────


def swapping(slots: int = 1) -> Story:
    """A host whose memory holds one of two models, loaded in 10 s."""
    story = Story()
    models = {name: ModelView(8192, "mine") for name in ("a", "b")}
    story.hosts(HostView("gpu", slots, models, swaps=True, load_seconds=10.0))
    return story


def submit_to(story: Story, model: str, run: str, **more: Any) -> int:
    number = next(story.ids)
    story.call("submit", Work(number, run, (Target("gpu", model),), 1000, **more))
    return number


def test_models_do_not_change_places_for_every_request_of_two_runs() -> None:
    story = swapping()
    models: dict[int, str] = {}
    for _ in range(40):
        for model in ("a", "b"):
            models[submit_to(story, model, run=f"of {model}")] = model
    order: list[str] = []
    while story.flying:
        attempt, dispatch = next(iter(story.flying.items()))
        order.append(models[dispatch.request])
        story.now += 4
        story.end(attempt)
    assert len(order) == 80
    swaps = sum(one != other for one, other in itertools.pairwise(order))
    assert swaps == 7, "40 s each in turn, for as long as both have work"


def test_another_model_comes_when_nothing_is_in_flight_and_one_after_the_other() -> None:
    story = swapping(slots=2)
    first = [submit_to(story, "a", "one"), submit_to(story, "a", "one")]
    other = submit_to(story, "b", "two")
    story.end_of(first[0])
    assert not story.at(other), "the other slot works with the model in memory"
    story.end_of(first[1])
    assert story.at(other) == ["gpu"]


def test_of_two_models_that_may_answer_the_one_in_memory_does() -> None:
    story = swapping()
    story.hosts(replace(story.scheduler.hosts()["gpu"].view, resident=("b",)))
    number = next(story.ids)
    story.call("submit", Work(number, "one", (Target("gpu", "a"), Target("gpu", "b")), 1000))
    assert [one.target.model for one in story.flying.values()] == ["b"]


def test_nothing_changes_places_with_a_model_that_is_at_work() -> None:
    """Not even when what would come first is better left to another host."""
    story = swapping(slots=2)
    models = {name: ModelView(8192, "mine") for name in ("a", "b")}
    story.hosts(
        HostView("gpu", 2, models, swaps=True, resident=("a",), pace={"a": 0.01, "b": 0.01}),
        HostView("fast", 1, {"a": ModelView(8192, "mine")}, pace={"a": 0.0001}),
    )
    number = next(story.ids)
    story.call("submit", Work(number, "one", (Target("fast", "a"),), 1000))
    submit_to(story, "a", "one")
    left, other = next(story.ids), next(story.ids)
    story.call("submit", Work(left, "one", (Target("gpu", "a"), Target("fast", "a")), 5000))
    story.call("submit", Work(other, "one", (Target("gpu", "b"),), 1000))
    assert not story.at(left), "the fast host does it sooner"
    assert not story.at(other), "one of the other model's is in flight"


def test_a_root_does_not_wait_until_a_batch_has_had_its_time() -> None:
    story = swapping()
    batch = [submit_to(story, "a", "one") for _ in range(5)]
    root = submit_to(story, "b", "one", interactive=True, ordered=True)
    story.end_of(batch[0])
    assert story.at(root) == ["gpu"]


def test_a_host_loads_a_model_until_its_first_word() -> None:
    story = swapping()
    loading = lambda: story.scheduler.hosts()["gpu"].loading  # noqa: E731
    first, other = submit_to(story, "a", "one"), submit_to(story, "b", "one")
    assert loading() == "a", "nothing is in memory"
    story.call("attempt_spoke", next(iter(story.flying)))
    assert loading() is None
    story.end_of(first)
    assert story.at(other) == ["gpu"]
    assert loading() == "b", "it takes the other's place"
    story.hosts(replace(story.scheduler.hosts()["gpu"].view, resident=("b",)))
    assert loading() is None, "the server says that it is there"
    story.end_of(other)
    assert loading() is None
    story.hosts(HostView("gpu", 1, {"a": ModelView(8192, "mine")}))
    submit_to(story, "a", "one")
    assert loading() is None, "of a server that has one model for good nothing is known"


# ── what sleeps ─────────────────────────────────────────────────────────────────────────────────────────────────


def asleep(name: str, slots: int = 1, boot: float = 60.0) -> HostView:
    return replace(view(name, slots, ready=False), asleep=True, boot_seconds=boot)


def woken(actions: list[Action]) -> list[str]:
    return [action.host for action in actions if isinstance(action, WakeHost)]


def test_a_machine_that_sleeps_is_woken_once_when_nobody_else_does_the_work() -> None:
    story = Story()
    story.hosts(asleep("a"))
    assert story.scheduler.hosts()["a"].state(0) == "asleep"
    request = story.submit("a")
    assert "WakeHost(host='a')" in story.calls[-1]
    assert story.scheduler.hosts()["a"].state(0) == "waking"
    story.submit("a")
    assert "WakeHost" not in story.calls[-1]
    story.now = 59.0
    story.call("tick")
    assert request not in story.settled, "it may take that long"
    story.hosts(view("a"))
    assert story.at(request) == ["a"]
    assert story.scheduler.hosts()["a"].state(story.now) == "busy"


def test_a_machine_that_does_not_come_up_is_given_up_and_not_woken_again_for_a_while() -> None:
    story = Story()
    story.hosts(asleep("a"))
    request = story.submit("a")
    story.now = 60.0
    story.call("tick")
    assert story.scheduler.hosts()["a"].state(story.now) == "down"
    story.now += PATIENCE
    story.call("tick")
    assert story.settled[request].outcome == "no_host"
    later = story.submit("a")
    assert not woken(story.call("tick"))
    story.now += PATIENCE
    story.call("tick")
    assert story.settled[later].outcome == "no_host", "nobody waits for a machine that is not being woken"
    story.now += WAKE_AGAIN_SECONDS
    again = story.submit("a")
    assert "WakeHost(host='a')" in story.calls[-1]
    assert again not in story.settled


def test_a_machine_is_left_asleep_while_others_are_done_before_it_has_booted() -> None:
    story = _measured(("awake", 1, 10.0))
    story.hosts(asleep("b", boot=60.0))
    for _ in range(6):
        story.submit("awake", "b")
    assert story.scheduler.hosts()["b"].state(story.now) == "asleep", "50 s of work wait"
    for _ in range(3):
        story.submit("awake", "b")
    assert story.scheduler.hosts()["b"].state(story.now) == "waking", "80 s"


def test_of_several_that_sleep_only_as_many_are_woken_as_are_needed() -> None:
    story = Story()
    story.hosts(asleep("a", 2), asleep("b", 2))
    story.submit("a", "b")
    states = [story.scheduler.hosts()[name].state(0) for name in ("a", "b")]
    assert sorted(states) == ["asleep", "waking"]
    for _ in range(3):
        story.submit("a", "b")
    assert [story.scheduler.hosts()[name].state(0) for name in ("a", "b")] == ["waking", "waking"]


# ── what fails ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("verdict", ["failed", "refused", "cut"])
def test_a_failure_is_tried_elsewhere_first(verdict: Verdict) -> None:
    story = Story()
    story.hosts(view("a", 2), view("b"))
    blocker = story.submit("b")
    request = story.submit("a", "b")
    story.end_of(request, Ending(verdict))
    assert story.at(request) == []
    story.end_of(blocker)
    assert story.at(request) == ["b"]


def test_four_attempts_are_the_most() -> None:
    story = Story()
    story.hosts(view("a"), view("b"))
    request = story.submit("a", "b")
    for _ in range(MAX_ATTEMPTS):
        story.end_of(request, Ending("cut"))
    assert story.settled[request].outcome == "given_up"


def test_an_unfit_target_is_left_out_with_all_that_have_no_larger_window() -> None:
    story = Story()
    story.hosts(view("small", window=4096), view("equal", window=4096), view("large", window=32768))
    request = story.submit("small", "equal", "large", ordered=True)
    story.end_of(request, Ending("unfit", window=4096))
    assert story.at(request) == ["large"]
    story.end_of(request, Ending("unfit", window=32768))
    assert story.settled[request].outcome == "unfit"


def test_a_fatal_error_is_not_tried_again() -> None:
    story = Story()
    story.hosts(view("a"), view("b"))
    request = story.submit("a", "b")
    story.end_of(request, Ending("fatal"))
    assert story.settled[request].outcome == "fatal"


def test_the_breaker_opens_admits_one_trial_and_closes() -> None:
    story = Story()
    story.hosts(view("a", 4))
    requests = [story.submit("a") for _ in range(4)]
    story.end_of(requests[0], Ending("refused"))
    for request in requests[1:]:
        story.end_of(request, Ending("failed"))
    assert not story.flying
    assert story.wake == pytest.approx(2.0)
    story.now = 2.0
    story.call("tick")
    assert len(story.flying) == 1, "half open: one real request"
    story.end(next(iter(story.flying)), Ending("failed"))
    assert story.scheduler.hosts()["a"].opens_at(story.now) == pytest.approx(6.0), "twice as long"
    story.now = 6.0
    story.call("tick")
    story.end(next(iter(story.flying)))
    assert len(story.flying) == 3, "closed again"


def test_waiting_for_hosts_that_are_down_ends() -> None:
    for ready in (False, True):
        story = Story()
        story.hosts(view("a", ready=ready))
        request = story.submit("a")
        while request not in story.settled and story.now < 200:
            for attempt in list(story.flying):
                story.end(attempt, Ending("refused"))
            assert story.wake is not None or request in story.settled, story.tale("nothing would ever happen")
            story.now = story.wake if story.wake is not None else story.now
            story.call("tick")
        assert story.settled[request].outcome in ("no_host", "given_up")
        assert story.now <= PATIENCE + 1


def test_retry_after_closes_the_host_and_halves_what_it_gets() -> None:
    story = Story()
    story.hosts(view("a", 4))
    requests = [story.submit("a") for _ in range(8)]
    for request in requests[:4]:
        story.end_of(request, Ending("overloaded", retry_after=7.0))
    assert not story.flying
    assert story.wake == pytest.approx(7.0)
    story.now = 7.0
    story.call("tick")
    assert len(story.flying) == 2
    assert story.drain()
    assert len(story.settled) == 8


def test_a_barred_target_is_not_asked_by_others_either() -> None:
    story = Story()
    story.hosts(view("keyless", 2))
    requests = [story.submit("keyless") for _ in range(10)]
    story.end_of(requests[0], Ending("barred"))
    story.end_of(requests[1], Ending("barred"))
    assert {settle.outcome for settle in story.settled.values()} == {"no_host"}
    assert len(story.settled) == 10


def test_a_removed_host_hands_its_work_to_the_others() -> None:
    story = Story()
    story.hosts(view("a"), view("b"))
    request = story.submit("a", "b", ordered=True)
    story.call("host_removed", "a")
    (attempt,) = story.aborted
    story.end(attempt, Ending("aborted"))
    assert story.at(request) == ["b"]
    assert list(story.scheduler.hosts()) == ["b"]


def test_cancelling_keeps_the_slot_until_the_attempt_has_ended() -> None:
    story = Story()
    story.hosts(view("a"))
    first, second = story.submit("a"), story.submit("a")
    story.call("cancel", first)
    (attempt,) = story.aborted
    assert story.at(second) == []
    story.end(attempt, Ending("aborted"))
    assert story.at(second) == ["a"]


# ── the tail ────────────────────────────────────────────────────────────────────────────────────────────────────


def _measured(*paces: tuple[str, int, float]) -> Story:
    """Hosts whose pace is known: seconds for a request of the default size."""
    story = Story()
    for name, slots, seconds in paces:
        story.hosts(view(name, slots))
        story.now += 100
        request = story.submit(name)
        story.now += seconds
        story.end_of(request)
    return story


def test_a_hung_request_gets_one_copy_and_the_first_whole_answer_wins() -> None:
    story = _measured(("a", 1, 1.0), ("b", 1, 1.0))
    request = story.submit("a", "b")
    (hung,) = story.at(request)
    assert story.wake is not None, "it is looked at again"
    while len(story.at(request)) < 2 and story.wake is not None and story.now < 1000:
        story.now = story.wake
        story.call("tick")
    assert sorted(story.at(request)) == ["a", "b"], story.tale("no copy")
    copy = next(number for number, one in story.flying.items() if one.target.host != hung)
    story.end(copy)
    assert story.settled[request].attempt == copy
    assert len(story.aborted) == 1


def test_no_copy_runs_on_a_cloud_host() -> None:
    story = _measured(("a", 1, 1.0))
    story.hosts(view("paid", 4, trust="cloud"))
    request = story.submit("a", "paid", ordered=True)
    for _ in range(50):
        story.now += 10
        story.call("tick")
    assert story.at(request) == ["a"]


def test_a_copy_that_would_save_little_is_not_made() -> None:
    """A free host that may not take it is fast: that says nothing of the one that may."""
    story = Story()
    slow, other, fast = (
        replace(view(name), pace={"m": pace}) for name, pace in (("a", 0.01), ("c", 0.006), ("b", 1e-5))
    )
    story.hosts(slow, replace(other, paused=True), fast)
    request = story.submit("a", "c")
    assert story.at(request) == ["a"]
    story.hosts(other)
    assert story.at(request) == ["a"], "20 s there, 12 s here: a second prompt for 8 s"
    story.now = 50.0
    story.call("tick")
    assert story.at(request) == ["a", "c"], "it hangs"


def test_a_slow_host_leaves_the_last_request_to_a_faster_one() -> None:
    story = _measured(("fast", 1, 1.0), ("slow", 1, 10.0))
    first, last = story.submit("fast", "slow"), story.submit("fast", "slow")
    assert story.at(first) == ["fast"]
    assert story.at(last) == [], "one second of waiting beats ten"
    assert story.wake is not None
    story.now += 1
    story.end_of(first)
    assert story.at(last) == ["fast"]


def test_a_paused_machine_is_not_woken() -> None:
    story = Story()
    story.hosts(replace(asleep("a"), paused=True))
    assert not woken(story.call("submit", Work(1, "run", (Target("a", "m"),), 1000)))
    assert woken(story.call("host_changed", asleep("a"))) == ["a"]


def test_one_reply_that_took_very_long_spoils_no_estimate() -> None:
    host = Slots(replace(view("a"), pace={"m": 0.001}), 0.0)
    host.learn(Attempt(1, 1, Target("a", "m"), 0.0, 1000), 1_000_000.0)
    assert host.pace["m"] == pytest.approx(0.001 + 0.3 * 0.007)


def test_a_host_is_idle_since_the_last_of_its_attempts_ended() -> None:
    story = Story()
    story.hosts(view("a", 2))
    first, second = story.submit("a"), story.submit("a")
    host = story.scheduler.hosts()["a"]
    story.now = 5.0
    story.end_of(first)
    assert host.idle_since is None
    story.now = 7.0
    story.end_of(second)
    assert host.idle_since == 7.0


def test_a_barred_model_is_tried_again_after_a_minute_and_not_before() -> None:
    story = Story()
    story.hosts(view("a"))
    story.end_of(story.submit("a"), Ending("barred"))
    story.now = 59.0
    assert not story.at(story.submit("a"))
    story.now = 60.0
    assert story.at(story.submit("a")) == ["a"]


def test_an_overloaded_host_gets_more_again_one_by_one_and_pauses_longer_each_time() -> None:
    host = Slots(view("a", 4), 0.0)
    attempt = Attempt(1, 1, Target("a", "m"), 0.0, 1000)
    for number, pause in enumerate((1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)):
        now = 100.0 * number
        host.overload(attempt, now, None)
        assert host.closed_until == now + pause
    host.overload(attempt, 5000.0, 0.0)
    assert host.closed_until == 5000.1, "a pause of nothing would be a loop"
    assert host.permits == 1
    grown = []
    for now in range(6000, 6006):
        host.begin(attempt, prefix="", root_run=None)
        host.end(attempt, float(now))
        host.succeed(attempt, float(now))
        grown.append(host.permits)
    assert grown == [2, 2, 3, 3, 3, 4], "after as many answers as it holds"


def test_a_failure_that_reached_the_host_may_be_the_requests_own_and_the_second_opens_the_breaker() -> None:
    host = Slots(view("a", 4), 0.0)
    attempt = Attempt(1, 1, Target("a", "m"), 0.0, 1000)
    host.fail(attempt, 1.0, refused=False)
    assert host.open_until is None
    host.fail(attempt, 2.0, refused=False)
    assert host.open_until == 4.0


def test_a_host_that_is_busy_is_none_of_the_four_attempts() -> None:
    story = Story()
    story.hosts(view("a"))
    asked = story.submit("a", patience=1000.0)
    for _ in range(6):
        story.end_of(asked, Ending("overloaded", retry_after=1.0))
        story.now += 1.0
        story.call("tick")
    assert story.at(asked) == ["a"]


def test_a_machine_that_wakes_already_is_not_woken_by_hand_again() -> None:
    story = Story()
    story.hosts(asleep("a"))
    assert woken(story.call("wake_host", "a")) == ["a"]
    assert woken(story.call("wake_host", "a")) == []


def test_a_slow_host_takes_over_when_the_fast_one_hangs() -> None:
    story = _measured(("fast", 1, 1.0), ("slow", 1, 10.0))
    story.submit("fast", "slow")
    last = story.submit("fast", "slow")
    while not story.at(last) and story.wake is not None and story.now < 1000:
        story.now = story.wake
        story.call("tick")
    assert story.at(last) == ["slow"]


# ── random events ───────────────────────────────────────────────────────────────────────────────────────────────

HOSTS = ("a", "b", "cloud")
VERDICTS: tuple[Verdict, ...] = ("whole", "failed", "refused", "overloaded", "cut", "unfit", "barred", "fatal")


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, the invariants hold and everything that was asked is settled in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.story = paying(overflow_after=2.0, day=400, run=300)
        self.asked: dict[int, bool] = {}

    @initialize(slots=st.tuples(*[st.integers(1, 4)] * 3), trusts=st.tuples(*[st.sampled_from(["mine", "cloud"])] * 3))
    def begin(self, slots: tuple[int, ...], trusts: tuple[str, ...]) -> None:
        self.story.hosts(*(view(*each) for each in zip(HOSTS, slots, trusts, strict=True)))

    @rule(
        hosts=st.lists(st.sampled_from(HOSTS), min_size=1, max_size=3, unique=True),
        chars=st.integers(0, 50_000),
        run=st.sampled_from(["r1", "r2"]),
        flags=st.tuples(*[st.booleans()] * 3),
        prefix=st.sampled_from(["", "x", "y"]),
        cost=st.integers(0, 60),
    )
    def submit(self, hosts: list[str], chars: int, run: str, flags: tuple[bool, ...], prefix: str, cost: int) -> None:
        interactive, ordered, private = flags
        number = self.story.submit(
            *hosts,
            chars=chars,
            run=run,
            interactive=interactive,
            ordered=ordered,
            private=private,
            prefix=prefix,
            cost=cost,
        )
        self.asked[number] = private

    @rule(pick=st.integers(0, 100), verdict=st.sampled_from(VERDICTS), wait=st.sampled_from([None, 0.0, 3.0, 500.0]))
    def end(self, pick: int, verdict: Verdict, wait: float | None) -> None:
        if not self.story.flying:
            return
        attempt = sorted(self.story.flying)[pick % len(self.story.flying)]
        if attempt in self.story.aborted:
            verdict = "aborted"
        ending = Ending(verdict, retry_after=wait, window=8192 if verdict == "unfit" else None)
        self.story.end(attempt, ending, spent=None if verdict != "whole" or pick % 3 else 1)

    @rule(pick=st.integers(0, 100))
    def cancel(self, pick: int) -> None:
        open_ = sorted(self.asked.keys() - self.story.settled.keys())
        if open_:
            self.story.call("cancel", open_[pick % len(open_)])

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.story.now += seconds
        self.story.call("tick")

    @rule(
        name=st.sampled_from(HOSTS),
        slots=st.integers(1, 4),
        trust=st.sampled_from(["mine", "cloud"]),
        ready=st.booleans(),
        sleeps=st.booleans(),
    )
    def change(self, name: str, slots: int, trust: str, ready: bool, sleeps: bool) -> None:
        host = view(name, slots, trust, ready)
        self.story.hosts(replace(host, asleep=sleeps and not ready, boot_seconds=20.0))

    @rule(name=st.sampled_from(HOSTS))
    def remove(self, name: str) -> None:
        self.story.call("host_removed", name)

    @invariant()
    def slots_are_never_exceeded(self) -> None:
        for name, host in self.story.scheduler.hosts().items():
            flying = sum(one.target.host == name for one in self.story.flying.values())
            assert flying == len(host.in_flight) <= host.ceiling, self.story.tale(name)

    @invariant()
    def no_budget_is_broken(self) -> None:
        assert self.story.budget is not None
        for account in [one for run in ("r1", "r2") for one in self.story.budget.accounts(run)]:
            if account.limit is not None:
                assert account.spent + account.reserved <= account.limit + 1e-12, self.story.tale(account.name)

    def teardown(self) -> None:
        """With patience and hosts that answer, nothing is left."""
        story = self.story
        for _ in range(2000):
            if not (self.asked.keys() - story.settled.keys()) and not story.flying:
                break
            for attempt in list(story.flying):
                if attempt in story.flying:
                    story.end(attempt, Ending("aborted") if attempt in story.aborted else WHOLE)
            left = self.asked.keys() - story.settled.keys()
            assert not left or story.flying or story.wake is not None, story.tale(f"{left} would wait for ever")
            if not story.flying and story.wake is not None:
                story.now = story.wake
                story.call("tick")
        assert self.asked.keys() == story.settled.keys(), story.tale("not all settled")
        assert not story.scheduler.statistics().in_flight


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
TestAnyOrder = AnyOrder.TestCase


def test_an_answer_from_a_host_that_is_said_to_be_down_does_not_stop_the_clock_of_those_that_wait() -> None:
    story = Story()
    story.hosts(view("a"))
    story.submit("a")
    story.now = 7
    story.hosts(view("a", ready=False))
    story.end(1)
    waiting = story.submit("a")
    story.now = 7 + PATIENCE - 1
    story.call("tick")
    assert waiting not in story.settled
    assert story.wake == 7 + PATIENCE
    story.now = story.wake
    story.call("tick")
    assert story.settled[waiting].outcome == "no_host"


# ── waiting for a host ──────────────────────────────────────────────────────────────────────────────────────────


def told(actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, (Stalled, Moving))]


@pytest.mark.parametrize("how", ["down", "paused", "asleep"])
def test_a_run_whose_only_host_is_out_of_reach_is_stalled_until_it_comes(how: str) -> None:
    out = {"down": view("a", ready=False), "paused": replace(view("a"), paused=True), "asleep": asleep("a")}[how]
    story = Story()
    story.hosts(out, view("b"))
    request = story.submit("a", run="one", patience=3600.0)
    other = story.submit("b", run="two", patience=3600.0)
    assert not told(story.call("tick")), "it may be back in a moment"
    story.now = GRACE
    assert told(story.call("tick")) == [Stalled("one", 3600.0)]
    assert not told(story.call("tick")), "said once"
    story.now = 3500.0
    if how == "asleep":
        story.hosts(view("a", ready=False))  # it was not woken by then
    story.call("tick")
    assert request not in story.settled
    assert told(story.call("host_changed", view("a"))) == [Moving("one")]
    assert story.at(request) == ["a"]
    assert story.at(other) == ["b"]


def test_a_stalled_run_ends_at_its_deadline_and_not_before() -> None:
    story = Story()
    story.hosts(view("a"))
    request = story.submit("a", patience=1000.0)
    while request not in story.settled:
        for attempt in list(story.flying):  # every trial is refused, and none of them counts
            story.end(attempt, Ending("refused"))
        assert story.wake is not None, story.tale("nothing would ever happen")
        story.now = story.wake
        actions = story.call("tick")
    assert story.settled[request].outcome == "no_host"
    assert story.now == 1000.0
    assert told(actions) == [Moving("run")]
    assert len([call for call in story.calls if "Stalled" in call]) == 1, "said once, whatever was tried meanwhile"


def test_a_trial_that_speaks_ends_the_waiting() -> None:
    story = Story()
    story.hosts(view("a"))
    request = story.submit("a", patience=1000.0)
    story.end_of(request, Ending("refused"))
    story.now = GRACE
    story.call("tick")
    attempt = next(iter(story.flying))
    story.now += GRACE
    assert told(story.call("tick")) == [], "the first trial came before it was said"
    story.end(attempt, Ending("refused"))
    assert any("Stalled" in call for call in story.calls[-1:])
    story.now += 60.0
    assert not told(story.call("tick")), "a trial is no host"
    (attempt,) = story.flying
    assert told(story.call("attempt_spoke", attempt)) == [Moving("run")]
    assert not story.call("attempt_spoke", attempt)


def test_what_goes_on_at_one_host_does_not_wait_for_another() -> None:
    """Of a run's work some goes on: it is not stalled, and what only the other host may do has its own deadline."""
    story = Story()
    story.hosts(view("a", ready=False), view("b"))
    alone = story.submit("a", patience=100.0)
    goes = story.submit("b", patience=100.0)
    story.now = 50.0
    assert not told(story.call("tick"))
    story.end_of(goes)
    assert "Stalled" in story.calls[-1]
    story.now = 100.0
    story.call("tick")
    assert story.settled[alone].outcome == "no_host"


def test_what_is_given_up_first_counts_for_its_run() -> None:
    """Another request that waits less long is told anew, and of two hosts the one that is given up first."""
    story = Story()
    story.hosts(view("a", ready=False), view("b", ready=False))
    story.submit("a", patience=1000.0)
    story.now = GRACE
    assert told(story.call("tick")) == [Stalled("run", 1000.0)]
    story.submit("b", patience=500.0)
    story.now = 2 * GRACE
    assert told(story.call("tick")) == [Stalled("run", 500.0 + GRACE)]
    assert told(story.call("tick")) == []


def test_a_host_that_says_it_will_be_away_for_longer_than_anybody_waits_is_not_waited_for() -> None:
    story = Story()
    story.hosts(view("a"))
    asked = story.submit("a", patience=600.0)
    story.end_of(asked, Ending("overloaded", retry_after=10_000.0))
    assert story.settled[asked].outcome == "no_host"
    assert story.settled[story.submit("a", patience=600.0)].outcome == "no_host"


def test_without_patience_nothing_waits_for_a_host_but_one_that_boots() -> None:
    story = Story()
    story.hosts(view("a", ready=False), asleep("b"))
    assert story.settled[story.submit("a", patience=0.0)].outcome == "no_host"
    boots = story.submit("b", patience=0.0)
    assert boots not in story.settled
    story.now = 60.0
    story.call("tick")
    assert story.settled[boots].outcome == "no_host"


def test_units_grow_with_the_prompt() -> None:
    assert units_of(0) > 0
    assert units_of(10_000) - units_of(0) == 10_000
