"""The receipt: what an answer rests on and what it cost, folded from the run's facts.

``Tally`` takes facts in; ``receipt`` sets them against the pinned contexts. Only spans that the engine has verified
are in the facts, so that model-written code cannot claim to have read what it did not.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rlmd.engine.parts import PinnedContext
from rlmd.errors import LimitReached, OverUse
from rlmd.events import (
    AnyFact,
    CellEnded,
    ChildEnded,
    CompletionRecord,
    LimitHit,
    ModelUse,
    Receipt,
    RootReplied,
    Searched,
    Span,
    StrategyChosen,
    SubQueryFailed,
    SubQueryReplied,
    TurnStarted,
)

#: Unread stretches named in a receipt; their number is told in full.
_MOST_UNREAD = 20

Place = tuple[str, str]
Stretch = tuple[int, int]


@dataclass(slots=True)
class _Use:
    """Of one model on one host in one role."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: float = 0.0
    energy: float = 0.0
    energy_cost: float = 0.0


@dataclass(slots=True)
class Tally:
    """Counts, as the facts give them."""

    turns: int = 0
    sub_queries: int = 0
    cached: int = 0
    refused: int = 0
    #: Characters that children read at places which are not told.
    read_more: int = 0
    children: int = 0
    child_turns: int = 0
    #: Turns that hold no more.
    vain_turns: int = 0
    limit: str | None = None
    direct: bool = False
    root_replied: bool = False
    searched: set[str] = field(default_factory=set)
    #: Stretches that reached a model, by context and document; unordered, overlapping.
    read: dict[Place, list[Stretch]] = field(default_factory=lambda: defaultdict(list))
    asked: set[Span] = field(default_factory=set)
    answered: set[Span] = field(default_factory=set)
    uses: dict[tuple[str, str, str], _Use] = field(default_factory=dict)
    #: Stretches that cells have shown and that no root has replied to yet: if it never does, nobody has read them.
    shown: list[Span] = field(default_factory=list)

    def apply(self, fact: AnyFact) -> None:
        match fact:
            case StrategyChosen():
                self.direct = fact.strategy == "direct"
            case TurnStarted():
                self.turns = max(self.turns, fact.turn)
            case RootReplied():
                self.root_replied = True
                self._reached(self.shown)
                self.shown.clear()
                self._used("root", fact.completion)
            case SubQueryReplied():
                self.sub_queries += 1
                self.cached += fact.completion.source != "model"
                self._used("sub", fact.completion)
                self.asked.update(fact.spans)
                self.answered.update(fact.spans)
                self._reached(fact.spans)
            case SubQueryFailed():
                self.sub_queries += 1
                self.refused += fact.error.kind in (LimitReached.kind, OverUse.kind)
                self.asked.update(fact.spans)
            case ChildEnded():
                self.children += 1
                self._reached(fact.read)
                self.read_more += fact.read_more
                if fact.receipt is not None:
                    self._add(fact.receipt)
            case Searched():
                self.searched.update(fact.contexts)
            case CellEnded():
                self.shown.extend(fact.shown)
            case LimitHit():
                self.limit = fact.limit

    def pay(self, fact: AnyFact) -> None:
        """What a fact cost that holds no more, because the run was continued from before it."""
        match fact:
            case RootReplied():
                self.vain_turns += 1
                self._used("root", fact.completion)
            case SubQueryReplied():
                self.sub_queries += 1
                self.cached += fact.completion.source != "model"
                self._used("sub", fact.completion)
                self._reached(fact.spans)
            case ChildEnded(receipt=child) if child is not None:
                self.children += 1
                self._add(child)

    @property
    def money(self) -> float:
        """Dollars spent."""
        return sum(use.money for use in self.uses.values())

    def _add(self, child: Receipt) -> None:
        """What a child cost, its own children included."""
        self.children += child.children
        self.child_turns += child.turns
        self.sub_queries += child.sub_queries
        self.cached += child.sub_queries_cached
        self.refused += child.sub_queries_refused
        for one in child.models:
            use = self.uses.setdefault((one.role, one.host, one.model), _Use())
            use.calls += one.calls
            use.prompt_tokens += one.prompt_tokens
            use.completion_tokens += one.completion_tokens
            use.money += one.money
            use.energy += one.energy
            use.energy_cost += one.energy_cost

    def hints(self, most: int = 200) -> list[Span]:
        """Stretches that models were shown, the shortest first: the likeliest places of a quote."""
        places = {(end - start, *place, start, end) for place, several in self.read.items() for start, end in several}
        return [
            Span(context=context, document=document, start=start, end=end)
            for _, context, document, start, end in heapq.nsmallest(most, places)
        ]

    def _reached(self, spans: Iterable[Span]) -> None:
        for span in spans:
            self.read[span.context, span.document].append((span.start, span.end))

    def _used(self, role: str, completion: CompletionRecord) -> None:
        if completion.source != "model":
            return
        use = self.uses.setdefault((role, completion.host, completion.model), _Use())
        use.calls += 1
        use.prompt_tokens += completion.prompt_tokens
        use.completion_tokens += completion.completion_tokens
        use.money += completion.money
        use.energy += completion.energy
        use.energy_cost += completion.energy_cost


