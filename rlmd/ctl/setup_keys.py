"""Where a host's key is: asked of a person, lent to the daemon for one question. No key is shown or logged."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlmd.config import Paths
from rlmd.ctl.asking import Asker
from rlmd.errors import InvalidParams

_WAYS = ("paste", "file", "command", "credential", "variable")


@dataclass(frozen=True, slots=True)
class Key:
    """At most one of them is set. ``typed`` is the key itself, which will be kept in a file of its own."""

    env: str | None = None
    file: str | None = None
    command: tuple[str, ...] = ()
    typed: str | None = field(default=None, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """As a host's section of the config has it."""
        given = {"api_key_env": self.env, "api_key_file": self.file, "api_key_command": list(self.command)}
        return {name: value for name, value in given.items() if value}


def ask_for_key(ask: Asker, name: str, paths: Paths) -> Key:
    """How rlmd gets the key of the host that will be called ``name``."""
    match ask.choice(f"How does rlmd get the key of {name}", _WAYS, otherwise=_WAYS[0]):
        case "paste":
            place = key_file(paths, name)
            question = f"The key (not shown; kept in {place}, readable by you alone)"
            return Key(typed=ask.text(question, hidden=True))
        case "file":
            return Key(file=readable(ask.text("File that holds the key and nothing else")))
        case "command":
            return Key(command=parsed_command(ask.text("Command that prints it, such as: pass show deepseek")))
        case "credential":
            hint = "the unit must have LoadCredential=NAME:PATH (systemctl --user edit rlmd)"
            return Key(file=ask.text(f"Name of the credential; {hint}", otherwise=name))
        case _:
            return Key(env=ask.text("Variable of the daemon's environment"))


@contextlib.contextmanager
def lent(key: Key, paths: Paths) -> Iterator[Key]:
    """A key that was typed, as a file of the runtime folder (in memory), while the block runs."""
    if key.typed is None and not key.settings:
        raise InvalidParams("No key was given.", hint="Say how rlmd gets it.")
    if key.typed is None:
        yield key
        return
    if not key.typed:
        raise InvalidParams("The key is empty.", hint="Paste it, or say in which file it is.")
    file = paths.runtime / f".key-{secrets.token_hex(8)}"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as out:
            out.write(key.typed)
        yield Key(file=str(file))
    finally:
        file.unlink(missing_ok=True)


def key_file(paths: Paths, name: str) -> Path:
    """Where a key that was typed is kept."""
    return paths.config / f"{name}.key"


def parsed_command(text: str) -> tuple[str, ...]:
    """``pass show deepseek`` as a program and its arguments; empty when it cannot be read."""
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return ()


def readable(path: str) -> str:
    """The path of a file as the config has it; a name that is empty stays so."""
    return str(Path(os.path.expanduser(path)).absolute()) if path else ""
