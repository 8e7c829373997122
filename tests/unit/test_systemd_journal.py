"""Entries for systemd's journal: their fields, and where they go when it does not take them."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from logging_journald import JournaldTransport

from rlmd.logs import configure_logging
from rlmd.systemd_journal import Journal, fields_of, leads_to_journal


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the journal listens, or does not."""
    monkeypatch.setattr(JournaldTransport, "SOCKET_PATH", tmp_path / "journal")
    before = structlog.get_config()
    yield tmp_path / "journal"
    for processor in structlog.get_config()["processors"]:
        if isinstance(processor, Journal):
            processor.close()
    structlog.configure(**before)


@contextlib.contextmanager
def service(journal: Path, stream: str | None = None) -> Iterator[Callable[[], list[str]]]:
    """Stderr as a service has it, and logging set up for it; gives the lines that went there."""
    with journal.with_name("stderr").open("w+") as log, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", log)
        there = os.fstat(log.fileno())
        patch.setenv("JOURNAL_STREAM", stream or f"{there.st_dev}:{there.st_ino}")
        configure_logging("info")
        yield lambda: (log.flush(), journal.with_name("stderr").read_text())[1].splitlines()


def test_fields() -> None:
    entry = {"event": "attempt_failed", "level": "info", "run_id": "7", "host": None, "errors": ["A", "B"], "lineno": 3}
    assert fields_of(entry) == {
        "MESSAGE": "attempt_failed run_id=7 host=None errors=A, B",
        "EVENT": "attempt_failed",
        "SYSLOG_IDENTIFIER": "rlmd",
        "CODE_LINE": "3",
        "RUN_ID": "7",
        "ERRORS": "A, B",
    }


def test_an_entry_goes_to_the_journal_and_nowhere_else(journal: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, service(journal) as lines:
        listener.bind(str(journal))
        listener.settimeout(20)
        structlog.get_logger("x").error("speeds_unreadable", file="two\nlines")
        told = listener.recv(10_000)
        assert lines() == []
    assert b"PRIORITY=3\n" in told
    assert b"CODE_FUNC=test_an_entry_goes_to_the_journal_and_nowhere_else\n" in told
    assert b"FILE\n" + (9).to_bytes(8, sys.byteorder) + b"two\nlines\n" in told


def test_what_the_journal_does_not_take_is_a_line(journal: Path) -> None:
    """Nobody listens; and one who listens and does not read holds up nobody."""
    with service(journal) as lines:
        structlog.get_logger("x").info("ready", version="1")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(journal))
            for _ in range(5000):
                structlog.get_logger("x").info("again", version="1")
        first, *_, last = lines()
    assert first.startswith('<6>{"version": "1"')
    assert first.endswith('"message": "ready"}')
    assert last.endswith('"message": "again"}')


@pytest.mark.parametrize("stream", ["0:0", "nonsense", "1"])
def test_a_stream_that_is_not_the_journals_gets_lines(journal: Path, stream: str) -> None:
    with service(journal, stream) as lines:
        assert not leads_to_journal()
        structlog.get_logger("x").info("ready")
        assert lines()[0].startswith("<6>{")
