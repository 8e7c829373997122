"""BrowseComp-like: an answer at the end of a chain of facts, each in another of many documents.

A question names where the chain begins; each fact names what the next one is about. Every document has facts of the
same kinds about others, so that no document looks like the one that is wanted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from rlmd.evaluation.item import CHARS_PER_TOKEN, Item, Task, words
from rlmd.evaluation.scoring import exact_answer

#: How a fact stands in a document, and how a question asks for it.
RELATIONS: tuple[tuple[str, str], ...] = (
    ("{one} was founded by {other} in a rented barn.", "the founder of {one}"),
    ("For many years {one} shared a studio with {other}.", "the one with whom {one} shared a studio"),
    ("The apprentice whom {one} trusted most was {other}.", "the apprentice whom {one} trusted most"),
    ("{one} left everything to a cousin, {other}.", "the cousin to whom {one} left everything"),
    ("The only portrait of {one} was painted by {other}.", "the painter of the only portrait of {one}"),
)
LAST = ("{one} spent the last winter in the village of {other}.", "In which village did {one} spend the last winter?")
FORM = "{question} End your answer with a line: Exact Answer: NAME"
_FIRST = words(
    "Ada Bela Cosmo Dora Edda Fritz Greta Hugo Ines Jonas Klara Lev Mira Nils Olga Pavel Rosa Sten Tilda Uwe"
)
_LAST = words("Amstel Brandt Calloway Drobny Eskola Ferrant Grabner Holloway Iversen Jaroslav Keller Lindqvist Moreau")
_VILLAGE = words("Alder Birch Crow Dale Elm Fox Grey Hazel Iron Juniper Kestrel Linden Maple North Otter Pine")
_ENDING = words("bridge combe field ford ham ley mere stead thorpe wick")
_FILLER = """The weather that year was mild, and the roads stayed open until late in the season. Letters of the time \
speak of long evenings, of bread and of music. Few of the account books have survived. What is known comes from \
parish registers, from the minutes of the guild, and from a handful of travellers who wrote down what they were told. \
"""
#: Characters of a document; smaller where a text has room for few.
_DOCUMENT = 8_000
_LEAST_DOCUMENTS = 12


@dataclass(frozen=True, slots=True)
class Hop:
    """One link of a chain: the sentence that a document holds, what is asked of it, and the name that it gives."""

    sentence: str
    asked: str
    about: str
    gives: str


def items(tokens: int, count: int, seed: int) -> Iterator[Item]:
    """Chains of two to four facts and a last one; all questions over one collection."""
    rng = random.Random(f"hops {seed} {tokens}")  # noqa: S311  a seeded task, no secret
    chars = tokens * CHARS_PER_TOKEN
    documents = max(_LEAST_DOCUMENTS, chars // _DOCUMENT)
    names, villages = _people(rng), _villages(rng)
    chains = [_chain(2 + number % 3, names, villages, rng) for number in range(count)]
    facts = [hop.sentence for chain in chains for hop in chain]
    facts += [_distraction(names, villages, rng) for _ in range(3 * documents)]
    rng.shuffle(facts)
    text = _documents(facts, documents, chars, rng)
    for number, chain in enumerate(chains):
        yield _item(chain, text, tokens, number)


def _people(rng: random.Random) -> Iterator[str]:
    """Names, each given once."""
    number = 0
    while True:
        number += 1
        yield f"{rng.choice(_FIRST)} {rng.choice(_LAST)}-{rng.choice(_LAST)} {_roman(number)}"


def _villages(rng: random.Random) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"{rng.choice(_VILLAGE)}{rng.choice(_ENDING)} {_roman(number)}"


def _roman(number: int) -> str:
    text = ""
    for value, sign in zip(
        (100, 90, 50, 40, 10, 9, 5, 4, 1), ("C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"), strict=True
    ):
        text += sign * (number // value)
        number %= value
    return text


def _chain(hops: int, names: Iterator[str], villages: Iterator[str], rng: random.Random) -> list[Hop]:
    one = next(names)
    chain = []
    for form, asked in rng.sample(RELATIONS, hops):
        other = next(names)
        chain.append(Hop(form.format(one=one, other=other), asked.format(one=one), one, other))
        one = other
    village = next(villages)
    chain.append(Hop(LAST[0].format(one=one, other=village), LAST[1].format(one=one), one, village))
    return chain


def _distraction(names: Iterator[str], villages: Iterator[str], rng: random.Random) -> str:
    if rng.random() < 0.2:
        return LAST[0].format(one=next(names), other=next(villages))
    return rng.choice(RELATIONS)[0].format(one=next(names), other=next(names))


def _documents(facts: list[str], count: int, chars: int, rng: random.Random) -> dict[str, str]:
    share = -(-len(facts) // count)
    size = chars // count
    made = {}
    for number in range(count):
        own = facts[number * share : (number + 1) * share]
        room = max(0, size - sum(map(len, own)))
        filler = _FILLER * max(1, room // len(_FILLER) // (len(own) + 1))
        made[f"notes-{number:05}-{rng.randrange(1 << 16):04x}.txt"] = filler + "".join(
            f"\n{fact}\n{filler}" for fact in own
        )
    return made


def question_of(chain: list[Hop]) -> str:
    """The chain as one question, from the inside out."""
    about = chain[0].about
    for hop in chain[:-1]:
        about = hop.asked.replace(hop.about, about)
    return FORM.format(question=chain[-1].asked.replace(chain[-1].about, about))


def _item(chain: list[Hop], text: dict[str, str], tokens: int, number: int) -> Item:
    return Item(
        task="hops",
        name=f"{number}-{len(chain)}",
        tokens=tokens,
        question=question_of(chain),
        text=text,
        truth=chain[-1].gives,
        score=partial(exact_answer, truth=chain[-1].gives),
        basis=tuple(chain),
    )


TASK = Task("hops", "BrowseComp-like: a chain of facts over many documents", items)
