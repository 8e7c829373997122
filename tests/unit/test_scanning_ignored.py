"""A folder that is named is loaded, even where the repository around it ignores it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlmd.contexts.scanning import Scanner, Tally


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in (
        ".git/info/exclude",
        "versions/3.11/lib/os.py",
        "versions/3.11/lib/os.pyc",
        "src/app.py",
        "src/app.pyc",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text")
    (tmp_path / ".gitignore").write_text("/versions/\n*.pyc\n")
    return tmp_path


def names(root: Path) -> list[str]:
    return [file.name for file in Scanner(str(root), (), (), Tally()).files()]


def test_the_rules_above_a_folder_hold_in_it(repository: Path) -> None:
    assert names(repository / "src") == ["app.py"]
    assert names(repository) == [".gitignore", "src/app.py"]


@pytest.mark.parametrize("named", ["versions", "versions/3.11", "versions/3.11/lib"])
def test_an_ignored_folder_that_is_named_is_loaded(repository: Path, named: str) -> None:
    assert {Path(name).name for name in names(repository / named)} == {"os.py", "os.pyc"}


def test_rules_of_a_repository_hold_at_its_top(repository: Path) -> None:
    (repository / ".gitignore").unlink()
    (repository / ".git/info/exclude").write_text("*\n!src/\n!src/**\n")
    assert names(repository) == ["src/app.py", "src/app.pyc"]
