"""The config's files: read at the start and at a reload, checked whole.

Sources, later ones win: defaults, ``~/.config/rlmd/config.toml``, ``config.d/*.toml`` in name order.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlmd.config.paths import Paths
from rlmd.config.settings import Settings
from rlmd.errors import ConfigInvalid
from rlmd.validation import problems_of


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """``file`` is None for what only the files together have wrong."""

    file: Path | None
    sentence: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file else ""
        return f"{where}{self.sentence}.{' ' + self.hint if self.hint else ''}"


def load_settings(paths: Paths) -> Settings:
    """Reads and checks all files. Raises ``ConfigInvalid`` that tells every problem."""
    settings, problems = check_settings(paths)
    if settings is None:
        first, *others = problems
        raise ConfigInvalid(
            "; ".join(str(problem).rstrip(".") for problem in problems[:5]) + ".",
            hint=first.hint or "rlmctl config check lists every problem.",
            problems=1 + len(others),
        )
    return settings


def check_settings(paths: Paths) -> tuple[Settings | None, list[ConfigProblem]]:
    """The settings, or None and everything that is wrong with them, file by file."""
    merged: dict[str, Any] = {}
    problems: list[ConfigProblem] = []
    for file in paths.config_files:
        try:
            values = _read(file)
        except ConfigInvalid as error:
            problems.append(ConfigProblem(file, error.message.rstrip("."), error.hint))
            continue
        problems += [ConfigProblem(file, *found) for found in _wrong(values, missing=False)]
        merged = _merge(merged, values)
    if problems:
        return None, problems
    try:
        settings = Settings.model_validate(merged)
    except ValidationError:
        return None, [ConfigProblem(None, *found) for found in _wrong(merged, missing=True)]
    dangling = [ConfigProblem(None, *found) for found in _dangling(settings)]
    return (None, dangling) if dangling else (settings, [])


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"Not valid TOML: {error}", hint="https://toml.io/en/v1.0.0 is the format.") from None
    except UnicodeDecodeError:
        raise ConfigInvalid("Not valid UTF-8", hint="Save the file as UTF-8.") from None
    except OSError as error:
        raise ConfigInvalid(f"Cannot be read: {error.strerror}", hint="Check its owner and mode.") from None


def _wrong(values: dict[str, Any], *, missing: bool) -> list[tuple[str, str]]:
    """What is wrong in one file (where a key may be missing because another file has it) or in all together."""
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        found = problems_of(error, Settings)
        return [(problem.sentence, problem.hint) for problem in found if missing or not problem.missing]
    return []


def _merge(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; any other value replaces the older one."""
    merged = dict(older)
    for key, value in newer.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            value = _merge(before, value)
        merged[key] = value
    return merged


def _dangling(settings: Settings) -> list[tuple[str, str]]:
    """Candidates of roles that name no configured host, or a model that its host does not list."""
    found = []
    for role in ("root", "sub"):
        for candidate in getattr(settings.roles, role):
            host, _, model = candidate.partition("/")
            known = settings.hosts.get(host)
            if known is None:
                hosts = ", ".join(settings.hosts) or "none"
                found.append((f"roles.{role}: {candidate} names no configured host", f"Hosts: {hosts}."))
            elif model and known.models and model not in known.models:
                found.append(
                    (f"roles.{role}: host {host} lists no model {model}", f"Models: {', '.join(known.models)}.")
                )
    return found
