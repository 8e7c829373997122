"""The queue: what waits, grouped so that the next request for a host is found without looking at each. Pure.

Requests that agree in class, run, targets and avoided hosts share a bucket; within one the longest goes first, or the
longest of the prefix group whose prefix the host still holds, as far as the host would be done with it in time.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rlmd.pool.slots import Target


class Key(NamedTuple):
    """What decides who may take a request and when. ``ordered``: earlier targets are preferred, not just allowed."""

    interactive: bool
    run: str
    targets: tuple[Target, ...]
    avoided: frozenset[str]
    ordered: bool
    private: bool
    #: What each target may cost at most; by size class, so that requests of about a size share a bucket.
    costs: tuple[int, ...] = ()
    #: Seconds for which a host is waited for.
    patience: float = math.inf


#: Sorted by units, then newest first, so that the last of equals is the one that waits longest.
Sizes = list[tuple[int, int]]


@dataclass(slots=True)
class Bucket:
    key: Key
    #: When the first of them was asked.
    since: float = 0.0
    members: dict[int, int] = field(default_factory=dict)
    units: int = 0
    _sizes: Sizes = field(default_factory=list)
    _groups: dict[str, Sizes] = field(default_factory=dict)
    _prefixes: dict[int, str] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        return self._sizes[-1][0]

    def add(self, request: int, units: int, prefix: str) -> None:
        self.members[request] = units
        self.units += units
        insort(self._sizes, (units, -request))
        if prefix:
            self._prefixes[request] = prefix
            insort(self._groups.setdefault(prefix, []), (units, -request))

    def remove(self, request: int) -> None:
        entry = (self.members.pop(request), -request)
        self.units -= entry[0]
        _delete(self._sizes, entry)
        if prefix := self._prefixes.pop(request, ""):
            _delete(self._groups[prefix], entry)
            if not self._groups[prefix]:
                del self._groups[prefix]

    def head(self, prefix: str, limit: float) -> int:
        """The request to hand out next to a host that holds ``prefix``: the longest of at most ``limit`` units, or the
        shortest when all are longer."""
        return _longest(self._groups.get(prefix) or self._sizes, limit)


def _longest(sizes: Sizes, limit: float) -> int:
    index = bisect_right(sizes, (limit, 0)) or bisect_right(sizes, (sizes[0][0], 0))
    return -sizes[index - 1][1]


def _delete(sizes: Sizes, entry: tuple[int, int]) -> None:
    del sizes[bisect_left(sizes, entry)]


class Waiting:
    """All buckets that hold something, in the order in which they came to be."""

    def __init__(self) -> None:
        self._buckets: dict[Key, Bucket] = {}
        self._where: dict[int, Bucket] = {}
        #: Of all that waits.
        self.units = 0

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, request: int) -> bool:
        return request in self._where

    def __iter__(self) -> Iterator[Bucket]:
        return iter(self._buckets.values())

    def add(self, request: int, key: Key, units: int, prefix: str, since: float = 0.0) -> None:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(key, since)
        bucket.add(request, units, prefix)
        self.units += units
        self._where[request] = bucket

    def remove(self, request: int) -> None:
        bucket = self._where.pop(request)
        self.units -= bucket.members[request]
        bucket.remove(request)
        if not bucket.members:
            del self._buckets[bucket.key]

    def requests(self) -> Iterator[int]:
        return iter(self._where)

    def runs(self) -> set[str]:
        return {key.run for key in self._buckets}
