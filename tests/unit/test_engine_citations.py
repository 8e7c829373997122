"""Quotes in answers, their places, and what a receipt makes of what was read."""

from __future__ import annotations

import re

import pytest

from rlmd.engine.citations import Finder, quotes_in
from rlmd.engine.receipt import Tally, receipt, summary, union
from rlmd.errors import NotFound
from rlmd.events import (
    CellEnded,
    CompletionRecord,
    ErrorRecord,
    LimitHit,
    Pin,
    RootReplied,
    Searched,
    Span,
    StrategyChosen,
    SubQueryFailed,
    SubQueryReplied,
    Text,
)


class Document:
    def __init__(self, name: str, text: str, origin: str | None = None) -> None:
        self.name, self.text, self.origin = name, text, origin
        self.chars = len(text)


class Context:
    """A pinned context in memory, which counts how often it was searched."""

    def __init__(self, name: str, *documents: Document) -> None:
        self.documents = documents
        self.searches = 0
        chars = sum(document.chars for document in documents)
        self.pin = Pin(
            context=name,
            revision=3,
            kind="collection",
            private=False,
            documents=len(documents),
            chars=chars,
            digest="d",
        )

    def document(self, name: str) -> Document:
        for document in self.documents:
            if document.name == name:
                return document
        raise NotFound("no such document")

    def read(self, document: str, start: int, end: int) -> str:
        return self.document(document).text[start:end]

    def part_of(self, document: str, start: int) -> tuple[int | None, str | None]:
        return None, None

    def line_of(self, document: str, start: int) -> int:
        return self.document(document).text.count("\n", 0, start) + 1

    async def find(self, quote: str, *, hint: Span | None, limit: int = 3) -> list[Span]:
        self.searches += 1
        return self._found(re.escape(quote))[:limit]

    async def find_normalised(self, quote: str) -> list[Span]:
        return self._found(r"\s+".join(map(re.escape, quote.split())))

    def _found(self, pattern: str) -> list[Span]:
        return [
            Span(context=self.pin.context, document=document.name, start=match.start(), end=match.end())
            for document in self.documents
            for match in re.finditer(pattern, document.text, re.IGNORECASE)
        ]


QUOTES = {
    "straight": ('It says "the lamp is dark" there.', ["the lamp is dark"]),
    "curly": ("It says “the lamp is dark” there.", ["the lamp is dark"]),
    "guillemets": ("Il dit «the lamp is dark» là.", ["the lamp is dark"]),
    "block": ("As written:\n\n> the lamp\n> is dark\n\nSo.", ["the lamp\nis dark"]),
    "block in quotes": ('> "the lamp is dark"', ["the lamp is dark"]),
    "code": ("See `lamp.state = dark` there.", ["lamp.state = dark"]),
    "fenced": ("```python\nlamp.state = dark\n```", ["lamp.state = dark"]),
    "over a line": ('It says "the lamp\nis dark" there.', ["the lamp\nis dark"]),
    "with something left out": (
        '"the lamp is dark […] and the door is shut"',
        ["the lamp is dark", "and the door is shut"],
    ),
    "twice": ('"the lamp is dark" and again "the lamp is dark"', ["the lamp is dark"]),
    "in order": ('First "the door is shut", then “the lamp is dark”.', ["the door is shut", "the lamp is dark"]),
    "a word": ('The "lamp" is a "lanternlikething".', []),
    "inches and contractions": ("A 5\" nail isn't a 6\" nail, it's said.", []),
    "not over paragraphs": ('A stray " here.\n\nAnd another " there, later on.', []),
}


@pytest.mark.parametrize(("answer", "expected"), QUOTES.values(), ids=QUOTES.keys())
def test_quotes_in_an_answer(answer: str, expected: list[str]) -> None:
    """Quotes are found in each form that models use, once, in order; names and lone marks are none."""
    assert [quote.text for quote in quotes_in(answer)] == expected


async def test_a_quote_gets_its_place() -> None:
    """Number, document, code points, line; exactly, else normalised; not found is marked, never hidden."""
    context = Context(
        "notes", Document("a.txt", "x\n" * 9), Document("b.txt", "First.\nThe lamp is dark.\n", "/data/b.txt")
    )
    answer = (
        'It says "The lamp is dark." and "the LAMP  is dark" but also "the lamp is green now" and `no.such.code()`.'
    )
    one, two, three = await Finder([context]).cite(answer)
    assert (one.number, one.verified, one.match, one.document, one.start, one.end) == (1, True, "exact", "b.txt", 7, 24)
    assert (one.revision, one.locator.line, one.locator.label, one.locator.path) == (
        3,
        2,
        "/data/b.txt:2",
        "/data/b.txt",
    )
    assert (two.number, two.verified, two.match, two.start) == (2, True, "normalised", 7)
    assert (three.number, three.verified, three.match, three.document, three.locator) == (3, False, "none", None, None)


@pytest.mark.parametrize("start", [360, 343])
async def test_what_models_were_shown_is_looked_at_first(start: int) -> None:
    """The place that a model read is the one cited, not an earlier copy; the context is not searched for it."""
    text = "the lamp is dark. " * 50
    context = Context("notes", Document("a", text))
    hint = Span(context="notes", document="a", start=start, end=400)
    [citation] = await Finder([context], [hint]).cite('"the lamp is dark. the lamp"')
    assert (citation.start, citation.end, context.searches) == (360, 386, 0)


