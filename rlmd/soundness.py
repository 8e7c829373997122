"""What can be said of an installation without a daemon: the Python that runs, the settings, the folders, the unit.

For ``rlmd --check`` and ``rlmctl doctor``, which ask it when the daemon cannot be asked.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlmd import __version__
from rlmd.config import Paths, check_settings

#: Bytes without which nothing starts: locks, databases and journals are opened for writing.
LEAST_ROOM = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``hint`` says how to mend it."""

    name: str
    ok: bool
    message: str
    hint: str = ""


def of_installation(paths: Paths) -> list[Finding]:
    """The Python and the unit: what the daemon that runs says nothing of."""
    return [_python(), *_unit(paths)]


def of_settings(paths: Paths) -> list[Finding]:
    """Every problem of the files is one finding."""
    _, problems = check_settings(paths)
    if problems:
        return [Finding("config", False, str(problem)) for problem in problems]
    files = ", ".join(map(str, paths.config_files)) or "no config file: everything has its default"
    return [Finding("config", True, files)]


def of_folders(paths: Paths) -> list[Finding]:
    """Whether what the daemon writes to can be written to, without making it."""
    named = (("state folder", paths.state), ("cache folder", paths.cache), ("runtime folder", paths.runtime))
    return [_folder(name, folder) for name, folder in named]


def _python() -> Finding:
    version = sys.version.split()[0]
    where = sys.prefix if sys.prefix != sys.base_prefix else "the system"
    return Finding("python", True, f"rlmd {__version__} with Python {version} of {where}")


def _unit(paths: Paths) -> Iterator[Finding]:
    """A unit of the user's that starts what is not there any more."""
    file = paths.config.parent / "systemd" / "user" / "rlmd.service"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    started = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
    for command in started:
        program = _program(command)
        if not os.access(program, os.X_OK):
            yield Finding(
                "unit", False, f"{file} starts {program}, which is not there.", "Write it anew: rlmctl install"
            )
            return
    yield Finding("unit", True, str(file))


def _program(command: str) -> str:
    """The program of a unit's command line, systemd.service(5)."""
    words = shlex.split(command) or [""]
    home = str(Path("~").expanduser())
    return words[0].lstrip("-@:+!").replace("%h", home).replace("%%", "%").replace("$$", "$")


def _folder(name: str, folder: Path) -> Finding:
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if os.access(above, os.W_OK | os.X_OK) and above.is_dir():
        room = shutil.disk_usage(above).free
        if room < LEAST_ROOM:
            return Finding(name, False, f"{folder}: the disk is full ({room:,} bytes are free).", "Free some space.")
        return Finding(name, True, str(folder))
    return Finding(name, False, f"{folder} cannot be written to: {above} does not allow it.", "See its owner and mode.")
