"""What OOLONG's questions ask of labelled lines: counting, users, time; and the pairs of OOLONG-Pairs.

The standard library alone, and nothing of texts: rows come in, an answer goes out. Truth is made by it, and a scripted
root can take its source along into a cell to do with labels that a model gave what truth did with the right ones.
Pairs are those of the paper's appendix (arXiv 2512.24601 v3, D.1).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

#: A line: day as ``YYYY-MM-DD``, number of the user, label.
Row = tuple[str, int, str]

NUM, ENT, HUM = "numeric value", "entity", "human being"
LOC, ABBR, DESC = "location", "abbreviation", "description and abstract concept"
LABELS = (NUM, ENT, HUM, LOC, ABBR, DESC)


@dataclass(frozen=True)
class Query:
    """``what`` is asked of the lines of ``users`` (all if empty) from day ``since`` up to and without ``until``."""

    what: str
    labels: tuple[str, ...] = ()
    users: tuple[int, ...] = ()
    since: str = ""
    until: str = ""
    number: int = 0


def answer_of(query: Query, rows: list[Row]) -> str | None:
    """The answer without its form; None where there is no single one, so that it is not asked."""
    chosen = [
        row
        for row in rows
        if (not query.users or row[1] in query.users)
        and query.since <= row[0]
        and (not query.until or row[0] < query.until)
    ]
    return ANSWERS[query.what](query, chosen)


def _most(query: Query, rows: list[Row]) -> str | None:
    return _single(Counter(label for _, _, label in rows), most=True)


def _least(query: Query, rows: list[Row]) -> str | None:
    counts = Counter(dict.fromkeys(LABELS, 0))
    counts.update(label for _, _, label in rows)
    return _single(counts, most=False)


def _compare(query: Query, rows: list[Row]) -> str | None:
    one, other = (sum(label == wanted for _, _, label in rows) for wanted in query.labels)
    if one == other:
        return "same frequency as"
    return "more common than" if one > other else "less common than"


def _count(query: Query, rows: list[Row]) -> str | None:
    return str(sum(label == query.labels[0] for _, _, label in rows))


def _user(query: Query, rows: list[Row]) -> str | None:
    return _single(Counter(str(user) for _, user, label in rows if label == query.labels[0]), most=True)


def _months_more(query: Query, rows: list[Row]) -> str | None:
    return str(len(_exceeding(query.labels, rows)))


def _first_month(query: Query, rows: list[Row]) -> str | None:
    return min(_exceeding(query.labels, rows), default=None)


def _top_date(query: Query, rows: list[Row]) -> str | None:
    return _single(Counter(day for day, _, _ in rows), most=True)


def _dates_exactly(query: Query, rows: list[Row]) -> str | None:
    return str(sum(count == query.number for count in Counter(day for day, _, _ in rows).values()))


def _exceeding(labels: tuple[str, ...], rows: list[Row]) -> list[str]:
    """Months in which the first label is more frequent than the second."""
    months: dict[str, Counter[str]] = defaultdict(Counter)
    for day, _, label in rows:
        months[day[:7]][label] += 1
    return [month for month, counts in months.items() if counts[labels[0]] > counts[labels[1]]]


def _single(counts: Counter[str], *, most: bool) -> str | None:
    ordered = sorted(counts.items(), key=lambda one: -one[1] if most else one[1])
    if not ordered or (len(ordered) > 1 and ordered[0][1] == ordered[1][1]):
        return None
    return ordered[0][0]


ANSWERS: dict[str, Callable[[Query, list[Row]], str | None]] = {
    "most": _most,
    "least": _least,
    "compare": _compare,
    "count": _count,
    "user": _user,
    "months_more": _months_more,
    "first_month": _first_month,
    "top_date": _top_date,
    "dates_exactly": _dates_exactly,
}


# ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────────────

#: 1 to 10, for both users: a line of either label; and all lines of a label after (``>``) or before (``<``) a day.
BOTH: dict[int, tuple[str, str, tuple[str, str, str] | None]] = {
    1: (NUM, LOC, None),
    2: (ENT, HUM, None),
    3: (DESC, ABBR, None),
    4: (HUM, LOC, (HUM, ">", "2023-01-06")),
    5: (ENT, NUM, (ENT, "<", "2023-03-15")),
    6: (LOC, ABBR, None),
    7: (DESC, NUM, (NUM, ">", "2023-02-01")),
    8: (HUM, DESC, None),
    9: (ENT, LOC, (LOC, ">", "2023-04-10")),
    10: (NUM, ABBR, (ABBR, "<", "2023-05-20")),
}
#: 11 to 20, for one user and for the other: at least (``+``) or exactly (``=``) so many lines of a label.
ONE_AND_OTHER: dict[int, tuple[tuple[tuple[str, str, int], ...], tuple[tuple[str, str, int], ...]]] = {
    11: (((ENT, "+", 1), (ABBR, "+", 1)), ((ENT, "=", 1),)),
    12: (((NUM, "+", 2),), ((LOC, "+", 1), (HUM, "+", 1))),
    13: (((DESC, "=", 1),), ((ABBR, "+", 1), (ENT, "+", 1))),
    14: (((HUM, "+", 1), (NUM, "+", 1)), ((LOC, "=", 2),)),
    15: (((ENT, "+", 1), (LOC, "+", 1), (ABBR, "+", 1)), ((NUM, "=", 1),)),
    16: (((DESC, "+", 1), (HUM, "+", 1)), ((ENT, "+", 2), (ABBR, "=", 1))),
    17: (((NUM, "=", 1),), ((LOC, "+", 1), (DESC, "+", 1))),
    18: (((ABBR, "+", 1), (HUM, "=", 1)), ((ENT, "+", 1), (NUM, "+", 1))),
    19: (((LOC, "+", 2), (ENT, "+", 1)), ((DESC, "=", 1), (ABBR, "=", 1))),
    20: (((NUM, "+", 1), (HUM, "+", 1)), ((LOC, "+", 1), (ENT, "+", 1), (ABBR, "+", 1))),
}


def pairs_of(task: int, rows: list[Row]) -> list[tuple[int, int]]:
    """The pairs of users that one of the twenty predicates holds for, lower number first, in order."""
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    days: dict[tuple[int, str], list[str]] = defaultdict(list)
    for day, user, label in rows:
        counts[user][label] += 1
        days[user, label].append(day)
    users = sorted(counts)
    if task in BOTH:
        return list(combinations([user for user in users if _both(BOTH[task], user, counts, days)], 2))
    one, other = ONE_AND_OTHER[task]
    ones = {user for user in users if _has(one, counts[user])}
    others = {user for user in users if _has(other, counts[user])}
    return [
        (low, high)
        for low, high in combinations(users, 2)
        if (low in ones and high in others) or (low in others and high in ones)
    ]


def _both(
    wanted: tuple[str, str, tuple[str, str, str] | None],
    user: int,
    counts: dict[int, Counter[str]],
    days: dict[tuple[int, str], list[str]],
) -> bool:
    first, second, dated = wanted
    if not (counts[user][first] or counts[user][second]):
        return False
    if dated is None:
        return True
    label, side, border = dated
    return all(day > border if side == ">" else day < border for day in days[user, label])


def _has(needs: tuple[tuple[str, str, int], ...], counts: Counter[str]) -> bool:
    return all(counts[label] >= number if how == "+" else counts[label] == number for label, how, number in needs)
