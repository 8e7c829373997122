"""Pieces and where they come from: chunks that survive edits, grep, slices, tracing prompts."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmd.repl.cutting import chunks
from rlmd.repl.spans import Tracer
from rlmd.repl.texts import Document, Piece, grep


def prose(lines: int, seed: int = 1) -> str:
    source = random.Random(seed)
    words = [f"w{n}" for n in range(500)]
    text = (
        " ".join(source.choices(words, k=source.randint(3, 20))) + source.choice([".\n", "\n", ".\n\n"])
        for _ in range(lines)
    )
    return "".join(text)


@given(text=st.text(alphabet="ab \n.é😀\ud800", max_size=400), size=st.integers(1, 60))
def test_chunks_lose_nothing_and_keep_to_the_size(text: str, size: int) -> None:
    document = Document.make(text, name="d")
    pieces = chunks(document, size)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= size for piece in pieces)
    assert all(text[piece.start : piece.end] == piece for piece in pieces)


SIGNS = "".join(chr(0x4E00 + n * 7919 % 5000) for n in range(40_000))


@pytest.mark.parametrize(
    "text",
    [prose(3000), "x" * 40_000, SIGNS, "word " * 9000, "ok\n" * 20_000, "a\nb\n" * 20_000, "p\n\n" * 20_000],
    ids=["prose", "one letter", "no spaces", "one line", "equal lines", "two lines", "equal paragraphs"],
)
def test_chunks_are_neither_slivers_nor_many(text: str) -> None:
    pieces = chunks(text, 2000)
    assert all(len(piece) >= 500 for piece in pieces[:-1])
    assert len(pieces) < 2.2 * len(text) / 2000


def test_chunks_end_at_the_best_border_there_is() -> None:
    paragraphs = "".join(f"Heading {n}\n{'some words here ' * 9}\n\n" for n in range(400))
    assert all(piece.startswith("Heading") for piece in chunks(paragraphs, 3000))
    lines = "".join(f"{n} {'some words here ' * 4}\n" for n in range(900))
    assert all(piece.endswith("\n") for piece in chunks(lines, 3000))
    sentences = "".join(f"Sentence {n} of many. " for n in range(3000))
    assert all(piece.startswith("Sentence") for piece in chunks(sentences, 3000))
    assert all(" " not in piece.strip() or piece.endswith(" ") for piece in chunks("word " * 900 + "x" * 9000, 600)[:7])


EDITS = ("insert", "delete", "replace")


def edited(text: str, edit: str, source: random.Random, *, middle: bool = False) -> str:
    """The text with one line more, less or other."""
    lines = text.splitlines(keepends=True)
    at = len(lines) // 2 if middle else source.randrange(len(lines))
    new = [] if edit == "delete" else [f"A line that {source.randrange(10**9)} is in no other place.\n"]
    return "".join([*lines[:at], *new, *lines[at + (edit != "insert") :]])


def changed(text: str, edit: str, source: random.Random, size: int, *, middle: bool = False) -> int:
    """How many pieces of the edited text are no pieces of the text."""
    before = set(chunks(text, size))
    return sum(piece not in before for piece in chunks(edited(text, edit, source, middle=middle), size))


def log(lines: int, seed: int) -> str:
    """Without a blank line: each line is a place to cut at."""
    return prose(lines, seed).replace("\n\n", "\n")


@pytest.mark.parametrize("kind", [prose, log])
def test_a_line_inserted_into_ten_megabytes_changes_at_most_two_pieces(kind: Callable[[int, int], str]) -> None:
    for seed in range(3):
        text = kind(180_000, seed)
        assert len(text) >= 10_000_000
        assert 1 <= changed(text, "insert", random.Random(seed), 8000, middle=True) <= 2


def tail_of_edits(count: int, edits: tuple[str, ...] = EDITS) -> Counter[int]:
    """How many edits changed how many pieces."""
    found: Counter[int] = Counter()
    for seed in range(count):
        text = (prose, log)[seed % 2](1500, seed)
        source = random.Random(seed)
        found.update(changed(text, edit, source, (2000, 8000)[seed // 2 % 2]) for edit in edits)
    return found


def test_edits_anywhere_change_one_piece_or_two() -> None:
    """Three in some edits of a thousand: no rule that keeps pieces between a least and a most length can do without."""
    found = tail_of_edits(60)
    assert found[1] > 0.9 * found.total()
    assert found[1] + found[2] >= 0.98 * found.total()
    assert max(found) <= 4


def test_a_line_inserted_anywhere_changes_at_most_two_pieces() -> None:
    assert max(tail_of_edits(80, ("insert",))) <= 2


@pytest.mark.full
def test_a_line_inserted_anywhere_seldom_changes_three_pieces_many_times() -> None:
    """Eleven of these 4,000 do."""
    found = tail_of_edits(4000, ("insert",))
    assert found[1] + found[2] >= 0.995 * found.total(), found


@pytest.mark.full
def test_edits_anywhere_change_one_piece_or_two_many_times() -> None:
    found = tail_of_edits(3000)
    assert found[1] + found[2] >= 0.99 * found.total(), found
    assert max(found) <= 5, found


def test_chunks_of_several_documents_and_of_pieces_know_their_place() -> None:
    documents = [Document.make(prose(50, n), name=f"d{n}") for n in range(3)]
    pieces = chunks(documents, 500)
    assert {piece.name for piece in pieces} == {"d0", "d1", "d2"}
    part = documents[1][100:900]
    assert isinstance(part, Piece)
    again = chunks(part, 300)
    assert again[0].start == 100
    assert all(documents[1].text[piece.start : piece.end] == piece for piece in again)
    assert chunks("plain", 10)[0].document is None


@pytest.mark.parametrize(("text", "size", "error"), [("x", 0, ValueError), ([3], 10, TypeError)])
def test_chunks_refuse_what_they_cannot_cut(text: object, size: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        chunks(text, size)  # type: ignore[arg-type]


@given(
    text=st.text(alphabet="ab\n", max_size=60),
    pattern=st.sampled_from(["a", "b$", "^a", "a\\nb", "a*", "\\n", "(?s)a.b", ""]),
)
def test_grep_gives_each_matching_line_once_in_order(text: str, pattern: str) -> None:
    document = Document.make(text, name="d")
    found, more = grep(pattern, [document], 1000)
    assert not more
    starts = [piece.start for piece in found]
    assert starts == sorted(set(starts))
    for piece in found:
        assert text[piece.start : piece.end] == piece
        assert piece.start == 0 or text[piece.start - 1] == "\n"
        assert piece.line == text.count("\n", 0, piece.start) + 1
    compiled = re.compile(pattern, re.MULTILINE)
    for match in compiled.finditer(text):
        assert any(piece.start <= match.start() <= piece.end for piece in found)


def test_slices_keep_their_place_and_are_ordinary_text_otherwise() -> None:
    document = Document.make("hello world", name="d", context="c")
    piece = document[6:][1:3]
    assert (piece, piece.start, piece.end, piece.name) == ("or", 7, 9, "d")  # type: ignore[attr-defined]
    assert type(document[0]) is type(document[::2]) is type(document[3:3]) is str
    assert {document: 1}["hello world"] == 1
    assert type(document.upper()) is str


@given(data=st.data())
def test_a_traced_stretch_is_really_in_the_prompt(data: st.DataObject) -> None:
    text = data.draw(st.text(alphabet="ab \n", min_size=0, max_size=300))
    tracer = Tracer()
    document = Document.make(text, name="d", watcher=tracer.watch)
    tracer.use([document])
    pieces = chunks(document, data.draw(st.integers(30, 90)))
    prompt = data.draw(st.text(alphabet="ab\n", max_size=20)) + "".join(
        data.draw(st.lists(st.sampled_from(pieces))) if pieces else ""
    )
    for found, start, end in tracer.trace(prompt):
        assert 0 <= start < end <= len(text)
        assert found.text[start:end] in prompt


def test_prompts_of_a_filtered_batch_are_traced_too() -> None:
    tracer = Tracer()
    document = Document.make(prose(4000), name="d", watcher=tracer.watch)
    tracer.use([document])
    pieces = chunks(document, 1500)
    tracer.begin_batch()
    for piece in pieces[5::37]:  # gaps longer than the tracer looks ahead
        assert tracer.trace(f"Read this|{piece}|Answer.") == [(document, piece.start, piece.end)]


def test_a_passage_within_a_piece_is_not_named_beside_it() -> None:
    """Though a search had given it to the cell before the text was cut: the prompt holds one stretch."""
    tracer = Tracer()
    document = Document.make(prose(400), name="d", watcher=tracer.watch)
    tracer.use([document])
    tracer.watch(document, 400, 700)
    one, two = chunks(document, 1500)[:2]
    assert tracer.trace(f"A:\n{one}|") == [(document, one.start, one.end)]
    assert tracer.trace(f"A:\n{two}|") == [(document, two.start, two.end)]


def test_two_pieces_in_one_prompt_are_both_named() -> None:
    tracer = Tracer()
    document = Document.make(prose(400), name="d", watcher=tracer.watch)
    tracer.use([document])
    one, _, three = chunks(document, 1500)[:3]
    assert tracer.trace(f"A:\n{one}|\nB:\n{three}|") == [
        (document, one.start, one.end),
        (document, three.start, three.end),
    ]
