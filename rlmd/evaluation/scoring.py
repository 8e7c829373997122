"""Exact scores, by the published rules of each benchmark. Nobody judges."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection
from typing import Literal

AnswerKind = Literal["label", "comparison", "number", "user", "date", "month"]

_COMPARISONS = ("more common", "less common", "same frequency as")
_PAIR = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_CHOICES = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])\b"))
_DATE_FORMS = ("%m/%d/%Y", "%Y-%m-%d", "%b %d, %Y", "%B %d, %Y")


def all_found(answer: str, wanted: Collection[str]) -> float:
    """Share of the wanted strings that the answer holds, in any case (RULER's ``string_match_all``)."""
    low = answer.lower()
    return sum(one.lower() in low for one in wanted) / len(wanted)


def oolong_score(answer: str, truth: str, kind: AnswerKind) -> float:
    """OOLONG's rule: what stands after the last colon counts; a number that is off by n earns 0.75 to the n."""
    said = _after_last_colon(answer)
    if said == truth or (kind == "comparison" and said in _COMPARISONS and said in truth):
        return 1.0
    if kind == "number":
        try:
            return float(0.75 ** abs(int(truth) - int(said)))
        except ValueError:
            return 0.0
    if kind == "date":
        given = _date_of(said)
        return float(given is not None and given == _date_of(truth))
    return 0.0


def _after_last_colon(answer: str) -> str:
    answer = answer.strip()
    if ":" not in answer:
        return answer if len(answer) < 20 else answer.split()[-1]
    said = answer.rpartition(":")[2].strip().translate({ord(sign): None for sign in "*[]"}).strip()
    if len(said) >= 20:
        for phrase in _COMPARISONS:
            if phrase in said:
                return phrase
    return said


def _date_of(text: str) -> datetime.date | None:
    for form in _DATE_FORMS:
        try:
            return datetime.datetime.strptime(text.strip(), form).date()  # noqa: DTZ007  a day, of no time zone
        except ValueError:
            continue
    return None


def pairs_in(answer: str) -> frozenset[tuple[int, int]]:
    """The pairs ``(a, b)`` that an answer lists, each lower number first."""
    found = ((int(one), int(other)) for one, other in _PAIR.findall(answer))
    return frozenset((min(pair), max(pair)) for pair in found)


def f1(answer: str, truth: Collection[tuple[int, int]]) -> float:
    """Of the set of pairs. Nothing said where nothing is true is right."""
    said = pairs_in(answer)
    if not said and not truth:
        return 1.0
    hits = len(said & frozenset(truth))
    return 2 * hits / (len(said) + len(truth))


def choice_in(answer: str) -> str | None:
    """The letter that an answer chose, as LongBench-v2 reads it; an answer that is a letter alone counts too."""
    plain = answer.replace("*", "")
    for form in _CHOICES:
        if (found := form.search(plain)) is not None:
            return found[1]
    alone = plain.strip().strip("().")
    return alone if alone in ("A", "B", "C", "D") else None


def exact_answer(answer: str, truth: str) -> float:
    """BrowseComp's form: what stands after the last ``Exact Answer:``, else the whole, is the truth but for case, signs
    and spaces."""
    said = re.split(r"exact answer\s*:", answer, flags=re.IGNORECASE)[-1].strip()
    line = said.splitlines()[0] if said else ""
    return float(_plain(line) == _plain(truth))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
