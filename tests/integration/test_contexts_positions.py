"""Whatever a text holds, all parts count its characters alike: peek, search, quotes, and Emacs.

A stored text is bytes; a position is a code point, where a byte that is no UTF-8 counts as one, as in an Emacs buffer
that reads the file as utf-8-unix.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlmd.contexts import ContextStore, SpoolSource
from rlmd.contexts.text import decode

ODD = st.sampled_from(
    [
        "\r\n", "\n", "\r", "\r\r\n", "\ufeff", "é", "e\u0301", "ß", "İ", "🐢", "👩\u200d👧", "日本", "\u2028", "\x85",
        "\f", "\x0b", "a", "word ", "NEEDLE", " ", "\t", "\u202e", "\ud7ff", "\U0010ffff", "𝄞",
    ]
).map(str.encode)  # fmt: skip
RAW = st.sampled_from([b"\xff", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f\x90"])
BYTES = st.lists(ODD | RAW, min_size=1, max_size=60).map(b"".join)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ContextStore]:
    opened = await ContextStore.open(tmp_path / "state", tmp_path / "cache", tmp_path / "spool")
    yield opened
    await opened.close()


def line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


@given(pieces=st.lists(BYTES, min_size=1, max_size=3), repeats=st.sampled_from([1, 1, 400]), data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_all_parts_count_alike(
    store: ContextStore, tmp_path: Path, pieces: list[bytes], repeats: int, data: st.DataObject
) -> None:
    """The text comes by spool, in up to three loads that each append, so that seams lie anywhere, in characters too."""
    whole = b""
    for piece in pieces:
        whole += piece * repeats + b" NEEDLE in the hay "
        (tmp_path / "spool" / "text").write_bytes(whole)
        await store.load(SpoolSource("text"), name="text")
    text = decode(whole)
    pinned = await store.pin("text")
    (document,) = pinned.documents
    assert (document.chars, document.bytes) == (len(text), len(whole))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3000)))
    assert pinned.read("text", start, end) == text[start:end]
    assert pinned.line_of("text", start) == line_of(text, start)
    peek = await store.peek("text", start=start, chars=200)
    assert (peek.text, peek.line) == (text[start : start + 200], line_of(text, start))

    hits, _ = await store.search("text", "NEEDLE", "regex", 1000)
    found = [span for hit in hits for span in hit.matches]
    assert all(text[a:b] == "NEEDLE" for a, b in found)
    assert all(text[hit.start : hit.end] == hit.text for hit in hits)
    assert {at for at, _ in found} <= {match.start() for match in re.finditer("NEEDLE", text)}
    assert found

    quote = text[start:end][:100]
    if quote.strip():
        places = await pinned.find(quote, limit=1000)
        assert places
        assert all(text[place.start : place.end] == quote for place in places)


async def test_emacs_counts_as_we_do(store: ContextStore, tmp_path: Path) -> None:
    """A file with everything in it, read by a real Emacs as utf-8-unix: each NEEDLE is at the same place."""
    body = (
        "a\r\nb\né e\u0301 🐢 𝄞 日本 \u2028 \ufeff ".encode()
        + b"\xff \xc3 \xed\xa0\x80 NEEDLE\r\n"
        + b"\xe2\x82 NEEDLE \xf0\x9f\n"
    )
    whole = body * 30
    file = tmp_path / "file"
    file.write_bytes(whole)
    script = (
        f'(let ((coding-system-for-read (quote utf-8-unix))) (set-buffer (find-file-noselect "{file}")))'
        ' (goto-char (point-min)) (while (search-forward "NEEDLE" nil t)'
        ' (princ (format "%d %d\\n" (1- (match-beginning 0)) (line-number-at-pos))))'
        ' (princ (format "%d" (buffer-size)))'
    )
    told = subprocess.run(
        ["emacs", "-Q", "--batch", "--eval", f"(progn {script})"], capture_output=True, text=True, check=True
    )
    *places, size = told.stdout.split("\n")
    (tmp_path / "spool" / "text").write_bytes(whole)
    await store.load(SpoolSource("text"), name="text")
    pinned = await store.pin("text")
    assert pinned.documents[0].chars == int(size)
    for place in places:
        at, line = map(int, place.split())
        assert pinned.read("text", at, at + 6) == "NEEDLE"
        assert pinned.line_of("text", at) == line
    assert len(places) == 60
