"""Words, as the index and a question see them.

FTS5 splits at all that is neither letter nor digit, and takes accents away. What it does not know is done here, alike
for a text and a question: parts of camelCase, letters that are written in two ways, and scripts without spaces.
"""

from __future__ import annotations

import re
import unicodedata

_CAMEL = re.compile(r"[a-z0-9][A-Z]|[A-Z][A-Z][a-z]")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


#: Letters that stand for two, as who has no such key types them.
_TWO_LETTERS = str.maketrans({"ß": "ss", "ẞ": "SS", "œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O"})
#: Scripts that put no space between words, and Korean, which puts endings to them: Thai to Khmer, kana, Han, Hangul.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff]+"
)


def storable(text: str) -> str:
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text.replace("\0", " ")


def spelled_out(text: str) -> str:
    """What is indexed for a text: itself, and the parts of its camelCase words; snake_case is split by FTS5."""
    text = folded(text)
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


def folded(text: str) -> str:
    """The text with each letter in one form, and scripts without spaces as pairs of letters that overlap."""
    text = storable(text)
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text).translate(_TWO_LETTERS)
    return _UNSPACED.sub(lambda run: f" {_pairs(run[0])} ", text)


def _pairs(run: str) -> str:
    return " ".join(run[at : at + 2] for at in range(len(run) - 1)) or run


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


#: Words that punctuation holds together: dates, addresses, file:line, error codes, names of things.
COMPOUND = re.compile(r"[^\W_]+(?:[-._:/@+]{1,3}[^\W_]+)+")


def query_words(query: str) -> list[str]:
    """The words of a question that carry meaning, each once, lower case; all of them if none does."""
    words = list(dict.fromkeys(w.lower() for w in WORD.findall(spelled_out(query))))
    return [w for w in words if w not in STOPWORDS] or words
