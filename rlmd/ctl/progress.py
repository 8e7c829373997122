"""What is known of a run that is going: a pure fold over its facts, and the two lines that show it.

No clock, no terminal: elapsed time is handed in, text comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from rlmd.client import Event
from rlmd.ctl.terminal import count, duration, one_line
from rlmd.events import (
    BatchStarted,
    CancelRequested,
    CellEnded,
    CellStarted,
    ChildEnded,
    ChildStarted,
    Confirmed,
    Delta,
    Estimated,
    FinalRefused,
    LimitHit,
    Note,
    RootReplied,
    RunContinued,
    RunInterrupted,
    RunResumed,
    Searched,
    StrategyChosen,
    SubQueryFailed,
    SubQueryReplied,
    TurnStarted,
    Waiting,
    WentOn,
)

#: Characters of a stream's end that are kept to show its last line.
TAIL = 400


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts over the whole run. ``hosts`` are completions received from each host, root and sub together."""

    strategy: str = ""
    turn: int = 0
    asked: int = 0
    done: int = 0
    cached: int = 0
    failed: int = 0
    hosts: Mapping[str, int] = field(default_factory=dict)
    step: str = "waiting"
    stream: str = ""
    tail: str = ""

    def apply(self, event: Event) -> Progress:
        """The progress after one more event."""
        return self._counted(event)._stepped(event)

    def _counted(self, event: Event) -> Progress:
        match event:
            case TurnStarted():
                return replace(self, turn=event.turn)
            case RootReplied():
                return self._with_host(event.completion.host)
            case BatchStarted():
                return replace(self, asked=self.asked + event.total)
            case SubQueryReplied():
                saved = event.completion.source != "model"
                counted = replace(self, done=self.done + 1, cached=self.cached + saved)
                return counted if saved else counted._with_host(event.completion.host)
            case SubQueryFailed():
                return replace(self, done=self.done + 1, failed=self.failed + 1)
            case ChildEnded():
                return replace(self, done=self.done + 1, failed=self.failed + (event.outcome != "answered"))
            case _:
                return self

    def _stepped(self, event: Event) -> Progress:
        match event:
            case StrategyChosen():
                return replace(self, strategy=event.strategy, step=event.why)
            case TurnStarted():
                return replace(self, step="the root model is writing", stream=event.stream, tail="")
            case CellStarted():
                code = event.code.text or event.code.preview or ""
                return replace(self, step=_first_line(code), stream=event.stream, tail="")
            case ChildStarted():
                asked = event.question.text or event.question.preview or ""
                return replace(self, step=f"a run below: {asked}", tail="")
            case Searched():
                return replace(self, step=f"searched {count(event.chars, 'character')}", tail="")
            case CellEnded():
                return replace(self, step=event.error or "the cell has ended", tail="")
            case Delta():
                return self._with_delta(event)
            case _:
                return self._told(event)

    def _told(self, event: Event) -> Progress:
        match event:
            case FinalRefused() | LimitHit() | RunInterrupted() | RunResumed():
                return replace(self, step=event.why, tail="")
            case RunContinued():
                return replace(self, step="goes on with more", tail="")
            case Estimated(asks=True):
                return replace(self, step=f"waits for a yes: {event.why}", tail="")
            case Waiting():
                return replace(self, step=f"{event.why} {waits_until(event)}.", tail="")
            case WentOn():
                return replace(self, step="goes on" if event.came else "no host came", tail="")
            case Confirmed():
                return replace(self, step="goes on" if event.accepted else "it was refused", tail="")
            case CancelRequested():
                return replace(self, step="cancelling", tail="")
            case Note():
                return replace(self, step=event.text, tail="")
            case _:
                return self

    def _with_host(self, host: str) -> Progress:
        return replace(self, hosts={**self.hosts, host: self.hosts.get(host, 0) + 1})

    def _with_delta(self, delta: Delta) -> Progress:
        """Keeps the end of the stream that is written now; offset 0 begins it anew."""
        known = self.tail if delta.stream == self.stream and delta.offset > 0 else ""
        return replace(self, stream=delta.stream, tail=(known + delta.text)[-TAIL:])

    # ── for people ──────────────────────────────────────────────────────────────────────────────────────────

    def headline(self, elapsed: float) -> str:
        """Turn, pieces done of total, cached, failed, hosts, elapsed: only what there is."""
        parts = [self.strategy] if self.strategy else []
        if self.turn:
            parts.append(f"turn {self.turn}")
        if self.asked:
            beside = [f"{self.cached} cached"] * bool(self.cached) + [f"{self.failed} failed"] * bool(self.failed)
            parts.append(f"{self.done}/{self.asked} pieces" + (f" ({', '.join(beside)})" if beside else ""))
        if self.hosts:
            ranked = sorted(self.hosts.items(), key=lambda item: (-item[1], item[0]))
            parts.append(", ".join(f"{one_line(host, 20)} {number}" for host, number in ranked[:5]))
        return " · ".join([*parts, duration(elapsed)])

    def detail(self, width: int) -> str:
        """The line that is being written, else what is being done."""
        lines = self.tail.rstrip().splitlines()
        return one_line(lines[-1] if lines else self.step, width)


def waits_until(waits: Waiting) -> str:
    """How long it waits, in the user's time; with the day, if that is another."""
    until = datetime.fromtimestamp(waits.until).astimezone()
    same = until.date() == datetime.now().astimezone().date()
    return f"It waits for one until {until:%H:%M:%S}" if same else f"It waits for one until {until:%Y-%m-%d %H:%M}"


def _first_line(code: str) -> str:
    for line in code.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return line.strip()
    return "running a cell"
