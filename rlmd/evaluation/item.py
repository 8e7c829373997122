"""One question of known truth over one text, and how an answer to it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

#: Characters that count as a token where a length is given in tokens: no tokenizer is asked, so that a length is the
#: same text for every model.
CHARS_PER_TOKEN = 4

#: From 0 to 1.
Score = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Item:
    """A question.

    Attributes:
        task: Name of its task, such as ``oolong``.
        name: Tells it from the task's other items of this length and seed.
        tokens: Nominal length of the text.
        question: As it is asked.
        text: One text, or documents by name.
        truth: The right answer, for people.
        score: Of an answer, from 0 to 1.
        basis: What the question was made from: what a scripted model needs that is to answer it by the truth.
    """

    task: str
    name: str
    tokens: int
    question: str
    text: str | Mapping[str, str]
    truth: str
    score: Score
    basis: object = None

    @property
    def chars(self) -> int:
        return len(self.text) if isinstance(self.text, str) else sum(map(len, self.text.values()))


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of question. ``items`` makes so many of one length, each from the seed alone."""

    name: str
    what: str
    items: Callable[[int, int, int], Iterable[Item]]
    most_tokens: int | None = None


def words(text: str) -> list[str]:
    return text.split()


def named_length(tokens: int) -> str:
    """``8K``, ``1M``: powers of two and round numbers as people say them."""
    for unit, name in ((1 << 20, "M"), (1_000_000, "M"), (1 << 10, "K"), (1000, "K")):
        if tokens >= unit and tokens % unit == 0:
            return f"{tokens // unit}{name}"
    return str(tokens)
