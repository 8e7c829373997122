"""Which sessions ended by a person's wish: the journals of their runs are still there, and must not bring them back.

``sessions.jsonl`` has a line for each drop and reset, appended before it is done. What was dropped stands there by its
id alone; of one that was reset its name and contexts are kept, because it goes on under a new id. A line goes when no
run of its session is left.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable, Set
from concurrent.futures import Executor
from pathlib import Path

import structlog
from pydantic import ValidationError

from rlmd.errors import Unavailable
from rlmd.events import Model, Pin

log = structlog.get_logger(__name__)


class SessionEnd(Model):
    """``became``: the id under which the session goes on, fresh; None when it was dropped."""

    id: str
    became: str | None = None
    name: str | None = None
    private: bool = False
    held: tuple[str, ...] = ()
    contexts: tuple[Pin, ...] = ()


class SessionEnds:
    """Args:
    file: Where they are kept.
    threads: Where the file is read and written.
    """

    def __init__(self, file: Path, threads: Executor) -> None:
        self._file = file
        self._threads = threads
        #: Held by who changes the file: the threads are several.
        self._changing = threading.Lock()

    def _read(self) -> dict[str, SessionEnd]:
        """A torn line is left out: nobody was told that it was done."""
        try:
            lines = self._file.read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        ends: dict[str, SessionEnd] = {}
        for line in lines:
            try:
                end = SessionEnd.model_validate_json(line)
            except ValidationError:
                log.warning("line of ended sessions not read", bytes=len(line))
                continue
            ends[end.id] = end
        return ends

    async def add(self, end: SessionEnd) -> None:
        """It is on disk when this returns. Raises ``Unavailable``."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._add, end)

    async def all(self) -> dict[str, SessionEnd]:
        """All of them, by the id of what ended."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read)

    async def forget(self, context: str) -> None:
        """Keeps of the ends that name a context no more than that they were. Raises ``Unavailable``."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._forget, context)

    def _forget(self, context: str) -> None:
        with self._changing:
            self._forget_now(context)

    def _forget_now(self, context: str) -> None:
        ends = self._read()
        if not any(context in end.held for end in ends.values()):
            return
        self._replace(SessionEnd(id=end.id) if context in end.held else end for end in ends.values())

    async def remove(self, ids: Set[str]) -> None:
        """Of these need not be known any longer that they ended. Raises ``Unavailable``."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._remove, ids)

    def _remove(self, ids: Set[str]) -> None:
        with self._changing:
            self._replace(end for end in self._read().values() if end.id not in ids)

    def _replace(self, kept: Iterable[SessionEnd]) -> None:
        """All that is kept, or what was there: what an end was acknowledged for is on disk before the old file goes."""
        lines = "".join(end.model_dump_json(exclude_defaults=True) + "\n" for end in kept)
        fresh = self._file.with_suffix(".new")
        try:
            fresh.touch(mode=0o600)
            with fresh.open("w", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fdatasync(file.fileno())
            fresh.rename(self._file)
        except OSError as error:
            raise Unavailable(f"The sessions cannot be forgotten: {os.strerror(error.errno or 0)}.") from error

    def _add(self, end: SessionEnd) -> None:
        with self._changing:
            self._append(end)

    def _append(self, end: SessionEnd) -> None:
        line = end.model_dump_json(exclude_defaults=True).encode() + b"\n"
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            with self._file.open("ab") as file:
                torn = file.tell() > 0 and not self._whole()
                file.write(b"\n" * torn + line)
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as error:
            raise Unavailable(f"The session cannot be ended: {os.strerror(error.errno or 0)}.") from error

    def _whole(self) -> bool:
        with self._file.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
