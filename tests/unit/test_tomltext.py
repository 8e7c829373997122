"""Settings written as TOML read back as they were."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rlmd.config import Settings
from rlmd.tomltext import toml_of

words = st.text(st.characters(blacklist_categories=("Cs",)))
scalars = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | words
tables = st.recursive(
    st.dictionaries(words, scalars | st.lists(words)),
    lambda inner: st.dictionaries(words, scalars | inner),
    max_leaves=8,
)


@given(tables)
def test_what_is_written_reads_back(values: dict[str, Any]) -> None:
    assert tomllib.loads(toml_of(values)) == values


def test_settings_of_every_kind_read_back() -> None:
    given_values = {
        "hosts": {
            "m40": {"url": "http://m40:11434", "provider": "ollama", "models": {"qwen2.5-coder:32b": {"window": 8192}}}
        },
        "roles": {"root": ["m40/qwen2.5-coder:32b"]},
    }
    settings = Settings.model_validate(given_values)
    assert Settings.model_validate(tomllib.loads(toml_of(settings.model_dump(mode="json")))) == settings
