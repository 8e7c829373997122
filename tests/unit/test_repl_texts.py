"""Pieces and where they come from: chunks that survive edits, grep, slices, tracing prompts."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmd.repl.spans import Tracer
from rlmd.repl.texts import Document, Piece, chunks, grep


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
    [prose(3000), "x" * 40_000, SIGNS, "word " * 9000],
    ids=["prose", "one letter", "no spaces", "one line"],
)
def test_chunks_are_not_slivers(text: str) -> None:
    pieces = chunks(text, 2000)
    assert all(len(piece) >= 1000 for piece in pieces[:-1])


@pytest.mark.parametrize("seed", range(8))
def test_an_edit_changes_the_pieces_near_it_only(seed: int) -> None:
    text = prose(5000, seed)
    at = random.Random(seed).randrange(len(text))
    edited = text[:at] + "An inserted sentence.\n" + text[at + 10 :]
    before, after = set(chunks(text, 3000)), chunks(edited, 3000)
    new = [piece for piece in after if piece not in before]
    assert len(after) > 60
    assert len(new) <= 8


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


def test_two_pieces_in_one_prompt_are_both_named() -> None:
    tracer = Tracer()
    document = Document.make(prose(400), name="d", watcher=tracer.watch)
    tracer.use([document])
    one, _, three = chunks(document, 1500)[:3]
    assert tracer.trace(f"A:\n{one}|\nB:\n{three}|") == [
        (document, one.start, one.end),
        (document, three.start, three.end),
    ]
