"""Reading replies: inline thinking wherever its tags are cut, and the bounds by which a cut prompt is noticed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmd.errors import MalformedReply
from rlmd.providers.base import Message
from rlmd.providers.reading import MAX_REPLY_CHARS, ReplyText, integer, parsed, read_too_little, record, records


def read(pieces: list[str]) -> tuple[str, str, list[str]]:
    heard: list[str] = []
    reply = ReplyText(heard.append)
    for piece in pieces:
        reply.add_text(piece)
    text, thinking = reply.close()
    return text, thinking, heard


@pytest.mark.parametrize(
    ("whole", "text", "thinking"),
    [
        ("plain", "plain", ""),
        ("<think>hmm</think>\n\nanswer", "answer", "hmm"),
        ("  <think>hmm</think>answer", "answer", "hmm"),
        ("<think></think>answer", "answer", ""),
        ("<think>never closed", "", "never closed"),
        ("use <think> in code </think>", "use <think> in code </think>", ""),
        ("<thin air", "<thin air", ""),
        ("<th", "<th", ""),
        ("", "", ""),
        ("<think>a</thi b</think>c</think>", "c</think>", "a</thi b"),
    ],
)
@given(data=st.data())
def test_thinking_is_told_apart_wherever_the_stream_is_cut(
    data: st.DataObject, whole: str, text: str, thinking: str
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))) | {0, len(whole)})
    pieces = [whole[start:end] for start, end in itertools.pairwise(cuts)]
    got_text, got_thinking, heard = read(pieces)
    assert got_thinking == thinking
    assert got_text.lstrip() == text
    assert "".join(heard) == got_text


def test_thinking_is_a_sign_of_life_without_text() -> None:
    heard: list[str] = []
    reply = ReplyText(heard.append)
    reply.add_thinking("let me see")
    reply.add_text("42")
    assert heard == ["", "42"]
    assert reply.close() == ("42", "let me see")


def test_a_reply_without_end_is_ended() -> None:
    reply = ReplyText(lambda _: None)
    reply.add_text("x" * MAX_REPLY_CHARS)
    with pytest.raises(MalformedReply):
        reply.add_text("x")


def test_a_cut_prompt_is_noticed_and_a_dense_one_is_not_suspected() -> None:
    prose = (Message("user", "some words of prose " * 4000),)
    assert read_too_little(prose, 8192, 4098)
    assert not read_too_little(prose, 8192, 20_000)
    assert not read_too_little(prose, 200_000, 4098), "it cannot have exceeded that window"
    dashes = (Message("user", "-" * 40_000),)
    assert not read_too_little(dashes, 8192, 2500), "long runs of one sign have few tokens"


def test_json_of_any_shape_is_read_without_surprise() -> None:
    assert parsed("x", b'{"a": 1}') == {"a": 1}
    for bad in (b"[]", b"1", b"", b"nul", b"\xff", b"[" * 100_000):
        with pytest.raises(MalformedReply):
            parsed("x", bad)
    assert record({"a": 1}, "a") == {} == record({}, "a")
    assert records({"a": [1, {"b": 2}]}, "a") == [{"b": 2}]
    assert records({"a": "text"}, "a") == []
    assert [integer({"n": value}, "n") for value in (3, -1, "3", None, True, 2.5)] == [3, 0, 0, 0, 0, 0]
