"""What models cost: which row of the table is whose, by the name that the provider has for it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from rlmd.pool.prices import price_of
from rlmd.providers.base import Usage

MILLION = Usage(1_000_000, 0)
TODAY = date(2026, 11, 29)
SUNDAY, MONDAY_PEAK = datetime(2026, 11, 29, 2, tzinfo=UTC), datetime(2026, 11, 30, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("url", "model", "dollars"),
    [
        ("https://api.anthropic.com", "claude-opus-5-5", 4.0),
        ("https://api.anthropic.com", "claude-opus-5-5-20260922", 4.0),
        ("https://api.anthropic.com", "claude-opus-5", 5.0),
        ("https://api.anthropic.com", "claude-opus-5-20260724", 5.0),
        ("https://api.anthropic.com", "claude-opus-5-7", None),
        ("https://api.anthropic.com", "claude-opus-6", None),
        ("https://api.z.ai/api/paas/v4", "glm-4.7-flash", 0.0),
        ("https://api.z.ai/api/paas/v4", "GLM-4.7", None),
        ("https://api.deepseek.com/anthropic", "deepseek-flash", 0.15),
        ("https://api.deepseek.com", "deepseek-v4-flash-vision-exp", 0.15),
        ("https://notdeepseek.com", "deepseek-flash", None),
    ],
)
def test_a_model_has_the_price_of_its_own_name(url: str, model: str, dollars: float | None) -> None:
    price = price_of(url, model, None, TODAY)
    told = None if price is None else price.cost(MILLION, [SUNDAY]) / 1e9
    assert told == (None if dollars is None else pytest.approx(dollars))


def test_deepseek_costs_twice_at_its_peak_and_a_request_counts_at_the_dearer_end() -> None:
    price = price_of("https://api.deepseek.com", "deepseek-flash", None, TODAY)
    assert price is not None
    assert price.cost(MILLION, [SUNDAY, MONDAY_PEAK]) == 2 * price.cost(MILLION, [SUNDAY])
    assert price.worst(1_000_000, 0, 0) >= price.cost(MILLION, [MONDAY_PEAK])
