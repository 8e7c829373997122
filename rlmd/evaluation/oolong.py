"""OOLONG: questions that no single line answers (arXiv 2511.02817, synth, trec_coarse): count, compare, by user, over
time. And OOLONG-Pairs, the twenty that ask for pairs of users (arXiv 2512.24601 v3, D.1), scored by F1.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator
from itertools import count as counted
from itertools import cycle, islice

from rlmd.evaluation.aggregation import BOTH, LABELS, ONE_AND_OTHER, Query, Row, answer_of, pairs_of
from rlmd.evaluation.item import Item, Task
from rlmd.evaluation.lines import made_lines
from rlmd.evaluation.scoring import AnswerKind, f1, oolong_score

_LABEL_FORM = "Give your final answer in the form 'Label: answer' where answer is one of the labels: {labels}."
_NUMBER_FORM = "Give your final answer in the form 'Answer: number'."
_COMPARE_FORM = (
    "Give your final answer in the form 'Answer: {one} is [X] {other}', where [X] is 'more common than', 'less common "
    "than' or 'same frequency as'."
)
#: What is asked, the form of the answer, and its kind.
ASKED: dict[str, tuple[str, str, AnswerKind]] = {
    "most": ("which of the labels is the most common", _LABEL_FORM, "label"),
    "least": ("which of the labels is the least common", _LABEL_FORM, "label"),
    "compare": (
        "is label '{one}' more common than, less common than, or the same frequency as label '{other}'",
        _COMPARE_FORM,
        "comparison",
    ),
    "count": ("how many data points should be classified as label '{one}'", _NUMBER_FORM, "number"),
    "user": (
        "which user has the most instances with the label '{one}'",
        "Give your final answer in the form 'User: [X]', where [X] is the user's number.",
        "user",
    ),
    "months_more": (
        "for how many months is the label '{one}' more frequent than the label '{other}'",
        _NUMBER_FORM,
        "number",
    ),
    "first_month": (
        "which is the first month in which the label '{one}' is more frequent than the label '{other}'",
        "Give your final answer in the form 'Answer: YYYY-MM'.",
        "month",
    ),
    "top_date": (
        "which date is represented most often",
        "Give your final answer in the form 'Date: MM/DD/YYYY'.",
        "date",
    ),
    "dates_exactly": ("how many dates are represented exactly {number} times", _NUMBER_FORM, "number"),
}
#: Kinds in turn, with what narrows the lines: counting, users, timeline.
_TURN: tuple[tuple[str, str], ...] = (
    ("most", ""),
    ("count", ""),
    ("compare", ""),
    ("user", "users"),
    ("least", ""),
    ("months_more", ""),
    ("count", "users"),
    ("compare", "before"),
    ("top_date", ""),
    ("first_month", ""),
    ("most", "users"),
    ("dates_exactly", ""),
    ("count", "month"),
    ("compare", "after"),
)
_DRAWS = 200


def items(tokens: int, count: int, seed: int) -> Iterator[Item]:
    """Questions over one text, the groups of the benchmark in turn; only such as have a single answer."""
    rng = random.Random(f"oolong {seed} {tokens}")  # noqa: S311  a seeded task, no secret
    lines = made_lines(tokens, rng)
    number = 0
    for what, narrowed in islice(cycle(_TURN), 4 * count + len(_TURN)):
        if number == count:
            return
        for _ in range(_DRAWS):
            query = _drawn(what, narrowed, lines.rows, rng)
            if (truth := answer_of(query, lines.rows)) is not None:
                yield _item(query, truth, lines.text, tokens, number)
                number += 1
                break


def _drawn(what: str, narrowed: str, rows: list[Row], rng: random.Random) -> Query:
    labels = tuple(rng.sample(LABELS, 2))
    days = sorted({day for day, _, _ in rows})
    since = until = ""
    users: tuple[int, ...] = ()
    match narrowed:
        case "users":
            users = tuple(sorted({rng.choice(rows)[1] for _ in range(3)}))
        case "before":
            until = days[len(days) * rng.randrange(3, 8) // 10]
        case "after":
            since = days[len(days) * rng.randrange(2, 7) // 10]
        case "month":
            since = rng.choice(days)[:7] + "-01"
            until = _month_after(since)
    return Query(what, labels, users, since, until, number=rng.randrange(1, 4) if what == "dates_exactly" else 0)


def _month_after(day: str) -> str:
    first = datetime.date.fromisoformat(day)
    return (first + datetime.timedelta(days=32)).replace(day=1).isoformat()


def question_of(query: Query) -> str:
    asked, form, _ = ASKED[query.what]
    words = {
        "one": query.labels[0],
        "other": query.labels[-1],
        "number": query.number,
        "labels": ", ".join(LABELS),
    }
    return f"In the above data, {_narrowing(query)}{asked.format(**words)}? {form.format(**words)}"


def _narrowing(query: Query) -> str:
    if query.users:
        return f"among instances associated with user IDs {', '.join(map(str, query.users))}, "
    if query.since and query.until:
        return f"among instances from {query.since} on and before {query.until}, "
    if query.since:
        return f"among instances on or after {query.since}, "
    return f"among instances before {query.until}, " if query.until else ""


def said(query: Query, answer: str) -> str:
    """An answer in the form that the question asks for."""
    match ASKED[query.what][2]:
        case "label":
            return f"Label: {answer}"
        case "comparison":
            return f"Answer: {query.labels[0]} is {answer} {query.labels[1]}"
        case "user":
            return f"User: {answer}"
        case "date":
            year, month, day = answer.split("-")
            return f"Date: {month}/{day}/{year}"
        case _:
            return f"Answer: {answer}"


def _scorer(truth: str, kind: AnswerKind) -> Callable[[str], float]:
    return lambda answer: oolong_score(answer, truth, kind)


def _item(query: Query, truth: str, text: str, tokens: int, number: int) -> Item:
    return Item(
        task="oolong",
        name=f"{number}-{query.what}",
        tokens=tokens,
        question=question_of(query),
        text=text,
        truth=truth,
        score=_scorer(truth, ASKED[query.what][2]),
        basis=query,
    )


# ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def pairs_items(tokens: int, count: int, seed: int) -> Iterator[Item]:
    """The twenty predicates in turn over one text."""
    rng = random.Random(f"pairs {seed} {tokens}")  # noqa: S311  a seeded task, no secret
    lines = made_lines(tokens, rng)
    for task in islice(counted(1), min(count, len(BOTH) + len(ONE_AND_OTHER))):
        yield pairs_item(task, lines.text, lines.rows, tokens)


def pairs_item(task: int, text: str, rows: list[Row], tokens: int) -> Item:
    """One of the twenty predicates over lines whose labels are known."""
    truth = frozenset(pairs_of(task, rows))
    return Item(
        task="pairs",
        name=str(task),
        tokens=tokens,
        question=pairs_question(task),
        text=text,
        truth=f"{len(truth):,} pairs",
        score=lambda answer: f1(answer, truth),
        basis=task,
    )


def pairs_question(task: int) -> str:
    """A predicate in words."""
    return (
        "In the above data, list all pairs of user IDs (no duplicate pairs, lower ID first) where "
        f"{_predicate(task)}. Each instance is to be labelled as one of {', '.join(LABELS)}; the data does not give "
        "the labels: find them from the meaning of each instance. List all pairs in the format (user_id_1, user_id_2), "
        "one a line."
    )


def _predicate(task: int) -> str:
    if task not in BOTH:
        one, other = (" and ".join(map(_need, side)) for side in ONE_AND_OTHER[task])
        return f"one user has {one}, and the other user has {other}"
    first, second, dated = BOTH[task]
    text = f"both users have at least one instance with the label '{first}' or '{second}'"
    if dated is None:
        return text
    label, side, day = dated
    return (
        f"{text}, and all instances of both with the label '{label}' are {'after' if side == '>' else 'before'} {day}"
    )


def _need(need: tuple[str, str, int]) -> str:
    label, how, number = need
    return f"{'at least' if how == '+' else 'exactly'} {number} with the label '{label}'"


TASK = Task("oolong", "OOLONG: counts, comparisons, users, time over labelled lines", items)
#: Beyond, answers become longer than texts, and than the 1,900,000 characters that an answer may have.
PAIRS = Task("pairs", "OOLONG-Pairs: all pairs of users that a predicate holds for", pairs_items, most_tokens=131_072)
