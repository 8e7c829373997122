"""Which settings differ, and which of them wait for a restart."""

from __future__ import annotations

from rlmd.changed import AT_START, changed, in_use, waits
from rlmd.config import Settings


def settings(**sections: object) -> Settings:
    return Settings.model_validate(sections)


def test_what_is_read_once_is_a_setting() -> None:
    for section, keys in AT_START.items():
        assert set(keys) <= set(type(getattr(Settings(), section)).model_fields)


def test_what_differs_is_told_by_name() -> None:
    one = {"url": "http://m40:11434", "provider": "ollama"}
    before = settings(hosts={"m40": one, "gone": one}, limits={"turns": 5})
    after = settings(hosts={"m40": {**one, "watts": 250}, "new": one}, limits={"turns": 6, "depth": 2})
    assert set(changed(before, after)) == {"hosts.m40", "hosts.gone", "hosts.new", "limits.turns", "limits.depth"}
    assert changed(after, after) == ()


def test_what_waits_for_a_restart_stays_as_it_was() -> None:
    before = settings(repl={"max_workers": 4, "cell_seconds": 10}, budget={"day": 1, "time_zone": "Europe/Berlin"})
    after = settings(repl={"max_workers": 5, "cell_seconds": 20}, budget={"day": 2, "time_zone": "UTC"})
    used = in_use(before, after)
    assert changed(before, used) == ("repl.cell_seconds", "budget.day")
    assert changed(used, after) == ("repl.max_workers", "budget.time_zone")
    assert [name for name in changed(before, after) if waits(name)] == ["repl.max_workers", "budget.time_zone"]
