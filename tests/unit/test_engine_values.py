"""Long texts of a journal: stored once whoever stores them, and never told when their file is gone or cut."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlmd.engine.journal import Journal, read_text
from rlmd.engine.runfolder import DiskFolder
from rlmd.errors import InternalError, NotFound

LONG = "x" * 200_000


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(DiskFolder(tmp_path), ThreadPoolExecutor(2))


async def test_a_value_that_is_cut_or_gone_is_no_answer(journal: Journal) -> None:
    text = await journal.text(LONG)
    assert text.digest is not None
    file = journal.folder.path / "values" / text.digest
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InternalError) as damaged:
        read_text(journal.folder, text)
    assert damaged.value.hint
    file.unlink()
    with pytest.raises(NotFound) as gone:
        read_text(journal.folder, text)
    assert gone.value.hint


def test_two_equal_replies_at_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both threads have written before either renames."""
    both = threading.Barrier(2, timeout=30)
    rename = Path.rename

    def slow(self: Path, target: Path) -> Path:
        both.wait()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", slow)
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(journal._store, "0" * 64, LONG) for _ in range(2)]:
            done.result()
    assert [file.name for file in (journal.folder.path / "values").iterdir()] == ["0" * 64]
