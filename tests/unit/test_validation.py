"""What is wrong with parameters, in sentences: they name the field, and never repeat a value, which may be private."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rlmd.config import Settings
from rlmd.validation import Problem, problems_of
from rlmd.wire.methods import METHODS
from rlmd.wire.methods.contexts import LoadParams
from rlmd.wire.methods.runs import RunParams

CANARY = "canary7741"
#: Wrong almost anywhere, each in its way, and each with a mark in it.
WRONG: tuple[Any, ...] = (
    CANARY, CANARY * 3000, [CANARY], {"kind": CANARY}, {CANARY: CANARY}, [[CANARY]],
    {"kind": "path", "paths": [[CANARY]]}, {"kind": "inline", "text": [CANARY]}, -7741.5, None,
)  # fmt: skip


def found(model: type[BaseModel], values: dict[str, Any]) -> list[Problem]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        return problems_of(error, model)
    return []


def models() -> Iterator[Any]:
    yield pytest.param(Settings, id="settings")
    for name, method in METHODS.items():
        yield pytest.param(method.params, id=name)


@pytest.mark.parametrize("model", [*models()])
def test_no_sentence_repeats_a_value(model: type[BaseModel]) -> None:
    for field in model.model_fields:
        for wrong in WRONG:
            for problem in found(model, {field: wrong}):
                keys_aside = problem.where.replace(CANARY, "")  # a name that is not known is named
                sentence = problem.sentence.replace(problem.where, keys_aside)
                assert CANARY not in sentence + problem.hint, (field, problem)
                assert "7741" not in sentence, (field, problem)


@pytest.mark.parametrize(
    ("model", "values", "where"),
    [
        (RunParams, {"schema": "{no"}, "schema"),
        (RunParams, {"limits": {"turns": 0}}, "limits.turns"),
        (LoadParams, {"source": {"kind": "path", "paths": []}}, "source.paths"),
        (LoadParams, {"source": {"kind": "path", "paths": [7]}}, "source.paths.0"),
        (Settings, {"hosts": {"a": {"models": {"m": {"window": 1}}}}}, "hosts.a.models.m.window"),
    ],
)
def test_a_field_is_named_as_it_is_written(model: type[BaseModel], values: dict[str, Any], where: str) -> None:
    assert where in {problem.where for problem in found(model, values)}


def lax(schema: Any) -> Iterator[str]:
    """Leaves of a schema that would take another kind of value for theirs."""
    if isinstance(schema, (list, tuple)):
        for one in schema:
            yield from lax(one)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if isinstance(kind, str) and kind in {"bool", "int", "float", "str"} and not schema.get("strict"):
            yield kind
        for name, one in schema.items():
            if name not in ("metadata", "serialization", "default", "cls", "config"):
                yield from lax(one)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_parameter_takes_one_kind_of_value_for_another(name: str) -> None:
    assert list(lax(METHODS[name].params.__pydantic_core_schema__)) == []


RUN = {"run_id": "12f40eb0-025f-4f22-a77d-521c1e13a7c7", "question": "q", "contexts": ["a"]}


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"schema": "no"}, "schema"),
        ({"fresh": "yes"}, "fresh"),
        ({"fresh": 1}, "fresh"),
        ({"limits": {"turns": "7"}}, "limits.turns"),
        ({"limits": {"turns": True}}, "limits.turns"),
        ({"limits": {"seconds": "60"}}, "limits.seconds"),
        ({"limits": {"turns": 7.5}}, "limits.turns"),
        ({"question": 5}, "question"),
        ({"contexts": "a"}, "contexts"),
    ],
)
def test_what_json_says_is_what_is_meant(given: dict[str, Any], where: str) -> None:
    assert where in {problem.where for problem in found(METHODS["run/start"].params, RUN | given)}


@pytest.mark.parametrize(
    "given",
    [{"schema": False}, {"schema": {}}, {"limits": {"turns": 7.0, "seconds": 60}}, {"fresh": False}, {"session": None}],
)
def test_what_clients_of_the_years_send_is_taken(given: dict[str, Any]) -> None:
    """JSON has one kind of number, lists in the place of tuples, and null for what is left out."""
    assert found(METHODS["run/start"].params, RUN | given) == []
