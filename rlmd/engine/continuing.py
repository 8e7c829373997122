"""Continuing a run that ended at a limit: whether it can be, what more it gets, and what it may take then. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from rlmd.engine.lasting import ended_by
from rlmd.engine.past import seconds_of
from rlmd.engine.record import RunRecord
from rlmd.errors import Conflict, InternalError, InvalidParams
from rlmd.events import AnyFact, Limits, More, RunContinued, RunStarted

#: The words for the limits, as a person says them.
_WORDS = MappingProxyType(
    {
        "turns": "turns",
        "sub_queries": "sub-queries",
        "tokens": "tokens",
        "seconds": "time",
        "consecutive_errors": "errors in a row",
        "repeats": "outputs that came again",
        "money": "money",
        "confirmation": "a no",
    }
)
_ASK = "Ask again, under a new run id."
_NOTHING = More()


@dataclass(frozen=True, slots=True)
class ContinueRequest:
    """``last_seq``: of the fact that ended the run, as the client knows it; asked again with it nothing is granted
    twice."""

    run_id: str
    more: More = _NOTHING
    last_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What ``RunContinued`` tells."""

    limit: str
    more: More
    limits: Limits
    money: float


def check_ended(record: RunRecord) -> None:
    """Raises ``Conflict`` for a run that cannot be continued, as far as its record tells."""
    run = f"Run {record.run_id}"
    if record.parent is not None:
        raise Conflict(f"{run} is part of run {record.parent}.", hint=f"Continue {record.parent}.")
    if record.active:
        raise Conflict(f"{run} goes on.", hint="Follow it: run/attach, or rlmctl run attach.")
    if record.strategy in ("execute", "open"):
        raise Conflict(f"{run} answers no question.", hint="Run the cell again, or open another run.")
    if record.state == "interrupted":
        hint = "It goes on when the daemon starts again." if record.resumable else _ASK
        raise Conflict(f"{run} was interrupted: {record.why}.", hint=hint)
    if record.outcome in ("cancelled", "failed"):
        raise Conflict(f"{run} {_HOW[record.outcome]}, which is no limit: {_why(record)}", hint=_ASK)


def grant(facts: Sequence[AnyFact], more: More, run_money: float | None) -> Grant:
    """What the run of these facts gets. Without anything asked for, of the limit that ended it once more what it had at
    first.

    Args:
        facts: All of the run.
        more: What is asked for.
        run_money: Dollars that a run may spend, if that is limited.

    Raises:
        Conflict: It did not end at a limit.
        InvalidParams: The limit that ended it is not raised.
    """
    started = _started(facts)
    limit = ended_by(facts)
    if not limit:
        raise Conflict(f"Run {started.run_id} ended by itself, at no limit.", hint=_ASK)
    if more == _NOTHING:
        more = _once_more(limit, started.limits, run_money)
    if limit in More.model_fields and not getattr(more, limit):
        raise InvalidParams(
            f"The run ended at its limit of {_WORDS[limit]}, and that is not raised.",
            hint=f"Give it more of it: {limit}.",
            field=limit,
        )
    return Grant(limit, more, _raised(limits_of(facts), more, seconds_of(facts)), money_of(facts) + more.money)


def limits_of(facts: Sequence[AnyFact]) -> Limits:
    """The limits that hold for the run of these facts."""
    for fact in reversed(facts):
        if isinstance(fact, RunContinued):
            return fact.limits
    return _started(facts).limits


def money_of(facts: Sequence[AnyFact]) -> float:
    """Dollars that it got on top of what every run may spend."""
    return next((fact.money for fact in reversed(facts) if isinstance(fact, RunContinued)), 0.0)


_HOW = {"cancelled": "was cancelled", "failed": "failed"}


def _why(record: RunRecord) -> str:
    return f"{(record.why or 'no reason is known').rstrip('.')}."


def _started(facts: Sequence[AnyFact]) -> RunStarted:
    if not facts or not isinstance(facts[0], RunStarted):
        raise InternalError("A journal does not begin with run_started.")
    return facts[0]


def _once_more(limit: str, limits: Limits, run_money: float | None) -> More:
    amounts = limits.model_dump()
    if run_money is not None:
        amounts["money"] = min(run_money, limits.money if limits.money is not None else run_money)
    amount = amounts.get(limit) if limit in More.model_fields else None
    return More.model_validate({limit: amount}) if amount else More()


def _raised(limits: Limits, more: More, seconds: float) -> Limits:
    """Where nothing limited it, nothing does. A last word may have taken longer than there was time: more time is more
    than what has passed."""
    extra = more.model_dump(exclude={"money"})
    have = limits.model_dump()
    if more.seconds:
        have["seconds"] = max(limits.seconds, seconds)
    return limits.model_copy(update={name: have[name] + extra[name] for name in extra if have[name] is not None})
