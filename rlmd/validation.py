"""Turns pydantic's findings into sentences that name the field and, for an unknown one, the nearest valid.

Shared by the wire (parameters) and the settings. A sentence never repeats a value that was given: it may be
private text.
"""

from __future__ import annotations

import difflib
import itertools
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Loc = tuple[int | str, ...]

#: Names that are looked at for one that is near, and characters of each: under 2 ms on the event loop.
_NAMES, _LONGEST = 300, 60


@dataclass(frozen=True, slots=True)
class Problem:
    """``where`` is the dotted way to the field, ``nearest`` the valid name that an unknown one resembles."""

    where: str
    sentence: str
    hint: str = ""
    nearest: str | None = None
    missing: bool = False


def nearest_of(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that ``name`` is probably meant to be."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The first sentence of a hint, with a blank behind it; nothing when no name is near."""
    near = nearest_of(name[:_LONGEST], [one for one in itertools.islice(valid, _NAMES) if len(one) <= _LONGEST])
    return f"Did you mean {near!a}? " if near else ""


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """One problem for each thing that is wrong; names that are not known first: they often explain the rest."""
    found = error.errors(include_url=False, include_input=False)
    found.sort(key=lambda details: details["type"] != "extra_forbidden")
    return [_problem(details, model) for details in found]


def _problem(details: ErrorDetails, model: type[BaseModel]) -> Problem:
    shown, holder = _follow(details["loc"], model)
    where = ".".join(map(str, shown))
    match details["type"]:
        case "extra_forbidden":
            name, valid = str(shown[-1]), _names(holder)
            near = nearest_of(name, valid)
            known = f"Valid here: {', '.join(valid)}." if valid else "Nothing may stand here."
            return Problem(where, f"{where} is not known", f"Did you mean {near}? {known}" if near else known, near)
        case "missing":
            return Problem(where, f"{where} is missing", missing=True)
        case "union_tag_invalid" | "union_tag_not_found":
            context = details.get("ctx", {})
            return Problem(where, f"{where}.kind must be one of {context.get('expected_tags', 'the known kinds')}")
        case _:
            message = details["msg"]
            return Problem(where, f"{where}: {message[:1].lower()}{message[1:]}" if where else message)


def _names(holder: Any) -> list[str]:
    """Fields of a model, as they are written."""
    return [field.alias or name for name, field in holder.model_fields.items()] if _is_model(holder) else []


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _follow(loc: Loc, model: type[BaseModel]) -> tuple[Loc, Any]:
    """The location without the tags that pydantic puts in for unions, and what holds its last step."""
    shown: list[int | str] = []
    here: Any = model
    holder: Any = model
    for step in loc:
        here = _plain(here)
        tagged = _tagged(here, step)
        if tagged is not None:
            here = holder = tagged
            continue
        if get_origin(here) in (Union, types.UnionType):
            continue  # the name of one of several types, such as dict[str,any]
        holder = here
        shown.append(step)
        here = _inside(here, step)
    return tuple(shown), holder


def _plain(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        if len(parts) == 1:
            return _plain(parts[0])
    return annotation


def _tagged(annotation: Any, tag: int | str) -> Any:
    """The member of a tagged union whose Literal field admits ``tag``."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    for member in filter(_is_model, get_args(annotation)):
        for field in member.model_fields.values():
            if get_origin(field.annotation) is Literal and tag in get_args(field.annotation):
                return member
    return None


def _inside(annotation: Any, step: int | str) -> Any:
    if _is_model(annotation):
        fields = (field for name, field in annotation.model_fields.items() if (field.alias or name) == step)
        return next((field.annotation for field in fields), None)
    arguments = get_args(annotation)
    if get_origin(annotation) is dict and len(arguments) == 2:
        return arguments[1]
    return arguments[0] if arguments else None
