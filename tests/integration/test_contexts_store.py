"""The store through its public door: what is loaded is there, exactly, and what is dropped is gone."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rlmd.contexts import ContextStore, FileIdentity, InlineSource, PathSource, PinnedContext, SpoolSource, loading
from rlmd.contexts.opening import identity_of
from rlmd.contexts.retention import Retention
from rlmd.errors import (
    Conflict,
    InvalidParams,
    NotFound,
    NotText,
    NotVisible,
    SourceMissing,
    SourceUnreadable,
    TooLarge,
    Unavailable,
)

ODD = "żółw 🐢 日本\r\n … \udce9 é NEEDLE \0 end"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ContextStore]:
    opened = await reopened(tmp_path)
    yield opened
    await opened.close()


async def reopened(root: Path) -> ContextStore:
    return await ContextStore.open(root / "state", root / "cache", root / "spool")


def blobs(root: Path) -> set[str]:
    return {p.name for p in (root / "state/contexts/store/blobs").rglob("*") if p.is_file()}


def whole(pinned: PinnedContext) -> dict[str, str]:
    return {d.name: pinned.read(d.name, 0, d.chars) for d in pinned.documents}


def tree(root: Path, **files: str) -> Path:
    for name, text in files.items():
        (root / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (root / name.replace("__", "/")).write_text(text)
    return root


async def test_inline_text_is_kept_as_it_was_sent(store: ContextStore) -> None:
    """Raw bytes, CRLF, NUL and astral characters each count as one code point, as in Emacs."""
    report = await store.load(InlineSource(ODD, origin="/home/me/notes.txt"))
    assert report.change == "created"
    assert report.context is not None
    assert report.context.name.startswith("notes.txt-")
    peek = await store.peek(report.context.name, start=ODD.index("NEEDLE"), chars=6)
    assert (peek.text, peek.start, peek.document_chars, peek.line) == ("NEEDLE", 18, len(ODD), 2)


async def test_the_same_again_is_unchanged_and_other_text_a_revision(store: ContextStore) -> None:
    first = await store.load(InlineSource("one"), name="notes")
    again = await store.load(InlineSource("one"), name="notes")
    second = await store.load(InlineSource("two"), name="notes")
    assert [r.change for r in (first, again, second)] == ["created", "unchanged", "updated"]
    assert again.context is not None
    assert second.context is not None
    assert (again.context.revision, second.context.revision) == (1, 2)
    old, new = await store.pin_revision("notes", 1), await store.pin("notes")
    assert whole(old) == {"text": "one"}
    assert whole(new) == {"text": "two"}
    with pytest.raises(NotFound):
        await store.pin_revision("notes", 3)


async def test_kind_is_fixed(store: ContextStore, tmp_path: Path) -> None:
    await store.load(InlineSource("one"), name="notes")
    with pytest.raises(Conflict):
        await store.load(PathSource((str(tree(tmp_path / "d", a="x")),)), name="notes")


async def test_directory_update_reads_only_what_changed(store: ContextStore, tmp_path: Path) -> None:
    folder = tree(tmp_path / "project", **{"a.txt": "alpha", "b.txt": "beta", "sub__c.txt": "gamma"})
    (folder / "image.bin").write_bytes(bytes(1000))
    source = PathSource((str(folder),))
    first = await store.load(source)
    assert first.context is not None
    name = first.context.name
    assert name.startswith("project-")
    assert [(s.reason, s.count, s.examples) for s in first.skipped] == [("binary", 1, ("image.bin",))]
    unchanged = await store.load(source)
    assert unchanged.change == "unchanged"
    # An unreadable unchanged file proves that it is not read again (its identity is the same).
    (folder / "b.txt").write_text("BETA and more")
    (folder / "sub/c.txt").unlink()
    (folder / "d.txt").write_text("delta")
    stored = blobs(tmp_path)
    updated = await store.load(source)
    assert updated.context is not None
    assert (updated.change, updated.context.revision, updated.context.name) == ("updated", 2, name)
    assert whole(await store.pin(name)) == {"a.txt": "alpha", "b.txt": "BETA and more", "d.txt": "delta"}
    assert whole(await store.pin_revision(name, 1)) == {"a.txt": "alpha", "b.txt": "beta", "sub/c.txt": "gamma"}
    (added,) = blobs(tmp_path) - stored
    size = (tmp_path / "state/contexts/store/blobs" / added[:2] / added).stat().st_size
    assert size == len("BETA and more") + len("delta"), "what did not change is not stored again"


async def test_a_touched_file_is_read_once_more_and_then_not(store: ContextStore, tmp_path: Path) -> None:
    folder = tree(tmp_path / "project", **{"a.txt": "alpha"})
    await store.load(PathSource((str(folder),)), name="p")
    os.utime(folder / "a.txt", ns=(1, 1))
    assert (await store.load(PathSource((str(folder),)), name="p")).change == "unchanged"
    # Same identity, other bytes: only a reader that trusts the identity reports no change.
    (folder / "a.txt").write_text("ALPHA")
    os.utime(folder / "a.txt", ns=(1, 1))
    assert (await store.load(PathSource((str(folder),)), name="p")).change == "unchanged"


async def test_encodings(store: ContextStore, tmp_path: Path) -> None:
    """A byte order mark is no part of the text; UTF-16 and UTF-32 become UTF-8; the digest read is told apart."""
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        file = tmp_path / encoding
        file.write_bytes("żółw\r\n".encode(encoding))
        report = await store.load(PathSource((str(file),)), name=encoding)
        assert whole(await store.pin(encoding)) == {encoding: "żółw\r\n"}
        _, (document,) = await store.info(encoding)
        assert document.digest != document.origin_digest
        assert bool(report.notes) == (encoding != "utf-8-sig")


async def test_source_errors(store: ContextStore, tmp_path: Path) -> None:
    binary = tmp_path / "data.bin"
    binary.write_bytes(bytes(5000))
    os.mkfifo(tmp_path / "pipe")
    for path, error in (
        (str(tmp_path / "gone.txt"), SourceMissing),
        (str(binary), NotText),
        (str(tmp_path / "pipe"), SourceUnreadable),
        ("relative.txt", InvalidParams),
        ("/with\0nul", InvalidParams),
    ):
        with pytest.raises(error) as caught:
            await store.load(PathSource((path,)))
        assert caught.value.hint
    assert store.list() == ()
    assert blobs(tmp_path) == set()


async def test_identity_guards_against_another_file_of_that_name(store: ContextStore, tmp_path: Path) -> None:
    file = tmp_path / "f.txt"
    file.write_text("text")
    seen = identity_of(file.stat())
    assert (await store.load(PathSource((str(file),), identity=seen))).change == "created"
    other = FileIdentity(seen.device, seen.inode + 1, seen.size, seen.mtime_ns)
    with pytest.raises(NotVisible):
        await store.load(PathSource((str(file),), identity=other))
    with pytest.raises(NotVisible):
        await store.load(PathSource((str(tmp_path / "only-the-client-has-it"),), identity=seen))


async def test_spool_files_are_consumed_when_durable(store: ContextStore, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    (spool / "buffer-1").write_bytes("\ufeffa buffer's text".encode())
    report = await store.load(SpoolSource("buffer-1", origin="*scratch*"))
    assert report.context is not None
    assert report.chars == len("\ufeffa buffer's text"), "a mark in a buffer counts: offsets are the buffer's"
    assert not (spool / "buffer-1").exists()
    (spool / "link").symlink_to("/etc/hostname")
    for name, error in (
        ("link", SourceUnreadable),
        ("../state/x", InvalidParams),
        ("/etc/hostname", InvalidParams),
        ("..", InvalidParams),
        ("gone", SourceMissing),
    ):
        with pytest.raises(error):
            await store.load(SpoolSource(name))
    (spool / "kept").write_bytes(bytes(5000))
    with pytest.raises(NotText):
        await store.load(SpoolSource("kept"))
    assert (spool / "kept").exists(), "what was not loaded is not consumed"


async def test_a_folder_is_that_which_the_client_saw(store: ContextStore, tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree", a="text")
    status = folder.stat()
    other = FileIdentity(status.st_dev, status.st_ino + 1, 0, 0)
    with pytest.raises(NotVisible):
        await store.load(PathSource((str(folder),), identity=other), name="tree")
    seen = FileIdentity(status.st_dev, status.st_ino, 0, 0)
    assert (await store.load(PathSource((str(folder),), identity=seen), name="tree")).documents == 1


async def test_more_than_the_client_takes_is_refused_whole(store: ContextStore, tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree", a="a" * 600, b="b" * 600)
    (folder / "c").write_bytes(b"\0" * 10_000)  # no text: it does not count
    source = PathSource((str(folder),))
    with pytest.raises(TooLarge, match="1,000 bytes"):
        await store.load(source, name="tree", max_bytes=1000)
    assert store.list() == ()
    assert (await store.load(source, name="tree", max_bytes=1200)).documents == 2
    assert (await store.load(source, name="tree", max_bytes=0)).change == "unchanged"


async def test_dry_run_keeps_nothing(store: ContextStore, tmp_path: Path) -> None:
    folder = tree(tmp_path / "project", **{"a.txt": "alpha", "b.txt": "beta"})
    report = await store.load(PathSource((str(folder),)), dry_run=True)
    assert (report.change, report.context, report.documents, report.chars) == ("created", None, 2, 9)
    assert store.list() == ()
    assert blobs(tmp_path) == set()
    await store.load(PathSource((str(folder),)))
    (folder / "a.txt").write_text("other")
    assert (await store.load(PathSource((str(folder),)), dry_run=True)).change == "updated"
    assert (await store.load(PathSource((str(folder),)))).change == "updated"


async def test_private_contexts_do_not_exist_for_egress_and_stay_private(store: ContextStore) -> None:
    await store.load(InlineSource("secret"), name="diary", private=True)
    await store.load(InlineSource("open"), name="notes")
    assert [c.name for c in store.list(egress=True)] == ["notes"]
    for ask in (store.pin, store.info, store.peek, store.drop):
        with pytest.raises(NotFound):
            await ask("diary", egress=True)  # type: ignore[operator]
    with pytest.raises(NotFound):
        await store.search("diary", "secret", egress=True)
    report = await store.load(InlineSource("more"), name="diary", private=False)
    assert report.context is not None
    assert report.context.private
    pinned = await store.pin("notes")
    raised = await store.load(InlineSource("open"), name="notes", private=True)
    assert raised.context is not None
    assert (raised.change, raised.context.revision) == ("updated", 1)
    assert not pinned.pin.private
    assert (await store.pin("notes")).pin.private


async def test_what_such_a_client_loaded_is_hidden_from_it_once_a_person_marks_it(store: ContextStore) -> None:
    """Its own name for it leads to nothing, and to a fresh one when it loads again."""
    await store.load(InlineSource("what it brought"), name="plan", egress=True)
    assert (await store.peek("plan", egress=True)).text == "what it brought"
    await store.set_private("egress/plan", True)
    assert list(store.list(egress=True)) == []
    for name in ("plan", "egress/plan"):
        for ask in (store.pin, store.info, store.peek, store.drop):
            with pytest.raises(NotFound):
                await ask(name, egress=True)  # type: ignore[operator]
    report = await store.load(InlineSource("another"), name="plan", egress=True)
    assert report.context is not None
    assert (report.context.name, report.change) == ("egress/egress/plan", "created")
    assert (await store.peek("plan", egress=True)).text == "another"
    assert (await store.peek("egress/plan")).text == "what it brought"


async def test_a_folder_that_was_moved_is_cited_where_it_is_now(tmp_path: Path, store: ContextStore) -> None:
    """Its files are the same by all that identifies them."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    (before / "a.txt").write_text("text")
    await store.load(PathSource((str(before),)), name="moved")
    before.rename(after)
    await store.load(PathSource((str(after),)), name="moved")
    assert [one.origin for one in (await store.pin("moved")).documents] == [str(after / "a.txt")]


