"""Everyday words for technical things: what a person asks with, and what the text says instead.

A built-in table (``thesaurus_words``), so that a question in plain words still finds its passage without a language
model. A question with a word of the table is also searched for the related terms, at less weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from rlmd.contexts.thesaurus_words import NAMES, WAYS

_WORD = re.compile(r"[^\W_]+")
#: The longest key, in words.
LONGEST = 4


def _lines() -> Iterator[tuple[list[str], list[str]]]:
    """Keys and terms of each line."""
    for line in WAYS.strip().splitlines():
        keys, terms = line.split(":")
        yield keys.split(","), [term.strip() for term in terms.split(",")]
    for line in NAMES.strip().splitlines():
        names = [name.strip() for name in line.split(",")]
        yield names, names


@cache
def _entries() -> dict[tuple[str, ...], tuple[str, ...]]:
    entries: dict[tuple[str, ...], tuple[str, ...]] = {}
    for keys, terms in _lines():
        for word in keys:
            key = tuple(stem(part) for part in _WORD.findall(word.lower()))
            entries[key] = tuple(dict.fromkeys((*entries.get(key, ()), *terms)))
    return entries


def related(words: tuple[str, ...]) -> tuple[str, ...]:
    """Terms that a text may use for one word, or for some words in a row."""
    return _entries().get(tuple(map(stem, words)), ())


_ENDINGS = ("ations", "ation", "ingly", "ing", "edly", "ed", "ies", "es", "s", "ly", "er", "ers")


def stem(word: str) -> str:
    """A rough stem, the same for the forms of a word that questions use; only for the look-up in this table."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
                word = word[:-1]
            break
    return word.rstrip("ey") if len(word) > 3 else word
