"""A host's speeds for people: what they are made of, that they follow slowly, and that guesses do not count."""

from __future__ import annotations

import pytest

from rlmd.pool.meter import WEIGHT, Meter
from rlmd.providers.base import Usage


def test_speeds_are_of_the_time_before_and_after_the_first_token() -> None:
    meter = Meter()
    meter.replied(Usage(1000, 200), first_token=2.0, seconds=6.0)
    assert (meter.prompt_speed, meter.output_speed, meter.first_token) == (500.0, 50.0, 2.0)


def test_one_reply_changes_them_little() -> None:
    meter = Meter(output_speed=50.0, prompt_speed=500.0, first_token=2.0)
    meter.replied(Usage(1000, 100), first_token=1.0, seconds=2.0)
    assert meter.output_speed == pytest.approx(50 + WEIGHT * 50)
    assert meter.prompt_speed == pytest.approx(500 + WEIGHT * 500)
    assert meter.first_token == pytest.approx(2 - WEIGHT)


@pytest.mark.parametrize(("estimated", "first_token"), [(True, 2.0), (False, None)])
def test_what_the_server_did_not_tell_does_not_count(*, estimated: bool, first_token: float | None) -> None:
    meter = Meter()
    meter.replied(Usage(1000, 200, estimated=estimated), first_token, seconds=6.0)
    assert meter == Meter()
