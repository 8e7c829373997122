"""The programs as plain functions: what map asks and how it combines, what quote chooses."""

from __future__ import annotations

import ast
import random
from collections.abc import Sequence

import pytest

from rlmd.engine.programs import map_cell, quote_cell
from rlmd.engine.programs.map import SIDE_BY_SIDE, answer_by_map, grouped, packed, says_nothing
from rlmd.engine.programs.quote import QUOTE_CHARS, best_stretch, choose, key_words, sentences_of, stem
from rlmd.repl.cutting import chunks


class Asked:
    """Stands for the models: remembers prompts, answers by a rule."""

    def __init__(self, rule: object) -> None:
        self.batches: list[list[str]] = []
        self._rule = rule

    def __call__(self, prompts: list[str]) -> Sequence[object]:
        self.batches.append(prompts)
        return [self._rule(prompt) for prompt in prompts]


def pieces(documents: Sequence[str], size: int) -> list[str]:
    return [text[start : start + size] for text in documents for start in range(0, len(text), size)]


def test_map_asks_all_and_combines_what_was_found() -> None:
    """Every code point is asked about; pieces with nothing are left out; one call combines."""
    ask = Asked(lambda prompt: "all" if "findings" in prompt else "found it" if "7" in prompt else "NOTHING")
    assert answer_by_map("Where?", ["a" * 950 + "7" + "b" * 949, "c7"], 1000, pieces, ask) == "all"
    first, second = ask.batches
    assert "".join(prompt.split("\n\nFrom the text")[0] for prompt in first).count("a") == 950
    assert second[0].count("found it") == len(first) - 1 or second[0].count("found it") == 2


def test_map_prompts_hold_nothing_of_a_position() -> None:
    """The same piece elsewhere makes the same prompt, so that its reply comes from the cache."""
    ask = Asked(lambda prompt: "NOTHING")
    answer_by_map("Q", ["x" * 1000 + "y" * 1000], 1000, pieces, ask)
    answer_by_map("Q", ["z" * 1000 + "x" * 1000], 1000, pieces, ask)
    assert ask.batches[0][0] == ask.batches[1][1]


def test_map_combines_in_rounds_until_it_fits() -> None:
    """More findings than one prompt holds: several rounds, none with more text than a prompt may hold, and an end."""
    ask = Asked(lambda prompt: "f" * 300)
    assert answer_by_map("Q", ["x" * 50_000], 1000, pieces, ask) == "f" * 300
    assert len(ask.batches) > 2
    for batch in ask.batches[1:]:
        assert all(prompt.count("f" * 100) <= 10 for prompt in batch)


def test_map_ends_even_when_findings_do_not_shrink() -> None:
    """Combining that gives back as much as went in is cut short."""
    ask = Asked(lambda prompt: "f" * 990)
    assert answer_by_map("Q", ["x" * 8000], 1000, pieces, ask)
    assert len(ask.batches) < 12


def test_map_cuts_no_finding_that_is_longer_than_a_prompt() -> None:
    """It is combined in parts, its last word asked about like its first; no prompt holds more than it may."""
    words = [f"w{number}" for number in range(2000)]

    def said(prompt: str) -> str:
        text = prompt.split("\n\nAbove are findings")[0].split("\n\nFrom the text")[0]
        if "Above are findings" in prompt:
            return " ".join(word for word in text.split() if int(word[1:]) % 200 == 0)  # all that matters
        return " ".join(words if text.startswith("a") else words[:3])

    ask = Asked(said)
    answer = answer_by_map("Q", ["a" * 900 + "b" * 900], 1000, lambda docs, size: chunks(list(docs), size), ask)
    assert {word for word in words if int(word[1:]) % 200 == 0} <= set(answer.split())
    for prompt in (prompt for batch in ask.batches[1:] for prompt in batch):
        assert len(prompt.split("\n\nAbove are findings")[0]) <= 1000


def test_map_condenses_findings_of_which_no_two_fit_together() -> None:
    """Those that leave no room for another are told shorter, and then combined."""

    def said(prompt: str) -> str:
        if "Repeat in at most 250 characters" in prompt:
            return "short"
        return "the answer" if "Answer the question from them" in prompt else "f" * 900

    ask = Asked(said)
    assert answer_by_map("Q", ["x" * 4000], 1000, pieces, ask) == "the answer"
    assert [len(batch) for batch in ask.batches] == [4, 4, 1]


