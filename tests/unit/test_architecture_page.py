"""docs/architecture.md names files that are there, and every room of the house."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = sorted(path.parent.name for path in (ROOT / "rlmd").glob("*/__init__.py"))
#: ``engine/runs``, ``wire/handlers``, ``daemon.py``: of rlmd, as the page writes them.
NAMED = sorted(
    {name for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py)?)`", PAGE) if name.split("/")[0] in ROOMS}
    | set(re.findall(r"`([a-z_]+\.py)`", PAGE))
)


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_named(room: str) -> None:
    assert re.search(rf"`{room}[`/]|^ ?{room} ", PAGE, re.MULTILINE), f"{room} is on no line of docs/architecture.md"


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_is_there(name: str) -> None:
    place = ROOT / "rlmd" / name
    assert place.exists() or place.with_suffix(".py").exists(), name
