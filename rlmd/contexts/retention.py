"""How long what nobody uses is kept: by rule, told before it happens, and never a named context.

Decides and asks the vault to do it. What a run or session names is not touched.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from rlmd.contexts.catalogue import ContextRow
from rlmd.contexts.records import Collected
from rlmd.contexts.uploads import Uploads
from rlmd.contexts.vault import Vault
from rlmd.contexts.vaults import Vaults

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """``implicit_days``: an implicit context that is unused so long goes. ``revisions``: so many of the newest stay.
    ``index_days``: a search index that is unused so long goes."""

    implicit_days: float = 30.0
    revisions: int = 10
    index_days: float = 30.0


async def collect(
    vaults: Vaults,
    uploads: Uploads,
    retention: Retention,
    held: Collection[str],
    pins: Collection[tuple[str, int]],
    now: float,
    *,
    dry_run: bool,
) -> list[Collected]:
    """Removes what has expired, or says what would be.

    Args:
        vaults, uploads: What is looked through.
        retention: The rule.
        held: Names of contexts that are in use.
        pins: Revisions that a run or session names.
        now: Seconds since the epoch.
        dry_run: Only say it.
    """
    found: list[Collected] = []
    for row in list(vaults.rows.values()):
        vault = vaults.of(row)
        idle = now - row.info.used
        if row.info.implicit and row.info.name not in held and idle > retention.implicit_days * _DAY:
            if not dry_run and not await vault.expire(row):
                continue
            why = f"implicit, unused for {idle / _DAY:.0f} days"
            found.append(Collected("context", row.info.name, row.info.bytes, why))
        elif row.info.revision > retention.revisions:
            found += await _prune(vault, row, retention, pins, dry_run)
    found += await _idle_indexes(vaults.disk, now - retention.index_days * _DAY, now, dry_run)
    if expired := uploads.expired():
        if not dry_run:
            uploads.sweep()
        found.append(Collected("uploads", "", sum(expired), f"{len(expired)} that nobody went on with"))
    return found


async def _prune(
    vault: Vault, row: ContextRow, retention: Retention, pins: Collection[tuple[str, int]], dry_run: bool
) -> list[Collected]:
    newest = row.info.revision
    keep = {*range(newest - retention.revisions + 1, newest + 1), *(n for name, n in pins if name == row.info.name)}
    count, size = await vault.prune(row, keep, dry_run=dry_run)
    why = f"{count} older than the newest {retention.revisions}, and named by no run"
    return [Collected("revisions", row.info.name, size, why)] if count else []


async def _idle_indexes(vault: Vault, before: float, now: float, dry_run: bool) -> list[Collected]:
    names = {row.id: name for name, row in vault.rows.items()}
    idle = [one for one in await vault.indexes() if one.context in names and one.used < before]
    if not dry_run:
        for one in idle:
            await vault.searcher.forget(one.context)
    return [
        Collected("index", names[one.context], one.bytes, f"unused for {(now - one.used) / _DAY:.0f} days")
        for one in idle
    ]
