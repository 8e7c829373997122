"""The queue: what waits, grouped so that the next request for a host is found without looking at each. Pure.

Requests that agree in class, run, targets and avoided hosts share a bucket; within one the longest goes first, or the
longest of the prefix group whose prefix the host still holds.
"""

from __future__ import annotations

import heapq
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


@dataclass(slots=True)
class Bucket:
    key: Key
    members: dict[int, int] = field(default_factory=dict)
    units: int = 0
    _longest: list[tuple[int, int]] = field(default_factory=list)
    _groups: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def add(self, request: int, units: int, prefix: str) -> None:
        self.members[request] = units
        self.units += units
        heapq.heappush(self._longest, (-units, request))
        if prefix:
            heapq.heappush(self._groups.setdefault(prefix, []), (-units, request))

    def remove(self, request: int) -> None:
        self.units -= self.members.pop(request)

    def head(self, prefix: str) -> int:
        """The request to hand out next to a host that holds ``prefix``."""
        if prefix and (group := self._groups.get(prefix)):
            if (found := self._top(group)) is not None:
                return found
            del self._groups[prefix]
        found = self._top(self._longest)
        assert found is not None, "an empty bucket is dropped"
        return found

    def _top(self, heap: list[tuple[int, int]]) -> int | None:
        """Removed requests are dropped when they come up. A request that was put back has two equal entries; both
        name it, and the second is dropped once it is gone."""
        while heap and self.members.get(heap[0][1]) != -heap[0][0]:
            heapq.heappop(heap)
        return heap[0][1] if heap else None


class Waiting:
    """All buckets that hold something, in the order in which they came to be."""

    def __init__(self) -> None:
        self._buckets: dict[Key, Bucket] = {}
        self._where: dict[int, Bucket] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, request: int) -> bool:
        return request in self._where

    def __iter__(self) -> Iterator[Bucket]:
        return iter(self._buckets.values())

    def add(self, request: int, key: Key, units: int, prefix: str) -> None:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(key)
        bucket.add(request, units, prefix)
        self._where[request] = bucket

    def remove(self, request: int) -> None:
        bucket = self._where.pop(request)
        bucket.remove(request)
        if not bucket.members:
            del self._buckets[bucket.key]

    def requests(self) -> Iterator[int]:
        return iter(self._where)

    def runs(self) -> set[str]:
        return {key.run for key in self._buckets}
