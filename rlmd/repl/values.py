"""Values of a cell's variables, told of and handed over (child side, standard library alone).

Describing a value runs no code of the cell's: a type whose ``__len__`` or name fails would spoil each later cell.
"""

from __future__ import annotations

from rlmd.repl.asking import SubQueryError
from rlmd.repl.link import MOST_CHARS

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections import deque
    from typing import Any
else:
    from _collections import deque  # collections itself takes 2 ms

_SIZED: tuple[Any, ...] = (list, tuple, dict, set, frozenset, bytes, bytearray, deque)
_name_of = type.__dict__["__name__"].__get__


def as_text(value: Any, what: str) -> str:
    """``str(value)`` that fits a frame and holds no failed sub-query in place of text."""
    if isinstance(value, SubQueryError):
        raise TypeError(f"{what}: a failed sub-query is no answer: {value!s}")
    text = str("" if value is None else value)
    if len(text) > MOST_CHARS:
        raise ValueError(f"{what}: {len(text):,} characters; at most {MOST_CHARS:,} can be handed over")
    return text


def kind_of(value: Any) -> str:
    """The name of its type."""
    name: str = _name_of(type(value))
    return name


def describe(value: Any) -> str:
    """A few words on a value's size."""
    kind = type(value)
    if issubclass(kind, str):
        return f"{str.__len__(value):,} characters"
    if kind in (bool, float) or value is None:
        return repr(value)[:40]
    if issubclass(kind, int):
        return "a long integer" if int.bit_length(value) >= 100 else int.__repr__(value)
    for sized in _SIZED:
        if issubclass(kind, sized):
            return f"{kind_of(value)} of {sized.__len__(value):,}"
    return kind_of(value)[:60]
