"""The manual page of rlmctl, made from the command line itself, so that it cannot say anything else.

The form is that of man(7), https://man7.org/linux/man-pages/man7/man.7.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import typer
from typer.core import TyperCommand, TyperGroup

from rlmd import __version__

#: Click's mark of a paragraph whose lines stay as they are.
_VERBATIM = "\b"


def manual(app: typer.Typer) -> str:
    """The page ``rlmctl(1)``."""
    root = typer.main.get_group(app)
    lines = [f'.TH RLMCTL 1 "" "rlmd {__version__}" "User Commands"', ".SH NAME"]
    lines += ["rlmctl \\- ask questions of texts of any size, answered with citations", ".SH SYNOPSIS"]
    lines += [".B rlmctl", "COMMAND [OPTIONS] [ARGUMENTS]", ".SH DESCRIPTION", *_prose(root.help or "")]
    lines.append(".SH COMMANDS")
    for name, command in _commands(root, "rlmctl"):
        lines += _command(name, command)
    lines += [".SH EXIT STATUS", *_prose(root.epilog or ""), ".SH SEE ALSO", ".BR rlmd (1)", ""]
    return "\n".join(lines)


def _commands(group: TyperGroup, path: str) -> Iterator[tuple[str, TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _commands(command, f"{path} {name}")
        elif isinstance(command, TyperCommand):
            yield f"{path} {name}", command


def _command(name: str, command: TyperCommand) -> Iterator[str]:
    with typer.Context(command, info_name=name) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        options = [record for one in command.params if (record := one.get_help_record(context)) is not None]
    yield ".SS " + _plain(f"{name} {usage}")
    yield from _prose(command.help or "")
    for names, told in options:
        yield ".TP"
        yield f"\\fB{_plain(names)}\\fR"
        yield _plain(told)
    if command.epilog:
        yield from _prose(command.epilog)


def _prose(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        yield ".PP"
        if _VERBATIM in paragraph:
            yield ".nf"
            yield from (_plain(line) for line in paragraph.split("\n") if line.strip() != _VERBATIM)
            yield ".fi"
        else:
            yield _plain(" ".join(paragraph.split()))


def _plain(text: str) -> str:
    """Escaped, so that no text is a macro."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
