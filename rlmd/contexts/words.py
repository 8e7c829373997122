"""Words, as the index and a question see them."""

from __future__ import annotations

import re

_CAMEL = re.compile(r"[a-z0-9][A-Z]")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def storable(text: str) -> str:
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text.replace("\0", " ")


def spelled_out(text: str) -> str:
    """What is indexed for a text: itself, and the parts of its camelCase words; snake_case is split by FTS5."""
    text = storable(text)
    parts: set[str] = set()
    past = 0
    for hump in _CAMEL.finditer(text):
        if hump.start() < past:
            continue
        first, past = hump.start(), hump.end()
        while first > 0 and text[first - 1].isalnum():
            first -= 1
        while past < len(text) and text[past].isalnum():
            past += 1
        parts.add(text[first:past])
    return " ".join((text, *(_HUMP.sub(" ", word) for word in sorted(parts)))) if parts else text


WORD = re.compile(r"[^\W_]+")
_STOPS = (
    "a about after all also am an and any are as at be because been before being between both but by can could did do"
    " does doing done each else for from get gets give given had has have having he her here hers him his how i if in"
    " into is it its itself just let like may me might more most must my no nor not of off on once one only or other"
    " our ours out over own please same shall she should so some such tell than that the their theirs them then there"
    " these they this those through to too under until up upon us use used using very was way we were what when where"
    " whether which while who whom whose why will with within without would you your yours"
)
STOPWORDS = frozenset(_STOPS.split())


def query_words(query: str) -> list[str]:
    """The words of a question that carry meaning, each once, lower case; all of them if none does."""
    words = list(dict.fromkeys(w.lower() for w in WORD.findall(spelled_out(query))))
    return [w for w in words if w not in STOPWORDS] or words