def test_map_hands_over_whole_what_cannot_be_made_shorter_and_says_so() -> None:
    findings = iter("abcd")
    ask = Asked(lambda prompt: next(findings) * 990 if "From the text above" in prompt else "f" * 990)
    answer = answer_by_map("Q", ["x" * 4000], 1000, pieces, ask)
    assert answer.startswith(SIDE_BY_SIDE)
    assert [part[0] + str(len(part)) for part in answer.split("\n\n")[1:]] == ["a990", "b990", "c990", "d990"]


def test_map_says_when_nothing_was_found_and_what_failed() -> None:
    """No invention from nothing; failed pieces are told; if all failed it is an error."""
    ask = Asked(lambda prompt: None if "b" in prompt.split("\n\n")[0] else "NOTHING.")
    answer = answer_by_map("Q", ["a" * 1000 + "b" * 1000], 1000, pieces, ask)
    assert "nothing was found in its 2 pieces" in answer
    assert "1 could not be read" in answer
    with pytest.raises(RuntimeError, match="none of the 1 pieces"):
        answer_by_map("Q", ["b" * 10], 1000, pieces, Asked(lambda prompt: None))


def test_map_keeps_findings_when_combining_fails() -> None:
    """What was found is not lost with a host."""
    ask = Asked(lambda prompt: None if "findings" in prompt else "found")
    assert answer_by_map("Q", ["a" * 2000], 1000, pieces, ask) == f"{SIDE_BY_SIDE}\n\nfound\n\nfound"


def test_map_asks_an_edited_text_of_its_changed_piece_alone() -> None:
    """Neighbouring pieces are not packed together: which ones fit would change behind an edit."""
    lines = [f"Line {number} says {number * 7919 % 1000} and no more.\n" for number in range(3000)]
    ask = Asked(lambda prompt: "NOTHING")
    answer_by_map("Q", ["".join(lines)], 2000, chunks, ask)
    answer_by_map("Q", ["".join([*lines[:1500], "One more line.\n", *lines[1500:]])], 2000, chunks, ask)
    assert len(set(ask.batches[1]) - set(ask.batches[0])) <= 2 < len(ask.batches[0])


