"""Which runs there are, and what their journals hold: on disk, or of runs over ephemeral text in memory.

Knows journals and records, no run that goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import structlog

from rlmd.engine import journal as journals
from rlmd.engine.exports import ExportForm, export
from rlmd.engine.journal import Journal, Mark
from rlmd.engine.record import RunRecord
from rlmd.engine.runfolder import DiskFolder, MemoryFolder, RunFolder, bytes_below
from rlmd.errors import Conflict, RlmdError, Unavailable
from rlmd.events import AnyFact, Text

T = TypeVar("T")

log = structlog.get_logger(__name__)

_ID = re.compile(r"[0-9a-f-]{36}")
#: Levels of children that a run may have.
_MOST_DEPTH = 8
#: Facts given at once: some 50 ms of parsing in a thread.
_MOST_FACTS = 5000
#: Runs of which it is remembered where the reading of facts stopped: clients read on from there.
_MOST_MARKS = 64


class Archive:
    """Args:
    folder: Each run on disk has one below it, named by its id.
    threads: Where files are read.

    Attributes:
        records: All runs by id, in the order in which they were begun; of those that have ended without answer,
            citations and receipt.
    """

    def __init__(self, folder: Path, threads: Executor) -> None:
        self._folder = folder
        self._threads = threads
        self._marks: dict[str, Mark] = {}
        self._exported: tuple[tuple[str, ExportForm, int], str] | None = None
        #: Child → parent, of those that were started or asked about.
        self._parents: dict[str, str] = {}
        #: Runs over ephemeral text.
        self._in_memory: dict[str, MemoryFolder] = {}
        self.records: dict[str, RunRecord] = {}

    async def open(self) -> list[RunRecord]:
        """Reads which runs there are. A journal that cannot be read is left as it is, and reported."""
        found = await self._in_thread(self._scan)
        self.records = {record.run_id: record for record in found}
        return found

    def of_session(self, session_id: str) -> list[RunFolder]:
        """The folders of a session's runs, in the order in which they held it."""
        held = [record for record in self.records.values() if record.session_id == session_id]
        return [self.folder(record.run_id) for record in sorted(held, key=lambda one: one.created)]

    def folder(self, run_id: str) -> RunFolder:
        """Where a run's journal is; a child's is inside its parent's folder."""
        parent = self._parents.get(run_id)
        if parent is not None:
            return self.folder(parent).child(run_id)
        return self._in_memory.get(run_id) or DiskFolder(self._folder / run_id)

    def place_child(self, parent: str, child: str) -> None:
        """Where a child that begins belongs."""
        self._parents[child] = parent

    async def find_child(self, run_id: str) -> RunRecord | None:
        """A child of an earlier daemon's run, which is looked for when it is asked about."""
        if not _ID.fullmatch(run_id):
            return None
        return await self._in_thread(lambda: self._find_child(run_id))

    def _find_child(self, run_id: str) -> RunRecord | None:
        for depth in range(1, _MOST_DEPTH + 1):
            for folder in self._folder.glob(f"*/{'children/*/' * (depth - 1)}children/{run_id}"):
                chain = [run_id, *(parent.name for parent in folder.parents if parent.name != "children")][: depth + 1]
                self._parents.update(itertools.pairwise(chain))
                record = journals.read_record(DiskFolder(folder)).slim()
                if record.active:  # it ended with its daemon, and nothing will be added to it
                    record = replace(record, state="interrupted", why="the daemon ended while the run was going")
                self.records[run_id] = record
                return record
        return None

    async def unused(self, run_id: str, *, ephemeral: bool = False) -> RunFolder:
        """The folder of a run that begins. A journal that could not be read at the start is never written on:
        ``Conflict``."""
        folder = DiskFolder(self._folder / run_id)
        if await self._in_thread(folder.begun):
            raise Conflict(
                "A run of that id is on the disk, but its journal could not be read.",
                hint=f"Ask under a new run id. Its folder is {folder.path}.",
            )
        if not ephemeral:
            return folder
        return self._in_memory.setdefault(run_id, MemoryFolder(run_id))

    async def facts(self, run_id: str, from_seq: int = 1, to_seq: int | None = None) -> list[AnyFact]:
        """Facts ``from_seq`` to ``to_seq`` inclusive, at most 5,000 at once."""
        last = from_seq + _MOST_FACTS - 1
        to_seq = last if to_seq is None else min(to_seq, last)
        mark = self._marks.pop(run_id, Mark())
        reading = await self._in_thread(lambda: journals.read_facts(self.folder(run_id), from_seq, to_seq, mark))
        self._marks[run_id] = reading.after
        if len(self._marks) > _MOST_MARKS:
            del self._marks[next(iter(self._marks))]
        return reading.facts

    async def reopened(self, run_id: str) -> list[AnyFact]:
        """The facts of a run that is to go on, a torn last line cut; none where nothing was written yet."""
        folder = self.folder(run_id)

        def read() -> list[AnyFact]:
            if not folder.begun():
                return []
            journals.mend(folder)
            return journals.read_facts(folder).facts

        return await self._in_thread(read)

    async def all_facts(self, run_id: str) -> list[AnyFact]:
        """Every fact of a run, for whoever takes it up again."""
        return await self._in_thread(lambda: journals.read_facts(self.folder(run_id)).facts)

    async def value(self, run_id: str, digest: str) -> str:
        """The text named by a digest in one of the run's facts."""
        return await self._in_thread(lambda: journals.read_value(self.folder(run_id), digest))

    async def text(self, run_id: str, text: Text) -> str:
        """The whole of a text in a fact."""
        return await self._in_thread(lambda: journals.read_text(self.folder(run_id), text))

    async def whole(self, record: RunRecord) -> RunRecord:
        """With answer, citations and receipt, read again from the journal where they are not at hand."""
        if record.receipt is not None or record.outcome is None:
            return record
        return await self._in_thread(lambda: journals.read_record(self.folder(record.run_id)))

    async def exported(self, run_id: str, form: ExportForm) -> str:
        """The run in another form. The last one is kept while its parts are fetched."""
        key = (run_id, form, self.records[run_id].last_seq)
        if self._exported is None or self._exported[0] != key:
            self._exported = key, await self._in_thread(lambda: export(self.folder(run_id), form))
        return self._exported[1]

    def forget_export(self) -> None:
        """Its last part was fetched."""
        self._exported = None

    async def delete(self, run_id: str) -> None:
        """Takes a run off the disk. Once its folder has another name it is gone, whatever happens then."""
        if run_id not in self._in_memory:
            await self._delete_from_disk(run_id)
        self._forget(run_id)
        self._exported = None

    async def _delete_from_disk(self, run_id: str) -> None:
        deleted = self._folder.with_name("deleted-runs")

        def delete() -> None:
            deleted.mkdir(mode=0o700, exist_ok=True)
            aside = deleted / f"{run_id}-{secrets.token_hex(4)}"
            try:
                (self._folder / run_id).rename(aside)
            except OSError as error:
                raise Unavailable(f"The run cannot be deleted: {os.strerror(error.errno or 0)}.") from error
            shutil.rmtree(aside, ignore_errors=True)

        await self._in_thread(delete)

    def _forget(self, run_id: str) -> None:
        """A run and its children, which were in its folder."""
        self.records.pop(run_id, None)
        self._marks.pop(run_id, None)
        self._parents.pop(run_id, None)
        self._in_memory.pop(run_id, None)
        for child in [child for child, parent in self._parents.items() if parent == run_id]:
            self._forget(child)

    async def sizes(self) -> dict[str, int]:
        """Bytes on disk of each run, its children within."""
        return await self._in_thread(lambda: {folder.name: bytes_below(folder) for folder in self._folder.glob("*/")})

    def head(self, run_id: str) -> str:
        """The run that a child is below of, at the top."""
        while (parent := self._parents.get(run_id)) is not None:
            run_id = parent
        return run_id

    async def mend(self, run_id: str) -> int:
        """Cuts a torn last line, and says how many bytes it had."""
        return await self._in_thread(lambda: journals.mend(self.folder(run_id)))

    async def add(self, record: RunRecord, fact: AnyFact) -> RunRecord:
        """Appends a fact to the journal of a run that does not go on."""

        def append() -> None:
            journal = Journal(self.folder(record.run_id), self._threads)
            try:
                journal.append(fact)
            finally:
                journal.close()

        await self._in_thread(append)
        self.records[record.run_id] = record.apply(fact).slim()
        return self.records[record.run_id]

    def _scan(self) -> list[RunRecord]:
        shutil.rmtree(self._folder.with_name("deleted-runs"), ignore_errors=True)
        records = []
        names = [one.name for one in os.scandir(self._folder) if one.is_dir()] if self._folder.exists() else ()
        for name in names:
            try:
                records.append(journals.read_record(DiskFolder(self._folder / name)).slim())
            except (RlmdError, OSError) as error:
                log.warning("journal not read", run_id=name, error=type(error).__name__)
        return sorted(records, key=lambda record: record.created)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
