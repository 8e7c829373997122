"""Vectors of words: pieces, sums, nearness; and a file that is no table."""

from __future__ import annotations

import pytest

from rlmd.contexts.word_vectors import WordVectors, cosine, load

TABLE = b"rlmd word vectors 1\n\x04\0\0\0\x02\0\0\0\x0d\0\0\0cat\nca\n##t\ndo" + bytes([1, 2, 10, 0, 0, 10, 5, 251])


def test_a_word_is_cut_into_its_longest_pieces() -> None:
    table = WordVectors(TABLE)
    assert table.vector("cat") == [1, 2]  # whole, not ca + ##t
    assert table.vector("cat, CAT!") == [2, 4]
    assert table.vector("catt") == [1, 12]
    assert table.vector("do") == [5, -5]
    assert table.vector("dot") == [5, 5]
    assert table.vector("câtt") == [1, 12]  # without its accent


@pytest.mark.parametrize("text", ["", "dog", "…", "日本", "x" * 100, "cax"])
def test_a_text_without_known_words_has_no_direction(text: str) -> None:
    table = WordVectors(TABLE)
    assert table.vector(text) == [0, 0]
    assert cosine(table.vector(text), [1, 2]) == 0.0


@pytest.mark.parametrize("data", [b"", b"rlmd word vectors 2\n" + TABLE[20:], TABLE[:-1], TABLE[:30], TABLE + b"\0"])
def test_a_file_that_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="word vectors"):
        WordVectors(data)


@pytest.mark.parametrize(
    ("asked", "near", "far"),
    [
        ("wipe a file", "erase the document", "schedule the packet"),
        ("who may look into another process", "permission to trace", "colour of the display"),
        ("the machine ran out of memory", "allocation failed", "the key was pressed"),
        ("throw away changes", "discard modifications", "resolve the host name"),
    ],
)
def test_texts_that_share_no_word_are_near_by_meaning(asked: str, near: str, far: str) -> None:
    table = load()
    question = table.vector(asked)
    assert cosine(question, table.vector(near)) > cosine(question, table.vector(far)) + 0.1