async def test_a_text_that_grows_and_grows_is_stored_whole_now_and_then(
    tmp_path: Path, store: ContextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would lie in ever more places."""
    monkeypatch.setattr(loading, "_MOST_SEGMENTS", 3)
    monkeypatch.setattr(loading, "_GROWN_BYTES", 1)
    log, text = tmp_path / "a.log", ""
    counts = []
    for number in range(8):
        text += f"line {number}\n"
        log.write_text(text)
        await store.load(PathSource((str(log),)), name="log")
        pinned = await store.pin("log")
        counts.append(len(pinned.documents[0].segments))
        assert pinned.read("a.log", 0, 1000) == text
    assert counts == [1, 2, 3, 1, 2, 3, 1, 2]


async def test_what_a_session_holds_does_not_expire(tmp_path: Path) -> None:
    store = await ContextStore.open(
        tmp_path / "state", tmp_path / "cache", tmp_path / "spool", retention=Retention(implicit_days=0)
    )
    try:
        names = []
        for text in ("one\n", "two\n"):
            report = await store.load(InlineSource(text))
            assert report.context is not None
            names.append(report.context.name)
        gone = await store.collect({names[0]}, set(), dry_run=False)
        assert [one.name for one in gone] == names[1:]
        assert [info.name for info in store.list()] == names[:1]
    finally:
        await store.close()


async def test_drop_erases_what_only_it_used(store: ContextStore, tmp_path: Path) -> None:
    await store.load(InlineSource("shared text"), name="one")
    await store.load(InlineSource("shared text"), name="two")
    await store.load(InlineSource("its own text"), name="two")
    await store.search("two", "own")
    assert len(blobs(tmp_path)) == 2
    index = list((tmp_path / "cache").rglob("*.sqlite"))
    assert len(index) >= 1
    await store.drop("two")
    assert len(blobs(tmp_path)) == 1
    assert whole(await store.pin("one")) == {"text": "shared text"}
    await store.drop("one")
    assert blobs(tmp_path) == set()
    assert list((tmp_path / "cache").rglob("*.sqlite*")) == []
    catalogue = b"".join(p.read_bytes() for p in (tmp_path / "state/contexts/store").glob("catalogue*"))
    assert b"its own" not in catalogue
    with pytest.raises(NotFound):
        await store.pin("one")


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    store = await reopened(tmp_path)
    await store.load(InlineSource(ODD), name="odd", private=True)
    folder = tree(tmp_path / "project", **{"a.txt": "alpha", "b.txt": ODD.replace("\udce9", "")})
    await store.load(PathSource((str(folder),)), name="p")
    before, listed = whole(await store.pin("p")), store.list()
    await store.close()
    store = await reopened(tmp_path)
    try:
        assert store.list() == listed
        assert store.notices == ()
        assert whole(await store.pin("p")) == before
        assert whole(await store.pin("odd")) == {"text": ODD}
    finally:
        await store.close()


async def test_one_store_a_folder(store: ContextStore, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=str(os.getpid())):
        await reopened(tmp_path)
    assert whole_names(store) == []


def whole_names(store: ContextStore) -> list[str]:
    return [c.name for c in store.list()]


@pytest.mark.parametrize("damage", ["garbage", "cut", "other version"])
async def test_an_unreadable_catalogue_is_set_aside_with_its_texts(tmp_path: Path, damage: str) -> None:
    store = await reopened(tmp_path)
    await store.load(InlineSource("precious"), name="notes")
    await store.close()
    kept = blobs(tmp_path)
    catalogue = tmp_path / "state/contexts/store/catalogue.sqlite"
    data = catalogue.read_bytes()
    if damage == "garbage":
        catalogue.write_bytes(b"not a database" * 1000)
    elif damage == "cut":
        catalogue.write_bytes(data[: len(data) // 2])
    else:
        catalogue.write_bytes(data[:60] + (99).to_bytes(4, "big") + data[64:])
    store = await reopened(tmp_path)
    try:
        assert store.list() == ()
        (notice,) = store.notices
        (aside,) = (tmp_path / "state/contexts").glob("store.unreadable-*")
        assert str(aside) in notice.text
        assert {p.name for p in (aside / "blobs").rglob("*") if p.is_file()} == kept
        await store.load(InlineSource("new"), name="notes")
    finally:
        await store.close()


async def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    store = await reopened(tmp_path)
    await store.load(InlineSource("kept"), name="notes")
    await store.close()
    kept = blobs(tmp_path)
    folder = tmp_path / "state/contexts/store/blobs"
    (folder / "tmp" / "half").write_text("half written")
    (folder / "ab").mkdir(exist_ok=True)
    (folder / "ab" / ("ab" + "0" * 62)).write_text("never committed")
    store = await reopened(tmp_path)
    await store.close()
    assert blobs(tmp_path) == kept


async def test_a_missing_text_is_reported(tmp_path: Path) -> None:
    store = await reopened(tmp_path)
    await store.load(InlineSource("lost"), name="notes")
    await store.close()
    for path in (tmp_path / "state/contexts/store/blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    store = await reopened(tmp_path)
    try:
        assert len(store.notices) == 1
        with pytest.raises(NotFound):
            await store.peek("notes")
        assert (await store.load(InlineSource("lost"), name="notes")).context is not None
        assert whole(await store.pin("notes")) == {"text": "lost"}
    finally:
        await store.close()


async def test_a_cancelled_load_leaves_nothing_and_blocks_nobody(store: ContextStore, tmp_path: Path) -> None:
    big = tmp_path / "big.txt"
    big.write_bytes(b"line of text\n" * 4_000_000)
    load = asyncio.create_task(store.load(PathSource((str(big),)), name="big"))
    temporary = tmp_path / "state/contexts/store/blobs/tmp"
    while not any(temporary.iterdir()):
        await asyncio.sleep(0)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert blobs(tmp_path) == set()
    assert store.list() == ()
    assert (await store.load(InlineSource("next"), name="big")).change == "created"


async def test_concurrent_loads_of_one_name_follow_each_other(store: ContextStore) -> None:
    reports = await asyncio.gather(*(store.load(InlineSource(f"text {n}"), name="n") for n in range(5)))
    assert sorted(r.context.revision for r in reports if r.context) == [1, 2, 3, 4, 5]
    texts = {whole(await store.pin_revision("n", n))["text"] for n in range(1, 6)}
    assert texts == {f"text {n}" for n in range(5)}


class Writer:
    """A thread that changes a file again and again until the block ends."""

    def __init__(self, change: Callable[[int], None]) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(change,))

    def _run(self, change: Callable[[int], None]) -> None:
        for number in itertools.count():
            change(number)
            if self._stop.wait(0.0005):
                return

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


async def test_a_log_that_grows_is_loaded_as_far_as_it_was(store: ContextStore, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"a line of the log\n" * 1_000_000)
    with log.open("ab", buffering=0) as appended, Writer(lambda n: appended.write(b"one more line\n") and None):
        report = await store.load(PathSource((str(log),)), name="log")
    pinned = await store.pin("log")
    assert log.read_bytes()[: report.bytes] == pinned.read("log", 0, report.chars).encode()
    assert report.bytes >= 18_000_000
    assert "grew" in report.notes[0]
    again = await store.load(PathSource((str(log),)), name="log")
    assert again.bytes == log.stat().st_size


async def test_a_file_that_is_rewritten_meanwhile_is_refused(store: ContextStore, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a line of the file\n" * 1_000_000)
    fd = os.open(file, os.O_WRONLY)
    try:
        with Writer(lambda n: os.pwrite(fd, b"%012d" % n, 0) and None), pytest.raises(SourceUnreadable):
            await store.load(PathSource((str(file),)), name="file")
    finally:
        os.close(fd)
    assert blobs(tmp_path) == set()
