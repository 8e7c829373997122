"""What a reply is to be: types as JSON schemas, and JSON back as the types; what has no JSON is refused."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import pydantic
import pytest

from rlmd import schema as schemas
from rlmd.repl.shapes import shape_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Person:
    name: str
    age: int = 0
    likes: list[Colour] = dataclasses.field(default_factory=list)


class Place(NamedTuple):
    page: int
    line: int = 1


class Found(TypedDict, total=False):
    quote: str


class Model(pydantic.BaseModel):
    count: int


#: Type, JSON that fits it, what the cell gets, JSON that does not fit.
TYPES: list[tuple[Any, Any, Any, Any]] = [
    (str, "a", "a", 1),
    (int, 3, 3, "3"),
    (float, 3, 3.0, "x"),
    (bool, True, True, 1),
    (type(None), None, None, 0),
    (dict, {"a": 1}, {"a": 1}, []),
    (list, [1, "a"], [1, "a"], {}),
    (Any, [1], [1], ...),
    (list[int], [1, 2], [1, 2], [1, "b"]),
    (set[str], ["a", "a"], {"a"}, [1]),
    (tuple[int, str], [1, "a"], (1, "a"), [1]),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3), ["a"]),
    (dict[str, float], {"a": 1}, {"a": 1.0}, {"a": "b"}),
    (Literal["yes", "no"], "yes", "yes", "perhaps"),
    (int | None, None, None, "a"),
    (Person | None, {"name": "N"}, Person("N"), {"age": 1}),
    (list[Person | str], [{"name": "N"}, "M"], [Person("N"), "M"], [1]),
    (Annotated[int, "of years"], 3, 3, "3"),
    (Colour, "red", Colour.RED, "green"),
    (Person, {"name": "N", "likes": ["blue"]}, Person("N", 0, [Colour.BLUE]), {"name": "N", "other": 1}),
    (Place, {"page": 7}, Place(7, 1), {"line": 1}),
    (Found, {"quote": "q"}, {"quote": "q"}, {"quote": 1}),
    (Model, {"count": 3}, Model(count=3), {"count": "x"}),
    ({"type": "integer", "minimum": 2}, 2, 2, 1),
]


@pytest.mark.parametrize(("wanted", "fits", "value", "misfit"), TYPES, ids=[str(row[0])[:40] for row in TYPES])
def test_a_type_is_a_schema_and_a_way_back(wanted: Any, fits: Any, value: Any, misfit: Any) -> None:
    """The daemon's own check knows every keyword that a type is made into."""
    shape = shape_of(wanted)
    assert shape is not None
    schema = json.loads(shape.schema)
    schemas.check_schema(schema)
    assert schemas.problems(schema, fits) == []
    assert shape.value(json.dumps(fits)) == value
    assert misfit is ... or schemas.problems(schema, misfit) != []


@pytest.mark.parametrize("wanted", [object(), 3, "str", lambda: 1, dict[int, str], complex])
def test_what_has_no_json_is_refused_with_what_is_known(wanted: Any) -> None:
    with pytest.raises(TypeError, match=r"has no JSON\. Known are str, int"):
        shape_of(wanted)


def test_none_is_no_shape_and_a_schema_has_a_most() -> None:
    assert shape_of(None) is None
    with pytest.raises(ValueError, match="at most 20,000"):
        shape_of({"enum": ["x" * 20_000]})
