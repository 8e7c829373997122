"""Parameters are what JSON says they are: a text is no number and no truth, a number is no truth.

pydantic by itself takes ``"no"`` for false and ``"7"`` for 7, so that a mistake becomes something that was never said.
Its own strict mode would refuse lists too, which JSON has in the place of tuples; here the leaves alone are strict. A
number that is whole is an integer, however it is written: JSON has one kind of number.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import core_schema

_STRICT = {"bool", "float", "str"}
#: Parts of a schema that hold no schema, but may look like one.
_OTHERS = {"cls", "config", "default", "expected", "metadata", "serialization"}


def exact(schema: Any) -> Any:
    """The schema with strict leaves; those of models within are theirs."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(map(exact, schema))
    if not isinstance(schema, dict):
        return schema
    inner = {name: one if name in _OTHERS else exact(one) for name, one in schema.items()}
    kind = inner.get("type")
    if kind == "int" and not inner.get("strict"):
        return core_schema.no_info_before_validator_function(_whole, {**inner, "strict": True})
    return {**inner, "strict": True} if isinstance(kind, str) and kind in _STRICT else inner


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
