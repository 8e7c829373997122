"""The disk cache: what it keeps, what it refuses, and that no fault of it is more than a miss."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import diskcache
import pytest

from rlmd.pool.cache import CachedCompletion, asked_digest, cache_key, is_cacheable
from rlmd.pool.disk_cache import BytesDisk, DiskCache, _to_bytes
from rlmd.pool.pending import Pending
from rlmd.providers.base import Completion, Message, Sampling, Usage

ROOT = Path(__file__).resolve().parents[2]


def value(text: str = "an answer") -> CachedCompletion:
    return CachedCompletion(Completion(text, "", "stop", Usage(10, 3)), "gpu", "m")


@asynccontextmanager
async def opened(folder: Path, limit: int = 1 << 24) -> AsyncIterator[DiskCache]:
    cache = DiskCache(folder, limit)
    await cache.open()
    try:
        yield cache
    finally:
        await cache.close()


def rows(folder: Path, statement: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(folder / "cache.db")) as database, database:
        return database.execute(statement, values).fetchall()


@pytest.mark.parametrize("text", ["short", "\r\n\ud800 \udce9 🙂 \x00" * 10_000, ""])
async def test_what_was_stored_comes_back_exactly_also_after_a_restart(tmp_path: Path, text: str) -> None:
    async with opened(tmp_path / "c") as cache:
        storing = cache.put("key", value(text))
        assert await cache.get(["other", "key"]) == value(text), "found before it is stored"
        await storing
        assert await cache.get(["other", "key"]) == value(text)
    async with opened(tmp_path / "c") as cache:
        assert await cache.get(["key"]) == value(text)
        assert cache.statistics()[0] == 1
        assert await cache.get(["other"]) is None
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


class Planted:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._folder),)


async def test_a_planted_row_is_never_unpickled(tmp_path: Path) -> None:
    folder, ran = tmp_path / "c", tmp_path / "ran"
    async with opened(folder) as cache:
        cache.put("key", value())
        await cache.get(["key"])
    rows(folder, "UPDATE Cache SET mode = 4, value = ?", pickle.dumps(Planted(ran)))
    async with opened(folder) as cache:
        assert await cache.get(["key"]) is None
    assert not ran.exists()
    with closing(diskcache.Cache(str(folder), disk=diskcache.Disk)) as plain:
        plain.get("key")
    assert ran.exists(), "diskcache's own Disk does run it: this test can fail"


async def test_a_planted_file_name_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(_to_bytes(value("a file of another's, whole and of our form")))
    folder = tmp_path / "c"
    async with opened(folder) as cache:
        cache.put("key", value())
        await cache.get(["key"])
    for name in (str(secret), "../secret", "aa/bb/../../../secret"):
        rows(folder, "UPDATE Cache SET mode = 2, value = NULL, filename = ?", name)
        async with opened(folder) as cache:
            assert await cache.get(["key"]) is None


def test_only_bytes_go_in_and_out(tmp_path: Path) -> None:
    disk = BytesDisk(str(tmp_path))
    for bad in ("text", 1, None, [b"x"]):
        with pytest.raises(TypeError):
            disk.store(bad, False)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        disk.put(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not written by us"):
        disk.get(b"pickled", False)
    for mode in (3, 4, 99):
        with pytest.raises(ValueError, match="do not write"):
            disk.fetch(mode, None, b"x", False)


async def test_a_damaged_value_is_a_miss_and_goes(tmp_path: Path) -> None:
    async with opened(tmp_path) as cache:
        cache.put("small", value())
        cache.put("large", value("x" * 100_000))
        await cache.get(["small"])
    rows(tmp_path, "UPDATE Cache SET value = ? WHERE key = 'small'", b"y" * 80)
    (file,) = tmp_path.glob("*/*/*.val")
    file.write_bytes(file.read_bytes()[:50_000])
    async with opened(tmp_path) as cache:
        assert await cache.get(["small", "large"]) is None
    assert rows(tmp_path, "SELECT count(*) FROM Cache") == [(0,)]


async def test_a_damaged_database_is_set_aside_and_the_cache_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "cache.db").write_bytes(b"this is no database" * 1000)
    async with opened(folder) as cache:
        cache.put("key", value())
        assert await cache.get(["key"]) == value()
    (aside,) = tmp_path.glob("c.damaged-*")
    assert (aside / "cache.db").read_bytes().startswith(b"this is no database")


async def test_a_lock_held_by_another_process_is_a_miss_and_does_not_block_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlmd.pool.disk_cache.LOCK_SECONDS", 0.05)
    async with opened(tmp_path) as cache:
        cache.put("key", value())
    async with opened(tmp_path) as cache:
        with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            turns = 0
            waiting = asyncio.ensure_future(cache.put("other", value("x" * 100_000)))
            while not waiting.done():
                turns += 1
                await asyncio.sleep(0)
            assert await cache.get(["other"]) is None
            assert turns > 10
            holder.execute("ROLLBACK")
        assert await cache.get(["key"]) == value()


async def test_it_works_on_one_thread_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    fetch = BytesDisk.fetch

    def noted(self: BytesDisk, *arguments: Any) -> bytes:
        threads.add(threading.current_thread().name)
        return fetch(self, *arguments)

    monkeypatch.setattr(BytesDisk, "fetch", noted)
    async with opened(tmp_path) as cache:
        await cache.put("key", value("x" * 100_000))
        assert all(await asyncio.gather(*(cache.get(["key"]) for _ in range(20))))
    assert len(threads) == 1
    assert threads.pop().startswith("rlmd-cache")


async def test_what_comes_together_is_stored_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job on the thread for many completions, by itself."""
    lots: list[set[str]] = []
    stored = asyncio.Event()
    loop, store = asyncio.get_running_loop(), DiskCache._put

    def noted(self: DiskCache, lot: dict[str, CachedCompletion], file: Path) -> None:
        store(self, lot, file)
        lots.append(set(lot))
        loop.call_soon_threadsafe(stored.set)

    monkeypatch.setattr(DiskCache, "_put", noted)
    async with opened(tmp_path) as cache:
        for number in range(50):
            cache.put(str(number), value())
        await stored.wait()
        assert lots == [{str(number) for number in range(50)}]
        assert rows(tmp_path, "SELECT count(*) FROM Cache") == [(50,)]


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from rlmd.pool.cache import CachedCompletion
from rlmd.pool.disk_cache import DiskCache
from rlmd.providers.base import Completion, Usage
async def main():
    cache = DiskCache(Path(sys.argv[1]), 1 << 24)
    await cache.open()
    for number in range(int(sys.argv[2])):
        await cache.put(str(number), CachedCompletion(Completion("an answer", "", "stop", Usage(10, 3)), "gpu", "m"))
        if number % 7 == 0:
            await asyncio.sleep(0.03)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize("count", [1, 40])
