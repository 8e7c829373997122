"""What a sub-query's reply is to be: a JSON schema, or a Python type made into one (child side, standard library
alone).

The parent checks replies against the schema and asks again; here the checked JSON becomes the type that was asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from rlmd.repl.link import MOST_SCHEMA

TYPE_CHECKING = False  # the module typing takes 3 ms of a worker's start
if TYPE_CHECKING:
    from typing import Any
else:
    Any = object

#: From a value of JSON to what the cell gets.
Read = Callable[[Any], Any]

_PLAIN: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", None: "null",
    dict: "object", list: "array",
}  # fmt: skip


class Shape:
    """Attributes:
    schema: A JSON schema as JSON.
    read: Makes the value of a reply's JSON.
    """

    def __init__(self, schema: Any, read: Read) -> None:
        self.schema = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
        if len(self.schema) > MOST_SCHEMA:
            raise ValueError(f"schema: {len(self.schema):,} characters of JSON; at most {MOST_SCHEMA:,} can be sent")
        self._read = read

    def value(self, reply: str) -> Any:
        """What the JSON of a reply becomes."""
        return self._read(json.loads(reply))


def shape_of(wanted: Any) -> Shape | None:
    """``None`` for None; else the shape of a JSON schema (a dict or bool), or of a type.

    Raises:
        TypeError: A type that has no JSON; the message says which are known.
    """
    if wanted is None:
        return None
    if isinstance(wanted, bool | dict):
        return Shape(wanted, _same)
    return Shape(*_of_type(wanted))


def _same(value: Any) -> Any:
    return value


def _of_type(wanted: Any) -> tuple[Any, Read]:
    import typing

    if wanted is typing.Any or wanted is object:
        return {}, _same
    if isinstance(wanted, type) or wanted is None:
        return _of_class(wanted)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Annotated:
        return _of_type(arguments[0])
    if origin is typing.Literal:
        return {"enum": list(arguments)}, _same
    if origin is typing.Union or type(wanted).__name__ == "UnionType":
        return _of_union(arguments)
    if origin in (list, set, frozenset, tuple):
        return _of_several(origin, arguments)
    if origin is dict and arguments[0] is str:
        schema, read = _of_type(arguments[1])
        return {"type": "object", "additionalProperties": schema}, lambda v: {k: read(one) for k, one in v.items()}
    raise _unknown(wanted)


def _of_class(wanted: Any) -> tuple[Any, Read]:
    if wanted in _PLAIN:
        return {"type": _PLAIN[wanted]}, float if wanted is float else _same
    if wanted in (set, frozenset, tuple):
        return {"type": "array"}, wanted
    if hasattr(wanted, "model_json_schema"):  # pydantic, from the user's environment
        return wanted.model_json_schema(), wanted.model_validate
    if "enum" in sys.modules and issubclass(wanted, sys.modules["enum"].Enum):
        return {"enum": [one.value for one in wanted]}, wanted
    if hasattr(wanted, "__dataclass_fields__"):
        fields = {name: field for name, field in wanted.__dataclass_fields__.items() if field.init}
        missing = sys.modules["dataclasses"].MISSING
        needed = [n for n, f in fields.items() if f.default is missing and f.default_factory is missing]
        return _of_members(wanted, list(fields), needed, lambda members: wanted(**members))
    if issubclass(wanted, tuple) and hasattr(wanted, "_fields"):
        needed = [name for name in wanted._fields if name not in wanted._field_defaults]
        return _of_members(wanted, wanted._fields, needed, lambda members: wanted(**members))
    if issubclass(wanted, dict) and hasattr(wanted, "__required_keys__"):  # TypedDict
        return _of_members(wanted, list(wanted.__annotations__), sorted(wanted.__required_keys__), _same)
    raise _unknown(wanted)


def _of_members(wanted: Any, names: Any, needed: list[str], make: Read) -> tuple[Any, Read]:
    import typing

    hints = typing.get_type_hints(wanted)
    members = {name: _of_type(hints.get(name, typing.Any)) for name in names}
    schema = {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in members.items()},
        "required": needed,
        "additionalProperties": False,
    }
    return schema, lambda value: make({name: members[name][1](one) for name, one in value.items()})


def _of_union(arguments: tuple[Any, ...]) -> tuple[Any, Read]:
    kinds = [_of_type(one) for one in arguments]

    def read(value: Any) -> Any:
        """Of the kinds the first that takes the value; the parent saw that one does."""
        for (schema, make), _ in zip(kinds, arguments, strict=True):
            if not isinstance(schema, dict) or _is_of(schema.get("type"), value):
                try:
                    return make(value)
                except (TypeError, ValueError, KeyError):
                    continue
        return value

    return {"anyOf": [schema for schema, _ in kinds]}, read


def _of_several(origin: Any, arguments: tuple[Any, ...]) -> tuple[Any, Read]:
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        kinds = [_of_type(one) for one in arguments]
        count = len(kinds)
        schema = {"type": "array", "prefixItems": [one for one, _ in kinds], "minItems": count, "maxItems": count}
        return schema, lambda value: tuple(read(one) for (_, read), one in zip(kinds, value, strict=True))
    item, read = _of_type(arguments[0])
    return {"type": "array", "items": item}, lambda value: origin(map(read, value))


_JSON: dict[Any, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "object": dict,
    "array": list,
}  # fmt: skip


def _is_of(kind: Any, value: Any) -> bool:
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    return kind not in _JSON or isinstance(value, _JSON[kind])


def _unknown(wanted: Any) -> TypeError:
    return TypeError(
        f"schema: {wanted!r} has no JSON. Known are str, int, float, bool, None, list[…], tuple[…], set[…], "
        "dict[str, …], Literal, X | Y, Enum, dataclasses, NamedTuple, TypedDict, pydantic models, and JSON schemas"
    )
