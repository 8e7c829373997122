"""A Python that is exchanged under rlmd's environment: told by rlmctl and rlmd, mended by ``rlmctl doctor``.

As an upgrade of the distribution does it, the packages are below another ``lib/python3.X`` than the one that is
looked at.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT, Folders
from tests.shell import PATIENCE

NOW = f"python{sys.version_info[0]}.{sys.version_info[1]}"
BEFORE = f"python{sys.version_info[0]}.{sys.version_info[1] - 1}"


def environment_of(folders: Folders) -> dict[str, str]:
    kept = {"PATH", "LANG", "HOME", "XDG_RUNTIME_DIR"}
    made = {name: value for name, value in folders.environment().items() if name in kept}
    return {**made, **{name: value for name, value in os.environ.items() if name.startswith("PIP_")}}


def run(environment: dict[str, str], *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rlmd as pip would have put it there."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("rlmd", "elisp", "systemd", "pyproject.toml", "README.md", "LICENSE"):
        found = ROOT / name
        if found.is_dir():
            shutil.copytree(found, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(found, source)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (folder / "dist").iterdir()
    shutil.unpack_archive(wheel, folder / "site", "zip")
    return folder / "site"


@pytest.fixture
def venv(folders: Folders, unpacked_wheel: Path) -> Path:
    """An environment with rlmd installed for this Python; what rlmd needs is lent by the tests' own."""
    made = folders.home / ".local/share/rlmd/venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    site = made / "lib" / NOW / "site-packages"
    shutil.copytree(unpacked_wheel, site, dirs_exist_ok=True)
    (site / "lent.pth").write_text(f"{sys.prefix}/lib/{NOW}/site-packages\n")
    script = made / "bin" / "rlmctl"
    script.write_text(f"#!{made}/bin/python\nfrom rlmd.ctl.main import main\nmain()\n")
    script.chmod(0o755)
    done = run(environment_of(folders), script, "install", "--yes")
    assert done.returncode == 0, done.stderr
    return made


def exchange_python(venv: Path) -> None:
    """What was installed is for another one now; what the new one would get from the index is lent again."""
    (venv / "lib" / NOW).rename(venv / "lib" / BEFORE)
    site = venv / "lib" / NOW / "site-packages"
    site.mkdir(parents=True)
    shutil.move(venv / "lib" / BEFORE / "site-packages" / "lent.pth", site)


async def test_a_python_that_was_exchanged_is_told_and_mended(folders: Folders, venv: Path) -> None:
    environment = environment_of(folders)
    rlmctl, rlmd = folders.home / ".local/bin/rlmctl", folders.home / ".local/share/rlmd/rlmd"
    assert run(environment, rlmctl, "--version").stdout.startswith("rlmctl ")
    exchange_python(venv)
    broken = run(environment, rlmctl, "status")
    assert broken.returncode == 78
    assert f"with Python {BEFORE.removeprefix('python')}, and now" in broken.stderr
    assert "rlmctl doctor --fix" in broken.stderr
    assert "Traceback" not in broken.stderr
    daemon = run(environment, rlmd)
    assert (daemon.returncode, "rlmctl doctor --fix" in daemon.stderr) == (78, True)
    assert run(environment, rlmctl, "doctor").returncode == 1  # nobody is there to say yes
    assert not (venv / "lib" / NOW / "site-packages/rlmd").exists()
    mended = run(environment, rlmctl, "doctor", "--fix")
    assert mended.returncode == 0, mended.stderr
    assert "rlmd is well again" in mended.stderr
    assert not (venv / "lib" / BEFORE).exists()
    checked = run(environment, rlmd, "--check")
    assert checked.returncode == 0, checked.stderr
    assert f"Python {sys.version.split()[0]} of {venv}" in checked.stdout
    assert run(environment, venv / "bin/rlmctl", "--version").returncode == 0
    told = json.loads(run(environment, venv / "bin/python", "-P", "-c", _DIRECT).stdout)
    assert told == {"files": True}


#: What was installed again is the same package, with what is no Python in it.
_DIRECT = "import json, rlmd.ctl.shared as s; print(json.dumps({'files': (s.shared('elisp') / 'rlm.el').is_file()}))"


async def test_what_cannot_be_mended_is_as_it_was(folders: Folders, venv: Path) -> None:
    environment = environment_of(folders)
    rlmctl = folders.home / ".local/bin/rlmctl"
    exchange_python(venv)
    (venv / "lib" / NOW / "site-packages/lent.pth").unlink()
    unreachable = {**environment, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folders.root)}
    failed = run(unreachable, rlmctl, "doctor", "--fix")
    assert failed.returncode == 1
    assert "Nothing was lost; try again." in failed.stderr
    assert (venv / "lib" / BEFORE / "site-packages/rlmd/ctl/main.py").exists()
    assert run(environment, rlmctl, "status").returncode == 78


async def test_an_environment_whose_python_is_gone_still_says_so(folders: Folders, venv: Path) -> None:
    """As when the link leads to a Python that was uninstalled: another one, on the PATH, runs the launcher."""
    environment = environment_of(folders)
    for link in (venv / "bin").glob("python*"):
        link.unlink()
    (venv / "bin" / "python").symlink_to("/nonexistent/python3.9")
    exchange_python(venv)
    process = await asyncio.create_subprocess_exec(
        folders.home / ".local/bin/rlmctl", "run", "list", env=environment, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        _, told = await process.communicate()
    assert process.returncode == 78
    assert f"the Python of {venv} is gone" in told.decode()
    mended = run(environment, folders.home / ".local/bin/rlmctl", "doctor", "--fix")
    assert mended.returncode == 0, mended.stderr
    assert run(environment, folders.home / ".local/bin/rlmctl", "--version").returncode == 0


async def test_the_doctor_needs_no_daemon(folders: Folders, venv: Path) -> None:
    """Settings that keep the daemon from starting are told with all the rest."""
    environment = environment_of(folders)
    config = folders.home / ".config/rlmd/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("[limits]\nturn = 3\n")
    (folders.home / ".local/share/rlmd/rlmd").unlink()
    done = run(environment, folders.home / ".local/bin/rlmctl", "doctor")
    assert done.returncode == 1
    assert "ok   python: rlmd " in done.stdout
    assert "FAIL config: " in done.stdout
    assert "limits.turn is not known. Did you mean turns?" in done.stdout
    assert "FAIL daemon: " in done.stdout
    assert "FAIL unit: " in done.stdout
    assert "rlmctl install" in done.stdout
