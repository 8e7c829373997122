"""What the root is told: short, true, and filled from the candidates."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rlmd.engine.prompts import PROMPTS, SubFacts, direct_prompt, opening, sub_facts, system_prompt, turn_line
from rlmd.engine.tokens import TokenMeter, tokens_of
from rlmd.events import Pin
from rlmd.providers.base import Message


@dataclass(frozen=True)
class Box:
    slots: int = 1
    window: int = 8192
    useful_window: int = 4096
    max_tokens: int = 1024


def test_the_system_prompt_is_short() -> None:
    """1,200 tokens at 3.5 characters a token, with the longest numbers: a root may have 8K in all."""
    facts = SubFacts(piece_chars=1_000_000, slots=512, sub_queries=10_000_000)
    assert len(system_prompt(facts, output_chars=100_000, cell_seconds=86_400.5, depth=8)) / 3.5 <= 1200


def test_the_system_prompt_tells_the_numbers() -> None:
    """Piece size, fan-out, purse, output cap and cell time are those of this run; nothing is left unfilled."""
    text = system_prompt(SubFacts(11_500, 8, 2000), output_chars=6144, cell_seconds=120)
    for number in ("11500", "; 8 run at the same time", "2,000 in all", "6,144 characters", "120 s"):
        assert number in text
    assert "$" not in text


@pytest.mark.parametrize("facts", [None, SubFacts(1000, 1, 0)])
def test_without_sub_models_none_are_promised(facts: SubFacts | None) -> None:
    """No candidate, or no sub-query allowed: llm_query is not mentioned."""
    text = system_prompt(facts, output_chars=6144, cell_seconds=120)
    assert "llm_query" not in text
    assert "no other model" in text


def test_child_runs_are_promised_where_there_may_be_some() -> None:
    facts = SubFacts(1000, 1, 10)
    assert "rlm_query" in system_prompt(facts, output_chars=6144, cell_seconds=120, depth=1)
    assert "rlm_query" not in system_prompt(facts, output_chars=6144, cell_seconds=120, depth=0)


def test_pieces_suit_most_slots() -> None:
    """A small host that holds a quarter of the slots does not shrink everyone's pieces; half of them does."""
    large, small = Box(slots=6, window=32_768, useful_window=16_384), Box(slots=2)
    assert sub_facts([large, small], 10) == SubFacts((16_384 - 256) * 3 // 100 * 100, 8, 10)
    assert sub_facts([Box(slots=2, window=32_768, useful_window=16_384), small], 10).piece_chars == 11_500


def test_a_piece_leaves_room_for_the_reply() -> None:
    """Where the useful window is the whole one, the reply's tokens are taken off."""
    assert sub_facts([Box(useful_window=8192)], 1).piece_chars == (8192 - 1024 - 256) * 3 // 100 * 100


def test_a_question_is_not_a_template() -> None:
    """A dollar sign in a question, a name or a text stands as it is."""
    pin = Pin(context="$c", revision=1, kind="text", private=False, documents=1, chars=1234567, digest="d")
    text = opening("Costs $5 or ${x}?", [pin], "Turn 1 of 3.")
    assert "Costs $5 or ${x}?" in text
    assert "'$c', one text of 1,234,567 characters" in text
    assert direct_prompt("a $1 b", "why $?").startswith("a $1 b\n")


def test_several_contexts_are_named() -> None:
    """The root learns how to reach each, and what kind it is."""
    pins = [
        Pin(context="a", revision=1, kind="text", private=False, documents=1, chars=10, digest="d"),
        Pin(context="b", revision=1, kind="collection", private=False, documents=3, chars=30, digest="d"),
    ]
    text = opening("?", pins, "")
    assert "contexts['a']: 'a', one text" in text
    assert "contexts['b']: 'b', a list of 3 documents" in text


def test_the_last_turn_says_so() -> None:
    """A root that is not told goes on exploring."""
    assert turn_line(3, 8) == "Turn 3 of 8."
    assert turn_line(3, 8, 1200) == "Turn 3 of 8, 1,200 sub-queries left."
    assert PROMPTS.last_turn in turn_line(8, 8)


#: Text → tokens that Qwen's or Llama's tokenizer makes of it, at least (counted by hand on their known splits).
SPLITS = {
    "digits, one each": ("0123456789" * 10, 100),
    "words": ("the quick brown fox jumps over the lazy dog " * 10, 90),
    "Chinese": ("日本語のテキスト" * 10, 80),
    "accented": ("é" * 50, 50),
    "emoji": ("🙂" * 20, 40),
    "signs": ("{}[]();," * 10, 40),
}


@pytest.mark.parametrize(("text", "least"), SPLITS.values(), ids=SPLITS.keys())
def test_the_estimate_is_not_too_low(text: str, least: int) -> None:
    """Each class of characters is weighed as the poorest tokenizer splits it."""
    assert tokens_of(text) >= least


def test_the_meter_learns_upwards_alone() -> None:
    """A server that counted more raises all estimates; one that counted less (a cached prefix) lowers none."""
    meter = TokenMeter()
    messages = (Message("user", "word " * 1000),)
    before = meter.of(messages)
    meter.counted(messages, before // 4)
    assert meter.of(messages) == before
    meter.counted(messages, before * 2)
    assert meter.of(messages) >= before * 2
