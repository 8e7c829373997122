"""The ranked search: which passages of an index answer a question best, by its words and by their meaning.

Runs in the helper. Words count by BM25, with related terms (``thesaurus``); the fewer of a question's words the
best passages have, the more nearness in meaning (``word_vectors``) counts.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

from rlmd.contexts import word_vectors
from rlmd.contexts.index import Index
from rlmd.contexts.passages import GOOD_CHARS
from rlmd.contexts.records import PinnedDocument
from rlmd.contexts.shelf import Shelf, Volume
from rlmd.contexts.thesaurus import LONGEST, related
from rlmd.contexts.word_vectors import cosine
from rlmd.contexts.words import COMPOUND, WORD, folded, query_words


@dataclass(frozen=True, slots=True)
class Ranked:
    document: PinnedDocument
    start: int
    end: int
    line: int
    heading: str
    score: float
    text: str


@dataclass(slots=True)
class Concept:
    """One thing that a question names: match expressions for it, each with a weight; the best one counts.

    ``word`` is the expression of the question's own word, where there is one.
    """

    terms: dict[str, float]
    weight: float = 1.0
    word: str | None = None


# Tuned on questions over the kernel's documentation; each is at a plateau, where a third more or less changes little.
#: A related term counts this much of the word itself.
_SYNONYM_WEIGHT = 0.7
#: Two words of the question side by side: little, because two rare words side by side are counted thrice as it is.
_PAIR_WEIGHT = 0.1
#: What a question holds together by punctuation, as it stands: every line of a log has parts of every date.
_COMPOUND_WEIGHT = 1.0
#: What a word in the passage before or after is worth.
_NEIGHBOUR_WEIGHT = 0.2
#: What the best passage of the document for each word is worth to all of them.
_DOCUMENT_WEIGHT = 0.15
#: Compresses a word's score: to have most words of a question counts for more than to have one rare word often.
_POWER = 0.5
#: BM25 prefers short passages; one of no length loses this share, one of ``_FULL_CHARS`` nothing.
_SHORT_PENALTY = 0.15
_FULL_CHARS = 800
#: What the nearest passage in meaning gets on top of the best one's worth by words, when these have none of the
#: question's own words. Questions in the text's words find two thirds of them and more, those in other words a third.
_NEARNESS_WEIGHT = 1.5
#: What the nearness of a passage's heading, and that of its document's name, counts of that of its text.
_LABEL_WEIGHT = 0.25
#: So many passages, the best by words, are compared in meaning: 0.2 ms each.
_CANDIDATES = 500
#: Weights of body, heading, title, name.
_FIELDS = "1.0, 2.0, 1.0, 1.0"
_MAX_CONCEPTS = 80


def concepts(query: str) -> list[Concept]:
    """What a question is about, word by word, with related terms, and its words in pairs."""
    query = folded(query)
    everything = [w.lower() for w in WORD.findall(query)]
    found: dict[str, Concept] = {}
    for word in query_words(query):
        terms = {quoted(word): 1.0}
        for term in related((word,)):
            terms.setdefault(quoted(term), _SYNONYM_WEIGHT)
        found[word] = Concept(terms, word=quoted(word))
    for size in range(2, LONGEST + 1):
        for at in range(len(everything) - size + 1):
            phrase = tuple(everything[at : at + size])
            terms = {quoted(t): _SYNONYM_WEIGHT for t in related(phrase)}
            if terms:
                found[" ".join(phrase)] = Concept(terms)
    pairs = [
        Concept({f"NEAR({quoted(a)} {quoted(b)}, 2)": 1.0}, _PAIR_WEIGHT)
        for a, b in itertools.pairwise(w for w in everything if w in found)
        if a != b
    ]
    compounds = [Concept({quoted(one): 1.0}, _COMPOUND_WEIGHT) for one in dict.fromkeys(COMPOUND.findall(query))]
    return [*compounds, *found.values(), *pairs][:_MAX_CONCEPTS]


def quoted(term: str) -> str:
    return '"' + term.replace('"', "") + '"'


def rank(index: Index, shelf: Shelf, volume: Volume, query: str, limit: int) -> list[Ranked]:
    """The best passages for a question, best first."""
    live = {(d.name, d.digest): d for d in volume.documents}
    tally = _Tally(index, {row for row, *key in index.documents() if tuple(key) in live})
    for concept in concepts(query):
        tally.add(concept)
    worth = tally.best(_CANDIDATES + 4 * limit)
    candidates = _read(index, shelf, live, worth)
    weight = _NEARNESS_WEIGHT * (1 - max((tally.share_of_words(c.passage) for c in candidates[:3]), default=1.0))
    return _chosen(by_meaning(candidates, query, weight), limit, shelf)


class _Tally:
    """Adds up what the passages of the documents in question are worth."""

    def __init__(self, index: Index, documents: set[int]) -> None:
        self._db = index.db
        self._owners = index.owners()
        self._documents = documents
        self._passages: dict[int, float] = {}
        self._by_document: dict[int, float] = {}
        #: For each of the question's own words: how rare it is, and the passages that have it.
        self._words: list[tuple[float, set[int]]] = []

    def add(self, concept: Concept) -> None:
        """Adds a concept: to a passage by its best term, to its neighbours and its document a share of that."""
        worth = self._worth(concept)
        best: dict[int, float] = {}
        for passage, score in worth.items():
            document = self._owners[passage]
            if score > best.get(document, 0.0):
                best[document] = score
        for passage, score in list(worth.items()):
            lent = score * _NEIGHBOUR_WEIGHT**_POWER
            for beside in (passage - 1, passage + 1):
                if self._together(passage, beside) and lent > worth.get(beside, 0.0):
                    worth[beside] = lent
        for totals, scores in ((self._passages, worth), (self._by_document, best)):
            for key, score in scores.items():
                totals[key] = totals.get(key, 0.0) + concept.weight * score

    def share_of_words(self, passage: int) -> float:
        """Of the question's own words, by their rarity, the share that a passage has."""
        everything = sum(rare for rare, _ in self._words)
        return sum(rare for rare, having in self._words if passage in having) / everything if everything else 1.0

    def best(self, count: int) -> dict[int, float]:
        """The passages worth most, with their document's share."""
        owners, documents = self._owners, self._by_document
        totals = {p: s + _DOCUMENT_WEIGHT * documents[owners[p]] for p, s in self._passages.items()}
        return {p: totals[p] for p in heapq.nlargest(count, totals, key=totals.__getitem__)}

    def _worth(self, concept: Concept) -> dict[int, float]:
        """What each passage that has the concept gets for it. Its terms are as rare as all of them together."""
        found = {term: self._rows(term) for term in concept.terms}
        lists = [(rows, concept.terms[term]) for term, rows in found.items() if rows]
        holding = len({passage for rows, _ in lists for passage, _ in rows})
        total = len(self._owners)
        if concept.word is not None:
            own = {passage for passage, _ in found[concept.word]}
            self._words.append((rarity(total, len(own)), own))
        worth: dict[int, float] = {}
        for rows, weight in lists:
            scale = weight * rarity(total, holding) / rarity(total, len(rows))
            for passage, score in rows:
                if self._owners[passage] in self._documents and (scaled := (score * scale) ** _POWER) > worth.get(
                    passage, 0.0
                ):
                    worth[passage] = scaled
        return worth

    def _rows(self, term: str) -> list[tuple[int, float]]:
        rows = self._db.execute(
            f"SELECT rowid, -bm25(words, {_FIELDS}) FROM words WHERE words MATCH ?",  # noqa: S608
            (term,),
        )
        return rows.fetchall()

    def _together(self, passage: int, beside: int) -> bool:
        owners = self._owners
        return 0 < beside < len(owners) and owners[beside] == owners[passage]


