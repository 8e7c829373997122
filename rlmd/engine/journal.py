"""The journal: a run's facts on disk, before anyone is told.

``runs/<run_id>/journal.jsonl`` holds one fact a line, appended; ``runs/<run_id>/values/<digest>`` the texts too long
for a fact, written first (temporary file, rename); of a run over ephemeral text both are in memory (``runfolder``). An
append goes to the page cache, which outlives ``kill -9``; ``finish`` syncs it to the disk. A torn last line, as a crash
of the machine leaves it, is cut and reported, never taken for a fact. Knows no run logic: facts in, facts out.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import Generator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from rlmd.engine.record import RunRecord, fold
from rlmd.engine.runfolder import RunFolder
from rlmd.errors import DiskFull, InternalError, NotFound
from rlmd.events import FACT, AnyFact, RunEnded, RunInterrupted, Text, text_of

#: A value up to this many characters is written on the loop (some 0.2 ms); a longer one in a thread.
_INLINE_WRITE_CHARS = 64 * 1024
#: How much is read at each end of a journal to list its run. A run's first facts and its last are a few KiB.
_END_BYTES = 64 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}
#: The kind of a fact, from the beginning of its line (sub-queries alone begin with their cell, and name their kind
#: behind what a model wrote); and the kinds that say more of a run than how much it did.
_KIND = re.compile(rb'\{"run_id":"[^"]*","seq":\d+,"time":[^,]*,"(?:type":"(?P<kind>\w+)"|cell":)')
_TELLING = {b"", b"strategy_chosen", b"turn_started", b"child_started", b"run_ended", b"run_continued"}
_UNFIT = re.compile("[\0\ud800-\udfff]")


def clean(text: str) -> str:
    """``text`` fit for strict JSON: a lone surrogate (a raw byte of the source) or a NUL becomes U+FFFD.

    One character for one, so that offsets stay.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return _UNFIT.sub("\ufffd", text)
    return text.replace("\0", "\ufffd")


