"""Which models ``rlmctl setup`` proposes for which role."""

from __future__ import annotations

import pytest

from rlmd.ctl.proposing import billions, cheapest, offers_of, proposed
from rlmd.ctl.setup_hosts import name_of, urls_of
from rlmd.wire.methods import HostProbeResult, ProbedModel


def probed(*models: ProbedModel) -> HostProbeResult:
    return HostProbeResult(
        url="http://m40:11434", provider="ollama", software="ollama", version="1", trust="mine", address=None,
        slots=None, models=models, notes=(),
    )  # fmt: skip


def model(name: str, window: int = 8192, **more: object) -> ProbedModel:
    return ProbedModel.model_validate({"name": name, "window": window, **more})


def test_the_desk_of_three_uneven_hosts() -> None:
    offers = [
        *offers_of("m40", probed(model("qwen2.5-coder:32b"), model("nomic-embed-text", chat=False)), "mine"),
        *offers_of("rtx", probed(model("llama3.3:70b"), model("qwen2.5:7b")), "mine"),
        *offers_of("p100", probed(model("deepseek-coder:33b"), model("bge-m3")), "mine"),
    ]
    roles = proposed(offers)
    assert roles.root == ("rtx/llama3.3:70b", "p100/deepseek-coder:33b", "m40/qwen2.5-coder:32b")
    assert set(roles.sub) == set(roles.root)


def test_what_is_too_small_is_named_only_where_there_is_nothing_larger() -> None:
    small = offers_of("laptop", probed(model("qwen2.5:1.5b")), "mine")
    assert proposed(small).root == ("laptop/qwen2.5:1.5b",)
    both = proposed([*small, *offers_of("m40", probed(model("qwen2.5-coder:14b")), "mine")])
    assert both.root == both.sub == ("m40/qwen2.5-coder:14b",)


def test_pictures_come_last_and_a_tiny_window_leads_nothing() -> None:
    offers = offers_of("m40", probed(model("llava:34b"), model("qwen2.5-coder:14b")), "mine")
    assert proposed(offers).root == ("m40/qwen2.5-coder:14b",)
    offers = [
        *offers_of("m40", probed(model("big:70b", window=2048)), "mine"),
        *offers_of("rtx", probed(model("fit:14b")), "mine"),
    ]
    assert proposed(offers).root == ("rtx/fit:14b",)
    assert set(proposed(offers).sub) == {"m40/big:70b", "rtx/fit:14b"}


def test_hosts_of_yours_go_before_the_cloud_however_large_it_is() -> None:
    mine = offers_of("m40", probed(model("qwen2.5-coder:14b")), "mine")
    cloud = offers_of("deepseek", probed(model("deepseek-v4-pro-671b", price=(0.66, 1.98))), "cloud")
    assert proposed([*cloud, *mine]).root == ("m40/qwen2.5-coder:14b", "deepseek/deepseek-v4-pro-671b")


def test_of_a_host_that_sends_some_models_elsewhere_one_of_its_own_is_proposed() -> None:
    offers = offers_of("m40", probed(model("gpt-oss:120b-cloud", remote=True), model("qwen2.5-coder:14b")), "mine")
    assert proposed(offers).root == ("m40/qwen2.5-coder:14b",)


def test_the_smallest_that_reads_goes_first_for_sub_queries() -> None:
    offers = [
        *offers_of("rtx", probed(model("llama3.3:70b")), "mine"),
        *offers_of("m40", probed(model("qwen2.5-coder:14b")), "mine"),
    ]
    assert proposed(offers).sub == ("m40/qwen2.5-coder:14b", "rtx/llama3.3:70b")


def test_a_price_of_nothing_is_none_that_is_known() -> None:
    offers = offers_of("z", probed(model("free", price=(0.0, 0.0)), model("paid", price=(0.1, 0.2))), "cloud")
    assert cheapest(offers) is offers[1]


def test_of_a_provider_it_is_the_cheapest_whose_price_is_known() -> None:
    offers = offers_of(
        "z", probed(model("glm-5.3", price=(1.4, 4.4)), model("glm-flash", price=(0.15, 0.5)), model("glm-x")), "cloud"
    )
    found = cheapest(offers)
    assert found is not None
    assert found.model == "glm-flash"
    assert cheapest(offers[2:]) is offers[2]
    assert cheapest(()) is None


@pytest.mark.parametrize(
    ("name", "size"),
    [("qwen2.5-coder:32b", 32), ("32.8B", 32.8), ("mixtral:8x7b", 56), ("nomic 137M", 0.137), ("llama3.3", None),
     ("base", None), ("gemma3:4b-it-qat", 4), ("deepseek-r1-distill-70b", 70)],
)  # fmt: skip
def test_sizes_are_in_names(name: str, size: float | None) -> None:
    assert billions(name) == size


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("m40:8080", ("http://m40:8080",)),
        ("https://x.example/v1", ("https://x.example/v1",)),
        ("m40/v1", ("http://m40/v1",)),
        ("m40", tuple(f"http://m40:{port}" for port in (11434, 8080, 8000, 1234))),
        ("[::1]:8080", ("http://[::1]:8080",)),
    ],
)
def test_what_is_typed_is_looked_for_at_the_usual_ports(text: str, urls: tuple[str, ...]) -> None:
    assert urls_of(text) == urls


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://m40:11434", "m40-2"),
        ("http://rtx.lan:11434", "rtx"),
        ("http://127.0.0.1:11434", "local"),
        ("http://192.168.1.5:11434", "host-192-168-1-5"),
        ("https://api.deepseek.com", "deepseek"),
        ("http://[fd00::5]:1", "host-fd00-5"),
    ],
)
def test_hosts_are_named_after_their_machines(url: str, name: str) -> None:
    assert name_of(url, ["m40"]) == name
