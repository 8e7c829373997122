"""Which files of a directory are found, and how the others are counted."""

import contextlib
import os
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from rlmd.contexts.opening import opener
from rlmd.contexts.scanning import Scanner, Tally
from rlmd.errors import InvalidParams, NotAllowed

#: How often each outcome of a race is met before it counts as run.
ROUNDS = 50

TREE = (
    "a.py", "build/out.o", "build/keep.txt", "docs/guide.md", "docs/draft.tmp", "docs/.gitignore", "src/.gitignore",
    "src/deep/x.log", "src/deep/keep.log", "src/deep/y.py", "vendor/.git/config", "vendor/lib.c", ".hidden/file",
    "node_modules/x/index.js", "src/sub/only.me", "foo/only.me", "with space/ä.txt",
)  # fmt: skip


def make_tree(root: Path) -> None:
    for name in TREE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    (root / ".gitignore").write_text("# comment\nbuild/*\n!build/keep.txt\n*.log\nnode_modules\n/foo/\n\n")
    (root / "src/.gitignore").write_text("!deep/keep.log\n/sub/\n")
    (root / "docs/.gitignore").write_text("*.tmp\n")


def found(root: Path, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> tuple[list[str], Tally]:
    tally = Tally()
    return [file.name for file in Scanner(str(root), include, exclude, tally).files()], tally


def test_same_files_as_git(tmp_path: Path) -> None:
    """Nested rules, negation, anchors, folders: what git would add is what is found (but for nested repositories)."""
    make_tree(tmp_path)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True, env=environment)
    (tmp_path / ".git/info/exclude").write_text("a.py\n")
    listed = subprocess.run(
        ["git", "-c", "core.quotePath=false", "ls-files", "-z", "-o", "--exclude-standard"],
        cwd=tmp_path, check=True, env=environment, capture_output=True,
    )  # fmt: skip
    expected = {name for name in listed.stdout.decode().split("\0") if name and not name.startswith("vendor")}
    names, _ = found(tmp_path)
    assert {name for name in names if not name.startswith("vendor")} == expected
    assert "vendor/lib.c" in names
    assert not any(".git/" in name for name in names)
    inside, _ = found(tmp_path / "src")
    assert set(inside) == {".gitignore", "deep/keep.log", "deep/y.py"}, "the rules above hold below"


def test_an_ignored_folder_that_is_named_itself_is_meant(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("build/\n*.o\n")
    write = tmp_path / "build" / "deep"
    write.mkdir(parents=True)
    (write / "x.txt").write_text("text")
    assert found(tmp_path)[0] == [".gitignore"]
    for named in (tmp_path / "build", write):
        assert [name.rpartition("/")[2] for name in found(named)[0]] == ["x.txt"]


def test_rules_with_carriage_returns_and_the_files_of_worktrees(tmp_path: Path) -> None:
    """A .gitignore of Windows; a worktree's or submodule's .git is a file."""
    (tmp_path / ".gitignore").write_bytes(b"*.log\r\nbuild\r\n")
    (tmp_path / ".git").write_text("gitdir: elsewhere\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".git").write_text("gitdir: ../elsewhere\n")
    for name in ("a.log", "build", "sub/b.log", "sub/c.txt"):
        (tmp_path / name).write_text("text")
    assert found(tmp_path)[0] == [".gitignore", "sub/c.txt"]


def test_include_and_exclude(tmp_path: Path) -> None:
    make_tree(tmp_path)
    names, tally = found(tmp_path, include=("*.py", "*.md"), exclude=("src/deep/",))
    assert names == ["a.py", "docs/guide.md"]
    counts = {s.reason: s.count for s in tally.report()}
    assert counts["excluded"] >= 2
    assert counts["ignored"] >= 2


def test_links_and_special_files_are_counted_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("text")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link.txt").symlink_to("real.txt")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(tmp_path / "socket"))
        names, tally = found(tmp_path)
    assert names == ["real.txt"]
    (special,) = tally.report()
    assert (special.reason, special.count) == ("special", 5)
    assert special.examples == ("gone", "link.txt", "loop", "pipe", "socket")


def test_names_that_are_no_utf8_are_printable_and_readable(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(path, "wb") as file:
        file.write(b"text")
    (file_found,) = Scanner(str(tmp_path), (), (), Tally()).files()
    assert file_found.name == "caf\\xe9.txt"
    assert os.path.exists(file_found.path)


def test_lines_that_are_no_patterns_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.log").write_text("text")
    (tmp_path / ".gitignore").write_bytes(b"!\n\\\n[z-a]\n[[:alpha:]]\ncaf\xe9\n*.log\r\n")
    assert found(tmp_path)[0] == [".gitignore", "a.txt"]
    with pytest.raises(InvalidParams, match="gitignore pattern"):
        found(tmp_path, exclude=("[z-a]",))


def test_a_folder_exchanged_for_a_link_meanwhile_leads_nowhere_else(tmp_path: Path) -> None:
    """Where links are not followed: neither what is in the other folder nor a name of it is ever seen."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder, name in ((root / "real", "inside"), (outside, "secret")):
        folder.mkdir(parents=True)
        (folder / name).write_text(name)
    (outside / "inside").write_text("not this one")
    link, folder = root / "link", root / "folder"
    link.symlink_to(outside)
    (root / "real").rename(folder)
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            folder.rename(root / "real")
            link.rename(folder)
            folder.rename(link)
            (root / "real").rename(folder)

    opened = opener(confined=True)
    thread = threading.Thread(target=exchange)
    thread.start()
    inside = refused = 0
    try:
        while inside < ROUNDS or refused < ROUNDS:
            tally = Tally()
            try:
                for file in Scanner(str(root), (), (), tally, opened=opened).files():
                    with open(opened(file.path, os.O_RDONLY)) as text:
                        assert text.read() == "inside"
                    inside += 1
            except (NotAllowed, OSError):
                refused += 1
            assert "secret" not in str(tally.report())
    finally:
        over.set()
        thread.join()


def test_depth_has_no_limit_but_the_system_s() -> None:
    root = tempfile.mkdtemp()
    try:
        with contextlib.chdir(root):
            for _ in range(1500):
                os.mkdir("d")
                os.chdir("d")
            Path("leaf").write_text("text")
        names, tally = found(Path(root))
        assert names == ["d/" * 1500 + "leaf"]
        assert tally.report() == ()
    finally:
        subprocess.run(["rm", "-rf", root], check=True)  # shutil recurses too deep
