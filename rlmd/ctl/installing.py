"""What ``rlmctl install`` puts on the disk and ``uninstall`` takes away: exactly what the manifest says.

The manifest is the one memory of it: each file with the digest that was written. A file that somebody changed since is
theirs, and stays. Knows no systemd; see ``commands/install.py``.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

import rlmd
from rlmd import launcher
from rlmd.config import Paths
from rlmd.ctl.shared import shared
from rlmd.errors import Conflict, RlmdError, SourceUnreadable

#: Programs that the unit names, for an install in the usual place.
_PROGRAMS = {"%h/.local/share/rlmd/venv/bin/rlmd": "rlmd", "%h/.local/share/rlmd/venv/bin/rlmctl": "rlmctl"}


class Installed(BaseModel):
    """``files`` with their SHA-256, ``folders`` that were made for them, ``linger`` when it was turned on here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    files: Mapping[str, str] = {}
    folders: tuple[str, ...] = ()
    linger: bool = False


@dataclass(frozen=True, slots=True)
class Homes:
    """The folders of one user that others than rlmd read."""

    config: Path
    data: Path
    programs: Path
    manifest: Path

    @classmethod
    def of(cls, paths: Paths, environment: Mapping[str, str] = os.environ) -> Homes:
        home = Path(environment.get("HOME") or Path("~").expanduser())
        given = Path(environment.get("XDG_DATA_HOME", ""))
        data = given if given.is_absolute() else home / ".local" / "share"
        return cls(paths.config.parent, data, home / ".local" / "bin", paths.state / "installed.json")


def planned(homes: Homes, completions: Mapping[str, str], manual: str) -> dict[Path, bytes]:
    """Every file with its content.

    Args:
        completions: Shell → script.
        manual: The page of rlmctl.
    """
    return dict(
        [
            *_launchers(homes),
            *_units(homes),
            (homes.data / "bash-completion" / "completions" / "rlmctl", completions["bash"].encode()),
            (homes.data / "zsh" / "site-functions" / "_rlmctl", completions["zsh"].encode()),
            (homes.config / "fish" / "completions" / "rlmctl.fish", completions["fish"].encode()),
            (homes.data / "man" / "man1" / "rlmctl.1", manual.encode()),
            *((homes.data / "rlmd" / "elisp" / file.name, file.read_bytes()) for file in _elisp()),
        ]
    )


def _elisp() -> list[Path]:
    return sorted(shared("elisp").glob("*.el"))


def _launchers(homes: Homes) -> Iterator[tuple[Path, bytes]]:
    """What starts the programs of a virtual environment, and outlives its Python. A distribution's package needs none:
    it is made anew with each Python."""
    if sys.prefix == sys.base_prefix:
        return
    folder = homes.data / "rlmd"
    for module in ("launcher.py", "mending.py"):
        yield folder / module, Path(rlmd.__file__).with_name(module).read_bytes()
    for program in launcher.PROGRAMS:
        yield folder / program, _script(folder, program)
    if not _leads_here(homes.programs / "rlmctl"):
        yield homes.programs / "rlmctl", _script(folder, "rlmctl")


def _script(folder: Path, program: str) -> bytes:
    """-P and -I: a file in some folder must not stand in for a module."""
    venv, starter = shlex.quote(sys.prefix), shlex.quote(str(folder / "launcher.py"))
    return f"""\
#!/bin/sh
# Written by rlmctl install: starts {program}, also when the Python of its environment has been exchanged.
venv={venv} launcher={starter}
[ ! -x "$venv/bin/python" ] || exec "$venv/bin/python" -P "$launcher" "$venv" {program} "$@"
exec python3 -I "$launcher" "$venv" {program} "$@"
""".encode()


def _leads_here(path: Path) -> bool:
    """A link to this environment's own program: of pipx, uv, or made by hand; it stays."""
    return path.is_symlink() and path.resolve().parent == Path(sys.prefix).resolve() / "bin"


def _units(homes: Homes) -> Iterator[tuple[Path, bytes]]:
    folder = homes.config / "systemd" / "user"
    for file in sorted(shared("systemd").glob("rlmd.*")):
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".service":
            for program, name in _PROGRAMS.items():
                if f"={program}" not in text:
                    raise Conflict(f"The unit that came with this rlmd does not start {program}.")
                # the space or line end after it tells rlmd from rlmctl
                for end in (" ", "\n"):
                    text = text.replace(f"={program}{end}", f"={_start(homes, name)}{end}")
        yield folder / file.name, text.encode()


def _start(homes: Homes, program: str) -> str:
    """What starts a program in a unit."""
    if sys.prefix == sys.base_prefix:
        return f"{_quoted(sys.executable)} -P -m {launcher.PROGRAMS[program]}"
    return _quoted(str(homes.data / "rlmd" / program))


def _quoted(path: str) -> str:
    """A path as a unit's command line has it, systemd.service(5)."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def read_manifest(file: Path) -> Installed:
    """Raises ``SourceUnreadable`` for one that cannot be understood: guessing would remove what is not ours."""
    try:
        return Installed.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Installed()
    except (OSError, ValidationError):
        raise SourceUnreadable(
            f"{file}, which says what was installed, cannot be read.", hint="Put it aside to install anew."
        ) from None


def foreign(files: Mapping[Path, bytes], known: Installed) -> list[Path]:
    """Those that are there already, with other content than ours or what we wrote before."""
    found = []
    for path, content in files.items():
        there = _content(path)
        if there is not None and there != content and _digest(there) != known.files.get(str(path)):
            found.append(path)
    return found


def write(files: Mapping[Path, bytes], homes: Homes, known: Installed, *, linger: bool) -> Installed:
    """Writes the files, the manifest first, so that what is written is always known."""
    folders = [*known.folders]
    for path in files:
        folders += [str(one) for one in _missing(path.parent) if str(one) not in folders]
    digests = {**known.files, **{str(path): _digest(content) for path, content in files.items()}}
    made = Installed(files=digests, folders=tuple(folders), linger=known.linger or linger)
    _write(homes.manifest, made.model_dump_json(indent=1).encode(), mode=0o600)
    for path, content in files.items():
        _write(path, content, mode=0o755 if content.startswith(b"#!") else 0o644)
    return made


def remove(known: Installed, manifest: Path) -> tuple[list[Path], list[Path]]:
    """Removes what the manifest says, and then itself: the files removed, and those that somebody changed."""
    gone: list[Path] = []
    kept: list[Path] = []
    for name, digest in known.files.items():
        there = _content(Path(name))
        if there is None:
            continue
        if _digest(there) == digest:
            Path(name).unlink()
            gone.append(Path(name))
        else:
            kept.append(Path(name))
    for folder in sorted(known.folders, key=len, reverse=True):
        _remove_empty(Path(folder))
    manifest.unlink(missing_ok=True)
    return gone, kept


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # somebody else has something there


def _missing(folder: Path) -> list[Path]:
    """The folders that must be made, outermost first."""
    found: list[Path] = []
    while not folder.exists():
        found.insert(0, folder)
        folder = folder.parent
    return found


def _write(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RlmdError(f"{path} cannot be written: {error.strerror}.", hint="See its folder's owner.") from None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceUnreadable(f"{path} cannot be read: {error.strerror}.") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
