"""Starts rlmctl and rlmd of a virtual environment, and knows what to do when that environment has lost them.

A distribution that goes from Python 3.13 to 3.14 takes the packages of every environment out of sight: they are below
``lib/python3.13``, and nothing in there can say so any more. ``rlmctl install`` puts copies of this file and of
``mending.py`` outside of the environment; this is what runs first, by whichever Python there is.

    python launcher.py VENV rlmctl|rlmd ARGUMENT…
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

#: Program → its module.
PROGRAMS = {"rlmctl": "rlmd.ctl.main", "rlmd": "rlmd.__main__"}
#: EX_CONFIG of sysexits.h: the unit does not try again.
UNUSABLE = 78


def main(arguments: Sequence[str]) -> int:
    """Runs the program; returns its exit status."""
    venv, program, *rest = arguments
    sys.argv = [program, *rest]
    if Path(sys.prefix).resolve() != Path(venv).resolve():  # its own Python does not run any more
        return _broken(Path(venv), program, rest, "rlmd")
    try:
        return int(importlib.import_module(PROGRAMS[program]).main() or 0)
    except ModuleNotFoundError as error:
        return _broken(Path(venv), program, rest, error.name or "rlmd")


def _broken(venv: Path, program: str, arguments: Sequence[str], missing: str) -> int:
    """Says what is wrong; ``rlmctl doctor`` mends it, after a yes or with --fix."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    mending = importlib.import_module("mending")
    _say(f"{program}: {mending.diagnosis(venv, missing)}")
    asked = program == "rlmctl" and arguments[:1] == ["doctor"]
    if not asked or ("--fix" not in arguments and not _agreed()):
        _say("  Mend it with: rlmctl doctor --fix")
        return 1 if asked else UNUSABLE
    try:
        mending.mend(venv, _say)
    except mending.Unmended as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Stopped half-way; rlmctl doctor --fix goes on.")
        return 130
    return 0


def _agreed() -> bool:
    if not sys.stdin.isatty():
        return False
    try:
        given = input("Make the environment anew with this Python, and install the same packages? [Y/n] ")
    except (EOFError, KeyboardInterrupt):
        _say("")
        return False
    return given.strip().lower() in ("", "y", "yes")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
