"""``python -m tests.benchmarks``: measures, and prints a table with the machine's facts.

    python -m tests.benchmarks [--json FILE]

Peers (``rlms`` and ``dspy`` from the package index) get a virtual environment of their own in the cache folder; where
they cannot be installed their columns stay empty.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
from pathlib import Path

from tests.benchmarks.suite import PEERS, Row, every, machine


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def line_of(row: Row) -> str:
    peers = "".join(f"{number(row.peers.get(name)):>9}" for name in PEERS)
    ours = f"{row.what:<48}{number(row.ours):>9} {row.unit:<3}"
    return f"{ours}{number(row.floor):>9}{peers}{number(row.aim):>8}  {row.note}"


async def measure(file: Path | None) -> list[Row]:
    print(machine())
    print(f"{'':<48}{'rlmd':>9}    {'floor':>9}{''.join(f'{name:>9}' for name in PEERS)}{'aim':>8}")
    rows = []
    async for row in every():
        rows.append(row)
        print(line_of(row).rstrip(), flush=True)
    if file:
        told = {"machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    asyncio.run(measure(parser.parse_args().json))
