"""``python -m tests.benchmarks``: measures, and prints a table with the machine's facts.

    python -m tests.benchmarks [--json FILE]

Peers (``rlms``, ``dspy`` and ``deno`` from the package index) get a virtual environment of their own in the cache
folder; where they cannot be installed their columns stay empty.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path

from tests.benchmarks import bench_contexts, bench_repl
from tests.benchmarks.suite import COLUMNS, Row, every, machine


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def head() -> str:
    return f"{'':<48}{'rlmd':>9}    {'floor':>9}{''.join(f'{name:>9}' for name in COLUMNS)}{'aim':>8}"


def line_of(row: Row) -> str:
    peers = "".join(f"{number(row.peers.get(name)):>9}" for name in COLUMNS)
    ours = f"{row.what:<48}{number(row.ours):>9} {row.unit:<3}"
    return f"{ours}{number(row.floor):>9}{peers}{number(row.aim):>8}  {row.note}"


async def measurements() -> AsyncIterator[Row]:
    async for row in every():
        yield row
    for row in await bench_repl.rows():
        yield row
    for row in await bench_contexts.rows():
        yield row


async def measure(file: Path | None) -> list[Row]:
    print(machine())
    print(head())
    rows = []
    async for row in measurements():
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
