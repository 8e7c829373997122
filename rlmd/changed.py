"""Which settings differ, and which of them a running daemon does not take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from rlmd.config import Settings

#: Read once at the start, section by section: what was made from them lives as long as the daemon. Everything else is
#: used from a reload on.
AT_START: Mapping[str, tuple[str, ...]] = {
    "repl": (
        "memory_bytes",
        "total_memory_bytes",
        "max_workers",
        "spare_workers",
        "bubblewrap",
        "environment",
    ),
    "cache": ("bytes",),
    "budget": ("time_zone",),
}


def changed(before: Settings, after: Settings) -> tuple[str, ...]:
    """Names of what differs, such as ``limits.turns`` and ``hosts.m40``; never values."""
    return tuple(_differences(before, after))


def _differences(before: BaseModel, after: BaseModel, prefix: str = "") -> Iterator[str]:
    for field in type(after).model_fields:
        one, other = getattr(before, field), getattr(after, field)
        if isinstance(one, BaseModel) and isinstance(other, BaseModel):
            yield from _differences(one, other, f"{prefix}{field}.")
        elif isinstance(one, Mapping) and isinstance(other, Mapping):
            names = dict.fromkeys([*one, *other])
            yield from (f"{prefix}{field}.{name}" for name in names if one.get(name) != other.get(name))
        elif one != other:
            yield f"{prefix}{field}"


def waits(name: str) -> bool:
    """Whether a change of this setting waits for a restart."""
    section, _, key = name.partition(".")
    return key in AT_START.get(section, ())


def in_use(before: Settings, after: Settings) -> Settings:
    """``after``, but for what is read once at the start, which is as it was."""
    kept = {
        section: getattr(after, section).model_copy(
            update={key: getattr(getattr(before, section), key) for key in keys}
        )
        for section, keys in AT_START.items()
    }
    return after.model_copy(update=kept)
