"""The interpreter where users have it, and packages of theirs: usable in both cages, with nothing else of a home."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlmd.config import ReplSettings, Settings
from rlmd.engine import ExecuteRequest
from rlmd.errors import CageUnavailable
from rlmd.repl import CellReport, Workers
from rlmd.repl.packages import packages_of
from tests.house import House, new_id
from tests.repl import CAGES, Host
from tests.user_manager import ROOT, UID, exposed, privileged

AS_USER = Path(__file__).with_name("as_user.sh")


@pytest.fixture(scope="module")
def environment() -> Iterator[Path]:
    """A virtual environment with something real in it: code in C, a BLAS, threads."""
    with tempfile.TemporaryDirectory(prefix="rlmd-") as folder:
        made = Path(folder) / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
        pip = [sys.executable, "-m", "pip", "--python", made, "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--only-binary", ":all:", "--no-compile", "numpy"], check=True)
        yield made


async def run(workers: Workers, *cells: str) -> list[CellReport]:
    session = await workers.acquire()
    try:
        return [await session.run_cell(cell, Host(), seconds=60, output_chars=3000) for cell in cells]
    finally:
        await workers.close()


@pytest.mark.parametrize("cage", CAGES)
async def test_numpy_computes_in_the_cage(environment: Path, cage: str) -> None:
    """In products, which its library spreads over threads, in threads of the cell's own, and cell after cell."""
    reports = await run(
        Workers(plans=[CAGES[cage]], spare_workers=0, packages=environment),
        "import numpy as np\na = np.ones((600, 600))\nprint((a @ a).sum())",
        "float(np.linalg.svd(a)[1][0])",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n"
        "    print(sum(float((a @ a)[i, i]) for i in pool.map(int, range(4))))",
    )
    assert [(report.ok, report.lost) for report in reports] == [(True, False)] * 3, reports
    assert [round(float(report.output)) for report in reports] == [216_000_000, 600, 2400]


@pytest.mark.parametrize("cage", CAGES)
async def test_of_an_environment_only_the_packages_are_shown_and_none_can_be_changed(
    environment: Path, cage: str
) -> None:
    reports = await run(
        Workers(plans=[CAGES[cage]], spare_workers=0, packages=environment),
        f"import os\nos.listdir({str(environment / 'bin')!r})",
        "import numpy\nopen(os.path.dirname(numpy.__file__) + '/x', 'w')",
        f"open({str(environment / 'pyvenv.cfg')!r}).read()",
    )
    assert [report.ok for report in reports] == [False] * 3


async def test_a_session_with_random_numbers_of_numpy_is_woken_whole(environment: Path, tmp_path: Path) -> None:
    """The global generator's and those of generators without a seed come again; a generator that goes on goes on."""
    settings = Settings(repl=ReplSettings(spare_workers=0, environment=environment))
    drawing = (
        "import numpy as np\na = np.random.rand(3)\nb = np.random.default_rng().integers(1 << 60, size=3)\nprint(a, b)",
        "g = np.random.default_rng()\nprint(g.normal(), np.random.RandomState().rand(), np.random.permutation(9))",
    )
    async with House(tmp_path, settings) as house:
        told = [await house.engine.execute(ExecuteRequest(new_id(), code, session="s")) for code in drawing]
        assert [report.ok for report in told] == [True, True], told
    async with House(tmp_path, settings) as house:
        run_id = new_id()
        report = await house.engine.execute(ExecuteRequest(run_id, "print(a, b, g.normal())", session="s"))
        assert report.ok, report
        assert report.output.startswith(told[0].output.strip())
        started = next(one for one in await house.engine.facts(run_id) if one.type == "session_started")
        assert (started.lost, started.why, sum(len(one.cells) for one in started.woken)) == (False, "", 2)


async def test_random_numbers_of_numpy_differ_from_session_to_session(environment: Path) -> None:
    workers = Workers(spare_workers=0, packages=environment)
    sessions = [await workers.acquire(), await workers.acquire()]
    code = "import numpy as np\nprint(np.random.rand(), np.random.default_rng().random())"
    try:
        drawn = {(await one.run_cell(code, Host(), seconds=60, output_chars=300)).output for one in sessions}
    finally:
        await workers.close()
    assert len({number for output in drawn for number in output.split()}) == 4


async def test_a_thread_of_python_is_left_behind_with_packages_too(environment: Path) -> None:
    (report,) = await run(
        Workers(spare_workers=0, packages=environment),
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    )
    assert report.lost
    assert report.error == "threads: 1 left running by the cell"


