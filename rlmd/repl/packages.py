"""The user's own packages in the REPL: which folders of a virtual environment a worker is shown (parent side).

Only the packages and the environment's shared libraries, read-only, never the whole of a home.
"""

from __future__ import annotations

import glob
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rlmd.errors import CageUnavailable

#: Threads that a numerical library makes for itself, at most; each takes some 40 MB of address space.
MOST_LIBRARY_THREADS = 4
#: How libraries are told of their number of threads.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS",
                     "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")  # fmt: skip
#: Shared libraries that are shown one by one; beyond it their folder is shown.
_MOST_LIBRARIES = 64


@dataclass(frozen=True, slots=True)
class Packages:
    """Packages for cells.

    Attributes:
        importable: Folders for ``sys.path``.
        readable: What a worker must be able to read for them.
    """

    importable: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.importable)

    @property
    def variables(self) -> dict[str, str]:
        """What keeps the libraries to their share of the machine."""
        threads = str(min(MOST_LIBRARY_THREADS, os.cpu_count() or 1))
        return dict.fromkeys(_THREAD_VARIABLES, threads) if self else {}


def packages_of(environment: Path | None) -> Packages:
    """The packages of a virtual environment (venv, uv, pipx, conda) made with this version of Python.

    Raises:
        CageUnavailable: It cannot be shown, with what to do instead.
    """
    if environment is None:
        return Packages()
    environment = environment.expanduser()
    refuse_home(str(environment), "repl.environment")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = [folder for lib in ("lib", "lib64") if (folder := environment / lib / version / "site-packages").is_dir()]
    importable = tuple(dict.fromkeys(os.path.realpath(folder) for folder in found))
    if not importable:
        raise CageUnavailable(
            f"The REPL's environment {environment} has no {version} packages",
            hint=f"Make it anew with the Python that runs rlmd: {sys.executable} -m venv {environment}",
        )
    return Packages(importable, (*importable, *shared_libraries(os.path.realpath(environment))))


def shared_libraries(prefix: str) -> list[str]:
    """The shared libraries of an interpreter or environment: one by one, or their folder where they are many."""
    library = os.path.join(prefix, "lib")
    shared = glob.glob(os.path.join(glob.escape(library), "*.so*"))
    return shared if len(shared) <= _MOST_LIBRARIES else [library]


def refuse_home(prefix: str, what: str) -> None:
    """A prefix that is the home, or holds it, would show what is in the home.

    Raises:
        CageUnavailable: It is.
    """
    real, home = os.path.realpath(prefix), os.path.realpath(os.path.expanduser("~"))
    if home == real or home.startswith(real.rstrip("/") + "/"):
        holds = "is your home folder" if home == real else "holds your home folder"
        raise CageUnavailable(
            f"{what}, {prefix}, {holds}; cells would see what is in it",
            hint="Use an interpreter or environment in a folder of its own: a virtual environment, pyenv, uv or pipx.",
        )
