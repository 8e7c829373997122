"""Whom a host belongs to where nobody has said so: unknown means cloud."""

from __future__ import annotations

from typing import Any

import pytest

from rlmd.config import HostSettings, ModelSettings
from rlmd.pool.host import Host
from rlmd.providers.base import ServedModel, ServerFacts

LAN, OUTSIDE, NAMED = "http://192.168.1.5:11434", "http://203.0.113.9:11434", "http://m40:11434"


def facts(software: str | None, *models: ServedModel) -> ServerFacts:
    return ServerFacts("ollama" if software == "ollama" else "openai", "1", models, software=software)


LISTED = ServedModel("m")


@pytest.mark.parametrize(
    ("url", "told", "trust"),
    [
        (LAN, facts("ollama", LISTED), "mine"),
        (LAN, facts("llama.cpp", LISTED), "mine"),
        (LAN, facts("vllm", LISTED), "mine"),
        (OUTSIDE, facts("ollama", LISTED), "cloud"),
        (OUTSIDE, facts("llama.cpp"), "cloud"),
        (NAMED, facts("ollama", LISTED), "cloud"),  # whoever answers for the name decides where the text goes
        (LAN, facts(None, LISTED), "cloud"),  # a proxy may send it anywhere
        (LAN, facts("openrouter", LISTED), "cloud"),
        (LAN, facts("ollama", ServedModel("m", remote=True)), "cloud"),
        (LAN, facts("ollama"), "cloud"),  # it may pass on a model that it does not list
        (LAN, facts("llama.cpp"), "mine"),  # its one model, under whatever name
    ],
)
def test_trust_where_the_settings_say_nothing(url: str, told: ServerFacts, trust: str) -> None:
    host = Host("h", HostSettings(url=url, provider="ollama", models={"m": ModelSettings()}), {})
    host.facts, host.ready = told, True
    assert host.models()["m"].trust == trust


@pytest.mark.parametrize(
    ("more", "served", "trust"),
    [
        ({"trust": "mine", "url": OUTSIDE}, LISTED, "mine"),
        ({"trust": "cloud", "url": LAN}, LISTED, "cloud"),
        ({"trust": "mine", "url": LAN}, ServedModel("m", remote=True), "cloud"),  # its machine is mine, its reader not
    ],
)
def test_the_settings_word_counts_but_for_models_that_are_passed_on(
    more: dict[str, Any], served: ServedModel, trust: str
) -> None:
    host = Host("h", HostSettings(provider="ollama", models={"m": ModelSettings()}, **more), {})
    host.facts, host.ready = facts("ollama", served), True
    assert host.models()["m"].trust == trust


def test_a_server_that_answers_and_does_not_say_what_it_is_is_cloud() -> None:
    host = Host("h", HostSettings(url=LAN, provider="openai", models={"m": ModelSettings()}), {})
    assert host.models()["m"].trust == "mine", "nothing is sent before it has answered"
    host.ready = True
    host._offered.clear()
    assert host.models()["m"].trust == "cloud"
