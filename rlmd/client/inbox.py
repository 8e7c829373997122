"""What has come for one run and was not read yet: in order, without holes, and of bounded size.

A pure object: no sockets, no tasks. Facts are numbered, so a fact that would not fit need not be kept: the
number up to which facts exist is, and the reader fetches the missing ones when it has caught up. Deltas may be
merged or dropped by the protocol's own words.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

#: Facts kept for a reader that is behind; at the protocol's 4 KiB a text, a few MB at the very most.
MAX_FACTS = 1000
#: Characters of deltas kept, over all streams: some minutes of a model's writing.
MAX_DELTA_CHARS = 256 * 1024

Message = dict[str, Any]


class Inbox:
    """Takes notifications on one side (``put_*``), gives facts and deltas on the other (``take``).

    Args:
        next_seq: Number of the first fact wanted.
    """

    def __init__(self, next_seq: int = 1) -> None:
        self._items: deque[Message] = deque()
        self._facts = 0
        self._delta_chars = 0
        #: Number of the fact that comes next into the queue; all before it were taken in.
        self.next_seq = next_seq
        #: Highest number that is known to exist.
        self.known_to = next_seq - 1
        #: Set when there is something to do: an item, a hole to fill, or news from outside.
        self.news = asyncio.Event()

    @property
    def behind(self) -> bool:
        """Whether facts exist that are not in the queue and will not come by themselves."""
        return self.known_to >= self.next_seq

    def put_fact(self, fact: Message) -> None:
        seq = fact.get("seq")
        if not isinstance(seq, int) or seq < self.next_seq:
            return
        self.known_to = max(self.known_to, seq)
        if seq == self.next_seq and self._facts < MAX_FACTS:
            self._items.append(fact)
            self._facts += 1
            self.next_seq += 1
        self.news.set()

    def put_delta(self, delta: Message) -> None:
        text, offset = delta.get("text"), delta.get("offset")
        if not isinstance(text, str) or not isinstance(offset, int) or self.behind:
            return
        if self._delta_chars + len(text) > MAX_DELTA_CHARS:
            return
        self._delta_chars += len(text)
        last = self._items[-1] if self._items else None
        if last is not None and "seq" not in last and _continues(last, delta):
            self._items[-1] = {**last, "text": last["text"] + text}
        else:
            self._items.append(delta)
        self.news.set()

    def announce(self, seq: int) -> None:
        """Facts up to ``seq`` exist, whether or not they were sent."""
        self.known_to = max(self.known_to, seq)
        self.news.set()

    def take(self) -> Message | None:
        """The next fact or delta; None when there is none."""
        if not self._items:
            self.news.clear()
            return None
        item = self._items.popleft()
        if "seq" in item:
            self._facts -= 1
        else:
            self._delta_chars -= len(item["text"])
        return item


def _continues(last: Message, delta: Message) -> bool:
    return bool(last.get("stream") == delta.get("stream") and last["offset"] + len(last["text"]) == delta["offset"])