def test_an_environment_of_another_python_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "lib" / "python2.7" / "site-packages").mkdir(parents=True)
    with pytest.raises(CageUnavailable, match="has no python3") as refused:
        packages_of(tmp_path)
    assert "-m venv" in refused.value.hint


def test_an_environment_that_is_the_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for holding in (tmp_path / "home", tmp_path, Path("~"), Path("/")):
        with pytest.raises(CageUnavailable, match="your home folder"):
            packages_of(holding)


_START = """
import asyncio, sys
from rlmd.config import ReplSettings, Settings
from rlmd.engine import ExecuteRequest
from rlmd.errors import CageUnavailable
from rlmd.repl import Workers
from tests.repl import CAGES, Host
from pathlib import Path
CELL = '''
import ctypes, json, os, sqlite3, ssl, sys, zoneinfo
def refused(action, *arguments):
    try:
        action(*arguments)
    except OSError:
        return True
print(refused(open, HOME + '/key'), refused(open, SITE + '/rlmd-canary'), zoneinfo.ZoneInfo('Europe/Paris'))
'''
async def main():
    home, site = sys.argv[1:]
    for plan in CAGES.values():
        workers = Workers(plans=[plan], spare_workers=0)
        try:
            session = await workers.acquire()
            cell = f"HOME, SITE = {home!r}, {site!r}" + CELL
            report = await session.run_cell(cell, Host(), seconds=20, output_chars=900)
            print(report.output.strip())
        except CageUnavailable as error:
            print(error.message, error.hint)
        await workers.close()
asyncio.run(main())
"""


def started(python: Path, home: Path, site: Path) -> list[str]:
    """What a worker of this interpreter tells, in each cage, as an ordinary user whose home is ``home``."""
    here = next(path for path in sys.path if path.endswith("site-packages"))
    become = [*privileged(), AS_USER, str(UID), *exposed(), "--"] if os.getuid() == 0 else []
    variables = [f"HOME={home}", f"PYTHONPATH={ROOT}:{here}", "PYTHONDONTWRITEBYTECODE=1"]
    done = subprocess.run(
        [*become, "env", *variables, python, "-c", _START, str(home), str(site)],
        capture_output=True, text=True, check=False, timeout=120, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that an ordinary user may enter, with a key in it."""
    with tempfile.TemporaryDirectory(prefix="rlmd-") as folder:
        Path(folder).chmod(0o755)
        (made := Path(folder) / "home").mkdir()
        (made / "key").write_text("secret")
        yield made


def interpreter_itself(home: Path) -> Path:
    """As pyenv has it, or the system."""
    return Path(os.path.realpath(sys.executable))


def in_a_venv(home: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / ".venv"], check=True)
    return home / ".venv/bin/python"


def as_uv_has_it(home: Path) -> Path:
    """The interpreter behind a link that names no patch version, and a virtual environment over that."""
    link = home / ".local/share/uv/python/cpython-3-linux"
    link.parent.mkdir(parents=True)
    link.symlink_to(sys.base_prefix)
    base = link / "bin" / Path(os.path.realpath(sys.executable)).name
    subprocess.run([base, "-m", "venv", "--without-pip", home / "project/.venv"], check=True)
    return home / "project/.venv/bin/python"


def as_pipx_has_it(home: Path) -> Path:
    """A virtual environment for one program, which is started through a link."""
    made = home / ".local/share/pipx/venvs/rlmd"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    (home / ".local/bin").mkdir()
    (home / ".local/bin/rlmd-python").symlink_to(made / "bin/python")
    return made / "bin/python"


@pytest.mark.parametrize("layout", [interpreter_itself, in_a_venv, as_uv_has_it, as_pipx_has_it])
def test_workers_start_wherever_the_interpreter_lives(layout: object, home: Path) -> None:
    python = layout(home)  # type: ignore[operator]
    site = python.parent.parent / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    if layout is not interpreter_itself:
        (site / "rlmd-canary").write_text("secret")
    assert started(python, home, site) == ["True True Europe/Paris"] * len(CAGES)


def test_an_interpreter_whose_prefix_is_the_home_is_refused_with_the_remedy() -> None:
    prefix = Path(os.path.realpath(sys.base_prefix))
    for told in started(Path(sys.executable), prefix, prefix):
        assert "is your home folder; cells would see what is in it" in told
        assert "virtual environment, pyenv, uv or pipx" in told
