"""Vectors of words: how near two texts are in meaning when they share few words.

A table of 25,000 pieces of words with 96 numbers each (``word_vectors.bin``); the vector of a text is the sum of those
of its pieces, in which common words count little. Not a language model: nothing is computed but sums. The table was
made by docs/word_vectors.py, distilled from sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0) over texts of Debian's
documentation packages and dictionaries, as Tulkens and van Dongen do (Model2Vec, 2024, github.com/MinishLab/model2vec).
"""

from __future__ import annotations

import math
import re
import struct
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache, lru_cache
from operator import add, mul
from pathlib import Path

_FILE = Path(__file__).with_name("word_vectors.bin")
_MAGIC = b"rlmd word vectors 1\n"
_HEAD = struct.Struct("<III")
#: Letters and digits of ASCII; what is left of a text in another script has no vector.
_WORD = re.compile(r"[a-z0-9]+")
#: A longer run of letters is no word (WordPiece, as BERT has it, gives up at 100).
_LONGEST_WORD = 64
#: How the vocabulary marks a piece that continues a word.
_CONTINUES = "##"

Vector = list[int]


class WordVectors:
    """The table.

    Args:
        data: The file's bytes: magic, three little-endian numbers (pieces, dimensions, bytes of the vocabulary), the
            vocabulary with a piece a line, and signed bytes row by row.

    Raises:
        ValueError: ``data`` is not such a file.
    """

    def __init__(self, data: bytes) -> None:
        start = len(_MAGIC) + _HEAD.size
        if not data.startswith(_MAGIC) or len(data) < start:
            raise ValueError("not a table of word vectors")
        count, self.dimensions, vocabulary = _HEAD.unpack_from(data, len(_MAGIC))
        names = data[start : start + vocabulary].decode("ascii").split("\n")
        self._rows = memoryview(data)[start + vocabulary :].cast("b")
        if len(names) != count or len(self._rows) != count * self.dimensions:
            raise ValueError("the table of word vectors is cut")
        self._numbers = {name: number for number, name in enumerate(names)}
        self._row = lru_cache(20_000)(self._read_row)
        self._pieces = lru_cache(20_000)(self._cut)

    def vector(self, text: str) -> Vector:
        """The sum of the vectors of a text's words; all zeros for a text without any."""
        total = [0] * self.dimensions
        counts = Counter(number for word in _words(text) for number in self._pieces(word))
        for number, times in counts.items():
            row = self._row(number)
            for _ in range(min(times, _MOST_TIMES)):
                total = list(map(add, total, row))
        return total

    def _read_row(self, number: int) -> Vector:
        return self._rows[number * self.dimensions : (number + 1) * self.dimensions].tolist()

    def _cut(self, word: str) -> tuple[int, ...]:
        """The longest pieces from the left (WordPiece); none for a word that cannot be cut so."""
        numbers: list[int] = []
        at = 0
        while at < len(word):
            head = _CONTINUES if at else ""
            for end in range(len(word), at, -1):
                if (number := self._numbers.get(head + word[at:end])) is not None:
                    break
            else:
                return ()
            numbers.append(number)
            at = end
        return tuple(numbers)


#: A word that stands in a passage oftener than this says no more about its meaning.
_MOST_TIMES = 20


@cache
def load() -> WordVectors:
    """The table that comes with rlmd, read when a question first needs it (2.5 MB, some 10 ms)."""
    return WordVectors(_FILE.read_bytes())


def cosine(one: Vector, other: Vector) -> float:
    """From -1 to 1; 0 when one of them is all zeros."""
    length = math.sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))
    return sum(map(mul, one, other)) / length if length else 0.0


def _words(text: str) -> Iterator[str]:
    text = text.lower()
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return (word for word in _WORD.findall(text) if len(word) <= _LONGEST_WORD)
