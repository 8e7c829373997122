"""Programs of the user: files ``NAME.py`` in the config folder, each the code of a cell. Read when they are asked for,
so that an edit counts at once. Nothing of them runs here: they are compiled to find mistakes, and run in the cage.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from rlmd.errors import ConfigInvalid, InvalidParams
from rlmd.events import STRATEGIES

#: What a program may be called: as a strategy is written on a command line.
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
#: Bytes of a program: what is written by hand is far shorter.
_MOST_BYTES = 200_000
_MOST_SUMMARY = 200


@dataclass(frozen=True, slots=True)
class OwnProgram:
    """``summary`` is the first line of its docstring; ``problem`` says why it cannot be asked for."""

    name: str
    file: Path
    summary: str = ""
    problem: str | None = None


class OwnPrograms:
    """Args:
    folder: Where they are; it need not exist. None: there are none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def source(self, name: str) -> str:
        """The code of a program.

        Raises:
            InvalidParams: There is none of that name.
            ConfigInvalid: It cannot be read, or is no Python.
        """
        file = self._file(name)
        if file is None or not file.is_file():
            known = ", ".join([*STRATEGIES, *(one.name for one in self.listed() if one.problem is None)])
            where = f" A program of yours is a file {self._folder}/NAME.py." if self._folder else ""
            raise InvalidParams(f"There is no strategy {name!a}.", hint=f"There are {known}.{where}", field="strategy")
        return _checked(file)

    def listed(self) -> list[OwnProgram]:
        """Every file of the folder, those too that cannot be asked for."""
        files = sorted(self._folder.glob("*.py")) if self._folder is not None and self._folder.is_dir() else []
        return [_program(file) for file in files]

    def _file(self, name: str) -> Path | None:
        return self._folder / f"{name}.py" if self._folder is not None and NAME.fullmatch(name) else None


def _program(file: Path) -> OwnProgram:
    if file.stem in STRATEGIES:
        return OwnProgram(file.stem, file, problem="a strategy of rlmd is called that: give it another name")
    if not NAME.fullmatch(file.stem):
        return OwnProgram(file.stem, file, problem="a name is small letters, digits, - and _")
    try:
        tree = _tree(file, _checked(file))
    except ConfigInvalid as error:
        return OwnProgram(file.stem, file, problem=error.message.removeprefix(f"{file}: ").rstrip("."))
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    return OwnProgram(file.stem, file, summary[:_MOST_SUMMARY])


def _checked(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigInvalid(f"{file}: {error.strerror}.", hint="See its owner and mode.") from None
    if len(data) > _MOST_BYTES:
        raise ConfigInvalid(f"{file}: more than {_MOST_BYTES:,} bytes.", hint="Put its data into a context.")
    try:
        source = data.decode()
    except UnicodeDecodeError:
        raise ConfigInvalid(f"{file}: not valid UTF-8.", hint="Save the file as UTF-8.") from None
    _tree(file, source)
    return source


def _tree(file: Path, source: str) -> ast.Module:
    """Parsed as a cell is: ``await`` may stand at the top."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = compile(source, file.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        raise ConfigInvalid(f"{file}: line {error.lineno}: {error.msg}.", hint="Mend it; it is read anew.") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigInvalid(f"{file}: {error}.", hint="Mend it; it is read anew.") from None
    assert isinstance(tree, ast.Module)
    return tree