async def test_what_was_put_is_there_after_a_kill(tmp_path: Path, count: int) -> None:
    """Before it is in the database, while some of it is, and once only."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(count)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [*tmp_path.glob("pending-*")]
    async with opened(tmp_path) as cache:
        for number in range(count):
            assert await cache.get([str(number)]) == value()
        assert cache.statistics()[0] == count
    assert [*tmp_path.glob("pending-*")] == []


async def test_a_torn_or_planted_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"private")
    pending = Pending(tmp_path)
    assert pending.append("whole", _to_bytes(value()))
    assert pending.append("damaged", _to_bytes(value())[:-1] + b"x")
    assert pending.append("torn", _to_bytes(value()))
    file = pending.sealed()
    assert file is not None
    os.truncate(file, file.stat().st_size - 1)
    (tmp_path / "pending-link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pending-pipe")
    async with opened(tmp_path) as cache:
        assert [await cache.get([key]) for key in ("whole", "damaged", "torn")] == [value(), None, None]
    assert (tmp_path / "secret").exists()
    assert [*tmp_path.glob("pending-*")] == []


async def test_where_nothing_can_be_appended_the_database_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as cache:
        monkeypatch.setattr(Pending, "append", lambda *_: False)
        await cache.put("key", value())
        assert rows(tmp_path, "SELECT count(*) FROM Cache") == [(1,)]


async def test_a_key_that_was_never_seen_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as cache:
        for number in range(1000):
            cache.put(f"key {number}", value())
    async with opened(tmp_path) as cache:
        await cache.get(["key 0"])  # behind the thread's look at all keys
        looked: list[list[str]] = []
        look = DiskCache._get
        monkeypatch.setattr(DiskCache, "_get", lambda self, keys: looked.append(keys) or look(self, keys))
        assert [await cache.get([f"other {number}"]) for number in range(1000)] == [None] * 1000
        assert looked == []
        assert all([await cache.get(["other", f"key {number}"]) for number in range(1000)])
        assert len(looked) == 1000


async def test_the_size_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, limit=1 << 20) as cache:
        await asyncio.gather(*(cache.put(str(number), value("x" * 20_000)) for number in range(200)))
    async with opened(tmp_path, limit=1 << 20) as cache:
        entries, size = cache.statistics()
        assert size < 1.2 * (1 << 20)
        assert 0 < entries < 200
        assert await cache.get(["199"]) is not None


async def test_what_was_stored_of_a_context_is_erased_with_it_and_nothing_else(tmp_path: Path) -> None:
    completion = value("of the diary: Xanthippe").completion
    of = {"one": ("diary",), "both": ("letters", "diary"), "other": ("letters",), "like": ("diary-2",), "none": ()}
    async with opened(tmp_path) as cache:
        for key, contexts in of.items():
            cache.put(key, CachedCompletion(completion, "gpu", "m", contexts))
        await cache.forget("diary")
        left = {key for key in of if await cache.get([key]) is not None}
        assert left == {"other", "like", "none"}
        await cache.clear()
        assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"Xanthippe" in file.read_bytes()]


def test_what_is_worth_keeping() -> None:
    usage = Usage(1, 1)
    assert is_cacheable(Completion("x", "", "stop", usage))
    assert not is_cacheable(Completion("x", "", "length", usage))
    assert not is_cacheable(Completion(" \n", "thought", "stop", usage))


def test_keys_differ_by_all_that_decides_an_answer() -> None:
    base: dict[str, Any] = {
        "messages": (Message("user", "ab"), Message("user", "c")),
        "sampling": Sampling(),
        "private": False,
        "sample": 1,
    }
    changes: list[dict[str, Any]] = [
        {},
        {"messages": (Message("user", "a"), Message("user", "bc"))},
        {"messages": (Message("system", "ab"), Message("user", "c"))},
        {"messages": (Message("user", "abuserc"),)},
        {"messages": (Message("user", "\udce9"),)},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(max_tokens=7)},
        {"sampling": Sampling(seed=1)},
        {"sampling": Sampling(stop=("x",))},
        {"private": True},
        {"sample": 2},
        {"schema": "{}"},
        {"schema": '{"type":"string"}'},
        {"ephemeral": True},
    ]
    keys = [cache_key(model, asked_digest(**(base | change))) for change in changes for model in ("a", "b")]
    assert len(set(keys)) == len(keys)
