"""Typed answers: which values fit which schemas, what is told, and that nothing runs away."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmd.engine.typed import AnswerType, quotable
from rlmd.errors import InvalidParams
from rlmd.schema import canonical, check_schema, problems, value_in

PEOPLE = {
    "type": "array",
    "minItems": 1,
    "items": {"$ref": "#/$defs/person"},
    "$defs": {
        "person": {
            "type": "object",
            "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": ["integer", "null"]}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}
#: Schema, value, and the problem told (empty: it fits).
CASES: dict[str, tuple[Any, Any, str]] = {
    "fits": (PEOPLE, [{"name": "Ada", "age": 36}, {"name": "Bob", "age": None}], ""),
    "too few": (PEOPLE, [], "must have a length of at least 1; it is 0"),
    "lacks": (PEOPLE, [{"age": 1}], "[0] lacks 'name'"),
    "more than it may": (PEOPLE, [{"name": "Ada", "born": 1815}], "[0].born must not be there"),
    "wrong type": (PEOPLE, [{"name": "Ada", "age": "36"}], "[0].age must be of type integer or null, not string"),
    "true is no integer": ({"type": "integer"}, True, "not boolean"),
    "1.0 is an integer": ({"type": "integer"}, 1.0, ""),
    "a huge integer": ({"type": "integer", "minimum": 1}, 10**400, ""),
    "enum": ({"enum": ["a", 1]}, "b", 'must be one of ["a", 1]'),
    "true is not 1": ({"const": 1}, True, "must be 1"),
    "pattern": ({"pattern": "^[A-Z]{2}$"}, "abc", "does not match"),
    "pattern fits": ({"pattern": "^[A-Z]{2}$"}, "AB", ""),
    "bounds": ({"minimum": 3, "exclusiveMaximum": 5}, 5, "must be less than 5; it is 5"),
    "multiple": ({"multipleOf": 0.5}, 1.25, "multiple of 0.5"),
    "any": ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 3, "none of what it may be"),
    "one": ({"oneOf": [{"minimum": 1}, {"maximum": 9}]}, 5, "exactly one of 2 kinds; it is 2"),
    "all": ({"allOf": [{"minimum": 1}, {"maximum": 4}]}, 5, "at most 4"),
    "not": ({"not": {"type": "string"}}, "x", "what it must not be"),
    "unique": ({"uniqueItems": True}, [1, 2, 1], "same item twice"),
    "prefix": ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", "b"], "[1] must be"),
    "pattern of names": ({"patternProperties": {"^x": {"type": "integer"}}}, {"xa": "1"}, "xa must be"),
    "never": (False, 1, "must not be there"),
    "anything": (True, 1, ""),
    "endless reference": ({"$ref": "#"}, 1, "nested too deeply"),
}


@pytest.mark.parametrize(("schema", "value", "told"), CASES.values(), ids=CASES.keys())
def test_values_against_schemas(schema: Any, value: Any, told: str) -> None:
    check_schema(schema)
    found = problems(schema, value)
    assert bool(found) == bool(told)
    assert told in "; ".join(found)


REFUSED = {
    "no such type": {"type": "text"},
    "unhashable type": {"type": [[]]},
    "unknown keyword": {"minimun": 1},
    "elsewhere": {"$ref": "https://example.org/schema"},
    "nowhere": {"$ref": "#/$defs/none"},
    "pattern that may run away": {"pattern": "(?=x)"},
    "no schema": {"items": 3},
    "no list": {"anyOf": {}},
    "not finite": {"minimum": float("inf")},
    "too long": {"description": "x" * 200_000},
    "too deep": {"not": {"not": {"not": {}}} | dict.fromkeys(["description"], "")},
}


@pytest.mark.parametrize("schema", list(REFUSED.values())[:-1], ids=list(REFUSED)[:-1])
def test_a_schema_that_cannot_be_checked_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidParams):
        check_schema(schema)


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: Any = {}
    for _ in range(200):
        schema = {"not": schema}
    with pytest.raises(InvalidParams, match="deep"):
        check_schema(schema)


def test_a_schema_that_branches_into_itself_comes_to_an_end() -> None:
    schema = {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}
    check_schema(schema)
    assert problems(schema, 1)


TEXTS = {
    '{"a": 1}': {"a": 1},
    '```json\n{"a": 1}\n```': {"a": 1},
    "{'a': True, 'b': None}": {"a": True, "b": None},
    "(1, 2)": [1, 2],
    "42": 42,
    '"x"': "x",
}


@pytest.mark.parametrize(("text", "value"), TEXTS.items())
def test_values_are_read_as_models_write_them(text: str, value: Any) -> None:
    assert value_in(text) == value


@pytest.mark.parametrize("text", ["It is 42.", "NaN", "[1e999]", "{1, 2}", "[" * 100_000, "", "{'a': nan}"])
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        value_in(text)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert value_in(canonical(value_in(text))) == value_in(text)
    except ValueError:
        return


def test_an_answer_is_told_what_is_wrong() -> None:
    wanted = AnswerType('{"type": "object", "required": ["n"]}')
    assert wanted.read("{'n': 1}") == ('{"n": 1}', None)
    assert "no JSON" in (wanted.read("one")[1] or "")
    assert "lacks 'n'" in (wanted.read("{}")[1] or "")


def test_strings_of_values_may_be_quotes_and_names_are_none() -> None:
    assert quotable('{"a long enough name": ["too short", "long enough to quote"]}') == "“long enough to quote”"
