"""Facts with as little in them as their types allow, for tests of those who carry them."""

from __future__ import annotations

from rlmd.events import CompletionRecord, Note, Receipt, RootReplied, RunEnded, Text, TurnStarted


def note(run_id: str, seq: int, text: str) -> Note:
    return Note(run_id=run_id, seq=seq, time=1.0, text=text)


def turn_started(run_id: str, seq: int, stream: str) -> TurnStarted:
    return TurnStarted(run_id=run_id, seq=seq, time=1.0, turn=1, stream=stream, prompt_tokens_estimated=10, window=8192)


def root_replied(run_id: str, seq: int, stream: str, text: str) -> RootReplied:
    completion = CompletionRecord(
        host="h", model="m", source="model", finish="stop", prompt_tokens=1, completion_tokens=1
    )
    reply = Text(chars=len(text), digest="0" * 64, preview=text[:20])
    return RootReplied(run_id=run_id, seq=seq, time=1.0, turn=1, stream=stream, reply=reply, completion=completion)


def run_ended(run_id: str, seq: int) -> RunEnded:
    receipt = Receipt(
        chars_total=0,
        chars_searched=0,
        chars_read=0,
        pieces=0,
        pieces_failed=0,
        sub_queries=0,
        sub_queries_cached=0,
        turns=0,
        wall_seconds=0.0,
        summary="",
    )
    answer = Text(chars=1, text="!")
    return RunEnded(
        run_id=run_id, seq=seq, time=1.0, outcome="answered", answer=answer, stream=None, why="", receipt=receipt
    )
