"""The vocabulary of a run: facts and deltas.

A *fact* is numbered from 1 without a gap, journalled before anyone is told, never merged or dropped. A *delta*
is a piece of a text that is still being written: never journalled, may be merged or dropped, and replaced by the
fact that closes its stream. The journal is the list of a run's facts, one JSON object a line; clients get the
same objects. Readers ignore types and fields that they do not know.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rlmd.events.records import (
    AwaitedHost,
    CellFinal,
    CellsOfRun,
    Citation,
    CompletionRecord,
    ErrorRecord,
    Estimate,
    Limits,
    Model,
    More,
    Outcome,
    Pin,
    Receipt,
    Span,
    Strategy,
    Text,
)


class Fact(Model):
    """What all facts share; ``time`` is seconds since the epoch, UTC."""

    run_id: str
    seq: int = Field(ge=1)
    time: float


class RunStarted(Fact):
    """``session_held`` names the contexts of earlier runs in the session: this one may tell of their text too.

    ``request`` holds, as JSON, what was asked beside the question, and ``egress`` of whom: the run can be taken up
    again. ``session_id`` tells a named session from an earlier one of its name. ``ephemeral``: the run is in memory
    alone, and gone when the daemon stops.
    """

    type: Literal["run_started"] = "run_started"
    question: Text
    strategy: Strategy
    contexts: tuple[Pin, ...]
    session: str | None
    root: tuple[str, ...]
    sub: tuple[str, ...]
    limits: Limits
    private: bool
    session_held: tuple[str, ...] = ()
    request_digest: str
    rlmd: str
    prompts: str
    parent: str | None = None
    answer_schema: Text | None = None
    request: Text | None = None
    egress: bool = False
    session_id: str | None = None
    ephemeral: bool = False


class StrategyChosen(Fact):
    type: Literal["strategy_chosen"] = "strategy_chosen"
    strategy: Strategy
    why: str


class Estimated(Fact):
    """What comes next would take this. With ``asks`` the run waits as ``asking`` for ``run/confirm``; ``why`` is the
    question in words. ``alternatives`` are strategies that may be chosen instead. ``cell``: which asks so much, if one
    does.
    """

    type: Literal["estimated"] = "estimated"
    what: Literal["direct", "map", "sub_queries", "turns"]
    estimate: Estimate
    asks: bool
    why: str = ""
    alternatives: tuple[Strategy, ...] = ()
    cell: int = 0


class Confirmed(Fact):
    """The answer to the last question: the run goes on, by another strategy if one is named, or is concluded."""

    type: Literal["confirmed"] = "confirmed"
    accepted: bool
    strategy: Strategy | None = None
    why: str = ""


class Waiting(Fact):
    """Nothing of the run goes on: every host that may serve it is down, asleep or paused. It waits as ``waiting``, its
    time standing still, ``until`` then (seconds since the epoch) at most; what waits then fails, and the run ends with
    what it has."""

    type: Literal["waiting"] = "waiting"
    why: str
    hosts: tuple[AwaitedHost, ...]
    until: float


class WentOn(Fact):
    """The run waits for no host any more; ``came``: because one came, and not because the time was over."""

    type: Literal["went_on"] = "went_on"
    came: bool


class SessionStarted(Fact):
    """A worker process for the run's session; ``lost`` says whether names of an earlier one are gone.

    ``woken``: cells that were run again in it, their replies taken from the journals, so that their names are there.
    ``names_lost`` are gone, ``names_older`` have an earlier value, because a cell did not come to what it had come to,
    or could not be run again; ``why`` says which.
    """

    type: Literal["session_started"] = "session_started"
    session: str
    hash_seed: int
    random_seed: int
    layers: tuple[str, ...]
    lost: bool = False
    woken: tuple[CellsOfRun, ...] = ()
    names_lost: tuple[str, ...] = ()
    names_older: tuple[str, ...] = ()
    why: str = ""


class TurnStarted(Fact):
    """``last``: a limit was reached; the root is asked for its answer from what it has read, and runs no more code."""

    type: Literal["turn_started"] = "turn_started"
    turn: int
    stream: str
    prompt_tokens_estimated: int
    window: int
    last: bool = False


class RootReplied(Fact):
    """Closes ``stream``. ``thinking`` is what was stripped before parsing."""

    type: Literal["root_replied"] = "root_replied"
    turn: int
    stream: str
    reply: Text
    thinking: Text | None = None
    completion: CompletionRecord


class RootFailed(Fact):
    type: Literal["root_failed"] = "root_failed"
    turn: int
    stream: str
    error: ErrorRecord


class CellStarted(Fact):
    """``worker_cell`` is the cell's number in its worker, ``output_chars`` how much of its output is kept; ``left``
    what an earlier run had left in ``answer``; ``pins`` the contexts loaded, where the run itself names none."""

    type: Literal["cell_started"] = "cell_started"
    turn: int
    cell: int
    stream: str
    code: Text
    program: str | None = None
    worker_cell: int = 0
    output_chars: int = 0
    left: Text | None = None
    pins: tuple[Pin, ...] = ()


class BatchStarted(Fact):
    """A cell asked ``total`` sub-queries at once; a lone ``llm_query`` is a batch of one."""

    type: Literal["batch_started"] = "batch_started"
    cell: int
    batch: int
    total: int


class SubQueryFact(Fact):
    """Which sub-query: the ``occurrence``-th (from 1) with this prompt digest in this cell.

    ``stream``: of a lone one, where its reply was told while it came; the reply closes it.
    """

    cell: int
    batch: int
    slot: int
    prompt_digest: str
    occurrence: int
    prompt_chars: int
    prompt_preview: str
    spans: tuple[Span, ...] = ()
    stream: str | None = None


class SubQueryReplied(SubQueryFact):
    type: Literal["subquery_replied"] = "subquery_replied"
    reply: Text
    completion: CompletionRecord


class SubQueryFailed(SubQueryFact):
    """``told`` is what the cell was told, where that is more than the error's message."""

    type: Literal["subquery_failed"] = "subquery_failed"
    error: ErrorRecord
    told: str | None = None


