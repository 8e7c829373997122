"""What an MCP client may name: places beneath its roots, also while somebody exchanges folders for links."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from rlmd.errors import NotAllowed, RlmdError
from rlmd.mcp.files import open_beneath, roots_of

#: How often each outcome of the race is met before it counts as run.
ROUNDS = 300


def read(roots: tuple[Path, ...], named: str) -> str:
    with os.fdopen(open_beneath(roots, named).descriptor) as opened:
        return opened.read()


def test_roots_are_file_uris() -> None:
    told = ["file:///home/me/a%20b", "https://example.org/", "file://relative", "file:///x"]
    assert roots_of(told) == (Path("/home/me/a b"), Path("/x"))


def test_a_root_may_be_reached_by_a_link_and_a_file_named_by_either_name(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "a.txt").write_text("a")
    (tmp_path / "link").symlink_to(real)
    for named in ("a.txt", str(tmp_path / "link" / "a.txt"), str(real / "a.txt")):
        assert read((tmp_path / "link",), named) == "a"


def test_a_folder_whose_name_begins_like_the_roots_is_not_beneath_it(tmp_path: Path) -> None:
    for name in ("project", "project-secret"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    with pytest.raises(NotAllowed):
        read((tmp_path / "project",), str(tmp_path / "project-secret" / "a.txt"))
    with pytest.raises(NotAllowed):
        read((tmp_path / "project",), "a\0b")


def test_a_folder_is_named_without_links_and_a_root_is_one(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "inner").symlink_to(tmp_path / "real" / "sub")
    for named, path in (("sub", "real/sub"), (".", "real"), (str(tmp_path / "link"), "real")):
        opened = open_beneath((tmp_path / "link",), named)
        os.close(opened.descriptor)
        assert (opened.is_folder, opened.path) == (True, str(tmp_path / path))
    for named in ("inner", "..", str(tmp_path)):
        with pytest.raises(NotAllowed):
            open_beneath((tmp_path / "link",), named)


def test_a_folder_exchanged_for_a_link_meanwhile_leads_nowhere_else(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder, text in ((root / "real", "inside"), (outside, "secret")):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(text)
    link = root / "link"
    link.symlink_to(outside)
    folder = root / "folder"
    (root / "real").rename(folder)
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            folder.rename(root / "real")
            link.rename(folder)
            folder.rename(link)
            (root / "real").rename(folder)

    thread = threading.Thread(target=exchange)
    thread.start()
    opened = refused = 0
    try:
        while opened < ROUNDS or refused < ROUNDS:
            try:
                assert read((root,), "folder/a.txt") == "inside"
                opened += 1
            except RlmdError:
                refused += 1
    finally:
        over.set()
        thread.join()
