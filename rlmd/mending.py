"""Makes a virtual environment anew whose Python was exchanged, with the packages that it had.

Runs outside of that environment, by whichever Python there is: the standard library alone. See ``launcher.py``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

OLDEST = (3, 11)
#: What an environment has by itself.
_OWN = {"pip", "setuptools", "wheel"}
#: What pip adds to what a wheel has; scripts and compiled files it makes anew as well.
_OF_PIP = {"INSTALLER", "REQUESTED", "direct_url.json"}


class Unmended(Exception):
    """Why an environment is as broken as before; a sentence, and what to do."""


def diagnosis(venv: Path, missing: str) -> str:
    """What is wrong with an environment in which the module ``missing`` is not found."""
    now = ".".join(map(str, sys.version_info[:2]))
    if not (venv / "bin" / "python").exists():
        return f"the Python of {venv} is gone; there is Python {now}."
    if missing != "rlmd":
        return f"its package {missing} is not in {venv}."
    before = [found.parts[-3].removeprefix("python") for found in _installed(venv)]
    if before:
        return f"it was installed in {venv} with Python {before[0]}, and now Python {now} runs there."
    return f"it is not in {venv} any more."


def mend(venv: Path, say: Callable[[str], None]) -> None:
    """Makes the environment anew with the Python that runs this, and installs the packages that it had.

    The old packages are removed last, so that a failure leaves what there was.

    Raises ``Unmended``.
    """
    if sys.version_info < OLDEST:
        raise Unmended(f"rlmd needs Python {OLDEST[0]}.{OLDEST[1]} or later. Install one, and try again.")
    if not os.access(venv, os.W_OK):
        raise Unmended(f"{venv} is not yours to change. If it came with a package, build or install that again.")
    with _alone(venv):
        before = next(iter(_installed(venv)), None)
        if before is None:
            raise Unmended(f"{venv} has no rlmd that could be installed again. Install it as the first time.")
        with tempfile.TemporaryDirectory(prefix="rlmd-mend-") as work:
            wanted = [_source(before, Path(work)), *_others(before)]
            for link in (venv / "bin").glob("python*"):
                if link.is_symlink():  # they lead to the Python that was; venv would leave them
                    link.unlink()
            say(f"making {venv} anew with Python {sys.version.split()[0]} …")
            _run([sys._base_executable, "-m", "venv", str(venv)])  # type: ignore[attr-defined]
            say(f"installing {len(wanted)} packages …")
            _run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted])
        _run([str(venv / "bin" / "python"), "-P", "-c", "import rlmd.ctl.app, rlmd.daemon"])
        for old in _installed(venv):
            if old.parts[-3] != _now():
                shutil.rmtree(old.parents[1], ignore_errors=True)
    # One that still runs has lost its files; the next client starts the new one, which goes on with its runs.
    subprocess.run([venv / "bin" / "rlmctl", "daemon", "stop"], capture_output=True, check=False)
    say("rlmd is well again; `rlmctl doctor` looks at the rest.")


def _installed(venv: Path) -> list[Path]:
    """The ``dist-info`` folders of rlmd, those of another Python than ours first, and of them the newest."""
    found = venv.glob("lib/python3*/site-packages/rlmd-*.dist-info")
    return sorted(found, key=lambda one: (one.parts[-3] == _now(), -one.stat().st_mtime))


def _now() -> str:
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def _source(installed: Path, work: Path) -> str:
    """What pip installs rlmd from: the folder of one that is worked on, else the very files that were installed."""
    direct = installed / "direct_url.json"
    told = json.loads(direct.read_text(encoding="utf-8")) if direct.is_file() else {}
    folder = unquote(urlsplit(told.get("url", "")).path)
    if told.get("dir_info", {}).get("editable"):
        if not Path(folder).is_dir():
            raise Unmended(f"rlmd was run from {folder}, which is gone. Install it as the first time.")
        return f"--editable={folder}"
    return str(_repacked(installed, work))


def _repacked(installed: Path, work: Path) -> Path:
    """A wheel of the files that were installed, by their list (PEP 376, PEP 427)."""
    site, name = installed.parent, installed.name.removesuffix(".dist-info")
    wheel = work / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for row in (installed / "RECORD").read_text(encoding="utf-8").splitlines():
            path = row.split(",")[0].strip('"')
            of_pip = path.startswith("..") or path.endswith(".pyc") or Path(path).name in _OF_PIP
            if not of_pip and (site / path).is_file():
                archive.write(site / path, path)
    return wheel


def _others(installed: Path) -> list[str]:
    """The names of all other packages that were there, such as those of an extra; their versions are pip's choice."""
    found = set()
    for folder in installed.parent.glob("*.dist-info"):
        name = folder.name.removesuffix(".dist-info").rpartition("-")[0]
        if name.lower() not in _OWN and name != "rlmd":
            found.add(name)
    return sorted(found)


@contextlib.contextmanager
def _alone(venv: Path) -> Iterator[None]:
    """Of two that mend at once, the second waits."""
    try:
        folder = os.open(venv, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unmended(f"{venv}: {error.strerror}. Install rlmd as the first time.") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise Unmended(
            f"{' '.join(command[:4])} … ended with {done.returncode}:\n  {told}\n  Nothing was lost; try again."
        )
