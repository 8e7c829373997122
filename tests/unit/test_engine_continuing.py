"""What a run that ended at a limit gets, and what it is refused: from its facts alone."""

from __future__ import annotations

import pytest

from rlmd.engine.continuing import grant
from rlmd.errors import Conflict, InvalidParams
from rlmd.events import AnyFact, LimitHit, Limits, More, Note, RunContinued, RunStarted, Text

LIMITS = Limits(turns=30, sub_queries=2000, seconds=60.0, consecutive_errors=5)


def started(limits: Limits = LIMITS) -> RunStarted:
    return RunStarted(
        run_id="r", seq=1, time=1000.0, question=Text(chars=1, text="?"), strategy="auto", contexts=(), session=None,
        root=(), sub=(), limits=limits, private=False, request_digest="", rlmd="", prompts="",
    )  # fmt: skip


def hit(limit: str, seq: int = 3, time: float = 1010.0) -> LimitHit:
    return LimitHit(run_id="r", seq=seq, time=time, limit=limit, allowed=1, why="x")


def note(seq: int, time: float) -> Note:
    return Note(run_id="r", seq=seq, time=time, text="x")


@pytest.mark.parametrize(
    ("limit", "name", "whole"),
    [
        ("turns", "turns", 60), ("sub_queries", "sub_queries", 4000), ("seconds", "seconds", 120.0),
        ("consecutive_errors", "consecutive_errors", 10), ("repeats", "repeats", 10), ("confirmation", "turns", 30),
    ],
)  # fmt: skip
def test_without_an_amount_it_gets_once_more_what_it_had(limit: str, name: str, whole: float) -> None:
    granted = grant([started(), note(2, 1001.0), hit(limit)], More(), None)
    assert granted.limit == limit
    assert granted.limits == LIMITS.model_copy(update={name: whole})


def test_money_is_once_more_what_a_run_may_spend_and_adds_up() -> None:
    facts: list[AnyFact] = [started(), hit("money")]
    assert grant(facts, More(), 2.5).money == 2.5
    facts += [RunContinued(run_id="r", seq=4, time=1, limit="money", more=More(), limits=LIMITS, money=2.5)]
    assert grant([*facts, hit("money", 5)], More(money=1.0), 2.5).money == 3.5
    with pytest.raises(InvalidParams, match="limit of money"):
        grant(facts[:2], More(), None)


def test_more_is_added_to_what_holds_and_where_nothing_limits_nothing_does() -> None:
    granted = grant([started(), hit("turns")], More(turns=5, sub_queries=7, tokens=9), None)
    assert granted.limits == LIMITS.model_copy(update={"turns": 35, "sub_queries": 2007})
    with_tokens = LIMITS.model_copy(update={"tokens": 100})
    assert grant([started(with_tokens), hit("tokens")], More(), None).limits.tokens == 200


def test_more_time_is_more_than_has_passed() -> None:
    """A last word may take up to two minutes beyond the limit."""
    granted = grant([started(), note(2, 1000.0), hit("seconds", time=1060.0), note(4, 1130.0)], More(seconds=20), None)
    assert granted.limits.seconds == 150.0


def test_the_limit_that_ended_it_must_be_raised() -> None:
    """The last one that it ran into since it went on."""
    facts = [started(), hit("sub_queries"), hit("turns", 4)]
    with pytest.raises(InvalidParams, match="limit of turns") as caught:
        grant(facts, More(sub_queries=5), None)
    assert caught.value.details["field"] == "turns"


def test_without_a_limit_there_is_nothing_to_raise() -> None:
    went_on = RunContinued(run_id="r", seq=4, time=1, limit="turns", more=More(turns=1), limits=LIMITS)
    for facts in ([started()], [started(), hit("turns"), went_on, note(5, 1.0)]):
        with pytest.raises(Conflict, match="at no limit"):
            grant(facts, More(turns=1), None)
