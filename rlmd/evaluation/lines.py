"""Lines as OOLONG's trec_coarse has them: a day, a user, and a question whose kind nobody says.

The questions are made from the phrases below, each of which has one of TREC's six coarse labels, so that ``label_of``
is the truth for every line.
"""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from rlmd.evaluation.aggregation import ABBR, DESC, ENT, HUM, LABELS, LOC, NUM, Row
from rlmd.evaluation.item import CHARS_PER_TOKEN, words

#: Phrases by label; {place}, {thing}, {short} and {deed} are filled in. No phrase of a label fits another's.
PHRASES: dict[str, tuple[str, ...]] = {
    NUM: (
        "How many people live in {place} ?",
        "What year was the {thing} invented ?",
        "How far is it from {place} to the sea ?",
        "What is the population of {place} ?",
        "How much does a {thing} weigh ?",
        "When did {place} become independent ?",
        "How long does it take to {deed} ?",
        "What percentage of households own a {thing} ?",
    ),
    ENT: (
        "What color is the flag of {place} ?",
        "What animal is pictured on the coin of {place} ?",
        "What kind of wood is a {thing} made of ?",
        "What language is spoken in {place} ?",
        "What tool do you need to {deed} ?",
        "Which sport is played with a {thing} ?",
        "What dish is {place} famous for ?",
        "What disease can you catch from a {thing} ?",
    ),
    HUM: (
        "Who invented the {thing} ?",
        "Who was the first mayor of {place} ?",
        "Which actress opened the theatre in {place} ?",
        "What explorer first reached {place} ?",
        "Who taught the children of {place} to {deed} ?",
        "Name the company that sells the most {thing}s .",
        "Who is the patron saint of {place} ?",
    ),
    LOC: (
        "Where is {place} ?",
        "What river flows through {place} ?",
        "Where was the first {thing} built ?",
        "Which country borders {place} ?",
        "What city has the largest museum of the {thing} ?",
        "Where do people go to {deed} ?",
        "What mountains lie north of {place} ?",
    ),
    ABBR: (
        "What does {short} stand for ?",
        "What is {short} the abbreviation of ?",
        "What is the full form of {short} ?",
        "What is the acronym for the union of {thing} makers ?",
        "What do the letters {short} mean ?",
    ),
    DESC: (
        "Why is {place} always foggy ?",
        "How does a {thing} work ?",
        "What is a {thing} ?",
        "What is the origin of the name {place} ?",
        "How do you {deed} ?",
        "What does the word {thing} mean ?",
        "Why do people {deed} ?",
    ),
}
_PLACES = words("""Abernant Brockmoor Caldera Dunlin Eastmere Farrow Glenholm Harwick Inverlay Jutland Kilbride Lodz
Marrow Norwell Ostrava Pernik Quimper Ravenna Stavern Tavira Ulverston Varna Wexford Yarm
Zadar Aldgate Bergamo Corinth""")
_THINGS = words("""telescope barometer saddle trumpet umbrella lantern compass violin typewriter windmill bicycle teapot
loom sextant kite anvil harpoon abacus chisel drum""")
_DEEDS = (
    "bake bread",
    "mend a net",
    "tune a piano",
    "shear a sheep",
    "sail a boat",
    "bind a book",
    "brew beer",
    "plant a hedge",
    "roast coffee",
    "press olives",
    "forge a nail",
)

HEADER = """The following lines contain {count} general-knowledge questions, one per line. Each line has the date on \
which the question was asked and the number of the user who asked it. Each question can be labelled as one of 6 \
categories, by the kind of answer that it asks for: {labels}. The labels are not given: find them from the meaning of \
each question. Do not try to guess, estimate or approximate: look at every line.
"""
LINE = "Date: {day} || User: {user} || Instance: {question}\n"
#: ``Date``, ``User`` and ``Instance`` of a line, and its label where a data set tells it.
PARTS = re.compile(r"^Date: (.+?) \|\| User: (\d+) \|\| Instance: (.*?)(?: \|\| Label: (.+?))?\s*$", re.MULTILINE)
#: The day in a line as ``datetime.strptime`` reads it.
DAY = "%b %d, %Y"
_FIRST_DAY = datetime.date(2022, 9, 1)
_DAYS = 395
#: Characters of a line, and lines of a user, on the average. At 131K tokens these are some 510 users, for whom the
#: first predicate of OOLONG-Pairs holds in 130,000 pairs, as in the paper.
_LINE_CHARS = 85
_LINES_PER_USER = 12


@dataclass(frozen=True, slots=True)
class Lines:
    """A text, and its lines as rows."""

    text: str
    rows: list[Row]


def made_lines(tokens: int, rng: random.Random) -> Lines:
    """A text of about so many tokens, every label at a weight of its own."""
    weights = [rng.uniform(0.5, 1.5) for _ in LABELS]
    size, left = tokens * CHARS_PER_TOKEN, tokens * CHARS_PER_TOKEN - len(HEADER)
    count = max(4, size // _LINE_CHARS // _LINES_PER_USER)
    users = rng.sample(range(1000, max(10_000, 20 * count)), count)
    rows: list[Row] = []
    written: list[str] = []
    while left > 0:
        label = rng.choices(LABELS, weights)[0]
        day = _FIRST_DAY + datetime.timedelta(days=rng.randrange(_DAYS))
        user = rng.choice(users)
        line = LINE.format(day=day.strftime(DAY), user=user, question=_question(label, rng))
        left -= len(line)
        rows.append((day.isoformat(), user, label))
        written.append(line)
    header = HEADER.format(count=len(rows), labels=", ".join(LABELS))
    return Lines(header + "".join(written), rows)


def rows_of(text: str, label_of: Callable[[str], str | None]) -> list[Row]:
    """The rows of a text, by labels that it tells or else by ``label_of``; lines without a label are left out."""
    found = []
    for day, user, question, told in PARTS.findall(text):
        if label := told or label_of(question):
            date = datetime.datetime.strptime(day, DAY).date()  # noqa: DTZ007  a day, of no time zone
            found.append((date.isoformat(), int(user), label))
    return found


def label_of(question: str) -> str | None:
    """The truth of a made line; None for a question that was not made here."""
    return next((label for pattern, label in _patterns() if pattern.fullmatch(question.strip())), None)


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (re.compile(re.sub(r"\\\{\w+\\\}", ".+?", re.escape(phrase))), label)
        for label, phrases in PHRASES.items()
        for phrase in phrases
    )


def _question(label: str, rng: random.Random) -> str:
    short = "".join(rng.choices("ABCDEFGHIKLMNOPRSTUW", k=rng.randrange(3, 6)))
    return rng.choice(PHRASES[label]).format(
        place=rng.choice(_PLACES), thing=rng.choice(_THINGS), deed=rng.choice(_DEEDS), short=short
    )
