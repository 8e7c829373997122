"""kill -9 in the middle of loads: what was acknowledged is there byte for byte, what was not is there wholly or not."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlmd.contexts import ContextStore

#: Loads without end, files and texts in turn, and says each name and digest once the store has acknowledged it.
LOADER = """
import asyncio, hashlib, random, sys
from pathlib import Path
from rlmd.contexts import ContextStore, InlineSource, PathSource

async def main(root, seed):
    chance = random.Random(seed)
    store = await ContextStore.open(root / "state", root / "cache", root / "spool")
    print("ready", flush=True)
    for number in range(10_000):
        name = f"context-{chance.randrange(6)}"
        text = f"{seed} {number} żółw\\n" * chance.choice([1, 100, 20_000])
        if name.endswith(("4", "5")):
            folder = root / "files"
            folder.mkdir(exist_ok=True)
            for part in range(20):
                (folder / f"{part}.txt").write_text(f"{part} {text}")
            report = await store.load(PathSource((str(folder),)), name=name)
        else:
            report = await store.load(InlineSource(text), name=name)
        print(name, report.context.revision, report.context.digest, flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def check(root: Path, acknowledged: list[tuple[str, int, str]]) -> None:
    store = await ContextStore.open(root / "state", root / "cache", root / "spool")
    try:
        assert store.notices == ()
        for name, revision, digest in acknowledged:
            pinned = await store.pin_revision(name, revision)
            assert pinned.pin.digest == digest
            for document in pinned.documents:
                text = pinned.read(document.name, 0, document.chars)
                assert hashlib.sha256(text.encode()).hexdigest() == document.digest
        for info in store.list():
            pinned = await store.pin(info.name)
            assert len(pinned.documents) == info.documents
            for document in pinned.documents:
                text = pinned.read(document.name, 0, document.chars)
                assert hashlib.sha256(text.encode()).hexdigest() == document.digest
        assert not any((root / "state/contexts/store/blobs/tmp").iterdir())
    finally:
        await store.close()


async def killed_rounds(root: Path, rounds: int) -> int:
    chance = random.Random(7)
    acknowledged: list[tuple[str, int, str]] = []
    for seed in range(rounds):
        loader = subprocess.Popen(
            [sys.executable, "-c", LOADER, str(root), str(seed)], stdout=subprocess.PIPE, cwd=Path.cwd(), text=True
        )
        assert loader.stdout is not None
        with loader.stdout:
            assert loader.stdout.readline() == "ready\n"
            for _ in range(chance.randrange(1, 8)):
                name, revision, digest = loader.stdout.readline().split()
                acknowledged.append((name, int(revision), digest))
            # Somewhere within the next load: the kernel's own scheduling makes each kill another place.
            os.kill(loader.pid, signal.SIGKILL)
            for line in loader.stdout:
                if line.endswith("\n") and len(line.split()) == 3:
                    name, revision, digest = line.split()
                    acknowledged.append((name, int(revision), digest))
        assert loader.wait() == -signal.SIGKILL
        await check(root, acknowledged)
    return len(acknowledged)


async def test_acknowledged_contexts_survive_kill(tmp_path: Path) -> None:
    assert await killed_rounds(tmp_path, 4) >= 4


@pytest.mark.full
async def test_acknowledged_contexts_survive_kill_many_times(tmp_path: Path) -> None:
    assert await killed_rounds(tmp_path, 50) >= 50
