"""The journal on disk: written whole, read in part, a torn line cut, a run told from its two ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlmd.engine import journal as journals
from rlmd.engine import runfolder
from rlmd.engine.journal import Journal, clean, mend, read_facts, read_record, read_text, read_value
from rlmd.engine.record import fold
from rlmd.engine.runfolder import DiskFolder, MemoryFolder, RunFolder
from rlmd.errors import DiskFull, InternalError, NotFound
from rlmd.events import (
    AnyFact,
    ErrorRecord,
    Limits,
    More,
    Note,
    Receipt,
    RunContinued,
    RunEnded,
    RunInterrupted,
    RunStarted,
    StrategyChosen,
    SubQueryFailed,
    Text,
    TurnStarted,
)

RUN = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def started() -> RunStarted:
    return RunStarted(
        run_id=RUN, seq=1, time=10.0, question=Text(chars=1, text="?"), strategy="auto", contexts=(), session=None,
        root=(), sub=(), limits=Limits(turns=1, sub_queries=1, seconds=1, consecutive_errors=1), private=False,
        request_digest="d", rlmd="0", prompts="1",
    )  # fmt: skip


def ended(seq: int) -> RunEnded:
    receipt = Receipt(
        chars_total=1, chars_searched=0, chars_read=0, pieces=0, pieces_failed=0, sub_queries=7, sub_queries_cached=0,
        turns=3, wall_seconds=1.0, summary="s",
    )  # fmt: skip
    return RunEnded(
        run_id=RUN, seq=seq, time=20.0, outcome="answered", answer=Text(chars=2, text="42"), stream=None, why="w",
        receipt=receipt,
    )  # fmt: skip


def note(seq: int, text: str = "n") -> Note:
    return Note(run_id=RUN, seq=seq, time=11.0, text=text)


def write(folder: Path, threads: ThreadPoolExecutor, facts: list[AnyFact]) -> None:
    journal = Journal(DiskFolder(folder), threads)
    for fact in facts:
        journal.append(fact)
    journal.close()


def test_facts_come_back_equal_and_in_part(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """What is appended is read back; a stretch is read without the rest."""
    facts: list[AnyFact] = [started(), *(note(seq) for seq in range(2, 50)), ended(50)]
    write(tmp_path, threads, facts)
    assert read_facts(DiskFolder(tmp_path)).facts == facts
    assert read_facts(DiskFolder(tmp_path), 10, 12).facts == facts[9:12]
    assert read_facts(DiskFolder(tmp_path), 51).facts == []


def test_reading_goes_on_where_it_stopped(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """What stands before the mark is not looked at again: a long journal is followed in one pass, not in many."""
    facts: list[AnyFact] = [started(), *(note(seq) for seq in range(2, 50)), ended(50)]
    write(tmp_path, threads, facts)
    first = read_facts(DiskFolder(tmp_path), 1, 20)
    journal = tmp_path / "journal.jsonl"
    data = journal.read_bytes()
    journal.write_bytes(b"#" * first.after.offset + data[first.after.offset :])
    assert read_facts(DiskFolder(tmp_path), 21, 30, first.after).facts == facts[20:30]
    assert read_facts(DiskFolder(tmp_path), 25, None, first.after).facts == facts[24:]
    journal.write_bytes(data)
    assert read_facts(DiskFolder(tmp_path), 5, 6, first.after).facts == facts[4:6], (
        "a mark beyond is of no use, and no harm"
    )


async def test_long_text_is_stored_before_the_fact_names_it(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """Over 4,096 characters a text is a value; equal texts are one value; all come back whole."""
    journal = Journal(DiskFolder(tmp_path), threads)
    for text in ("é" * 4096, "é" * 4097, "x" * 300_000, "x" * 300_000):
        stored = await journal.text(text)
        assert (stored.text is None) == (len(text) > 4096)
        assert stored.chars == len(text)
        assert read_text(DiskFolder(tmp_path), stored) == text
    assert len(list((tmp_path / "values").iterdir())) == 2
    await journal.finish()


async def test_raw_bytes_do_not_break_the_journal(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """A lone surrogate or NUL, wherever it stands in a fact, becomes U+FFFD, one for one."""
    journal = Journal(DiskFolder(tmp_path), threads)
    assert (await journal.text("a\udcffb\0c")).text == "a\ufffdb\ufffdc"
    journal.append(started())
    journal.append(note(2, "bad \udcff name"))
    journal.close()
    assert read_facts(DiskFolder(tmp_path)).facts[1] == note(2, "bad \ufffd name")
    assert clean("plain é") == "plain é"


def test_a_torn_last_line_is_cut_and_reported(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """After a crash in the middle of a write the facts before it stand, and writing goes on behind them."""
    write(tmp_path, threads, [started(), note(2)])
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"run_id":"x","se')
    reading = read_facts(DiskFolder(tmp_path))
    assert ([fact.seq for fact in reading.facts], reading.cut) == ([1, 2], 17)
    assert read_record(DiskFolder(tmp_path)).last_seq == 2
    assert mend(DiskFolder(tmp_path)) == 17
    assert mend(DiskFolder(tmp_path)) == 0
    write(tmp_path, threads, [note(3)])
    assert [fact.seq for fact in read_facts(DiskFolder(tmp_path)).facts] == [1, 2, 3]


def test_a_torn_end_is_no_end(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """A run whose last fact is torn has not ended."""
    write(tmp_path, threads, [started(), ended(2)])
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert read_record(DiskFolder(tmp_path)).state == "running"


def test_an_ended_run_is_told_from_its_ends(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing a run of thousands of facts parses four lines of it, and tells the same as the whole."""
    chosen = StrategyChosen(run_id=RUN, seq=2, time=10.0, strategy="rlm", why="w")
    turn = TurnStarted(run_id=RUN, seq=3, time=10.0, turn=1, stream="s", prompt_tokens_estimated=1, window=1)
    facts = [started(), chosen, turn, *(note(seq, "x" * 200) for seq in range(4, 5000)), ended(5000)]
    write(tmp_path, threads, facts)
    whole = fold(facts)
    parsed: list[bytes] = []
    real = journals._fact
    monkeypatch.setattr(journals, "_fact", lambda line, folder: parsed.append(line) or real(line, folder))
    record = read_record(DiskFolder(tmp_path))
    assert record == whole
    assert (record.strategy, record.turns, record.sub_queries, record.state) == ("rlm", 3, 7, "ended")
    assert len(parsed) == 4


