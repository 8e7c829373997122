"""What facts are made of: texts, places in contexts, citations, receipts, limits, how a completion came about.

Readers ignore fields that they do not know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

#: Text above this many characters is stored as a value first and named by digest in the fact (DESIGN §4).
INLINE_CHARS = 4096
PREVIEW_CHARS = 200

#: What a client may ask for; any other name is that of a program of the user.
STRATEGIES = ("auto", "direct", "rlm", "map", "quote")
#: One of these, the name of a program, or what the engine calls runs that answer no question: execute, open.
Strategy = str
#: ``asking``: for a yes of somebody; ``waiting``: for a host that is down, asleep or paused.
RunState = Literal["queued", "running", "asking", "waiting", "ended", "failed", "cancelled", "interrupted"]
#: Why a run ended: by itself, by a limit with the best answer so far, or without any answer.
Outcome = Literal["answered", "partial", "none", "failed", "cancelled"]
CompletionSource = Literal["model", "cache", "flight"]
#: Who says whether a run may take long: somebody who is asked, or the request itself.
Confirm = Literal["ask", "accept", "refuse"]


class Model(BaseModel):
    """Base of all messages: frozen; unknown fields are ignored so that older readers live on."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Text(Model):
    """A text in a fact: whole when short, else by digest with a preview; ``chars`` counts code points."""

    chars: int
    text: str | None = None
    digest: str | None = None
    preview: str | None = None


def digest_of(text: str) -> str:
    """SHA-256 (hex) of the text's UTF-8, lone surrogates included."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def text_of(text: str, store: Callable[[str, str], None]) -> Text:
    """Makes a ``Text``; ``store(digest, text)`` must have kept a long one when it returns."""
    if len(text) <= INLINE_CHARS:
        return Text(chars=len(text), text=text)
    digest = digest_of(text)
    store(digest, text)
    return Text(chars=len(text), digest=digest, preview=text[:PREVIEW_CHARS])


class Span(Model):
    """Code points ``start`` to ``end`` (exclusive) of one document of one context."""

    context: str
    document: str
    start: int
    end: int


class Pin(Model):
    """A context as a run sees it: the revision does not change under it. ``ephemeral``: it is never on disk."""

    context: str
    revision: int
    kind: Literal["text", "collection"]
    private: bool
    documents: int
    chars: int
    digest: str
    ephemeral: bool = False


class Locator(Model):
    """Where a person finds a citation: ``label`` is ready to print, such as ``src/app.py:120``."""

    label: str
    path: str | None = None
    line: int | None = None
    page: int | None = None
    heading: str = ""


class Citation(Model):
    """A quote found in a pinned context. ``verified`` means that the text at ``start`` to ``end`` is the quote:
    exactly, or after the normalisation that ``match`` names. Without a place, ``document`` is None."""

    number: int
    quote: str
    verified: bool
    match: Literal["exact", "normalised", "none"]
    context: str | None = None
    revision: int | None = None
    document: str | None = None
    start: int | None = None
    end: int | None = None
    locator: Locator | None = None


class ModelUse(Model):
    """What one model on one host did for a run, in one role."""

    role: Literal["root", "sub"]
    host: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    money: float = 0.0
    energy: float = 0.0
    energy_cost: float = 0.0


class Receipt(Model):
    """What an answer rests on and what it cost. Reported by the engine, not by model-written code.

    ``chars_searched`` counts code points that a search looked through, ``chars_read`` those that reached a
    model, each counted once; ``unread`` lists the first stretches that did not. ``chars_read_more``: child runs read so
    many more in stretches too many to be told, of which some may be counted already.
    """

    chars_total: int
    chars_searched: int
    chars_read: int
    pieces: int
    pieces_failed: int
    unread: tuple[Span, ...] = ()
    unread_stretches: int = 0
    sub_queries: int
    sub_queries_cached: int
    children: int = 0
    turns: int
    models: tuple[ModelUse, ...] = ()
    wall_seconds: float
    limit: str | None = None
    summary: str
    #: Dollars spent at providers; watt-hours, estimated from the hosts' watts; dollars that these cost, by
    #: ``budget.price_per_kwh``.
    money: float = 0.0
    energy: float = 0.0
    energy_cost: float = 0.0
    #: Of the sub-queries: never sent, because the purse had nothing for them.
    sub_queries_refused: int = 0
    chars_read_more: int = 0


class CompletionRecord(Model):
    """How one completion came about. Durations in seconds."""

    host: str
    model: str
    source: CompletionSource
    finish: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    queue_seconds: float = 0.0
    first_token_seconds: float | None = None
    seconds: float = 0.0
    attempts: int = 1
    #: Dollars of all its attempts; watt-hours of those at hosts whose watts are known, and dollars that these cost.
    money: float = 0.0
    energy: float = 0.0
    energy_cost: float = 0.0


class ErrorRecord(Model):
    """An ``RlmdError`` as data."""

    code: int
    kind: str
    message: str
    hint: str = ""


class Limits(Model):
    """The purse of a run and all its children; claimed before use, except the observed ``seconds``.

    ``tokens`` are of prompts and replies together, None: as many as it takes. ``depth``: levels of child runs.
    ``repeats``: outputs that may come again before a root that goes on checking is stopped.
    ``waiting``: seconds in all for which hosts are waited for; they do not count as ``seconds``.
    ``money``: dollars, None: as many as the budget allows any run.
    """

    turns: int
    sub_queries: int
    seconds: float
    consecutive_errors: int
    tokens: int | None = None
    depth: int = 0
    repeats: int = 5
    waiting: float = 600.0
    money: float | None = None


class More(Model):
    """What a run that ended at a limit gets on top; ``money`` in dollars, above ``budget.run``."""

    turns: int = 0
    sub_queries: int = 0
    tokens: int = 0
    seconds: float = 0.0
    consecutive_errors: int = 0
    repeats: int = 0
    money: float = 0.0


class Estimate(Model):
    """What lies before a run, none of it being in the cache: ``requests`` with ``chars`` code points together.

    ``seconds`` is None as long as no host that may take them was measured; dollars, watt-hours, and
    what these cost (``energy_cost``, dollars) where ``budget.price_per_kwh`` says so.
    """

    requests: int
    chars: int
    seconds: float | None = None
    money: float = 0.0
    energy: float = 0.0
    energy_cost: float = 0.0


class CellsOfRun(Model):
    """Cells of one run, by their numbers, in the order in which they ran."""

    run_id: str
    cells: tuple[int, ...]


class AwaitedHost(Model):
    """A host that would take work of a run: ``state`` as in ``host/list``; ``why``: what it last failed with."""

    name: str
    state: str
    why: str = ""


class CellFinal(Model):
    """What a cell handed over, and by which of the ways to finish; ``name`` is the variable's, if it was one."""

    text: Text
    via: str
    name: str | None = None
