"""Typed answers: the part of JSON Schema that is checked here, and the values that models write.

A schema and a value may both come from a model, so nothing here can run away: patterns are re2's (linear), references
lead within the schema alone and nothing is fetched, depth and the number of problems are bounded. A keyword that is
not checked is refused rather than ignored, so that no one believes in a check that does not happen.
Source: JSON Schema 2020-12, https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import re2

from rlmd.errors import InvalidParams

#: What a value of JSON is in Python; objects and arrays hold the same.
Json = Any
#: A boolean, or an object with keywords.
Schema = Any

MOST_SCHEMA_CHARS = 100_000
#: Problems told at once: a model mends a few at a time.
MOST_PROBLEMS = 8
_MOST_DEPTH = 64
#: Steps of a check: a schema that refers to itself in every branch must come to an end.
_MOST_STEPS = 200_000
#: Describe and do not check.
_REMARKS = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated"}
    | {"readOnly", "writeOnly", "format", "contentMediaType", "contentEncoding", "$anchor"}
)
_TYPES: Mapping[str, Callable[[Json], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
}


def check_schema(schema: Json) -> None:
    """Raises ``InvalidParams`` when the schema is malformed, too long, or uses a keyword that is not checked here."""
    try:
        text = json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParams("The schema is not JSON.", hint='Give one such as {"type": "object"}.') from error
    if len(text) > MOST_SCHEMA_CHARS:
        raise InvalidParams(f"The schema has {len(text):,} characters; it may have {MOST_SCHEMA_CHARS:,}.")
    _Form(schema).look(schema, "schema", 0)


def problems(schema: Schema, value: Json) -> list[str]:
    """What is wrong with a value, as sentences that name the place; empty when it is what the schema says."""
    found: list[str] = []
    for sentence in _Check(schema).value(schema, value, "", 0):
        found.append(sentence)
        if len(found) == MOST_PROBLEMS:
            break
    return found


def value_in(text: str) -> Json:
    """The value that a model wrote: JSON, alone or in a fence, or what ``repr`` makes of a Python value.

    Raises ``ValueError`` when it is none; the message says where.
    """
    text = _unfenced(text)
    try:
        return _strict(json.loads(text, parse_constant=_refuse_constant))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        return _from_repr(text, error)


def canonical(value: Json) -> str:
    """A value as an answer holds it."""
    return json.dumps(value, ensure_ascii=False)


def _unfenced(text: str) -> str:
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        return text[text.index("\n") + 1 : -3].strip()
    return text


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON")


def _strict(value: Json) -> Json:
    json.dumps(value, allow_nan=False)
    return value


def _from_repr(text: str, error: ValueError) -> Json:
    """``{'a': True}``: what a cell hands over when it gives an object itself."""
    if text[:1] not in "{[('\"TFN-0123456789" or len(text) > MOST_SCHEMA_CHARS:
        raise error
    try:
        return json.loads(json.dumps(ast.literal_eval(text), allow_nan=False))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise error from None


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(one: Json, other: Json) -> bool:
    """Equal as JSON: 1 is 1.0, and true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def _resolved(root: Schema, reference: str) -> Schema:
    """What a reference within the schema names. Raises ``LookupError``."""
    if not reference.startswith("#"):
        raise LookupError(reference)
    found = root
    for part in reference[1:].lstrip("/").split("/") if reference != "#" else ():
        key = part.replace("~1", "/").replace("~0", "~")
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


class _Form:
    """Looks at a schema itself, once for all values."""

    def __init__(self, root: Schema) -> None:
        self._root = root

    def look(self, schema: Schema, where: str, depth: int) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict) or depth > _MOST_DEPTH:
            raise InvalidParams(f"{where}: a schema is an object or a boolean, nested at most {_MOST_DEPTH} deep.")
        for keyword, given in schema.items():
            if keyword not in _KEYWORDS and keyword not in _REMARKS:
                known = ", ".join(sorted(_KEYWORDS))
                raise InvalidParams(f"{where}: {keyword!r} is not checked here.", hint=f"Keywords: {known}.")
            self._keyword(keyword, given, f"{where}.{keyword}", depth + 1)

    def _keyword(self, keyword: str, given: Json, where: str, depth: int) -> None:
        if (plain := _PLAIN.get(keyword)) is not None:
            fits, wanted = plain
            self._require(fits(given), where, wanted)
        elif keyword == "$ref":
            self._reference(given, where)
        elif keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
            self._require(isinstance(given, list) and bool(given), where, "a list of schemas")
            for number, one in enumerate(given):
                self.look(one, f"{where}[{number}]", depth)
        elif keyword in ("items", "additionalProperties", "not"):
            self.look(given, where, depth)
        elif keyword in ("properties", "$defs", "definitions", "patternProperties"):
            self._require(isinstance(given, dict), where, "an object of schemas")
            for name, one in given.items():
                self._require(keyword != "patternProperties" or _is_pattern(name), where, _PATTERN)
                self.look(one, f"{where}.{name}", depth)

    def _reference(self, given: Json, where: str) -> None:
        try:
            _resolved(self._root, str(given))
        except (LookupError, TypeError, ValueError):
            raise InvalidParams(
                f"{where}: {given!r} names nothing in the schema.", hint="References look like #/$defs/name."
            ) from None

    @staticmethod
    def _require(holds: bool, where: str, wanted: str) -> None:
        if not holds:
            raise InvalidParams(f"{where}: this must be {wanted}.")


