"""Ctrl-C: first an offer, then a cancel, then leaving; without a terminal the first one cancels."""

from __future__ import annotations

import pytest

from rlmd.ctl.interrupts import QUESTION, Interrupts


class Story:
    def __init__(self, *, interactive: bool) -> None:
        self.told: list[str] = []
        self.questions: list[str | None] = []
        self.interrupts = Interrupts(
            interactive=interactive,
            ask=self.questions.append,
            cancel=lambda: self.told.append("cancel"),
            detach=lambda: self.told.append("detach"),
            leave=lambda: self.told.append("leave"),
            terminate=lambda: self.told.append("terminate"),
        )


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(6, "no terminal")

    monkeypatch.setattr("rlmd.ctl.terminal_line.os.open", refuse)


def test_offer_cancel_leave() -> None:
    story = Story(interactive=True)
    story.interrupts.interrupted()
    assert (story.told, story.questions) == ([], [QUESTION])
    story.interrupts.interrupted()
    assert story.told == ["cancel"]
    story.interrupts.interrupted()
    story.interrupts.interrupted()
    assert story.told == ["cancel", "leave", "leave"]


@pytest.mark.parametrize("answer", ["d\n", " D\n", "detach\n"])
def test_the_offer_taken(answer: str) -> None:
    story = Story(interactive=True)
    story.interrupts.interrupted()
    story.interrupts.answered(answer)
    assert (story.told, story.questions) == (["detach"], [QUESTION, None])


def test_the_offer_declined_begins_anew() -> None:
    story = Story(interactive=True)
    for _ in range(3):
        story.interrupts.interrupted()
        story.interrupts.answered("\n")
    assert story.told == []
    assert story.questions == [QUESTION, None] * 3


def test_without_a_person_the_first_one_cancels() -> None:
    story = Story(interactive=False)
    story.interrupts.interrupted()
    assert story.told == ["cancel"]