def receipt(
    tally: Tally, contexts: Sequence[PinnedContext], wall_seconds: float, *, model_used: bool = True
) -> Receipt:
    """Sets the tally against the contexts. Walks every document: thousands are a matter for a thread."""
    total = sum(context.pin.chars for context in contexts)
    chars_read, unread, stretches = _coverage(tally, contexts)
    if tally.direct and tally.root_replied:
        chars_read, unread, stretches = total, [], 0
    made = Receipt(
        chars_total=total,
        chars_searched=sum(context.pin.chars for context in contexts if context.pin.context in tally.searched),
        chars_read=chars_read,
        chars_read_more=min(tally.read_more, total - chars_read),
        pieces=len(tally.asked),
        pieces_failed=len(tally.asked - tally.answered),
        unread=tuple(unread),
        unread_stretches=stretches,
        sub_queries=tally.sub_queries,
        sub_queries_cached=tally.cached,
        sub_queries_refused=tally.refused,
        children=tally.children,
        turns=tally.turns + tally.vain_turns + tally.child_turns,
        models=tuple(
            ModelUse(
                role="root" if role == "root" else "sub",
                host=host,
                model=model,
                calls=use.calls,
                prompt_tokens=use.prompt_tokens,
                completion_tokens=use.completion_tokens,
                money=use.money,
                energy=use.energy,
                energy_cost=use.energy_cost,
            )
            for (role, host, model), use in tally.uses.items()
        ),
        money=tally.money,
        energy=sum(use.energy for use in tally.uses.values()),
        energy_cost=sum(use.energy_cost for use in tally.uses.values()),
        wall_seconds=wall_seconds,
        limit=tally.limit,
        summary="",
    )
    return made.model_copy(update={"summary": summary(made, model_used=model_used)})


def union(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same code points as sorted stretches that do not touch."""
    merged: list[Stretch] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif end > start:
            merged.append((start, end))
    return merged


def _coverage(tally: Tally, contexts: Sequence[PinnedContext]) -> tuple[int, list[Span], int]:
    """Code points read, the first unread stretches, and how many there are."""
    read, count = 0, 0
    unread: list[Span] = []
    for context in contexts:
        name = context.pin.context
        for document in context.documents:
            position = 0
            for start, end in [*union(tally.read.get((name, document.name), ())), (document.chars, document.chars)]:
                if start > position:
                    count += 1
                    if len(unread) < _MOST_UNREAD:
                        unread.append(Span(context=name, document=document.name, start=position, end=start))
                read += max(0, min(end, document.chars) - max(position, start))
                position = max(position, end)
    return read, unread, count


def summary(made: Receipt, *, model_used: bool = True) -> str:
    """One line for a person."""
    parts = []
    if made.chars_searched:
        parts.append(f"searched {_share(made.chars_searched, made.chars_total)}")
    if model_used:
        more = f" and up to {made.chars_read_more:,} more" if made.chars_read_more else ""
        parts.append(f"models read {_share(made.chars_read, made.chars_total)}{more}")
    else:
        parts.append("no model used")
    if made.pieces:
        failed = f", {made.pieces_failed:,} failed" if made.pieces_failed else ""
        parts.append(f"{_many(made.pieces, 'piece')}{failed}")
    if made.sub_queries:
        of_these = {"from the cache": made.sub_queries_cached, "refused": made.sub_queries_refused}
        told = ", ".join(f"{count:,} {what}" for what, count in of_these.items() if count)
        parts.append(f"{_many(made.sub_queries, 'sub-query', 'sub-queries')}{f' ({told})' if told else ''}")
    if made.children:
        parts.append(_many(made.children, "child run"))
    if made.turns:
        parts.append(_many(made.turns, "turn"))
    parts.extend(dict.fromkeys(f"{use.model} on {use.host}" for use in made.models))
    parts.append(f"{made.wall_seconds:.1f} s")
    if made.energy:
        drawn = f"{made.energy:.2g} Wh" if made.energy < 100 else f"{made.energy:,.0f} Wh"
        parts.append(f"{drawn} ({_dollars(made.energy_cost)})" if made.energy_cost else drawn)
    if made.money:
        parts.append(_dollars(made.money))
    if made.limit:
        parts.append(f"ended by the limit of {made.limit}")
    return "; ".join(parts)


def _dollars(amount: float) -> str:
    if amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount >= 0.0001 else "under $0.0001"


def _share(part: int, whole: int) -> str:
    if part >= whole:
        return f"all {whole:,} characters"
    percent = 100 * part / whole
    shown = f"{percent:.0f} %" if percent >= 1 or not part else "under 1 %"
    return f"{part:,} of {whole:,} characters ({shown})"


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"
