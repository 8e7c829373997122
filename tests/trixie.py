"""Debian 13 in a folder: one with the Emacs 30.1 that it has, and a fresh one. Owns how it is made, and how a command
runs in it.

Made once by debootstrap in the user's cache folder (about four minutes and 1.3 GB), with a Python environment that has
what rlmd depends on. A command runs in a mount namespace of its own, with the repository at ``/repository``: when it
ends, nothing stays mounted. Needs root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSIDE = Path("/repository")
PACKAGES = (
    *("emacs-nox", "python3", "python3-venv", "git", "bubblewrap", "poppler-utils", "texinfo", "gpg", "gpg-agent"),
    *("elpa-magit", "elpa-package-lint", "openssh-server", "openssh-client", "procps", "curl", "ca-certificates"),
)
#: What a person who tries rlmd has: a Debian with nothing but Python.
FRESH = ("python3", "python3-venv", "ca-certificates", "procps")
#: What a command inside is given; the outer environment has paths that are not there.
ENVIRONMENT = {
    "PATH": "/opt/rlmd/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "RLM_TEST_PYTHON": "/opt/rlmd/bin/python",
}

#: $1 is the folder, $2 the repository, $3 a folder under /tmp that is seen inside too, or nothing, $4 is not empty
#: where what is written shall be forgotten; the rest a command.
#: What is mounted here is seen by this process alone.
ENTER = """set -e
if [ -n "$4" ]; then
  mount -t tmpfs tmpfs /mnt
  mkdir /mnt/written /mnt/work /mnt/seen
  mount -t overlay overlay -o "lowerdir=$1,upperdir=/mnt/written,workdir=/mnt/work" /mnt/seen
  shared=$3; repository=$2; shift 4
  set -- /mnt/seen "$repository" "$shared" "" "$@"
fi
mkdir -p "$1/repository"
mount --bind "$2" "$1/repository"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/tmp"
[ -z "$3" ] || { mkdir -p "$1$3" && mount --bind "$3" "$1$3"; }
folder="$1"; shift 4
exec chroot "$folder" sh -c 'cd /repository && exec "$@"' sh "$@"
"""


def entering(folder: Path, *command: str, shared: Path | None = None, forgets: bool = False) -> list[str]:
    """The command line that runs ``command`` inside, with the repository as its folder.

    Args:
        shared: A folder under /tmp that is seen inside too.
        forgets: Whether what is written inside is gone when the command ends.
    """
    names = (str(folder), str(ROOT), str(shared or ""), "yes" if forgets else "")
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh", *names, *command]


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["test"]]


def folder() -> Path:
    """Where Debian 13 with Emacs is, made if it is not there; what has changed since is made anew."""
    made = _debian("trixie", PACKAGES)
    stamp = made.with_suffix(".python")
    if _outdated(stamp, requirements()):
        _make_python(made)
        stamp.write_text(_digest(requirements()), encoding="utf-8")
    return made


def fresh_folder() -> Path:
    """Where a Debian 13 is on which nothing was ever installed."""
    return _debian("trixie-fresh", FRESH)


def _debian(name: str, packages: tuple[str, ...]) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlmd-tests"
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / name
    stamp = cache / f"{name}.packages"
    if _outdated(stamp, packages):
        shutil.rmtree(made, ignore_errors=True)
        (cache / f"{name}.python").unlink(missing_ok=True)
        _make_debian(made, packages)
        stamp.write_text(_digest(packages), encoding="utf-8")
    return made


def _digest(recipe: Iterable[str]) -> str:
    return hashlib.sha256(repr(tuple(recipe)).encode()).hexdigest()


def _outdated(stamp: Path, recipe: Iterable[str]) -> bool:
    return not stamp.exists() or stamp.read_text(encoding="utf-8") != _digest(recipe)


def _make_debian(made: Path, packages: tuple[str, ...]) -> None:
    include = ",".join(packages)
    # It ends with a complaint: packages that want /proc, or that break one another, are mended below.
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={include}", "trixie", str(made)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    for name in ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
        if Path(name).exists():
            shutil.copy(name, made / name.lstrip("/"))
    mend = "export DEBIAN_FRONTEND=noninteractive; dpkg --configure -a; apt-get -qq -y -f install"
    _inside(made, "sh", "-c", mend)


def _make_python(made: Path) -> None:
    _inside(made, "python3", "-m", "venv", "--clear", "/opt/rlmd")
    _inside(made, "/opt/rlmd/bin/pip", "install", "--quiet", *requirements())
    _inside(made, "sh", "-c", f"echo {INSIDE} > $(echo /opt/rlmd/lib/python3*/site-packages)/repository.pth")


def _inside(made: Path, *command: str) -> None:
    subprocess.run(entering(made, *command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