class Journal:
    """Appends facts of one run; one writer a run.

    Args:
        folder: Where.
        threads: For what takes longer than a moment.
        syncing: For bringing all of it to the disk at its end, which a busy disk holds up; by default ``threads``.
    """

    def __init__(self, folder: RunFolder, threads: Executor, syncing: Executor | None = None) -> None:
        self.folder = folder
        self._threads = threads
        self._syncing = syncing or threads
        self._log = folder.log()

    def append(self, fact: AnyFact) -> None:
        """Writes one fact; it is in the journal when this returns. Raises ``DiskFull``."""
        try:
            self._log.append(_serialised(fact) + b"\n")
        except OSError as error:
            raise _translated(error) from error

    async def text(self, text: str) -> Text:
        """The text as a fact holds it, stored as a value first when it is long."""
        if len(text) <= _INLINE_WRITE_CHARS:
            return text_of(clean(text), self._store)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: text_of(clean(text), self._store))

    async def finish(self) -> None:
        """Syncs and closes; nothing may be appended after."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._syncing, self._sync_and_close)

    def close(self) -> None:
        """Closes without a sync."""
        self._log.close()

    def _sync_and_close(self) -> None:
        self.folder.sync()  # first: a journal that is there names nothing that is not
        self._log.sync()
        self._log.close()

    def _store(self, digest: str, text: str) -> None:
        try:
            self.folder.keep(digest, text.encode())
        except OSError as error:
            raise _translated(error) from error


class Mark(NamedTuple):
    """Where a fact begins in its journal: whoever reads on from here need not count lines from the first."""

    seq: int = 1
    offset: int = 0


_FIRST = Mark()


@dataclass(frozen=True, slots=True)
class Reading:
    """Facts read, how many bytes of a torn last line were left out, and where the next fact begins."""

    facts: list[AnyFact]
    cut: int
    after: Mark


def read_facts(folder: RunFolder, from_seq: int = 1, to_seq: int | None = None, mark: Mark = _FIRST) -> Reading:
    """Facts ``from_seq`` to ``to_seq`` inclusive. Line n is fact n, so only those asked for are parsed.

    Args:
        folder: The run's.
        from_seq, to_seq: Without ``to_seq``, to the last.
        mark: Any place before ``from_seq``, such as where the reading before this one ended.
    """
    facts: list[AnyFact] = []
    seq, offset = mark if mark.seq <= from_seq else _FIRST
    cut = 0
    with closing(_lines(folder, offset)) as lines:
        while (to_seq is None or seq <= to_seq) and (line := next(lines, b"")):
            if not line.endswith(b"\n"):
                cut = len(line)
                break
            if seq >= from_seq:
                facts.append(_fact(line, folder))
            seq, offset = seq + 1, offset + len(line)
    return Reading(facts, cut, Mark(seq, offset))


def read_value(folder: RunFolder, digest: str) -> str:
    """The text named by a digest in a fact. A file that a crash of the machine left cut is not taken for it."""
    if len(digest) != 64 or not digest.isalnum():
        raise NotFound("That is no digest of a value.", hint="Digests come from the facts of the run.")
    try:
        data = folder.value(digest)
    except FileNotFoundError as error:
        raise NotFound(
            "The run has no value of that digest; if a fact names it, its file is gone from the state folder.",
            hint="What the facts themselves hold is still there: run/fetch with from_seq. Or ask again.",
            digest=digest,
        ) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise InternalError(
            "A text that a fact of this run names is damaged on the disk.",
            hint="What the facts themselves hold is still there: run/fetch with from_seq. Or ask again.",
            digest=digest,
        )
    return data.decode()


def read_text(folder: RunFolder, text: Text) -> str:
    """The whole of a text in a fact."""
    if text.text is not None:
        return text.text
    if text.digest is None:
        raise InternalError("A text in a fact has neither content nor digest.")
    return read_value(folder, text.digest)


def read_record(folder: RunFolder) -> RunRecord:
    """What the journal says of its run, from its first and last facts alone when the run has ended."""
    head, tail, torn = _ends(folder)
    last = _fact(tail[-1], folder) if tail else None
    if isinstance(last, RunEnded) and not torn:
        first = [_fact(line, folder) for line in head[: 1 if last.strategy else 3]]
        return fold([*(fact for fact in first if fact.seq < last.seq), last])
    if isinstance(last, RunInterrupted) and not torn:
        return _interrupted(folder, last)
    return fold(read_facts(folder).facts)


def _interrupted(folder: RunFolder, last: RunInterrupted) -> RunRecord:
    """As ``fold`` of all facts gives it, without parsing those that only count: each start reads these journals, and
    some 2,000 sub-queries would take 30 ms each time."""
    lines = _lines(folder)
    record, asked = fold([_fact(next(lines), folder)]), 0
    for line in lines:
        kind = found["kind"] if (found := _KIND.match(line)) else b""
        asked += kind is None
        if kind in _TELLING:
            # In their order: an end that was not the last has counted what children asked, and the rest came after it.
            record, asked = _with_asked(record, asked).apply(_fact(line, folder)), 0
    return _with_asked(record, asked).apply(last)


def _with_asked(record: RunRecord, asked: int) -> RunRecord:
    return replace(record, sub_queries=record.sub_queries + asked)


def mend(folder: RunFolder) -> int:
    """Cuts a torn last line, and says how many bytes it had. Run before a journal is appended to again."""
    data = folder.read(0, folder.size())
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        folder.cut(whole)
    return len(data) - whole


def _ends(folder: RunFolder) -> tuple[list[bytes], list[bytes], bool]:
    """First lines, last lines (at least one whole one if there is any), and whether the last is torn."""
    size = folder.size()
    data = folder.read(0, min(size, _END_BYTES))
    head = data.split(b"\n")[:-1]
    block = _END_BYTES
    while True:
        if block < size or block > _END_BYTES:
            data = folder.read(max(0, size - block), size)
        if block >= size or data[:-1].count(b"\n") > 0:
            break
        block *= 4
    lines = data.split(b"\n")
    torn = lines.pop() != b""
    if block < size:
        del lines[0]  # the end of a line that began before the block
    return head or lines[:1], lines, torn


def _fact(line: bytes, folder: RunFolder) -> AnyFact:
    try:
        return FACT.validate_json(line)
    except ValidationError as error:
        raise InternalError("A line of a journal is no fact.", run_id=folder.name) from error


def _lines(folder: RunFolder, start: int = 0) -> Generator[bytes]:
    try:
        yield from folder.lines(start)
    except FileNotFoundError as error:
        raise NotFound("There is no journal of that run.", run_id=folder.name) from error


def _serialised(fact: BaseModel) -> bytes:
    try:
        return fact.model_dump_json().encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        # A name or preview holds a lone surrogate; strict JSON has no place for it.
        return type(fact).model_validate(_cleaned(fact.model_dump())).model_dump_json().encode()


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value


def _translated(error: OSError) -> DiskFull | InternalError:
    if error.errno in _FULL:
        return DiskFull(
            "The disk that holds the journal is full.", hint="Free space in the state folder, then ask again."
        )
    return InternalError(f"The journal cannot be written: {os.strerror(error.errno or 0)}.")
