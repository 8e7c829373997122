"""Families of models: who is warned, who gets room to think, and what the config says first."""

from __future__ import annotations

import pytest

from rlmd.config import FamilySettings, PromptSettings
from rlmd.engine.families import FAMILIES, family_of
from rlmd.engine.prompts import PROMPTS, SubFacts, own_prompts, system_prompt

MODELS = {
    "qwen2.5-coder:32b": "coder",
    "deepseek-coder:33b": "coder",
    "qwen3-coder:30b": "coder",
    "Devstral-Small": "coder",
    "qwen3:32b": "thinking",
    "deepseek-r1:70b": "thinking",
    "gpt-oss:20b": "thinking",
    "o3-mini": "thinking",
    "glm-4.6": "thinking",
    "llama3.3:70b": "other",
    "mistral-small": "other",
    "phi3": "other",
}


@pytest.mark.parametrize(("model", "family"), MODELS.items())
def test_models_are_known_by_their_names(model: str, family: str) -> None:
    assert family_of(model, {}).name == family


def test_the_config_comes_first() -> None:
    own = {"mine": FamilySettings(models="^llama", note="Be brief.", room=2, share=0.5)}
    assert family_of("llama3.3:70b", own).note == "Be brief."
    assert family_of("qwen2.5-coder:32b", own).name == "coder"


def test_models_that_think_get_room() -> None:
    """Four times the reply, at most two fifths of the window; others stay within a quarter of it."""
    thinking, other = family_of("qwen3:32b", {}), family_of("llama3", {})
    assert (thinking.reply_tokens(8192, 1024), other.reply_tokens(8192, 1024)) == (3276, 1024)
    assert (thinking.reply_tokens(131_072, 1024), other.reply_tokens(2048, 1024)) == (4096, 512)


def test_the_system_prompt_stays_short_with_every_note() -> None:
    facts = SubFacts(piece_chars=1_000_000, slots=512, sub_queries=10_000_000)
    for family in FAMILIES:
        text = system_prompt(facts, output_chars=100_000, cell_seconds=86_400.5, depth=8, notes=(family.note,))
        assert family.note in text
        assert len(text) / 3.5 <= 1200


def test_own_words_have_a_version_of_their_own() -> None:
    assert own_prompts(None, "") is PROMPTS
    mine = own_prompts("Answer. $whole", "Be kind.")
    assert mine.version.startswith(f"{PROMPTS.version}+")
    assert mine.version != own_prompts("Answer! $whole", "Be kind.").version
    facts = SubFacts(1000, 1, 10)
    text = system_prompt(facts, output_chars=1, cell_seconds=1, notes=("", "Be kind."), prompts=mine)
    assert text.startswith("Answer. 3. If the question needs the whole text")
    assert text.endswith("Be kind.\n")


@pytest.mark.parametrize("system", ["Costs $5", "${nothing}", "$"])
def test_a_template_that_cannot_be_filled_is_refused(system: str) -> None:
    with pytest.raises(ValueError, match=r"\$\$ for a dollar"):
        PromptSettings(system=system)


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        FamilySettings(models="(")