class ChildStarted(Fact):
    """A cell asked a run of its own by ``rlm_query``: ``child`` is its id, under which its facts can be fetched.

    ``given`` are the stretches of this run's contexts that it was given, ``given_chars`` all its text; None: it has
    the contexts of this run. ``prompt_digest`` is of question and text, ``occurrence`` counts equal ones in the cell.
    Of a run within an open one, ``held`` are contexts whose text the open run may tell from then on, and ``private``
    says that it is private for good.
    """

    type: Literal["child_started"] = "child_started"
    cell: int
    batch: int
    slot: int
    child: str
    question: Text
    prompt_digest: str
    occurrence: int
    given: tuple[Span, ...] = ()
    given_chars: int | None = None
    held: tuple[str, ...] = ()
    private: bool = False


class ChildEnded(Fact):
    """How a child run ended. ``read`` are stretches of this run's contexts that reached a model in it, the longest, and
    ``read_more`` the characters of those beyond; ``told`` is what the cell was told where that is no answer."""

    type: Literal["child_ended"] = "child_ended"
    cell: int
    batch: int
    slot: int
    child: str
    prompt_digest: str
    occurrence: int
    outcome: Outcome
    answer: Text
    error: ErrorRecord | None = None
    told: str | None = None
    read: tuple[Span, ...] = ()
    read_more: int = 0
    receipt: Receipt | None = None


class Searched(Fact):
    """A cell or program searched these contexts whole; ``hits`` are the passages that it was given."""

    type: Literal["searched"] = "searched"
    cell: int
    contexts: tuple[str, ...]
    chars: int
    hits: tuple[Span, ...]


class CellEnded(Fact):
    """Closes ``stream``. ``digest`` is of the whole output; ``cut`` counts characters kept from the model.

    ``shown``: stretches of contexts that stand in the output, and so reach the root. ``worker_died``: by itself, and
    ``error`` says how. ``names`` are the variables then, each by name, type and size; ``final`` and ``answer`` what the
    cell handed over and what stood in ``answer``.
    """

    type: Literal["cell_ended"] = "cell_ended"
    turn: int
    cell: int
    stream: str
    output: Text
    digest: str
    cut: int
    ok: bool
    error: str | None
    seconds: float
    names_lost: bool = False
    worker_died: bool = False
    shown: tuple[Span, ...] = ()
    interrupted: bool = False
    names: tuple[tuple[str, str, str], ...] = ()
    final: CellFinal | None = None
    answer: Text | None = None


class FinalRefused(Fact):
    type: Literal["final_refused"] = "final_refused"
    turn: int
    why: str


class LimitHit(Fact):
    type: Literal["limit_hit"] = "limit_hit"
    limit: str
    allowed: float
    why: str


class Note(Fact):
    """A sentence for the person, such as that no language model was used."""

    type: Literal["note"] = "note"
    text: str


class CancelRequested(Fact):
    type: Literal["cancel_requested"] = "cancel_requested"
    why: str


class RunInterrupted(Fact):
    """The daemon stopped or died while the run was going. ``resumable``: the next daemon takes it up again."""

    type: Literal["run_interrupted"] = "run_interrupted"
    why: str
    resumable: bool = False


class RunResumed(Fact):
    """The run goes on. A turn or cell that was open is begun anew, under the same numbers and stream; what it had been
    told before is not asked again."""

    type: Literal["run_resumed"] = "run_resumed"
    why: str


class RunContinued(Fact):
    """A run that had ended at a limit got more, and goes on from there: the limit, and what was said and done after it,
    hold no more, but what they cost counts. A turn or cell that the limit stopped is begun anew, under the same numbers
    and streams. ``limits`` are the whole run's from here on, ``money`` the dollars that it got in all.
    """

    type: Literal["run_continued"] = "run_continued"
    limit: str
    more: More
    limits: Limits
    money: float = 0.0


class RunEnded(Fact):
    """The last fact, unless the run is continued. ``stream`` names the delta stream that the answer equals, if one was
    sent. ``held`` and ``private``: what it may tell, and whether that is private, with what was within it."""

    type: Literal["run_ended"] = "run_ended"
    outcome: Outcome
    answer: Text
    stream: str | None
    why: str
    error: ErrorRecord | None = None
    citations: tuple[Citation, ...] = ()
    receipt: Receipt
    #: The last one that was followed.
    strategy: Strategy | None = None
    held: tuple[str, ...] = ()
    private: bool = False


AnyFact = Annotated[
    RunStarted
    | StrategyChosen
    | Estimated
    | Confirmed
    | Waiting
    | WentOn
    | SessionStarted
    | TurnStarted
    | RootReplied
    | RootFailed
    | CellStarted
    | BatchStarted
    | SubQueryReplied
    | SubQueryFailed
    | ChildStarted
    | ChildEnded
    | Searched
    | CellEnded
    | FinalRefused
    | LimitHit
    | Note
    | CancelRequested
    | RunInterrupted
    | RunResumed
    | RunContinued
    | RunEnded,
    Field(discriminator="type"),
]
FACT: TypeAdapter[AnyFact] = TypeAdapter(AnyFact)


class Delta(Model):
    """Text at ``offset`` (code points) of a stream that is still open."""

    run_id: str
    stream: str
    offset: int
    text: str
