"""The recipes of docs/packaging, built by their distributions' own tools; what they make is installed, or looked at."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import trixie
from tests.harness import ROOT, Folders

#: An ordinary user, as makepkg will not run as root; the number need not exist.
BUILDER = 64_321

#: Some of what a package brings.
FILES = (
    *("usr/lib/systemd/user/rlmd.socket", "usr/share/man/man1/rlmctl.1.gz", "usr/share/licenses/rlmd/LICENSE"),
    *("usr/share/emacs/site-lisp/rlmd/rlm.el", "usr/share/bash-completion/completions/rlmctl"),
)

BUILD = """set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y install --no-install-recommends dpkg-dev make python3-venv
mkdir /tmp/build
cd /tmp/build
tar -xzf "$1"
cd rlmd-0.1.0
cp -r docs/packaging/debian .
dpkg-buildpackage -b -us -uc -d
dpkg -i ../rlmd_*.deb
useradd --create-home anna
echo 'The mill burned down because of a lantern.' > /home/anna/notes.txt
install -d -o anna -m 700 /run/user/anna
setpriv --reuid anna --regid anna --init-groups env -i HOME=/home/anna PATH=/usr/bin:/bin LANG=C.UTF-8 \
  XDG_RUNTIME_DIR=/run/user/anna sh -c 'cd; rlmctl ask -f notes.txt "Why did the mill burn down?"; rlmctl daemon stop' \
  > "$2/answer"
cat /usr/lib/systemd/user/rlmd.service > "$2/unit"
dpkg -s rlmd > "$2/status"
dpkg --purge rlmd
find /usr/lib/rlmd /usr/bin/rlmctl > "$2/left" 2> /dev/null || true
"""


def archive(folder: Path) -> Path:
    made = folder / "rlmd-0.1.0.tar.gz"
    subprocess.run(["git", "-C", str(ROOT), "archive", "--prefix=rlmd-0.1.0/", "-o", made, "HEAD"], check=True)
    return made


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_package_of_debian_is_built_installed_asked_and_removed(tmp_path: Path) -> None:
    made = archive(tmp_path)
    command = trixie.entering(
        trixie.fresh_folder(), "sh", "-c", BUILD, "sh", str(made), str(tmp_path), shared=tmp_path, forgets=True
    )
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "lantern" in (tmp_path / "answer").read_text()
    assert "ExecStart=/usr/bin/rlmd\n" in (tmp_path / "unit").read_text()
    assert "Depends: python3 (>= 3.13), python3 (<< 3.14)" in (tmp_path / "status").read_text()
    assert (tmp_path / "left").read_text() == ""


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_package_of_arch_is_built_and_makepkg_has_nothing_to_say_of_it(folders: Folders) -> None:
    """makepkg looks at the PKGBUILD, and then for what points back to the folder of the build."""
    folder = folders.root / "build"
    folder.mkdir()
    folders.root.chmod(0o755)
    shutil.copy(ROOT / "docs/packaging/arch/PKGBUILD", folder)
    archive(folder)
    for path in (folder, *folder.iterdir()):
        os.chown(path, BUILDER, BUILDER)
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    built = subprocess.run(
        ["setpriv", "--reuid", str(BUILDER), "--regid", str(BUILDER), "--clear-groups",
         "makepkg", "--nodeps", "--nocolor"],
        cwd=folder, env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "CARCH": "x86_64", "LANG": "C.UTF-8", **pip},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    said = [line for line in built.stderr.splitlines() if "WARNING" in line or "ERROR" in line]
    assert said == ["==> WARNING: Skipping dependency checks."]
    (package,) = folder.glob("rlmd-0.1.0-1-*.pkg.tar.*")
    there = folder / "unpacked"
    there.mkdir()
    subprocess.run(["bsdtar", "-x", "-f", package, "-C", there], check=True)
    assert (there / "usr/lib/rlmd/bin/rlmctl").read_text().startswith("#!/usr/lib/rlmd/bin/python\n")
    assert (there / "usr/bin/rlmctl").readlink() == Path("../lib/rlmd/bin/rlmctl")
    for path in FILES:
        assert (there / path).is_file(), path
    named = subprocess.run(["grep", "-rlF", str(folder), there / "usr"], capture_output=True, text=True, check=False)
    assert named.stdout == ""