def edited_notes(seed: int) -> tuple[list[str], list[str]]:
    """Small documents of uneven sizes; the same with a line in the middle of the middle one."""
    rng = random.Random(seed)
    notes = [
        "".join(f"{rng.randrange(10**9)} words of note {n}, line {k}.\n" for k in range(rng.randrange(3, 40)))
        for n in range(600)
    ]
    lines = notes[300].splitlines(keepends=True)
    lines.insert(len(lines) // 2, "One more line.\n")
    return notes, [*notes[:300], "".join(lines), *notes[301:]]


@pytest.mark.parametrize("seed", range(6))
def test_a_line_in_one_of_many_documents_leaves_the_others_prompts(seed: int) -> None:
    """Filled from the left, prompts of all documents behind it may change; and what is combined of their findings."""
    notes, edited = edited_notes(seed)

    def said(prompt: str) -> str:
        """Of every prompt something of its own, of a length of its own."""
        rng = random.Random(prompt)
        return "NOTHING" if rng.random() < 0.2 else f"{rng.random()} " * rng.randrange(5, 60)

    ask = Asked(said)
    answer_by_map("Q", notes, 8000, chunks, ask)
    before = {prompt for batch in ask.batches for prompt in batch}
    ask.batches.clear()
    answer_by_map("Q", edited, 8000, chunks, ask)
    after = [prompt for batch in ask.batches for prompt in batch]
    assert len(after) > 80
    assert sum(prompt not in before for prompt in after) <= 0.05 * len(after)


@pytest.mark.parametrize("size", [100, 1000, 9000])
def test_groups_are_whole_and_fit_and_are_not_many(size: int) -> None:
    rng = random.Random(size)
    pieces = ["x" * rng.randrange(1, rng.choice((20, size // 3, size)) + 1) for _ in range(400)]
    groups = grouped(pieces, size)
    assert [piece for group in groups for piece in group] == pieces
    assert all(len("\n\n".join(group)) <= size for group in groups)
    assert len(groups) < 2.5 * (sum(map(len, pieces)) / size + 1)
    assert (grouped([], size), grouped(["x" * size], size)) == ([], [["x" * size]])


def test_small_documents_share_a_prompt() -> None:
    """A thousand small files are not a thousand prompts; a piece alone keeps its identity, which knows its place."""
    assert packed(["a" * 10] * 1000, 100) == ["\n\n".join(["a" * 10] * 8)] * 125
    piece = "x" * 90
    assert packed([piece, "y" * 90], 100)[0] is piece


@pytest.mark.parametrize("reply", ["NOTHING", "nothing.", " **NOTHING** ", '"NOTHING"'])
def test_nothing_in_its_forms(reply: str) -> None:
    """Models decorate even one word."""
    assert says_nothing(reply)
    assert not says_nothing("Nothing but the lamp.")


class Passage(str):
    document = "d"
    start = 0
    end = 0

    @classmethod
    def at(cls, document: str, start: int, text: str) -> Passage:
        made = cls(text)
        made.document, made.start, made.end = document, start, start + len(text)
        return made


def test_quote_takes_the_sentences_that_match() -> None:
    """Not the whole of a long passage: the neighbouring sentences with the question's words."""
    filler = "Nothing of note happens in this sentence. " * 30
    text = filler + "The treasure lies under the oak. It was buried by a sailor. " + filler
    [(index, start, end)] = choose("Where was the treasure buried?", [Passage.at("d", 0, text)])
    assert index == 0
    assert text[start:end] == "The treasure lies under the oak. It was buried by a sailor."


def test_quote_keeps_a_passage_whole() -> None:
    """What answers a question in other words than its own stands beside the words that match."""
    text = "\nThe treasure lies under the oak.\n\nA sailor dug there at night.\n"
    assert choose("Where was the treasure buried?", [Passage.at("d", 0, text)]) == [(0, 1, len(text) - 1)]


def test_quote_gives_three_different_places() -> None:
    """Search's order is kept; overlapping passages and equal texts count once."""
    passages = [
        Passage.at("a", 0, "The oak is old."),
        Passage.at("a", 5, "oak is old."),
        Passage.at("b", 0, "The oak is old."),
        Passage.at("b", 100, "An oak stands here."),
        Passage.at("c", 0, "No oak at all."),
        Passage.at("c", 50, "One more oak."),
    ]
    assert [index for index, _, _ in choose("oak?", passages)] == [0, 3, 4]
    assert choose("oak?", []) == []


def test_a_quote_is_short() -> None:
    """One long line is cut; a passage without any match still gives its beginning."""
    start, end = best_stretch("word " * 2000, {"word": 1.0})
    assert end - start <= 3 * QUOTE_CHARS
    start, end = best_stretch("One sentence. " * 100, {})
    assert 0 < end - start <= QUOTE_CHARS


def test_sentences() -> None:
    """Ends of sentences, empty lines, items and underlines divide; abbreviations before small letters do not."""
    text = "Title\n=====\n\nFirst, e.g. this one. Second one!\n- item one\n- item two\n"
    assert [text[start:end] for start, end in sentences_of(text)] == [
        "Title", "=====", "First, e.g. this one.", "Second one!", "- item one", "- item two",
    ]  # fmt: skip


def test_key_words_and_stems() -> None:
    """Words of the question that carry meaning; a question of stop words alone stays whole."""
    assert key_words("How does the scheduler pick a task?") == "scheduler pick task"
    assert key_words("What is it?") == "What is it?"
    assert stem("scheduling") == stem("schedules") == stem("scheduled") == stem("scheduler")


@pytest.mark.parametrize("question", ["It's \"quoted\" '''and''' \\ odd\n{braces}", "\x00\udcff"])
def test_cells_are_python_whatever_the_question(question: str) -> None:
    """A question never breaks out of its literal."""
    for source in (map_cell(question, 1000), quote_cell(question)):
        calls = [node for node in ast.walk(ast.parse(source.encode("utf-8", "backslashreplace").decode()))
                 if isinstance(node, ast.Constant) and node.value == question]  # fmt: skip
        assert calls