def rarity(total: int, holding: int) -> float:
    """The inverse document frequency as FTS5's bm25 has it."""
    return max(math.log((total - holding + 0.5) / (holding + 0.5)), 1e-6)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that has something of what a question names, and what that is worth."""

    passage: int
    worth: float
    hit: Ranked


def _read(
    index: Index, shelf: Shelf, live: dict[tuple[str, str], PinnedDocument], worth: dict[int, float]
) -> list[Candidate]:
    """The candidates with their texts, those worth most first."""
    marks = ",".join("?" * len(worth))
    rows = index.db.execute(
        "SELECT p.id, p.start, p.end, p.line, p.heading, d.name, d.digest FROM passages p"  # noqa: S608
        f" JOIN documents d ON d.id = p.document WHERE p.id IN ({marks})",
        list(worth),
    )
    found = []
    for passage, start, end, line, heading, name, digest in rows:
        document = live[name, digest]
        score = worth[passage] * _fullness(end - start)
        text = shelf.ruler(document).text(start, end)
        found.append(Candidate(passage, score, Ranked(document, start, end, line, heading, score, text)))
    return sorted(found, key=lambda c: (-c.worth, c.passage))


def by_meaning(candidates: list[Candidate], question: str, weight: float) -> list[Ranked]:
    """Puts the candidates in order by words and by meaning.

    Both are brought to a scale on which the best candidate has 1: of words, what it is worth above nine tenths of the
    last one's; of meaning, how much nearer it is than the middle one. ``weight`` is that of meaning.
    """
    if weight <= 0 or len(candidates) < _FEWEST:
        return [candidate.hit for candidate in candidates]
    near = nearness(question, [candidate.hit for candidate in candidates])
    middle, nearest = median(near), max(near)
    best, floor = candidates[0].worth, 0.9 * candidates[-1].worth
    if nearest <= middle or best <= floor:
        return [candidate.hit for candidate in candidates]
    scores = [
        (c.worth - floor) / (best - floor) + weight * (how_near - middle) / (nearest - middle)
        for c, how_near in zip(candidates, near, strict=True)
    ]
    # Told on the scale of words, so that scores of different questions compare as before.
    order = sorted(range(len(candidates)), key=lambda at: -scores[at])
    return [replace(candidates[at].hit, score=best * scores[at] / scores[order[0]]) for at in order]


def nearness(question: str, hits: list[Ranked]) -> list[float]:
    """How near each passage is to the question in meaning: its text, and a share of its heading and its name."""
    vectors = word_vectors.load()
    asked = vectors.vector(question)

    @cache
    def near(label: str) -> float:  # many passages have the same
        return cosine(asked, vectors.vector(label))

    return [
        cosine(asked, vectors.vector(hit.text)) + _LABEL_WEIGHT * (near(hit.heading) + near(hit.document.name))
        for hit in hits
    ]


#: With fewer candidates there is no middle to compare with.
_FEWEST = 10


def _chosen(ranked: list[Ranked], limit: int, shelf: Shelf) -> list[Ranked]:
    """The first ones; what says the same as a better one is left out, what adjoins a better one is joined to it."""
    hits: list[Ranked] = []
    words: list[set[str]] = []
    for hit in ranked:
        if (at := next((n for n, better in enumerate(hits) if _adjoin(hit, better)), None)) is not None:
            hits[at] = _joined(hits[at], hit, shelf)
            words[at] = set(WORD.findall(hits[at].text))
            continue
        if len(hits) == limit:
            break
        said = set(WORD.findall(hit.text))
        if not any(len(said & other) > _SAME * len(said | other) for other in words):
            hits.append(hit)
            words.append(said)
    return hits


def _adjoin(one: Ranked, other: Ranked) -> bool:
    """Whether they stand side by side, with blank lines between them at most, and are no more than two usual passages.

    A reader wants the stretch, not three neighbours in the place of three answers.
    """
    if one.document != other.document or max(one.end, other.end) - min(one.start, other.start) > 2 * GOOD_CHARS:
        return False
    return max(one.start, other.start) - min(one.end, other.end) <= _BLANK_CHARS


def _joined(one: Ranked, other: Ranked, shelf: Shelf) -> Ranked:
    """One hit of both, with the worth of ``one``."""
    first = min(one, other, key=lambda hit: hit.start)
    end = max(one.end, other.end)
    text = shelf.ruler(one.document).text(first.start, end)
    return replace(first, end=end, score=one.score, text=text)


#: Between two passages that follow each other stand blank lines, as a rule one.
_BLANK_CHARS = 5
#: Passages that share more of their words than this are taken for copies of one another.
_SAME = 0.85


def _fullness(chars: int) -> float:
    return 1 - _SHORT_PENALTY * (1 - min(1.0, chars / _FULL_CHARS))
