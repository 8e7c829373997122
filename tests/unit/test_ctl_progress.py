"""The fold of a run's facts that the live display shows."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import reduce
from typing import Any

from rlmd.client import Event, UnknownFact
from rlmd.ctl.progress import TAIL, Progress
from rlmd.events import (
    BatchStarted,
    CellStarted,
    ChildEnded,
    ChildStarted,
    CompletionRecord,
    Delta,
    ErrorRecord,
    RootReplied,
    StrategyChosen,
    SubQueryFailed,
    SubQueryReplied,
    Text,
    TurnStarted,
    Waiting,
)

FACT: dict[str, Any] = {"run_id": "r", "seq": 1, "time": 0.0}
QUERY = {**FACT, "cell": 1, "batch": 1, "prompt_digest": "d", "occurrence": 1, "prompt_chars": 1, "prompt_preview": "p"}


def text(value: str) -> Text:
    return Text(chars=len(value), text=value)


def record(host: str, source: str = "model") -> CompletionRecord:
    return CompletionRecord.model_validate(
        {"host": host, "model": "m", "source": source, "finish": "stop", "prompt_tokens": 1, "completion_tokens": 1}
    )


def fold(*events: Event) -> Progress:
    return reduce(Progress.apply, events, Progress())


def replied(slot: int, host: str, source: str = "model") -> SubQueryReplied:
    return SubQueryReplied(**QUERY, slot=slot, reply=text("ok"), completion=record(host, source))


def test_nothing_yet_shows_only_the_time() -> None:
    assert Progress().headline(0.5) == "0.5 s"
    assert Progress().detail(80) == "waiting"


def test_turns_pieces_hosts_and_time() -> None:
    progress = fold(
        StrategyChosen(**FACT, strategy="rlm", why="too long for the window"),
        TurnStarted(**FACT, turn=1, stream="root-1", prompt_tokens_estimated=900, window=8192),
        RootReplied(**FACT, turn=1, stream="root-1", reply=text("x"), completion=record("m40")),
        CellStarted(**FACT, turn=1, cell=1, stream="cell-1", code=text("# look\n\nhits = search('a')\nprint(hits)")),
        BatchStarted(**FACT, cell=1, batch=1, total=4),
        replied(0, "rtx"),
        replied(1, "rtx"),
        replied(2, "rtx", "cache"),
        SubQueryFailed(**QUERY, slot=3, error=ErrorRecord(code=1, kind="k", message="m")),
        BatchStarted(**FACT, cell=1, batch=2, total=1),
    )
    assert progress.headline(125) == "rlm · turn 1 · 4/5 pieces (1 cached, 1 failed) · rtx 2, m40 1 · 2:05"
    assert progress.detail(80) == "hits = search('a')"


def test_runs_below_count_as_pieces() -> None:
    """A batch of them is done when they are; one without an answer has failed."""
    child = {"cell": 1, "batch": 1, "child": "c", "prompt_digest": "d", "occurrence": 1}
    progress = fold(
        BatchStarted(**FACT, cell=1, batch=1, total=2),
        ChildStarted(**FACT, **child, slot=0, question=text("Which?")),
        ChildEnded(**FACT, **child, slot=0, outcome="answered", answer=text("this")),
        ChildEnded(**FACT, **child, slot=1, outcome="none", answer=text("")),
    )
    assert (progress.asked, progress.done, progress.failed) == (2, 2, 1)
    assert progress.detail(80) == "a run below: Which?"


def test_the_line_that_is_being_written_is_shown() -> None:
    started = TurnStarted(**FACT, turn=1, stream="root-1", prompt_tokens_estimated=900, window=8192)
    progress = fold(
        started, *(Delta(run_id="r", stream="root-1", offset=o, text=t) for o, t in [(0, "one\ntw"), (6, "o\n")])
    )
    assert progress.detail(80) == "two"
    restarted = progress.apply(Delta(run_id="r", stream="root-1", offset=0, text="anew"))
    assert restarted.detail(80) == "anew"
    assert restarted.detail(3) == "an…"
    again = restarted.apply(Delta(run_id="r", stream="root-1", offset=0, text="once more"))
    assert again.detail(80) == "once more", "what was written before is gone"


def test_how_long_a_run_waits_is_told_with_the_day_if_it_is_another() -> None:
    def waits(seconds: float) -> str:
        return fold(Waiting(**FACT, why="m40 is down.", hosts=(), until=seconds)).detail(200)

    midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    assert waits(midnight.timestamp()) == "m40 is down. It waits for one until 00:00:00."
    later = midnight + timedelta(days=2, hours=7)
    assert waits(later.timestamp()) == f"m40 is down. It waits for one until {later:%Y-%m-%d} 07:00."


def test_a_stream_without_end_is_kept_short() -> None:
    deltas = (Delta(run_id="r", stream="s", offset=n * 1000, text="x" * 1000) for n in range(50))
    assert len(fold(*deltas).tail) == TAIL


def test_foreign_text_cannot_drive_the_terminal() -> None:
    progress = fold(Delta(run_id="r", stream="s", offset=0, text="a\x1b[2Jb"), replied(0, "h\x1b[31m"))
    assert "\x1b" not in progress.detail(80) + progress.headline(1)


def test_unknown_facts_change_nothing() -> None:
    assert fold(UnknownFact(**FACT, type="later")) == Progress()
