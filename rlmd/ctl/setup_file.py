"""The file that ``rlmctl setup`` writes: what stands in it and what is said of it, and how it gets to the disk.

It is a file of its own below ``config.d``; no other file of the settings is touched. It is checked together with them
before it is there, and appears whole or not at all. What an earlier setup wrote is kept beside it.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import tempfile
import tomllib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from rlmd.config import ConfigProblem, Paths, Settings, check_settings
from rlmd.errors import ConfigInvalid, RlmdError
from rlmd.tomltext import toml_of

Table = dict[str, Any]

_HEAD = """\
# Written by rlmctl setup; run it again to change it, or edit it: what you add here is kept.
# Every key: docs/configuration.md. What holds now: rlmctl config show. Is it right: rlmctl config check.
"""


def place(paths: Paths) -> Path:
    return paths.config / "config.d" / "setup.toml"


def earlier(paths: Paths) -> Table:
    """What an earlier setup wrote, with what was added by hand. Raises ``ConfigInvalid`` when it cannot be read."""
    file = place(paths)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not valid TOML"
        raise ConfigInvalid(f"{file} cannot be read: {reason}.", hint="Mend it, or put it aside.") from None


def settings_without(paths: Paths) -> Settings:
    """What all the other files say. Raises ``ConfigInvalid``."""
    settings, problems = _checked(paths, None)
    return _whole(settings, problems, "Mend them first; rlmctl config check lists them.")


def check(paths: Paths, text: str) -> Settings:
    """The settings as they will be with ``text`` in place. Raises ``ConfigInvalid``; nothing is changed."""
    settings, problems = _checked(paths, text)
    return _whole(settings, problems, "Nothing was changed.")


def write(paths: Paths, text: str) -> Path | None:
    """Puts the file there; returns where the earlier one is kept, if there was one."""
    file = place(paths)
    kept = None
    if file.exists():
        kept = file.with_name(file.name + "~")
        write_private(kept, file.read_text(encoding="utf-8"))
    write_private(file, text)
    return kept


def text_of(table: Table, remarks: Mapping[tuple[str, ...], str]) -> str:
    """The file: each key below what it means, where it is first set."""
    said: dict[str, tuple[str, ...]] = {}
    for way, told in _described(table, Settings, ()):
        said.setdefault(told, way)  # once is enough: what follows has the same meaning
    return _HEAD + toml_of(table, {**{way: told for told, way in said.items()}, **remarks})


def write_private(file: Path, text: str) -> None:
    """Whole or not at all, readable by the user alone; a file that is a link stays one."""
    file = file.resolve()
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise RlmdError(f"{file} cannot be written: {error.strerror}.", hint="See its folder's owner.") from None


def _checked(paths: Paths, text: str | None) -> tuple[Settings | None, list[ConfigProblem]]:
    """All files in a folder of their own, with ours as it would be, or without it."""
    with tempfile.TemporaryDirectory(prefix="rlmctl-setup-") as trial:
        there = dataclasses.replace(paths, config=Path(trial))
        ours = place(there)
        ours.parent.mkdir()
        for file in paths.config_files:
            copy = there.config / file.relative_to(paths.config)
            copy.write_bytes(file.read_bytes())
        ours.unlink(missing_ok=True)
        if text is not None:
            ours.write_text(text, encoding="utf-8")
        settings, problems = check_settings(there)
    real = [
        dataclasses.replace(one, file=paths.config / one.file.relative_to(trial)) if one.file else one
        for one in problems
    ]
    return settings, real


def _whole(settings: Settings | None, problems: list[ConfigProblem], hint: str) -> Settings:
    if settings is None:
        raise ConfigInvalid(" ".join(str(problem) for problem in problems[:5]), hint=hint)
    return settings


def _described(table: Table, model: Any, way: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The descriptions that the settings themselves have of the keys that are set."""
    for key, value in table.items():
        below, told = _below(model, key)
        if told and not isinstance(value, dict):
            yield (*way, key), told
        if isinstance(value, dict) and below is not None:
            yield from _described(value, below, (*way, key))


def _below(model: Any, key: str) -> tuple[Any, str]:
    """What holds the values of ``key``, and what is said of it."""
    if get_origin(model) is dict:
        return get_args(model)[1], ""
    if get_origin(model) in (Union, types.UnionType):
        return _below(next((one for one in get_args(model) if _is_model(one)), None), key)
    if not _is_model(model) or (field := model.model_fields.get(key)) is None:
        return None, ""
    return field.annotation, field.description or ""


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
