"""The history's one promise: never more than the budget; and what it gives up, in order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmd.engine.history import History, elide
from rlmd.engine.tokens import TokenMeter
from rlmd.errors import PromptTooLong
from rlmd.providers.base import Message


def history(question: str = "What is it?") -> tuple[History, TokenMeter]:
    meter = TokenMeter()
    return History("You are a root. " * 20, f"Question: {question}", meter), meter


def contents(messages: tuple[Message, ...]) -> str:
    return "\n".join(message.content for message in messages)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 20_000), st.sampled_from("a7é語{")), max_size=14),
    st.integers(900, 6000),
    st.floats(1.0, 3.0),
)
def test_never_more_than_the_budget(turns: list[tuple[int, int, str]], budget: int, factor: float) -> None:
    """Whatever is said, each prompt fits, begins with system and question, and roles alternate."""
    made, meter = history()
    meter.factor = factor
    for number, (reply, told, letter) in enumerate(turns, start=1):
        messages = made.messages(budget)
        assert meter.of(messages) <= budget
        assert messages[0].role == "system"
        assert messages[1].content.startswith("Question: What is it?")
        assert [message.role for message in messages[1:]] == ["user", "assistant"] * (len(messages[1:]) // 2) + ["user"]
        made.replied(number, letter * reply)
        made.told(letter * told)
    assert meter.of(made.messages(budget, "Finish now.")) <= budget
    assert "Finish now." in contents(made.messages(budget, "Finish now."))


def test_it_grows_only_at_its_end_between_compactions() -> None:
    """Each prompt begins with the one before, so that a host's prefix cache holds; compactions are rare."""
    made, _ = history()
    before: tuple[Message, ...] = ()
    rewritten = 0
    for number in range(1, 40):
        messages = made.messages(4000)
        rewritten += messages[: len(before)] != before
        before = messages
        made.replied(number, f"reply {number} " * 10)
        made.told(f"output {number} " * 60)
    assert rewritten == made.compactions
    assert 1 <= rewritten <= 8


def test_outputs_go_before_replies_before_turns() -> None:
    """The newest exchange stays whole; of an old output head and tail stay, with what was cut counted."""
    made, _ = history()
    for number in range(1, 5):
        made.replied(number, f"reply {number}: print(x)")
        made.told(f"begin {number} " + "x " * 2000 + f"end {number}")
    text = contents(made.messages(3200))
    assert text.count("characters of old output left out") >= 1
    assert "reply 1: print(x)" in text
    assert "begin 1 " in text
    assert "end 1" in text
    assert "begin 4 " + "x " * 2000 + "end 4" in text


def test_dropped_turns_leave_a_line() -> None:
    """A turn that is given up altogether is remembered by what it did and saw."""
    made, _ = history()
    for number in range(1, 60):
        made.replied(number, f"reply {number} " * 30)
        made.told(f"output {number} " * 60)
        messages = made.messages(2500)
    assert "Earlier turns, shortened (whole in `history`" in messages[1].content
    assert "Turn 5" in messages[1].content
    assert "reply 59" in contents(messages)


def test_one_enormous_output_is_cut_to_fit() -> None:
    """Even the newest output gives way when it alone is too long; the question never does."""
    made, meter = history()
    made.replied(1, "print(context)")
    made.told("7" * 500_000)
    messages = made.messages(2000)
    assert meter.of(messages) <= 2000
    assert "What is it?" in messages[1].content
    assert "left out" in messages[-1].content


def test_a_question_that_cannot_fit_is_refused() -> None:
    """With both numbers and a hint, instead of a prompt that would be cut in silence."""
    made, _ = history("word " * 5000)
    with pytest.raises(PromptTooLong) as caught:
        made.messages(2000)
    assert caught.value.details["window"] == 2000
    assert caught.value.hint


def test_elide() -> None:
    """Head and tail with the number between; never longer than the text."""
    assert elide("abc", 1, 1) == "abc"
    assert (
        elide("a" * 100 + "b" * 1000 + "c" * 100, 100, 100)
        == "a" * 100 + "\n[… 1,000 characters left out …]\n" + "c" * 100
    )


def test_what_was_found_outlives_what_it_was_found_in() -> None:
    """The answer so far is repeated when the outputs that it rests on are shortened; as it stood then, so that the
    prefix stays; not at the cost of the newest output."""
    found = [""]
    made = History("You are a root.", "Question: What is it?", TokenMeter(), lambda: found[0])
    prompts = []
    for number in range(1, 30):
        prompts.append(contents(made.messages(2000)))
        made.replied(number, f"reply {number} " * 10)
        made.told(f"output {number} " * 60)
        found[0] = f"finding {number}. " * (1 if number < 20 else 500)
    reminded = [prompt for prompt in prompts if "so far" in prompt]
    assert len(reminded) > 15
    assert "finding" not in prompts[0]
    assert prompts[-1].count("so far") == 1
    assert made.compactions < 12
    made.told("long " * 3000)
    last = made.messages(2000)
    assert TokenMeter().of(last) <= 2000


def test_what_the_repl_gets_of_a_very_long_conversation_is_its_end() -> None:
    """In the order in which it was said, and within what a cell may be."""
    made, _ = history()
    for turn in range(1, 12):
        made.replied(turn, f"reply {turn} " * 8000)
        made.told(f"told {turn} " * 8000)
    bound: dict[str, list[dict[str, str]]] = {}
    exec(made.cell(), bound)
    kept = [message["content"].split(" ")[:2] for message in bound["history"]]
    assert kept[-2:] == [["reply", "11"], ["told", "11"]]
    assert kept == [[kind, str(turn)] for turn in range(1, 12) for kind in ("reply", "told")][-len(kept) :]
    assert 10 <= len(kept) < 22
    assert len(made.cell()) < 1_000_000
