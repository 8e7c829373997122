"""What an attempt's error says to the scheduler, and to whoever waits: one table from the error tree to verdicts."""

from __future__ import annotations

from rlmd.errors import (
    CompletionCut,
    DiskFull,
    HostFailed,
    HostOverloaded,
    HostRefused,
    MalformedReply,
    ModelMissing,
    PromptTooLong,
    PromptTruncated,
    RlmdError,
)
from rlmd.pool.actions import Ending, Verdict
from rlmd.providers.failures import is_final_for_host

#: The first class that fits counts; what fits none is ``fatal``.
_VERDICTS: tuple[tuple[type[RlmdError], Verdict], ...] = (
    (HostOverloaded, "overloaded"),
    (HostFailed, "failed"),
    (PromptTooLong, "unfit"),
    (PromptTruncated, "unfit"),
    (ModelMissing, "barred"),
    (HostRefused, "unfit"),
    (CompletionCut, "cut"),
    (MalformedReply, "cut"),
    (DiskFull, "barred"),
)


def ending_of(error: RlmdError) -> Ending:
    verdict: Verdict = next((verdict for kind, verdict in _VERDICTS if isinstance(error, kind)), "fatal")
    window = error.details.get("window")
    window = window if isinstance(window, int) else None
    if isinstance(error, HostOverloaded):
        return Ending("overloaded", retry_after=error.retry_after)
    if isinstance(error, HostFailed) and error.details.get("refused"):
        verdict = "refused"
    elif isinstance(error, HostRefused) and is_final_for_host(error):
        verdict = "barred"
    elif isinstance(error, CompletionCut) and (window is not None or error.details.get("no_answer")):
        verdict = "unfit"  # the window ran out, which only a larger one helps; or the model would do so again
    elif isinstance(error, CompletionCut) and error.details.get("overrun"):
        verdict = "barred"  # it would do so again, and each time for money
    return Ending(verdict, window=window)


def cost_nothing(error: RlmdError) -> bool:
    """Whether it came instead of a reply: a reply that was withheld has no status, and is billed."""
    if isinstance(error, HostRefused):
        return "status" in error.details
    return isinstance(error, HostOverloaded | ModelMissing | PromptTooLong) or bool(error.details.get("refused"))


def worse(earlier: RlmdError | None, later: RlmdError) -> RlmdError:
    """What the caller can act on is kept: that the prompt does not fit outweighs a host that failed later."""
    return earlier if isinstance(earlier, (PromptTooLong, PromptTruncated)) else later
