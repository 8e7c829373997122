"""Runs: starting, following, ending and reading them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SerializationInfo, field_serializer

from rlmd.events import AnyFact, Citation, Confirm, Estimated, Outcome, Pin, Receipt, RunState, Strategy, Text, Waiting
from rlmd.wire.methods.base import Done, Method, Params, Result, state_for

#: What one ``run/fetch`` brings at most: writing more as JSON would block the daemon (6 ms a million characters).
MAX_FETCH_CHARS = 500_000
MAX_FETCH_FACTS = 250


class LimitParams(Params):
    """Those given replace the configured ones."""

    turns: int | None = Field(None, ge=1, le=10_000)
    sub_queries: int | None = Field(None, ge=0, le=10_000_000)
    seconds: float | None = Field(None, gt=0)
    consecutive_errors: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1, description="Of all prompts and replies, those of child runs included")
    depth: int | None = Field(None, ge=0, le=8, description="Levels of child runs; 0 allows none")
    waiting: float | None = Field(None, ge=0, le=1e9, description="Seconds in all for which it waits for hosts")
    money: float | None = Field(None, ge=0, le=1e9, description="Dollars; the budget of the config holds all the same")


class RunParams(Params):
    """``run_id`` is the client's: a UUID. The same id with equal parameters returns that run, with others is an error.

    ``attach``: send this connection the run's facts, from the first. Facts and deltas that come before the
    answer to ``run/start`` belong to it too.
    """

    run_id: str = Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    question: str = Field(min_length=1, max_length=1_000_000)
    contexts: tuple[str, ...] = Field(min_length=1, max_length=100)
    strategy: str = Field(
        "auto",
        pattern=r"^[a-z][a-z0-9_-]{0,63}$",
        description="auto, direct, rlm, map, quote, or the name of a program of the user (program/list)",
    )
    session: str | None = Field(None, max_length=200)
    if_busy: Literal["queue", "fresh", "refuse"] = "queue"
    root: tuple[str, ...] | None = None
    sub: tuple[str, ...] | None = None
    limits: LimitParams = LimitParams()
    fresh: bool = Field(False, description="Do not answer sub-queries from the cache")
    answer_schema: dict[str, object] | bool | None = Field(
        None, alias="schema", description="A JSON Schema: the answer is to be JSON that fits it, and is then that alone"
    )
    within: str | None = Field(None, description="An open run: its purse pays, and when it ends this one does")
    confirm: Confirm = Field(
        "ask",
        description="Who says whether it may take long (`[confirm]` in the config): `ask` waits for `run/confirm`",
    )
    attach: bool = True
    on_disconnect: Literal["continue", "cancel"] = "continue"


class OpenParams(Params):
    """A run that stays open for what this client asks in it: ``llm/query``, and cells and questions ``within`` it. It
    closes when the client goes. ``title`` says who asks; ``session`` is dropped with it."""

    run_id: str = Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    title: str = Field(min_length=1, max_length=200)
    session: str | None = Field(None, max_length=200)
    limits: LimitParams = LimitParams()
    ephemeral: bool = Field(
        False, description="What is asked tells of ephemeral text: it is private, and never on disk"
    )


class QueryParams(Params):
    """One sub-query in an open run. ``sub`` narrows the candidates (``host`` or ``host/model``), ``model`` chooses."""

    run_id: str
    prompt: str = Field(min_length=1, max_length=10_000_000)
    model: str | None = Field(None, max_length=200)
    sub: tuple[str, ...] | None = None


class QueryResult(Result):
    """``source``: who gave the reply: the model, the cache, or an equal request in flight."""

    run_id: str
    reply: str
    host: str
    model: str
    source: str
    prompt_tokens: int
    completion_tokens: int
    money: float


#: States that protocol 1 lacks.
_RUNNING: dict[RunState, RunState] = {"asking": "running", "waiting": "running"}


class RunInfo(Result):
    """``parent``: the run whose cell asked this one; a list of runs leaves such out. ``asks``: what it waits for a yes
    to, while its state is ``asking``; ``waits``: what hosts it waits for, and until when, while it is ``waiting``."""

    run_id: str
    question: Text
    state: RunState
    outcome: Outcome | None
    strategy: Strategy
    contexts: tuple[Pin, ...]
    session: str | None
    private: bool
    created: float
    ended: float | None
    turns: int
    sub_queries: int
    last_seq: int
    parent: str | None = None
    ephemeral: bool = Field(False, description="It read ephemeral text: it is in memory alone, gone with the daemon")
    why: str | None = None
    asks: Estimated | None = None
    waits: Waiting | None = None

    @field_serializer("state")
    def _state(self, state: RunState, info: SerializationInfo) -> RunState:
        return state_for(state, info, _RUNNING)


class RunResult(Result):
    """A run with its answer, once it has ended."""

    run: RunInfo
    answer: str | None
    citations: tuple[Citation, ...] = ()
    receipt: Receipt | None = None


class RunIdParams(Params):
    run_id: str


class AttachParams(Params):
    """Facts from ``from_seq`` on, those of the past first, then live; deltas only of streams still open."""

    run_id: str
    from_seq: int = Field(1, ge=1)
    deltas: bool = True


class CancelParams(Params):
    run_id: str
    why: str = Field("asked by the client", max_length=500)


class ConfirmParams(Params):
    """The answer to what a run asks. ``refuse`` concludes it with what it has; ``strategy``, one of the question's
    ``alternatives``, is followed instead."""

    run_id: str
    choice: Literal["accept", "refuse"] = "accept"
    strategy: Strategy | None = None


class ContinueParams(Params):
    """What a run that ended at a limit (its receipt's ``limit``) gets on top of what it had; without any amount, of
    that limit once more what it had at first. What was used stays used. ``money``: dollars above ``budget.run``.

    It goes on under its id, from the limit on: what came after it holds no more, and the fact ``run_continued`` says
    so. ``last_seq``: the run's, as this client knows it; asked again with it, such as after a lost connection, it is
    done once. ``attach``: send this connection the facts from ``run_continued`` on.
    """

    run_id: str
    turns: int = Field(0, ge=0, le=10_000)
    sub_queries: int = Field(0, ge=0, le=10_000_000)
    tokens: int = Field(0, ge=0)
    seconds: float = Field(0.0, ge=0)
    consecutive_errors: int = Field(0, ge=0, le=1000)
    money: float = Field(0.0, ge=0)
    last_seq: int | None = Field(None, ge=1)
    attach: bool = True


class RunListParams(Params):
    state: RunState | None = None
    limit: int = Field(50, ge=1, le=10_000)


class RunListResult(Result):
    runs: tuple[RunInfo, ...]


class FetchParams(Params):
    """Either facts ``from_seq`` to ``to_seq`` (inclusive), or the value named by a ``digest`` in a fact.

    At most 1,000 facts or 500,000 characters come at once, whatever was asked: ask again from where they end.
    """

    run_id: str
    from_seq: int | None = Field(None, ge=1)
    to_seq: int | None = Field(None, ge=1)
    digest: str | None = None
    start: int = Field(0, ge=0)
    chars: int = Field(1_000_000, ge=1, le=10_000_000)


class FetchResult(Result):
    facts: tuple[AnyFact, ...] = ()
    text: str | None = None
    chars: int | None = None


class ExportParams(Params):
    """``jsonl``: the log of the reference implementation, for its visualizer, values elided; ``html``: one page that
    needs nothing else. At most 500,000 characters come at once: ask again from where they end."""

    run_id: str
    form: Literal["jsonl", "html"] = "html"
    start: int = Field(0, ge=0)


class ExportResult(Result):
    """``chars``: code points of the whole export."""

    text: str
    chars: int


class RunGap(Result):
    """Facts that this slow reader was not sent; it reads them by ``run/fetch``."""

    run_id: str
    from_seq: int
    to_seq: int


METHODS = (
    Method("run/start", RunParams, RunInfo, "Starts a run; its facts and deltas follow as notifications."),
    Method("run/open", OpenParams, RunInfo, "Opens a run for what this client asks one by one."),
    Method("run/close", RunIdParams, RunInfo, "Closes an open run and all within it; answered when it has ended."),
    Method("llm/query", QueryParams, QueryResult, "Asks a sub-model one prompt, in an open run."),
    Method("run/ask", RunParams, RunResult, "Starts a run and answers when it has ended."),
    Method("run/attach", AttachParams, RunInfo, "Follows a run from a sequence number."),
    Method("run/detach", RunIdParams, Done, "Stops following; the run goes on."),
    Method("run/cancel", CancelParams, RunInfo, "Cancels a run; answered when it has ended."),
    Method("run/confirm", ConfirmParams, RunInfo, "Answers a run that waits as `asking`, because it would take long."),
    Method("run/continue", ContinueParams, RunInfo, "Gives a run that ended at a limit more, and it goes on."),
    Method("run/list", RunListParams, RunListResult, "Lists runs, newest first."),
    Method("run/show", RunIdParams, RunResult, "Shows a run with answer, citations and receipt."),
    Method("run/export", ExportParams, ExportResult, "Gives a run in another form, such as a page for a browser."),
    Method("run/delete", RunIdParams, Done, "Takes a run that does not go on off the disk."),
    Method("run/fetch", FetchParams, FetchResult, "Reads facts of the past, or a value named in a fact."),
)
