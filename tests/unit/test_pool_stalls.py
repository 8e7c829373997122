"""Who is told that a run waits for a host, for which, and until when."""

from __future__ import annotations

from collections.abc import Collection, Set

import pytest

from rlmd.config import HostSettings
from rlmd.pool.stalls import HostWait, Stalls
from rlmd.pool.status import unusable


class Desk:
    """Stalls over hosts a, b and c, with what its listeners were told."""

    def __init__(self) -> None:
        self.going: set[str] = set()
        self.flights: list[Set[str]] = []
        self.asked: list[Collection[str]] = []
        self.told: list[tuple[str, list[str] | None, float]] = []
        settings = HostSettings(url="http://gpu", provider="ollama")
        hosts = [unusable(name, settings, f"{name} is off") for name in "abc"]
        self.stalls = Stalls(
            lambda: hosts, lambda: self.flights, lambda run: run in self.going, self.asked.append, lambda: 0.0
        )
        for tree in ("one", "two"):
            self.stalls.watch(tree, lambda wait, tree=tree: self.hear(tree, wait))  # type: ignore[misc]

    def hear(self, tree: str, wait: HostWait | None) -> None:
        if wait is None:
            self.told.append((tree, None, 0.0))
        else:
            self.told.append((tree, [host.name for host in wait.hosts], wait.until))

    def heard(self) -> list[tuple[str, list[str] | None]]:
        """Since the last time."""
        heard, self.told = [(tree, hosts) for tree, hosts, _ in self.told], []
        return heard


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("rlmd.pool.stalls.time.time", lambda: 1000.0)
    return Desk()


def test_it_is_told_and_told_when_it_goes_on(desk: Desk) -> None:
    desk.stalls.stalled("one", 60.0, ["a", "b"])
    assert desk.told == [("one", ["a", "b"], 1060.0)]
    assert desk.asked == [["a", "b"]], "they are looked at soon"
    assert desk.stalls.awaits("b")
    assert not desk.stalls.awaits("c")
    desk.stalls.moving("one")
    assert desk.heard()[1:] == [("one", None)]
    assert not desk.stalls.awaits("b")
    desk.stalls.moving("one")
    assert desk.heard() == [], "said once"


def test_of_all_that_it_waits_for_the_first_that_is_given_up_counts(desk: Desk) -> None:
    desk.stalls.stalled("one", 60.0, ["a"])
    key = desk.stalls.unheard("one", 30.0, ["b", "a"])
    assert desk.told[1:] == [("one", ["a", "b"], 1030.0)]
    desk.stalls.heard(key)
    assert desk.told[2:] == [("one", ["a"], 1060.0)]


def test_what_waits_for_an_unknown_host_is_told_while_nothing_else_goes_on(desk: Desk) -> None:
    desk.going = {"one"}
    key = desk.stalls.unheard("one", 60.0, ["a"])
    assert desk.heard() == []
    desk.going = set()
    desk.stalls.look()
    desk.stalls.look()
    assert desk.heard() == [("one", ["a"])]
    desk.going = {"one"}
    desk.stalls.look()
    assert desk.heard() == [("one", None)]
    desk.stalls.heard(key)
    assert desk.heard() == []


def test_who_waits_for_the_same_replies_alone_is_told_too(desk: Desk) -> None:
    desk.flights = [{"one", "two"}]
    desk.stalls.stalled("one", 60.0, ["a"])
    assert sorted(desk.heard()) == [("one", ["a"]), ("two", ["a"])]
    desk.stalls.moving("one")
    assert sorted(desk.heard()) == [("one", None), ("two", None)]
    desk.flights.append({"two"})  # it has something of its own besides
    desk.stalls.stalled("one", 60.0, ["a"])
    assert desk.heard() == [("one", ["a"])]


def test_who_listens_no_more_hears_nothing(desk: Desk) -> None:
    heard: list[HostWait | None] = []
    desk.stalls.watch("one", heard.append)
    desk.stalls.unwatch("one", heard.append)
    desk.stalls.unwatch("three", heard.append)
    desk.stalls.stalled("one", 60.0, ["a"])
    assert heard == []
    assert desk.heard() == [("one", ["a"])], "others do"