def reached(*spans: tuple[str, int, int]) -> tuple[Span, ...]:
    return tuple(Span(context="notes", document=name, start=start, end=end) for name, start, end in spans)


COMPLETION = CompletionRecord(host="h", model="m", source="model", finish="stop", prompt_tokens=10, completion_tokens=2)
BASE = {"run_id": "r", "seq": 1, "time": 0.0}
ASKED = {
    "cell": 1,
    "batch": 1,
    "slot": 0,
    "prompt_digest": "d",
    "occurrence": 1,
    "prompt_chars": 1,
    "prompt_preview": "p",
}


def replied(*spans: tuple[str, int, int], source: str = "model") -> SubQueryReplied:
    completion = COMPLETION.model_copy(update={"source": source})
    return SubQueryReplied(**BASE, **ASKED, spans=reached(*spans), reply=Text(chars=0, text=""), completion=completion)


def test_a_receipt_counts_each_code_point_once() -> None:
    """Overlaps, repeats, a failed piece, printed passages; what was not read is named."""
    context = Context("notes", Document("a", "x" * 100), Document("b", "y" * 50))
    tally = Tally()
    tally.apply(replied(("a", 0, 40), ("a", 30, 60)))
    tally.apply(replied(("a", 0, 40), source="cache"))
    failed = ErrorRecord(code=1, kind="k", message="m")
    tally.apply(SubQueryFailed(**BASE, **ASKED, spans=reached(("b", 0, 50)), error=failed))
    tally.apply(Searched(**BASE, cell=1, contexts=("notes",), chars=150, hits=()))
    tally.apply(
        CellEnded(
            **BASE, turn=1, cell=1, stream="s", output=Text(chars=0, text=""), digest="d", cut=0, ok=True, error=None,
            seconds=0.1, shown=reached(("a", 90, 100)),
        )
    )  # fmt: skip
    assert receipt(tally, [context], 2.0).chars_read == 60, "what was printed has reached no model yet"
    tally.apply(RootReplied(**BASE, turn=2, stream="s", reply=Text(chars=0, text=""), completion=COMPLETION))
    made = receipt(tally, [context], 2.0)
    assert (made.chars_total, made.chars_searched, made.chars_read) == (150, 150, 70)
    assert (made.pieces, made.pieces_failed, made.sub_queries, made.sub_queries_cached) == (3, 1, 3, 1)
    assert [(span.document, span.start, span.end) for span in made.unread] == [("a", 60, 90), ("b", 0, 50)]
    assert made.unread_stretches == 2
    assert [(use.role, use.calls, use.prompt_tokens, use.completion_tokens) for use in made.models] == [
        ("sub", 1, 10, 2), ("root", 1, 10, 2),
    ]  # fmt: skip
    assert made.summary == (
        "searched all 150 characters; models read 70 of 150 characters (47 %); 3 pieces, 1 failed; "
        "3 sub-queries (1 from the cache); m on h; 2.0 s"
    )


def test_a_direct_answer_read_everything() -> None:
    """The root had the whole text before it."""
    tally = Tally()
    tally.apply(StrategyChosen(**BASE, strategy="direct", why="w"))
    context = Context("notes", Document("a", "x" * 100))
    assert receipt(tally, [context], 1.0).chars_read == 0
    tally.apply(RootReplied(**BASE, turn=1, stream="s", reply=Text(chars=0, text=""), completion=COMPLETION))
    made = receipt(tally, [context], 1.0)
    assert (made.chars_read, made.unread) == (100, ())


def test_a_receipt_names_the_limit_that_ended_the_run() -> None:
    """The last one: an earlier may have refused something to a cell."""
    tally = Tally()
    for limit in ("sub_queries", "turns"):
        tally.apply(LimitHit(**BASE, limit=limit, allowed=1, why="w"))
    assert receipt(tally, [], 1.0).limit == "turns"


def test_a_direct_answer_that_was_given_up_read_nothing() -> None:
    """It did not fit after all: what the root has replied to since is a conversation about the text."""
    tally = Tally()
    for strategy in ("direct", "rlm"):
        tally.apply(StrategyChosen(**BASE, strategy=strategy, why="w"))
    tally.apply(RootReplied(**BASE, turn=1, stream="s", reply=Text(chars=0, text=""), completion=COMPLETION))
    assert receipt(tally, [Context("notes", Document("a", "x" * 100))], 1.0).chars_read == 0


def test_a_receipt_names_the_first_unread_and_counts_the_rest() -> None:
    """A hundred thousand unread files do not make a message of megabytes."""
    context = Context("notes", *(Document(f"d{number}", "x" * 10) for number in range(1000)))
    made = receipt(Tally(), [context], 1.0, model_used=False)
    assert (len(made.unread), made.unread_stretches) == (20, 1000)
    assert "no model used" in summary(made, model_used=False)


def test_union() -> None:
    """Sorted, merged where they touch, empty ones gone."""
    assert union([(5, 9), (0, 3), (3, 4), (8, 12), (20, 20)]) == [(0, 4), (5, 12)]
