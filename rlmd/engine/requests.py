"""What the engine is asked for, and who listens: plain frozen requests, and the sink that a subscriber brings.

Owns no behaviour. The wire maps its own messages to these; field names are equal on purpose.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from rlmd.config import LimitSettings
from rlmd.errors import InternalError
from rlmd.events import AnyFact, Confirm, Delta, Limits, Strategy

IfBusy = Literal["queue", "fresh", "refuse"]


@dataclass(frozen=True, slots=True)
class LimitRequest:
    """Those given replace the configured ones."""

    turns: int | None = None
    sub_queries: int | None = None
    seconds: float | None = None
    consecutive_errors: int | None = None
    tokens: int | None = None
    depth: int | None = None
    waiting: float | None = None
    money: float | None = None

    def over(self, configured: LimitSettings) -> Limits:
        """The limits of the run: these, and where they are silent the configured ones."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return Limits(**(configured.model_dump() | given))


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A question asked of contexts. ``run_id`` is the client's: asking again with equal fields returns that run.

    ``root`` and ``sub`` narrow the roles' candidates (``host/model``); None leaves them as configured.
    """

    run_id: str
    question: str
    contexts: tuple[str, ...]
    strategy: Strategy = "auto"
    session: str | None = None
    if_busy: IfBusy = "queue"
    root: tuple[str, ...] | None = None
    sub: tuple[str, ...] | None = None
    limits: LimitRequest = LimitRequest()
    fresh: bool = False
    #: A JSON Schema as JSON, checked already: the answer is to be a value of it.
    schema: str | None = None
    #: The open run that this one belongs to: its purse pays, and when it ends this one does.
    within: str | None = None
    #: Who says whether it may take long.
    confirm: Confirm = "ask"
    #: What is asked tells of ephemeral text, whatever the contexts are.
    ephemeral: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of all fields: tells a repeated request from another one under the same id."""
        return _digest(self)


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """One cell to run in a session, as a run of its own with strategy ``execute``."""

    run_id: str
    code: str
    contexts: tuple[str, ...] = ()
    session: str | None = None
    if_busy: IfBusy = "queue"
    limits: LimitRequest = LimitRequest()
    within: str | None = None

    def as_run(self) -> RunRequest:
        return RunRequest(
            run_id=self.run_id,
            question=self.code,
            contexts=self.contexts,
            strategy="execute",
            session=self.session,
            if_busy=self.if_busy,
            limits=self.limits,
            within=self.within,
            confirm="accept",  # who runs code of his own knows what it does
        )


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A run that stays open for what a client asks one by one; ``title`` says who asks. ``ephemeral``: nothing of it
    is on disk."""

    run_id: str
    title: str
    limits: LimitRequest = LimitRequest()
    ephemeral: bool = False

    def as_run(self) -> RunRequest:
        return RunRequest(
            run_id=self.run_id,
            question=self.title,
            contexts=(),
            strategy="open",
            limits=self.limits,
            confirm="accept",
            ephemeral=self.ephemeral,
        )


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One sub-query in an open run. ``sub`` narrows the role's candidates, ``model`` chooses one of them."""

    run_id: str
    prompt: str
    model: str | None = None
    sub: tuple[str, ...] | None = None


#: Fields that requests did not have at first.
_LATER = (("schema", None), ("within", None), ("confirm", "ask"), ("ephemeral", False))
_LATER_LIMITS = (("tokens", None), ("depth", None), ("waiting", None), ("money", None))
_REQUEST = TypeAdapter(RunRequest)


def request_text(request: RunRequest) -> str:
    """The request but its question, as a journal keeps it."""
    return _REQUEST.dump_json(replace(request, question=""), exclude_defaults=True).decode()


def request_from(text: str, question: str) -> RunRequest:
    """The request that ``request_text`` wrote. Raises ``InternalError``."""
    try:
        return replace(_REQUEST.validate_json(text), question=question)
    except ValidationError as error:
        raise InternalError("What was asked of this run cannot be read any more.") from error


def _digest(request: RunRequest) -> str:
    fields = asdict(request)
    # A request that does not use what came later has the digest that it always had.
    for group, later in ((fields, _LATER), (fields["limits"], _LATER_LIMITS)):
        for name, default in later:
            if group[name] == default:
                del group[name]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Sink(Protocol):
    """A subscriber of one run. All are called on the loop; all but ``ready`` must return at once.

    Facts come in order without a gap. Those of the past come first: before each stretch of them the engine
    awaits ``ready``, so that a long journal does not overrun a bounded queue; live facts are not held up by it.
    ``ended`` comes when the run goes no further and all its facts were told; not after ``Subscription.close``.
    """

    async def ready(self) -> None: ...
    def fact(self, fact: AnyFact) -> None: ...
    def delta(self, delta: Delta) -> None: ...
    def ended(self) -> None: ...
