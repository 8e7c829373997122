"""Questions with known passages: reading them, finding the passages in the text, judging citations.

    python tests/e2e/retrieval.py QUESTIONS.json FOLDER    checks that every passage stands where it is said to

A passage is the stretch from the start of the paragraph that holds ``text`` to the end of the paragraph that holds
``to`` (by default the same one); paragraphs are divided by empty lines. A question is answered when one of the
first three citations overlaps one of its passages. Offsets are code points, as everywhere.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: A question counts as answered when the passage is among this many first citations.
FIRST = 3
#: A passage longer than this is no passage: a citation would hit it by chance.
LONGEST = 5000

EMPTY_LINE = re.compile(r"\n[ \t]*\n")


@dataclass(frozen=True)
class Passage:
    document: str
    text: str
    to: str

    def span(self, document: str) -> tuple[int, int]:
        """Where the passage stands in its document's text.

        Raises:
            ValueError: when ``text`` does not stand there exactly once, or ``to`` not after it.
        """
        if document.count(self.text) != 1:
            raise ValueError(f"{self.document}: {document.count(self.text)} times {self.text!r}, not once")
        first = document.index(self.text)
        last = document.find(self.to, first)
        if last < 0:
            raise ValueError(f"{self.document}: {self.to!r} does not follow {self.text!r}")
        breaks_before = [found.end() for found in EMPTY_LINE.finditer(document, 0, first)]
        break_after = EMPTY_LINE.search(document, last)
        span = (breaks_before[-1] if breaks_before else 0, break_after.start() if break_after else len(document))
        if span[1] - span[0] > LONGEST:
            raise ValueError(f"{self.document}: the passage of {self.text!r} has {span[1] - span[0]} characters")
        return span


@dataclass(frozen=True)
class Question:
    id: str
    question: str
    paraphrased: bool
    passages: tuple[Passage, ...]

    def answered_by(self, citations: list[dict[str, Any]], folder: Path) -> bool:
        """Whether one of the first citations overlaps a passage; document names end as the file's path does."""
        for citation in [one for one in citations if one["document"]][:FIRST]:
            for passage in self.passages:
                if not f"/{citation['document']}".endswith(f"/{passage.document}"):
                    continue
                start, end = passage.span(read(folder, passage.document))
                if citation["start"] < end and citation["end"] > start:
                    return True
        return False


def read(folder: Path, document: str) -> str:
    return (folder / document).read_bytes().decode("utf-8", "surrogateescape")


def questions_of(file: Path) -> list[Question]:
    return [
        Question(
            one["id"],
            one["question"],
            one["paraphrased"],
            tuple(Passage(at["document"], at["text"], at.get("to", at["text"])) for at in one["passages"]),
        )
        for one in json.loads(file.read_text(encoding="utf-8"))["questions"]
    ]


def faults(questions: list[Question], folder: Path) -> list[str]:
    """What is wrong with the questions themselves; nothing, if all passages stand where they are said to."""
    found = []
    for question in questions:
        for passage in question.passages:
            try:
                passage.span(read(folder, passage.document))
            except (ValueError, OSError) as error:
                found.append(f"{question.id}: {error}")
    return found


def shared_words(question: Question, folder: Path) -> float:
    """The share of the question's longer words that stand in its first passage: low for a paraphrase."""
    start, end = question.passages[0].span(text := read(folder, question.passages[0].document))
    words = {word for word in re.findall(r"[a-z_0-9]+", question.question.lower()) if len(word) > 3}
    return len({word for word in words if word in text[start:end].lower()}) / len(words)


if __name__ == "__main__":
    everything = questions_of(Path(sys.argv[1]))
    for fault in (wrong := faults(everything, Path(sys.argv[2]))):
        print(fault)
    if not wrong:
        for one in everything:
            print(f"{shared_words(one, Path(sys.argv[2])):4.0%} {'paraphrased' if one.paraphrased else '':11} {one.id}")
    sys.exit(1 if wrong else 0)
