"""What the names of candidates mean, where a host has not said yet which models it has."""

from __future__ import annotations

import pytest

from rlmd.errors import NotFound
from rlmd.pool.choosing import Silent, narrowed

FAR = Silent("far", frozenset({"qwen3:8b", "wide:latest"}))
NEW = Silent("new")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("far", [FAR]),
        ("far/anything", [FAR]),
        ("new/org/model", [NEW]),
        ("qwen3:8b", [FAR]),  # it had it on an earlier day
        ("wide", [FAR]),
    ],
)
def test_a_silent_host_may_be_meant(name: str, meant: list[Silent]) -> None:
    assert narrowed([], [FAR, NEW], [name], "sub") == ([], meant)


@pytest.mark.parametrize("name", ["qwen3", "far2", "fa", "/x", "org/model"])
def test_a_name_that_means_none_of_them_says_how_one_is_named(name: str) -> None:
    with pytest.raises(NotFound) as refused:
        narrowed([], [FAR, NEW], ["far", name], "sub")
    assert refused.value.hint == "Not heard yet which models there are: far, new. far/MODEL waits for one of them."
    assert "candidates are: none" in refused.value.message


def test_several_names_may_mean_one_host() -> None:
    assert narrowed([], [FAR, NEW], ["far/a", "far/b", "new"], "sub") == ([], [FAR, NEW])
