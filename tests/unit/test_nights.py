"""Which runs keep the machine awake, by a lock that is held while one does and let go when none does any more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlmd.config import PowerSettings, Settings
from rlmd.engine import RunRecord
from rlmd.engine.record import fold
from rlmd.events import Limits, RunStarted, RunState, Text
from rlmd.nights import Nights

_LIMITS = Limits(turns=1, sub_queries=1, seconds=1.0, consecutive_errors=1)


def record(state: RunState, run_id: str = "a") -> RunRecord:
    started = RunStarted(
        run_id=run_id, seq=1, time=0.0, question=Text(chars=1, text="?"), strategy="rlm", contexts=(), session=None,
        root=(), sub=(), limits=_LIMITS, private=False, request_digest="", rlmd="", prompts="",
    )  # fmt: skip
    return replace(fold([started]), state=state)


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Is there while the lock is held; stands for systemd-inhibit, which the integration's tests run."""
    held = tmp_path / "held"
    program = tmp_path / "systemd-inhibit"
    program.write_text(f'#!/bin/sh\necho $$ >"{held}"\ntrap \'rm "{held}"; exit\' TERM\nwhile :; do sleep 0.02; done\n')
    program.chmod(0o700)
    monkeypatch.setattr("rlmd.nights.AWAKE_AFTER", 0.01)
    monkeypatch.setattr("rlmd.nights._INHIBIT", (str(program),))
    return held


async def until(lock: Path, *, held: bool) -> None:
    async with asyncio.timeout(30):
        while bool(holder_of(lock)) != held:
            await asyncio.sleep(0.01)


def holder_of(lock: Path) -> str:
    try:
        return lock.read_text()
    except FileNotFoundError:
        return ""


@pytest.fixture
async def nights(lock: Path) -> AsyncIterator[Nights]:
    made = Nights(lambda: Settings(power=PowerSettings(keep_awake=True)), os.environ)
    made.start()
    yield made
    await made.close()


async def test_a_wait_that_ends_in_time_is_not_slept_through(nights: Nights, lock: Path) -> None:
    nights.changed(record("running"))
    await until(lock, held=True)
    holder = holder_of(lock)
    nights.changed(record("waiting"))
    nights.changed(record("waiting"))  # for another host, or for longer
    await asyncio.sleep(0.2)
    nights.changed(record("running"))
    await asyncio.sleep(0.2)
    assert holder_of(lock) == holder, "it is one lock all along"
    nights.changed(record("ended"))
    await until(lock, held=False)


async def test_a_host_that_is_gone_keeps_nothing_awake(
    nights: Nights, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run still waits, and when its host comes after all it is at work again."""
    monkeypatch.setattr("rlmd.nights.AWAKE_WAITING", 0.2)
    nights.changed(record("running"))
    await until(lock, held=True)
    nights.changed(record("waiting"))
    await until(lock, held=False)
    nights.changed(record("running"))
    await until(lock, held=True)
    nights.changed(record("ended"))
    await until(lock, held=False)


async def test_one_that_waits_does_not_let_go_what_another_needs(
    nights: Nights, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlmd.nights.AWAKE_WAITING", 0.01)
    nights.changed(record("running"))
    nights.changed(record("running", "b"))
    await until(lock, held=True)
    nights.changed(record("waiting"))
    await asyncio.sleep(0.1)
    assert holder_of(lock)
    nights.changed(record("ended", "b"))
    await until(lock, held=False)


async def test_one_that_asks_keeps_nothing_awake(nights: Nights, lock: Path) -> None:
    nights.changed(record("running"))
    await until(lock, held=True)
    nights.changed(record("asking"))
    await until(lock, held=False)
