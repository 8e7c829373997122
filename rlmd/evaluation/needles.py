"""S-NIAH: one number hidden in noise (RULER's ``niah_single``). A regular expression finds it: only a smoke test.

Form of the needle, the noise and the question are those of RULER (arXiv 2404.06654); depths go evenly from the
beginning to the end.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from rlmd.evaluation.item import CHARS_PER_TOKEN, Item, Task, words
from rlmd.evaluation.scoring import all_found

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
NEEDLE = "One of the special magic numbers for {key} is: {value}.\n"
QUESTION = "What are all the special magic numbers for {key} mentioned in the provided text?"
_FIRST = words("quick quiet bright heavy hollow distant gentle narrow rapid solemn tidy vivid woolly ancient blunt")
_SECOND = words("river lantern meadow anchor button castle dragon engine feather garden harbour island jacket kettle")


def items(tokens: int, count: int, seed: int) -> Iterator[Item]:
    """``count`` needles at even depths, each in a text of its own."""
    for number in range(count):
        rng = random.Random(f"needles {seed} {tokens} {number}")  # noqa: S311  a seeded task, no secret
        yield _item(tokens, number, number / max(1, count - 1), rng)


def keys(count: int, rng: random.Random) -> list[tuple[str, str]]:
    """Keys of which no two share a word."""
    return list(zip(rng.sample(_FIRST, count), rng.sample(_SECOND, count), strict=True))


def _item(tokens: int, number: int, depth: float, rng: random.Random) -> Item:
    key = f"{rng.choice(_FIRST)}-{rng.choice(_SECOND)}"
    value = str(rng.randrange(1_000_000, 10_000_000))
    needle = NEEDLE.format(key=key, value=value)
    lines = max(1, (tokens * CHARS_PER_TOKEN - len(needle)) // len(NOISE))
    before = round(depth * lines)
    return Item(
        task="niah",
        name=f"{number}",
        tokens=tokens,
        question=QUESTION.format(key=key),
        text=NOISE * before + needle + NOISE * (lines - before),
        truth=value,
        score=lambda answer: all_found(answer, [value]),
        basis=(key, value),
    )


TASK = Task("niah", "S-NIAH: a number hidden in noise", items)
