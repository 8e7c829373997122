"""The exit statuses of rlmctl: one table, for scripts, the help text and the docs."""

from __future__ import annotations

import signal
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlmd.errors import RlmdError
    from rlmd.events import Outcome, RunState


class Exit(IntEnum):
    DONE = 0
    ERROR = 1
    USAGE = 2
    UNANSWERED = 3
    NOT_FOUND = 4
    NO_DAEMON = 5
    ASKING = 6
    CANCELLED = 128 + signal.SIGINT
    BROKEN_PIPE = 128 + signal.SIGPIPE
    TERMINATED = 128 + signal.SIGTERM


MEANING = {
    Exit.DONE: "answered, or done",
    Exit.ERROR: "an error, told on stderr with what to do about it",
    Exit.USAGE: "wrong usage: an option or argument",
    Exit.UNANSWERED: "the run ended with a part of an answer, or with none, or was interrupted",
    Exit.NOT_FOUND: "no such context, document, run, session, host or file",
    Exit.NO_DAEMON: "no daemon runs, and none could be started",
    Exit.ASKING: "the run would take long and waits for a yes: rlmctl run confirm RUN",
    Exit.CANCELLED: "cancelled (Ctrl-C)",
    Exit.BROKEN_PIPE: "whoever read the output went away",
    Exit.TERMINATED: "rlmctl itself was ended; a run goes on",
}

_BY_KIND = {
    "not_found": Exit.NOT_FOUND,
    "source_missing": Exit.NOT_FOUND,
    "not_connected": Exit.NO_DAEMON,
    "invalid_params": Exit.USAGE,
    "cancelled": Exit.CANCELLED,
}
_BY_OUTCOME: dict[str | None, Exit] = {
    "answered": Exit.DONE,
    "partial": Exit.UNANSWERED,
    "none": Exit.UNANSWERED,
    "failed": Exit.ERROR,
    "cancelled": Exit.CANCELLED,
}


def exit_of_error(error: RlmdError) -> Exit:
    return _BY_KIND.get(error.kind, Exit.ERROR)


def exit_of_run(state: RunState, outcome: Outcome | None) -> Exit:
    """How a run that goes no further ended."""
    return Exit.UNANSWERED if state == "interrupted" else _BY_OUTCOME.get(outcome, Exit.ERROR)
