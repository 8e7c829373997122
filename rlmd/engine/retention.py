"""Which runs have been kept long enough: by their age, and by what all of them take; and what goes after them.

A run that goes on, or that the next daemon takes up, stays; so does each run of a named session, which is woken from
their journals.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set

from rlmd.config import RetentionSettings
from rlmd.contexts import Collected
from rlmd.engine.archive import Archive
from rlmd.engine.going import Going
from rlmd.engine.parts import Parts
from rlmd.engine.record import RunRecord
from rlmd.engine.sessions import Sessions
from rlmd.errors import RlmdError

_DAY = 86_400.0


async def collect(
    archive: Archive,
    sessions: Sessions,
    going: Going,
    parts: Parts,
    delete: Callable[[str], Awaitable[None]],
    *,
    dry_run: bool,
) -> list[Collected]:
    """Removes runs, and then what of the contexts has expired; or says what would be.

    Args:
        archive, sessions, going, parts: The engine's.
        delete: Takes a run off the disk.
        dry_run: Only say it.
    """
    named = sessions.visible(egress=False)
    loop, rule, now = asyncio.get_running_loop(), parts.settings.retention, parts.now()
    known, at_work = dict(archive.records), going.all()
    ids, sizes = {session.id for session in named}, await archive.sizes()

    def over() -> list[Collected]:
        return outlived([one for run_id, one in known.items() if run_id not in at_work], sizes, ids, rule, now)

    runs = await loop.run_in_executor(parts.threads, over)  # of ten thousand it takes 15 ms
    if not dry_run:
        runs = [one for one in runs if await _deleted(one.name, delete)]
    gone = {one.name for one in runs}
    heads = {one.run_id: (archive.head(one.run_id), one) for one in archive.records.values()}

    def pinned() -> set[tuple[str, int]]:
        return {(pin.context, pin.revision) for head, one in heads.values() if head not in gone for pin in one.contexts}

    pins = await loop.run_in_executor(parts.threads, pinned)
    # from here on as it is now: a run may have begun meanwhile
    begun = [one for run_id, one in archive.records.items() if run_id not in heads]
    pins.update((pin.context, pin.revision) for one in begun for pin in one.contexts)
    held = {name for one in named for name in one.held}
    held.update(name for live in going.live.values() for name in live.recorder.record.held)
    pins.update((pin.context, pin.revision) for one in named for pin in one.record().contexts)
    return [*runs, *await parts.contexts.collect(held, pins, dry_run=dry_run)]


async def _deleted(run_id: str, delete: Callable[[str], Awaitable[None]]) -> bool:
    """What cannot be deleted stays, and is tried again the next time."""
    with contextlib.suppress(RlmdError):
        await delete(run_id)
        return True
    return False


def outlived(
    records: Iterable[RunRecord], sizes: Mapping[str, int], sessions: Set[str], rule: RetentionSettings, now: float
) -> list[Collected]:
    """The runs that go, those that ended first before the others.

    Args:
        records: All runs; children go with their parents.
        sizes: Bytes on disk of each that has any.
        sessions: Ids of the named sessions.
        rule: Days and bytes.
        now: Seconds since the epoch.
    """
    ended = sorted(
        ((one.ended, one) for one in records if one.ended is not None and _may_go(one, sessions)),
        key=lambda pair: pair[0],
    )
    total = sum(sizes.values())
    gone = []
    for at, record in ended:
        size, days = sizes.get(record.run_id, 0), (now - at) / _DAY
        if days > rule.run_days:
            why = f"ended {days:.0f} days ago"
        elif total > rule.run_bytes and size:
            why = f"the oldest, while all runs take more than {rule.run_bytes} bytes"
        else:
            continue
        total -= size
        gone.append(Collected("run", record.run_id, size, why))
    return gone


def _may_go(record: RunRecord, sessions: Set[str]) -> bool:
    at_work = record.active or record.resumable or record.parent is not None
    return not at_work and record.session_id not in sessions
