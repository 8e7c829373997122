"""The program ``quote``: no model. Chooses, among passages found by search, the sentences to quote.

Runs in the REPL, so it imports the standard library alone. It hands over places, not text: the engine reads the quotes
from the context itself.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

KEEP = 3
#: Characters of a quote: search's usual passage stays whole, because what answers a question in other words than its
#: own stands beside the words that match; a longer one is cut.
QUOTE_CHARS = 1600
_WORD = re.compile(r"[^\W_]+(?:[_'’-][^\W_]+)*")
#: A sentence ends at its mark before a space, at an empty line, or at the end of a line that is an item or a heading.
_SENTENCE_END = re.compile(
    r"(?<=[.!?])[\"')\]]*\s+(?=[^a-z\s])|\n[ \t]*\n\s*|\n(?=[ \t]*(?:[-*•]|\d+[.)])\s)|\n(?=[=~^\"-]{3,})"
)
_STOP_WORDS = """a about all also an and any are as at be been between but by can could did do does doing for from
get had has have how i if in into is it its may me more most my no not of on one or our out over
should so some such than that the their them then there these they this those to under up use used
using was we were what when where which while who whom whose why will with would you your tell
explain describe show please mean means"""
_STOP = frozenset(_STOP_WORDS.split())


class Passage(Protocol):
    """What ``search`` gives: a ``str`` that knows its place."""

    @property
    def document(self) -> object: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    def __str__(self) -> str: ...


def key_words(question: str) -> str:
    """The question's words that carry its meaning; the whole question when none is left."""
    words = [word for word in _WORD.findall(question) if word.lower() not in _STOP]
    return " ".join(words) or question


def choose(question: str, passages: Sequence[Passage], keep: int = KEEP) -> list[tuple[int, int, int]]:
    """What to quote, best first: index of the passage, and start and end within it."""
    wanted = {stem(word) for word in _WORD.findall(key_words(question))}
    texts = [str(passage) for passage in passages]
    weights = _weights(wanted, texts)
    chosen: list[tuple[int, int, int]] = []
    quotes: set[str] = set()
    for index, passage in enumerate(passages):
        if len(chosen) == keep:
            break
        start, end = best_stretch(texts[index], weights)
        quote = " ".join(texts[index][start:end].split())
        if not quote or quote in quotes or any(_overlap(passage, passages[other]) for other, _, _ in chosen):
            continue
        quotes.add(quote)
        chosen.append((index, start, end))
    return chosen


def best_stretch(text: str, weights: dict[str, float]) -> tuple[int, int]:
    """The neighbouring sentences of ``text`` that match best, at most ``QUOTE_CHARS`` unless one alone is longer."""
    sentences = sentences_of(text)
    if not sentences:
        return 0, 0
    if sentences[-1][1] - sentences[0][0] <= QUOTE_CHARS:
        return sentences[0][0], sentences[-1][1]
    found = [{stem(word) for word in _WORD.findall(text[start:end])} & weights.keys() for start, end in sentences]
    best, best_value = (0, 0), -1.0
    for first in range(len(sentences)):
        have: set[str] = set()
        for last in range(first, len(sentences)):
            length = sentences[last][1] - sentences[first][0]
            if length > QUOTE_CHARS and last > first:
                break
            have |= found[last]
            # A little is taken off for length, so that sentences without a match are not carried along.
            value = sum(weights[word] for word in have) - length / (8 * QUOTE_CHARS)
            if value > best_value:
                best, best_value = (first, last), value
    start, end = sentences[best[0]][0], sentences[best[1]][1]
    return start, min(end, start + 3 * QUOTE_CHARS)


def sentences_of(text: str) -> list[tuple[int, int]]:
    """Sentences, list items and headings as stretches without the white space around them."""
    borders = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    stretches = []
    for start, end in pairwise(borders):
        piece = text[start:end]
        left, right = len(piece) - len(piece.lstrip()), len(piece.rstrip())
        if left < right:
            stretches.append((start + left, start + right))
    return stretches


def stem(word: str) -> str:
    """A word without its commonest English endings: enough to match within one passage."""
    word = word.lower()
    for ending in (
        "ations",
        "ation",
        "ingly",
        "edly",
        "ings",
        "ing",
        "ies",
        "ied",
        "ers",
        "ed",
        "es",
        "er",
        "ly",
        "s",
        "e",
    ):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _weights(wanted: set[str], texts: Sequence[str]) -> dict[str, float]:
    """Rarer among the passages weighs more."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update({stem(word) for word in _WORD.findall(text)} & wanted)
    return {word: math.log(1 + (len(texts) + 1) / (1 + counts[word])) for word in wanted}


def _overlap(one: Passage, other: Passage) -> bool:
    return one.document == other.document and one.start < other.end and other.start < one.end