def _is_pattern(given: Json) -> bool:
    return _compiled(given) is not None


def _are_types(given: Json) -> bool:
    several = given if isinstance(given, list) else [given]
    return all(isinstance(one, str) and one in _TYPES for one in several)


def _compiled(pattern: Json) -> Any:
    if not isinstance(pattern, str):
        return None
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


class _Check:
    """Checks one value."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._steps = 0

    def value(self, schema: Schema, value: Json, place: str, depth: int) -> Iterator[str]:
        self._steps += 1
        if depth > _MOST_DEPTH or self._steps > _MOST_STEPS:
            yield f"{_at(place)} is nested too deeply to be checked"
        elif schema is False:
            yield f"{_at(place)} must not be there"
        elif isinstance(schema, dict):
            for keyword, given in schema.items():
                if (check := _KEYWORDS.get(keyword)) is not None:
                    yield from check(self, schema, given, value, place, depth + 1)

    def holds(self, schema: Schema, value: Json, depth: int) -> bool:
        return next(self.value(schema, value, "", depth), None) is None

    # ── keywords ────────────────────────────────────────────────────────────────────────────────────────────

    def ref(self, _: Schema, given: str, value: Json, place: str, depth: int) -> Iterator[str]:
        yield from self.value(_resolved(self._root, given), value, place, depth)

    def type(self, _: Schema, given: Json, value: Json, place: str, _depth: int) -> Iterator[str]:
        several = given if isinstance(given, list) else [given]
        if not any(_TYPES[one](value) for one in several):
            yield f"{_at(place)} must be of type {' or '.join(several)}, not {_type_of(value)}"

    def enum(self, _: Schema, given: Json, value: Json, place: str, _depth: int) -> Iterator[str]:
        if not any(_equal(one, value) for one in given):
            yield f"{_at(place)} must be one of {canonical(given)[:300]}"

    def const(self, _: Schema, given: Json, value: Json, place: str, _depth: int) -> Iterator[str]:
        if not _equal(given, value):
            yield f"{_at(place)} must be {canonical(given)[:300]}"

    def properties(self, _: Schema, given: Json, value: Json, place: str, depth: int) -> Iterator[str]:
        if isinstance(value, dict):
            for name, schema in given.items():
                if name in value:
                    yield from self.value(schema, value[name], f"{place}.{name}", depth)

    def pattern_properties(self, _: Schema, given: Json, value: Json, place: str, depth: int) -> Iterator[str]:
        if isinstance(value, dict):
            for pattern, schema in given.items():
                compiled = _compiled(pattern)
                for name in value:
                    if compiled.search(name):
                        yield from self.value(schema, value[name], f"{place}.{name}", depth)

    def additional(self, schema: Schema, given: Json, value: Json, place: str, depth: int) -> Iterator[str]:
        if not isinstance(value, dict):
            return
        known, patterns = schema.get("properties", {}), [_compiled(one) for one in schema.get("patternProperties", {})]
        for name in value:
            if name not in known and not any(pattern.search(name) for pattern in patterns):
                yield from self.value(given, value[name], f"{place}.{name}", depth)

    def required(self, _: Schema, given: Json, value: Json, place: str, _depth: int) -> Iterator[str]:
        if isinstance(value, dict):
            for name in given:
                if name not in value:
                    yield f"{_at(place)} lacks {name!r}"

    def items(self, schema: Schema, given: Json, value: Json, place: str, depth: int) -> Iterator[str]:
        if isinstance(value, list):
            for number in range(len(schema.get("prefixItems", ())), len(value)):
                yield from self.value(given, value[number], f"{place}[{number}]", depth)

    def prefix_items(self, _: Schema, given: Json, value: Json, place: str, depth: int) -> Iterator[str]:
        if isinstance(value, list):
            for number, (schema, one) in enumerate(zip(given, value, strict=False)):
                yield from self.value(schema, one, f"{place}[{number}]", depth)

    def unique(self, _: Schema, given: Json, value: Json, place: str, _depth: int) -> Iterator[str]:
        if given and isinstance(value, list):
            seen = {json.dumps(one, sort_keys=True) for one in value}
            if len(seen) < len(value):
                yield f"{_at(place)} holds the same item twice"

    def pattern(self, _: Schema, given: Json, value: Json, place: str, _depth: int) -> Iterator[str]:
        if isinstance(value, str) and not _compiled(given).search(value):
            yield f"{_at(place)} does not match {given!r}"

    def bound(self, keyword: str, given: float, value: Json, place: str) -> Iterator[str]:
        size, holds, words = _NUMBERS[keyword]
        measured = size(value)
        if measured is not None and not holds(measured, given):
            yield f"{_at(place)} must {words} {given:g}; it is {measured:g}"

    def any_of(self, _: Schema, given: Json, value: Json, place: str, depth: int) -> Iterator[str]:
        if not any(self.holds(schema, value, depth) for schema in given):
            yield f"{_at(place)} is none of what it may be"

    def one_of(self, _: Schema, given: Json, value: Json, place: str, depth: int) -> Iterator[str]:
        matching = sum(self.holds(schema, value, depth) for schema in given)
        if matching != 1:
            yield f"{_at(place)} must be exactly one of {len(given)} kinds; it is {matching}"

    def all_of(self, _: Schema, given: Json, value: Json, place: str, depth: int) -> Iterator[str]:
        for schema in given:
            yield from self.value(schema, value, place, depth)

    def negated(self, _: Schema, given: Json, value: Json, place: str, depth: int) -> Iterator[str]:
        if self.holds(given, value, depth):
            yield f"{_at(place)} is what it must not be"


def _at(place: str) -> str:
    return place.lstrip(".") or "the answer"


def _type_of(value: Json) -> str:
    return next((name for name, fits in _TYPES.items() if fits(value)), "unknown")


def _divides(size: float, bound: float) -> bool:
    return bound > 0 and Fraction(size) % Fraction(bound) == 0


_Size = Callable[[Json], float | None]
_number: _Size = lambda value: value if _is_number(value) else None  # noqa: E731
_chars: _Size = lambda value: len(value) if isinstance(value, str) else None  # noqa: E731
_length: _Size = lambda value: len(value) if isinstance(value, list) else None  # noqa: E731
_members: _Size = lambda value: len(value) if isinstance(value, dict) else None  # noqa: E731
#: Keyword → what is measured, whether it is so, and how that is said.
_NUMBERS: Mapping[str, tuple[_Size, Callable[[float, float], bool], str]] = {
    "minimum": (_number, lambda size, bound: size >= bound, "be at least"),
    "maximum": (_number, lambda size, bound: size <= bound, "be at most"),
    "exclusiveMinimum": (_number, lambda size, bound: size > bound, "be more than"),
    "exclusiveMaximum": (_number, lambda size, bound: size < bound, "be less than"),
    "multipleOf": (
        _number,
        lambda size, bound: bound > 0 and Fraction(size) % Fraction(bound) == 0,
        "be a multiple of",
    ),
    "minLength": (_chars, lambda size, bound: size >= bound, "have a length of at least"),
    "maxLength": (_chars, lambda size, bound: size <= bound, "have a length of at most"),
    "minItems": (_length, lambda size, bound: size >= bound, "have a length of at least"),
    "maxItems": (_length, lambda size, bound: size <= bound, "have a length of at most"),
    "minProperties": (_members, lambda size, bound: size >= bound, "have at least so many members:"),
    "maxProperties": (_members, lambda size, bound: size <= bound, "have at most so many members:"),
}
_PATTERN = "an expression that re2 knows"
#: Keyword → whether what is given for it is of the right kind, and how that is said.
_PLAIN: Mapping[str, tuple[Callable[[Json], bool], str]] = {
    "type": (_are_types, f"one of {', '.join(_TYPES)}"),
    "enum": (lambda given: isinstance(given, list), "a list"),
    "required": (lambda given: isinstance(given, list) and all(isinstance(one, str) for one in given), "names"),
    "pattern": (_is_pattern, _PATTERN),
    "uniqueItems": (lambda given: isinstance(given, bool), "true or false"),
    **dict.fromkeys(_NUMBERS, (lambda given: _is_number(given) and math.isfinite(given), "a number")),
}
_Keyword = Callable[[_Check, Schema, Json, Json, str, int], Iterator[str]]


def _bound(keyword: str) -> _Keyword:
    return lambda check, _, given, value, place, __: check.bound(keyword, given, value, place)


_KEYWORDS: Mapping[str, _Keyword] = {
    "$ref": _Check.ref,
    "type": _Check.type,
    "enum": _Check.enum,
    "const": _Check.const,
    "properties": _Check.properties,
    "patternProperties": _Check.pattern_properties,
    "additionalProperties": _Check.additional,
    "required": _Check.required,
    "items": _Check.items,
    "prefixItems": _Check.prefix_items,
    "uniqueItems": _Check.unique,
    "pattern": _Check.pattern,
    "anyOf": _Check.any_of,
    "oneOf": _Check.one_of,
    "allOf": _Check.all_of,
    "not": _Check.negated,
    **{keyword: _bound(keyword) for keyword in _NUMBERS},
}
