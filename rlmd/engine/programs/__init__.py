"""Programs: packaged REPL code that runs as the first cell of an ordinary run, in the cage.

Each program is a real module of the standard library alone, so that it is typed, linted and tested like any other;
its source with a call at the end is the cell.
"""

from __future__ import annotations

from importlib import resources
from typing import Literal

ProgramName = Literal["map", "quote"]


def map_cell(question: str, piece_chars: int) -> str:
    """The cell of ``map``: the question over all pieces, then combined."""
    return _source("map") + (
        f"\n\nFINAL(answer_by_map({question!r}, documents, {piece_chars}, chunks, llm_query_batched))\n"
    )


def quote_cell(question: str) -> str:
    """The cell of ``quote``: hands over which stretches of which passages to quote, as JSON."""
    return _source("quote") + (
        "\n\nimport json\n"
        f"passages = search({question!r}, {PASSAGES})\n"
        f"FINAL(json.dumps(choose({question!r}, passages)))\n"
    )


#: Passages that ``quote`` chooses among.
PASSAGES = 24


def _source(name: ProgramName) -> str:
    return resources.files(__package__).joinpath(f"{name}.py").read_text(encoding="utf-8")
