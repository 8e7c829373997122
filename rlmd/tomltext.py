"""Writes TOML: tables of plain values, enough for a settings file. The standard library only reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

Plain = str | int | float | bool
#: The way to a table or a key → what is said above it.
Remarks = Mapping[tuple[str, ...], str]
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_of(table: Mapping[str, object], remarks: Remarks | None = None) -> str:
    """The table as a TOML document; a None is left out, as TOML has none.

    Args:
        remarks: Comments above tables and keys.
    """
    return "\n".join(_lines(table, (), remarks or {})) + "\n"


def _lines(table: Mapping[str, object], way: tuple[str, ...], remarks: Remarks) -> Iterator[str]:
    plain = {key: value for key, value in table.items() if value is not None and not isinstance(value, Mapping)}
    inner = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    if way and (plain or not inner):
        yield ""
        yield from _comment(remarks.get(way, ""))
        yield f"[{'.'.join(map(_key, way))}]"
    for key, value in plain.items():
        yield from _comment(remarks.get((*way, key), ""))
        yield f"{_key(key)} = {_value(value)}"
    for key, below in inner.items():
        yield from _lines(below, (*way, key), remarks)


def _comment(text: str) -> Iterator[str]:
    """Control characters and line breaks of foreign text must not end the comment."""
    for line in text.split("\n") if text else ():
        yield "# " + "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _value(key)


def _value(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"{type(value).__name__} has no TOML form")
