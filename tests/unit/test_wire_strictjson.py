"""Strict JSON: what Emacs' parser drops is never sent, what is not JSON is never taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmd.errors import ParseError
from rlmd.events import Text
from rlmd.wire.strictjson import dumps, encoded, loads

ANY_TEXT = st.text(st.characters(exclude_categories=()) | st.sampled_from("\0\ud800\udc80\\u0"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def sendable(text: str) -> str:
    return "".join("�" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)


def cleaned(value: Any) -> Any:
    match value:
        case str():
            return sendable(value)
        case list():
            return [cleaned(item) for item in value]
        case dict():
            return {sendable(key): cleaned(item) for key, item in value.items()}
    return value


@given(JSON)
def test_whatever_is_sent_can_be_read_and_only_the_unsendable_is_replaced(value: Any) -> None:
    sent = dumps(value)
    sent.decode("utf-8")
    assert b"\n" not in sent
    assert b"\\u0000" not in sent.replace(b"\\\\", b"")
    assert json.loads(sent) == cleaned(value)


@given(ANY_TEXT, st.none() | ANY_TEXT)
def test_a_model_is_written_as_its_fields_are(text: str, preview: str | None) -> None:
    model = Text(chars=len(text), text=text, preview=preview)
    assert loads(encoded(model)) == loads(dumps(model.model_dump(mode="json")))


@pytest.mark.parametrize(
    ("text", "arrives"),
    [
        ("a\0b", "a�b"),
        ("\\u0000", "\\u0000"),  # six ordinary characters stay six
        ("\\\0", "\\�"),
        ("\\\\u0000\0", "\\\\u0000�"),
        ("\udc80raw", "�raw"),
        ("\ud83d", "�"),
        ("𝄞", "𝄞"),
    ],
)
def test_one_for_one(text: str, arrives: str) -> None:
    assert json.loads(dumps(text)) == arrives
    assert len(arrives) == len(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_nan_leaves(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps({"x": value})


@pytest.mark.parametrize(
    "sent",
    [
        b"{",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b"{'a':1}",
        b'{"a":1} {"b":2}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"secret-word',
        b"\x00",
    ],
)
def test_what_is_not_strict_json_is_refused_without_being_quoted(sent: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        loads(sent)
    assert "secret" not in caught.value.message + caught.value.hint
    assert caught.value.hint


def test_what_is_strict_json_is_taken() -> None:
    assert loads('{"a":["ü","\\u0000",1.5,null,true]}'.encode()) == {"a": ["ü", "\0", 1.5, None, True]}
