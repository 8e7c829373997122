"""Questions to whoever runs a command: a person at a terminal, or nobody, for whom the defaults are taken."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import Protocol

import typer

from rlmd.ctl.terminal import Output, shown
from rlmd.errors import RlmdError
from rlmd.validation import nearest_of


class Asker(Protocol):
    def yes(self, question: str, *, otherwise: bool) -> bool: ...

    def text(self, question: str, *, otherwise: str = "", hidden: bool = False) -> str:
        """One line, without the space around it; ``hidden`` does not show what is typed."""
        ...

    def choice(self, question: str, options: Sequence[str], *, otherwise: str) -> str: ...

    def again(self, error: RlmdError) -> None:
        """The answer will not do: it is asked again, or, where nobody is there, raised."""
        ...


class Person:
    """At a terminal; Ctrl-C and the end of the input raise ``KeyboardInterrupt``."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def yes(self, question: str, *, otherwise: bool) -> bool:
        try:
            return typer.confirm(shown(question), default=otherwise, err=True)
        except typer.Abort:
            raise KeyboardInterrupt from None

    def text(self, question: str, *, otherwise: str = "", hidden: bool = False) -> str:
        try:
            if hidden:  # typer's own shows its question before it stops showing what is typed
                return getpass.getpass(f"{shown(question)}: ").strip()
            given = typer.prompt(shown(question), default=otherwise, show_default=bool(otherwise), err=True)
        except (typer.Abort, EOFError):
            raise KeyboardInterrupt from None
        return str(given).strip()

    def choice(self, question: str, options: Sequence[str], *, otherwise: str) -> str:
        while True:
            given = self.text(f"{question} ({', '.join(options)})", otherwise=otherwise).lower()
            found = [one for one in options if one == given] or [
                one for one in options if given and one.startswith(given)
            ]
            if len(found) == 1:
                return found[0]
            near = nearest_of(given, options)
            self._output.remark(f"Did you mean {near}?" if near else f"Say one of: {', '.join(options)}.", "yellow")

    def again(self, error: RlmdError) -> None:
        self._output.error(error)


class Nobody:
    """Takes what is taken when nothing is said."""

    def yes(self, question: str, *, otherwise: bool) -> bool:
        return otherwise

    def text(self, question: str, *, otherwise: str = "", hidden: bool = False) -> str:
        return otherwise

    def choice(self, question: str, options: Sequence[str], *, otherwise: str) -> str:
        return otherwise

    def again(self, error: RlmdError) -> None:
        raise error