@pytest.mark.parametrize("chars", [10, 70_000, 300_000])
def test_a_long_last_fact_is_found(tmp_path: Path, threads: ThreadPoolExecutor, chars: int) -> None:
    """The last line may be longer than what is read at once."""
    last = ended(4).model_copy(update={"why": "w" * chars})
    write(tmp_path, threads, [started(), note(2), note(3), last])
    assert read_record(DiskFolder(tmp_path)).why == "w" * chars


def test_an_interrupted_run_is_told_so(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """The fold knows the end that a restart writes."""
    write(tmp_path, threads, [started(), RunInterrupted(run_id=RUN, seq=2, time=12.0, why="stopped")])
    record = read_record(DiskFolder(tmp_path))
    assert (record.state, record.why, record.ended, record.outcome) == ("interrupted", "stopped", 12.0, None)


def test_what_only_counts_is_not_parsed_at_a_start(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start reads the journals of interrupted runs; the record is that of all facts."""
    failed = SubQueryFailed(
        run_id=RUN, seq=4, time=11.0, cell=1, batch=1, slot=0, prompt_digest="d", occurrence=1, prompt_chars=1,
        prompt_preview='","type":"turn_started"', error=ErrorRecord(code=1101, kind="no_host", message="m", hint="h"),
    )  # fmt: skip
    facts: list[AnyFact] = [
        started(),
        StrategyChosen(run_id=RUN, seq=2, time=11.0, strategy="rlm", why="w"),
        TurnStarted(run_id=RUN, seq=3, time=11.0, turn=2, stream="s", prompt_tokens_estimated=1, window=1),
        failed,
        failed.model_copy(update={"seq": 5}),
        RunInterrupted(run_id=RUN, seq=6, time=12.0, why="stopped"),
    ]
    write(tmp_path, threads, facts)
    parsed: list[bytes] = []
    parse = journals._fact

    def counted(line: bytes, folder: Path) -> AnyFact:
        parsed.append(line)
        return parse(line, folder)

    monkeypatch.setattr(journals, "_fact", counted)
    record = read_record(DiskFolder(tmp_path))
    assert record == fold(facts)
    assert (record.sub_queries, record.turns, record.strategy) == (2, 2, "rlm")
    assert not any(b"subquery_failed" in line for line in parsed)


def test_a_run_that_was_continued_and_interrupted_counts_what_its_children_asked(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    """Its first end told that, in its receipt alone; what was asked after it comes on top."""
    failed = SubQueryFailed(
        run_id=RUN, seq=2, time=11.0, cell=1, batch=1, slot=0, prompt_digest="d", occurrence=1, prompt_chars=1,
        prompt_preview="p", error=ErrorRecord(code=1101, kind="no_host", message="m", hint="h"),
    )  # fmt: skip
    limits = started().limits
    facts: list[AnyFact] = [
        started(),
        failed,
        ended(3),
        RunContinued(run_id=RUN, seq=4, time=21.0, limit="turns", more=More(turns=1), limits=limits),
        failed.model_copy(update={"seq": 5}),
        failed.model_copy(update={"seq": 6}),
        RunInterrupted(run_id=RUN, seq=7, time=22.0, why="stopped", resumable=True),
    ]
    write(tmp_path, threads, facts)
    record = read_record(DiskFolder(tmp_path))
    assert (record.sub_queries, record.turns) == (7 + 2, 3)
    assert record == fold(facts)


def test_a_full_disk_leaves_whole_lines(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write is taken back, and the error says what to do."""
    journal = Journal(DiskFolder(tmp_path), threads)
    journal.append(started())
    real = os.write
    monkeypatch.setattr(journals.os, "write", lambda fd, data: real(fd, data[:20]))
    with pytest.raises(DiskFull):
        journal.append(note(2))
    monkeypatch.undo()
    journal.append(note(2))
    journal.close()
    assert read_facts(DiskFolder(tmp_path)).cut == 0
    assert [fact.seq for fact in read_facts(DiskFolder(tmp_path)).facts] == [1, 2]


async def test_a_damaged_value_is_an_error_and_never_taken_for_the_text(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    """A crash of the machine may leave a file of the right name that is empty, cut, or full of zeros."""
    journal = Journal(DiskFolder(tmp_path), threads)
    stored = await journal.text("An answer of some length. " * 400)
    await journal.finish()
    (value,) = (tmp_path / "values").iterdir()
    whole = value.read_bytes()
    for damaged in (b"", whole[:-1], bytes(len(whole)), whole[:-1] + b"?"):
        value.write_bytes(damaged)
        with pytest.raises(InternalError, match="damaged"):
            read_text(DiskFolder(tmp_path), stored)


async def test_a_value_that_could_not_be_written_whole_is_not_there(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the middle of it; when there is room again it is written anew."""
    journal = Journal(DiskFolder(tmp_path), threads)
    text = "A reply of some length. " * 400
    write_bytes = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        write_bytes(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(DiskFull):
        await journal.text(text)
    assert list((tmp_path / "values").iterdir()) == []
    monkeypatch.undo()
    assert read_text(DiskFolder(tmp_path), await journal.text(text)) == text
    journal.close()


def test_what_is_not_there_and_what_is_no_fact(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """Missing journals and values are not found, a path is no digest, and a damaged line is never skipped silently."""
    with pytest.raises(NotFound):
        read_facts(DiskFolder(tmp_path))
    for digest in ("a" * 64, "../../etc/passwd", ""):
        with pytest.raises(NotFound):
            read_value(DiskFolder(tmp_path), digest)
    write(tmp_path, threads, [started()])
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b"not json\n")
    with pytest.raises(InternalError):
        read_facts(DiskFolder(tmp_path))


@pytest.mark.parametrize("kind", ["disk", "memory"])
async def test_a_journal_in_memory_is_one_on_disk_but_for_the_disk(
    tmp_path: Path, threads: ThreadPoolExecutor, kind: str
) -> None:
    """The same calls lead to the same answers; of the one in memory no file is made."""
    folder: RunFolder = DiskFolder(tmp_path / "run") if kind == "disk" else MemoryFolder("run")
    assert (folder.name, folder.begun()) == ("run", False)
    with pytest.raises(NotFound):
        read_value(folder, "0" * 64)
    journal = Journal(folder, threads)
    facts = [started(), *(note(seq, "n" * seq * 40) for seq in range(2, 400))]
    for fact in facts:
        journal.append(fact)
    long = await journal.text("long text " * 10_000)
    await journal.finish()
    assert folder.begun()
    assert (await journal.text("long text " * 10_000), read_text(folder, long)) == (long, "long text " * 10_000)
    first = read_facts(folder, 1, 20)
    assert (first.facts, read_facts(folder, 21, None, first.after).facts) == (facts[:20], facts[20:])
    assert read_record(folder).last_seq == len(facts)
    again = Journal(folder, threads)
    again.append(ended(400))
    again.close()
    assert read_record(folder).outcome == "answered"
    whole = folder.size()
    folder.log().append(b'{"torn')
    assert (read_facts(folder).cut, mend(folder), mend(folder), folder.size()) == (6, 6, 0, whole)
    assert folder.child("c").name == "c"
    assert (tmp_path / "run").exists() == (kind == "disk")


@pytest.mark.parametrize("values", [3, 40], ids=["each", "all at once"])
async def test_at_its_end_texts_are_on_the_disk_before_the_journal_that_names_them(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    """Those too that were there already: nobody knows whether they had come as far. Then the names in the folders."""
    synced: list[str] = []

    def file(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fdatasync", file)
    monkeypatch.setattr(os, "fsync", file)
    monkeypatch.setattr(runfolder, "sync_filesystem", lambda folder: synced.append(f"all of {folder}"))
    folder = tmp_path / "run"
    known = Journal(DiskFolder(folder), threads)
    texts = [f"{number} " * 5000 for number in range(values)]
    digests = [(await known.text(text)).digest for text in texts]
    known.close()
    journal = Journal(DiskFolder(folder), threads)
    journal.append(started())
    for text in texts:
        await journal.text(text)
    await journal.finish()
    assert synced.pop() == str(folder / "journal.jsonl")
    if values > 16:
        assert synced == [f"all of {folder}"]
    else:
        assert set(synced[:-3]) == {str(folder / "values" / digest) for digest in digests}
        assert synced[-3:] == [str(folder / "values"), str(folder), str(tmp_path)]


async def test_the_journals_of_children_are_brought_to_the_disk_with_their_parents(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(runfolder, "sync_filesystem", synced.append)
    folder = DiskFolder(tmp_path / "run")
    journal, child = Journal(folder, threads), Journal(folder.child("below"), threads)
    for one in (journal, child):
        one.append(started())
    child.close()
    await journal.finish()
    assert synced == [tmp_path / "run"]
