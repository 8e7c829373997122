"""The help of rlmctl: every command shows what to type, what is shown can be typed, and no summary is cut."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from rlmd.ctl.app import app
from rlmd.ctl.examples import EXAMPLES

ROOT = typer.main.get_group(app)
#: Columns of an ordinary terminal, and what stands beside a summary besides the command's name.
COLUMNS, BESIDE = 80, 6


def commands(group: TyperGroup = ROOT, path: str = "") -> Iterator[tuple[str, TyperCommand | TyperGroup, int]]:
    """Each command and group, with the width of the column of names that it stands in."""
    width = max(map(len, group.commands))
    for name, command in group.commands.items():
        assert isinstance(command, TyperCommand | TyperGroup)
        yield f"{path}{name}", command, width
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{path}{name} ")


def lines(text: str | None) -> list[str]:
    """What a help text tells to type, without what is said of it."""
    found = re.findall(r"^\s+(?:.*\| )?(rlmctl \S.*?)(?:   ?\S.*)?$", text or "", re.MULTILINE)
    return [line.split("  ")[0] for line in found]


SHOWN = {path: lines(command.epilog) for path, command, _ in commands() if not isinstance(command, TyperGroup)}
SHOWN["budget"] = lines(ROOT.commands["budget"].epilog)


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(path, one, id=path) for path, one, _ in commands() if path in SHOWN]
)
def test_every_command_has_an_example(path: str, command: TyperCommand | TyperGroup) -> None:
    assert f"rlmctl {path}" in (command.epilog or "")


@pytest.mark.parametrize("line", sorted({line for found in SHOWN.values() for line in found}))
def test_what_help_shows_can_be_typed(line: str) -> None:
    _, *words = shlex.split(re.split(r"[<>|]", line)[0])
    command: TyperCommand | TyperGroup = ROOT
    while isinstance(command, TyperGroup) and words and words[0] in command.commands:
        found = command.commands[words.pop(0)]
        assert isinstance(found, TyperCommand | TyperGroup)
        command = found
    if not isinstance(command, TyperGroup):
        command.make_context("it", words)  # parses, and runs nothing; a mistake is an exception


def test_the_table_names_commands() -> None:
    known = {path for path, _, _ in commands()}
    assert set(EXAMPLES) <= known


@pytest.mark.parametrize(("path", "command", "width"), [pytest.param(*one, id=one[0]) for one in commands()])
def test_no_summary_is_cut(path: str, command: TyperCommand | TyperGroup, width: int) -> None:
    assert not command.get_short_help_str(COLUMNS - BESIDE - width).endswith("..."), command.help
