"""An answer as it is printed: citations that an editor can jump to, trouble said, nothing hidden."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from rlmd.ctl.answer import QUOTE, place, print_answer
from rlmd.ctl.exits import Exit, exit_of_run
from rlmd.ctl.terminal import Output
from rlmd.events import Citation, Locator
from rlmd.wire.methods import RunResult

RECEIPT = {
    "chars_total": 10, "chars_searched": 10, "chars_read": 0, "pieces": 0, "pieces_failed": 0, "sub_queries": 0,
    "sub_queries_cached": 0, "turns": 0, "wall_seconds": 0.5, "summary": "all searched, 0.5 s",
}  # fmt: skip


def result(answer: str | None = "Because.", citations: tuple[Citation, ...] = (), **run: Any) -> RunResult:
    info = {
        "run_id": "r", "question": {"chars": 1, "text": "?"}, "state": "ended", "outcome": "answered",
        "strategy": "quote", "contexts": [], "session": None, "private": False, "created": 0, "ended": 1, "turns": 0,
        "sub_queries": 0, "last_seq": 9, **run,
    }  # fmt: skip
    return RunResult.model_validate({"run": info, "answer": answer, "receipt": RECEIPT, "citations": citations})


def printed(of: RunResult, *notes: str, colour: bool = False) -> tuple[str, str]:
    output = Output(io.StringIO(), io.StringIO(), colour_err=colour)
    print_answer(output, of, notes)
    assert isinstance(output.out, io.StringIO)
    assert isinstance(output.err, io.StringIO)
    return output.out.getvalue(), output.err.getvalue()


def citation(number: int = 1, **fields: Any) -> Citation:
    at = {"context": "c", "revision": 1, "document": "a.py", "start": 5, "end": 9}
    locator = Locator(label="a.py:120", path="/src/a.py", line=120)
    return Citation(
        **{
            "number": number,
            "quote": "the text",
            "verified": True,
            "match": "exact",
            "locator": locator,
            **at,
            **fields,
        }
    )


def test_answer_and_citations_on_stdout_receipt_on_stderr() -> None:
    lost = citation(2, quote="made\nup", verified=False, match="none", document=None, locator=None)
    changed = citation(3, match="normalised")
    out, err = printed(result(citations=(citation(), lost, changed)))
    assert out == (
        "Because.\n\n"
        '[1] /src/a.py:120: "the text"\n'
        '[2] not found in the text: "made up"\n'
        '[3] /src/a.py:120: "the text" (but for spacing and signs)\n'
    )
    assert err == "all searched, 0.5 s\n"


def test_what_the_answer_shows_itself_is_not_listed_again() -> None:
    out, _ = printed(result("Found:\n\n[1] a.py:120:\n> the text", (citation(), citation(2))))
    assert out == 'Found:\n\n[1] a.py:120:\n> the text\n\n[2] /src/a.py:120: "the text"\n'


def test_a_quote_is_cut_and_cannot_drive_the_terminal() -> None:
    out, _ = printed(result("a\x1b]0;x\x07", (citation(quote="\x1b[31m" + "long " * 200),)))
    assert "\x1b" not in out
    assert len(out.splitlines()[-1]) < QUOTE + 40


@pytest.mark.parametrize(
    ("locator", "text"),
    [
        (Locator(label="x", path="/here/src/a.py", line=3), "src/a.py:3"),
        (Locator(label="x", path="/hereafter/a.py", line=3), "/hereafter/a.py:3"),
        (Locator(label="x", path="/other/a.py"), "/other/a.py"),
        (Locator(label="stdin:7", line=7), "stdin:7"),
        (None, "a.py@5"),
    ],
)
def test_places(locator: Locator | None, text: str) -> None:
    assert place(citation(locator=locator), Path("/here")) == text


@pytest.mark.parametrize(
    ("run", "said", "status"),
    [
        ({"outcome": "partial", "why": "the limit of 5 turns"}, "partial: the limit of 5 turns", Exit.UNANSWERED),
        ({"outcome": "none", "why": "nothing found"}, "no answer: nothing found", Exit.UNANSWERED),
        ({"outcome": "failed", "state": "failed", "why": "no host"}, "failed: no host", Exit.ERROR),
        ({"outcome": "cancelled", "state": "cancelled", "why": "Ctrl-C"}, "cancelled: Ctrl-C", Exit.CANCELLED),
        ({"outcome": None, "state": "interrupted"}, "interrupted: the daemon stopped", Exit.UNANSWERED),
    ],
)
def test_why_there_is_no_full_answer_is_said(run: dict[str, Any], said: str, status: Exit) -> None:
    shown = result(None, **run)
    out, err = printed(shown)
    assert out == ""
    assert err.splitlines()[0] == said
    assert exit_of_run(shown.run.state, shown.run.outcome) is status


def test_a_full_answer_leaves_with_zero() -> None:
    assert exit_of_run("ended", "answered") is Exit.DONE


def test_a_note_that_the_answer_says_too_is_not_said_twice() -> None:
    _, err = printed(result("No model was\nused. So there."), "No model was used.", "m40 was away.")
    assert err.splitlines() == ["m40 was away.", "all searched, 0.5 s"]


def test_a_failure_is_red_and_a_part_of_an_answer_is_not() -> None:
    for outcome, painted in (
        ("failed", "\x1b[31mfailed: because\x1b[0m"),
        ("partial", "\x1b[33mpartial: because\x1b[0m"),
    ):
        _, err = printed(result(outcome=outcome, why="because"), colour=True)
        assert err.splitlines()[0] == painted
