"""One cell as the daemon sees it: its clock, its sub-queries, its end (parent side).

``CellClock`` is pure. ``Cell`` serves the frames of one running cell: it pulls prompts by credit, longest first,
gives each to the host in a task of its own, and sends the replies down.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from rlmd.errors import SessionLost
from rlmd.events import Span
from rlmd.repl import channel as frames
from rlmd.repl.base import CellHost, ChildQuery, SubQuery, SubQueryReply
from rlmd.repl.channel import Breach, Header
from rlmd.repl.done import Done
from rlmd.repl.link import MOST_CHARS, MOST_FRAME, MOST_GIVEN, MOST_SCHEMA, MOST_SLOTS

#: Sub-queries of one session that are with the host at once.
CREDIT = 128
#: Characters of the prompts that are with the host at once, which hold up to 4 bytes each; one prompt may always be.
_MOST_FLYING = 16_000_000
#: Batches and searches that a cell may have open at once, from its threads.
_MOST_BATCHES, _MOST_SEARCHES = 1024, 16
#: Sub-queries of all open batches together.
_MOST_OPEN = 2 * MOST_SLOTS
_MOST_SPANS = 64
#: Slots of a batch that are put in order at once, which takes 2 ms: a batch of 100,000 would take 40.
_STRETCH = 10_000
_MOST_QUERY, _MOST_HITS = 10_000, 1000


class CellClock:
    """A cell's own time. While sub-queries are out, only what the process computes counts; else the wall does.

    So a cell that waits is not charged, however its threads wait, and one that computes meanwhile is. Both readings
    come from the kernel, none from the worker.

    Args:
        wall: Seconds of a monotonic clock.
        cpu: CPU seconds of the process so far.
    """

    def __init__(self, wall: Callable[[], float], cpu: Callable[[], float]) -> None:
        self._wall, self._cpu = wall, cpu
        self._own = 0.0
        self.waiting = False
        self._mark = wall()

    def wait(self, waiting: bool) -> None:
        """Says whether sub-queries are out from now on."""
        if waiting != self.waiting:
            self._own = self.seconds()
            self.waiting = waiting
            self._mark = self._cpu() if waiting else self._wall()

    def seconds(self) -> float:
        now = self._cpu() if self.waiting else self._wall()
        return self._own + max(0.0, now - self._mark)


class _Batch:
    """A batch of the worker: what was asked, pulled, answered."""

    def __init__(
        self, number: int, sizes: Sequence[int], model: str | None, schema: str | None = None, *, runs: bool = False
    ) -> None:
        self.number, self.model, self.schema = number, model, schema  # number: from 1 in the cell, as the host counts
        #: Whether child runs are asked.
        self.runs = runs
        self.remaining = len(sizes)
        self.sizes = sizes
        #: Slots of the stretch that is being pulled, longest last; and the first slot after it.
        self._stretch: list[int] = []
        self._sorted = 0
        #: Slots pulled whose prompt has not come.
        self.pulled: set[int] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def unpulled(self) -> int:
        return len(self._stretch) + len(self.sizes) - self._sorted

    def pull(self, most: int, chars: int) -> list[int]:
        """The next slots to ask for, at most so many and so long together: of each stretch the longest first, equal
        ones in order."""
        slots: list[int] = []
        while len(slots) < most and self.unpulled:
            if not self._stretch:
                end = min(self._sorted + _STRETCH, len(self.sizes))
                self._stretch = sorted(range(end - 1, self._sorted - 1, -1), key=self.sizes.__getitem__)
                self._sorted = end
            chars -= self.sizes[self._stretch[-1]]
            if chars < 0:
                break
            slots.append(self._stretch.pop())
        self.pulled.update(slots)
        return slots

    def chars_of(self, slots: Iterable[int]) -> int:
        """Characters of these prompts together."""
        return sum(map(self.sizes.__getitem__, slots))


class Cell:
    """Serves one running cell.

    Args:
        number: The cell's number within the session.
        host: Answers its sub-queries and searches.
        send: Sends a frame to the worker.
        documents: Characters of each document, by context and name; what spans are checked against.
        on_waiting: Told whether sub-queries are out, at each change.
    """

    def __init__(
        self,
        number: int,
        host: CellHost,
        send: Callable[[Header, bytes], None],
        documents: Mapping[str, Mapping[str, int]],
        on_waiting: Callable[[bool], None],
    ) -> None:
        self.number = number
        #: What the worker said of the end, and what ended the cell from this side; ``woken`` at either, and at expiry.
        self.done: Done | None = None
        self.error: BaseException | None = None
        self.woken, self.reported = asyncio.Event(), asyncio.Event()
        self._host, self._send, self._documents, self._on_waiting = host, send, documents, on_waiting
        self._batches: dict[int, _Batch] = {}
        self._turn: deque[int] = deque()  # batches with slots to pull
        self._credit = CREDIT
        self._flying = 0
        self._counted = 0
        self._highest = 0
        self._searches: dict[int, asyncio.Task[None]] = {}
        self._stopped = False

    # Frames of the worker.

    def take(self, header: Header, body: bytes) -> bool:
        """Handles a frame; False when it is of no type that a cell sends."""
        handler = {
            "batch": self._take_batch,
            "prompt": self._take_prompt,
            "cancel": self._take_cancel,
            "search": self._take_search,
            "done": self._take_done,
        }.get(header["t"])
        if handler is None:
            return False
        if self.done is not None:
            raise Breach("a frame after the end of its cell")
        handler(header, body)
        return True

    def _new_id(self, header: Header) -> int:
        number = frames.integer(header, "id", 1, 1 << 53)
        if number <= self._highest and (number in self._batches or number in self._searches):
            raise Breach("an id was used twice")
        self._highest = max(self._highest, number)
        return number

    def _take_batch(self, header: Header, body: bytes) -> None:
        number = self._new_id(header)
        total = frames.integer(header, "total", 1, MOST_SLOTS)
        model = frames.optional_text(header, "model", 200)
        schema = frames.optional_text(header, "schema", MOST_SCHEMA)
        if len(self._batches) >= _MOST_BATCHES:
            raise Breach(f"more than {_MOST_BATCHES} batches at once")
        if total + sum(len(batch.sizes) for batch in self._batches.values()) > _MOST_OPEN:
            raise Breach(f"more than {_MOST_OPEN:,} sub-queries at once")
        runs = "kind" in header and frames.text(header, "kind", 10) == "run"
        self._counted += 1
        lone = self._query(header, body, model, schema, runs=runs) if total == 1 else None
        sizes = _sizes(body, total) if lone is None else [_length(lone)]
        batch = _Batch(self._counted, sizes, model, schema, runs=runs)
        if self._stopped:
            return
        self._batches[number] = batch
        self._on_waiting(True)
        self._host.batch_started(batch.number, total)
        if lone is not None and self._credit > 0 and batch.pull(1, self._room):
            batch.pulled.clear()
            self._spend(batch, [0])
            self._answer(number, batch, 0, lone)
            return
        self._turn.append(number)
        self._pull()

    def _pull(self) -> None:
        """Asks for prompts as far as the credit reaches; batches take turns, longest prompts first."""
        while self._credit > 0 and self._turn:
            number = self._turn.popleft()
            batch = self._batches.get(number)
            if batch is None or not batch.unpulled:
                continue
            share = max(1, self._credit // (len(self._turn) + 1))
            slots = batch.pull(share, self._room)
            if not slots:  # too long for now; it has its turn when others are done
                self._turn.appendleft(number)
                return
            self._spend(batch, slots)
            self._send({"t": "pull", "id": number, "slots": slots}, b"")
            if batch.unpulled:
                self._turn.append(number)

    @property
    def _room(self) -> int:
        """Characters that may be asked for now; when none are out any prompt has room."""
        return _MOST_FLYING - self._flying if self._flying else MOST_CHARS

    def _spend(self, batch: _Batch, slots: Sequence[int]) -> None:
        self._credit -= len(slots)
        self._flying += batch.chars_of(slots)

    def _regain(self, batch: _Batch, slots: Collection[int]) -> None:
        self._credit += len(slots)
        self._flying -= batch.chars_of(slots)

    def _take_prompt(self, header: Header, body: bytes) -> None:
        number = frames.integer(header, "id", 1, 1 << 53)
        batch = self._batches.get(number)
        if batch is None:
            return  # cancelled while the prompt was under way
        slot = frames.integer(header, "slot", 0, len(batch.sizes) - 1)
        if slot not in batch.pulled:
            raise Breach("a prompt that was not asked for")
        batch.pulled.discard(slot)
        query = self._query(header, body, batch.model, batch.schema, runs=batch.runs)
        if _length(query) != batch.sizes[slot]:
            raise Breach("a prompt that is not as long as its batch said")
        self._answer(number, batch, slot, query)

    def _query(
        self, header: Header, body: bytes, model: str | None, schema: str | None, *, runs: bool
    ) -> SubQuery | ChildQuery:
        prompt = frames.body_text(header, body)
        if len(prompt) > MOST_CHARS:
            raise Breach(f"a prompt of {len(prompt):,} characters; at most {MOST_CHARS:,} are taken")
        if runs:
            return self._child_query(header, prompt)
        spans = map(self._span, frames.items(header, "spans", _MOST_SPANS))
        return SubQuery(prompt, model, tuple(span for span in spans if span is not None), schema)

    def _child_query(self, header: Header, text: str) -> ChildQuery:
        """A question, and the texts behind it in the order in which they are given among stretches of documents."""
        at = frames.integer(header, "question", 0, len(text))
        question = text[:at]
        given: list[Span | str] | None = None
        if header.get("given") is not None:
            given = []
            for one in frames.items(header, "given", MOST_GIVEN):
                if type(one) is int and 0 <= one <= len(text) - at:
                    given.append(text[at : at + one])
                    at += one
                elif (span := self._span(one)) is not None:
                    given.append(span)
        if at != len(text):
            raise Breach("prompt.given is malformed")
        return ChildQuery(question, None if given is None else tuple(given))

    def _span(self, span: Any) -> Span | None:
        """A hint, if its names exist and its positions are inside; the engine checks the text itself."""
        if not isinstance(span, list) or len(span) != 4 or not all(isinstance(part, str) for part in span[:2]):
            raise Breach("prompt.spans is malformed")
        context, document, start, end = span
        if type(start) is not int or type(end) is not int:
            raise Breach("prompt.spans is malformed")
        inside = 0 <= start < end <= self._documents.get(context, {}).get(document, 0)
        return Span(context=context, document=document, start=start, end=end) if inside else None

    def _answer(self, number: int, batch: _Batch, slot: int, query: SubQuery | ChildQuery) -> None:
        task = asyncio.get_running_loop().create_task(
            self._answer_slot(number, batch, slot, query), name=f"sub-query {batch.number}.{slot}"
        )
        batch.tasks.add(task)
        task.add_done_callback(lambda ended: self._answered(number, batch, slot, ended))

    async def _answer_slot(self, number: int, batch: _Batch, slot: int, query: SubQuery | ChildQuery) -> None:
        answer = await self._host.answer(query, batch=batch.number, slot=slot)
        if isinstance(answer, SubQueryReply):
            header, text = {"t": "reply", "id": number, "slot": slot, "ok": True, "kind": ""}, answer.text
        else:
            header, text = {"t": "reply", "id": number, "slot": slot, "ok": False, "kind": answer.kind}, answer.message
        body = text.encode("utf-8", "replace")
        if len(body) > MOST_FRAME - 1024:
            body = f"the reply has {len(body):,} bytes; at most {MOST_FRAME - 1024:,} can be handed to a cell".encode()
            header |= {"ok": False, "kind": "too_large"}
        if not self._stopped and number in self._batches:
            self._send(header, body)

    def _answered(self, number: int, batch: _Batch, slot: int, ended: asyncio.Task[None]) -> None:
        batch.tasks.discard(ended)
        self._regain(batch, (slot,))
        error = None if ended.cancelled() else ended.exception()
        if error is not None:
            self.fail(error)
        if self._stopped or self._batches.get(number) is not batch:
            return
        batch.remaining -= 1
        if batch.remaining == 0:
            del self._batches[number]
            self._report_waiting()
        self._pull()

    def _take_cancel(self, header: Header, _body: bytes) -> None:
        batch = self._batches.pop(frames.integer(header, "id", 1, 1 << 53), None)
        if batch is not None:
            self._drop(batch)
            self._report_waiting()
            self._pull()

    def _drop(self, batch: _Batch) -> None:
        self._regain(batch, batch.pulled)
        batch.pulled.clear()
        for task in batch.tasks:
            task.cancel()

    def _take_search(self, header: Header, body: bytes) -> None:
        number = self._new_id(header)
        query, k = frames.body_text(header, body), header.get("k")
        if len(self._searches) >= _MOST_SEARCHES:
            raise Breach(f"more than {_MOST_SEARCHES} searches at once")
        if type(k) is not int or not 1 <= k <= _MOST_HITS or len(query) > _MOST_QUERY:
            refusal = f"search takes k from 1 to {_MOST_HITS} and a query of at most {_MOST_QUERY:,} characters"
            self._send({"t": "hits", "id": number, "error": refusal, "hits": []}, b"")
            return
        if self._stopped:
            return
        task = asyncio.get_running_loop().create_task(self._search(number, query, k), name="search")
        self._searches[number] = task
        self._on_waiting(True)
        task.add_done_callback(lambda ended: self._searched(number, ended))

    async def _search(self, number: int, query: str, k: int) -> None:
        hits = [[h.context, h.document, h.start, h.end, h.line, h.score] for h in await self._host.search(query, k)]
        if not self._stopped:
            self._send({"t": "hits", "id": number, "error": None, "hits": hits}, b"")

    def _searched(self, number: int, ended: asyncio.Task[None]) -> None:
        self._searches.pop(number, None)
        error = None if ended.cancelled() else ended.exception()
        if error is not None:
            self.fail(error)
        self._report_waiting()

    def _report_waiting(self) -> None:
        if not self._stopped:
            self._on_waiting(bool(self._batches or self._searches))

    def _take_done(self, header: Header, body: bytes) -> None:
        if frames.integer(header, "cell", 1, 1 << 53) != self.number or self.done is not None:
            raise Breach("the end of a cell that is not running")
        self.done = Done.of(header, body)
        self.reported.set()
        self.woken.set()

    # The end.

    def fail(self, error: BaseException) -> None:
        """Ends the cell with an error of the host, or with the loss of the session; the first one counts."""
        self.error = self.error or error
        self.woken.set()
        if isinstance(error, SessionLost):
            self.reported.set()  # nothing more will be

    async def stop(self) -> None:
        """Cancels all that is out and waits until it is gone. Afterwards nothing is sent for this cell."""
        self._stopped = True
        # Forgotten first: prompts that are under way arrive for batches that are no more, and are let pass.
        batches, self._batches = list(self._batches.values()), {}
        tasks = [*(task for batch in batches for task in batch.tasks), *self._searches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _length(query: SubQuery | ChildQuery) -> int:
    """Characters of a slot's text, as its batch said."""
    if isinstance(query, SubQuery):
        return len(query.prompt)
    return len(query.question) + sum(len(one) for one in query.given or () if isinstance(one, str))


def _sizes(body: bytes, total: int) -> Sequence[int]:
    """The manifest of a batch: the length of each prompt in characters, 32 bits each, highest byte first."""
    sizes = array("I")
    if sizes.itemsize * total != len(body):
        raise Breach("a batch whose manifest is not as long as the batch")
    sizes.frombytes(body)
    if sys.byteorder == "little":
        sizes.byteswap()
    if max(sizes) > MOST_CHARS:
        raise Breach(f"a prompt of {max(sizes):,} characters; at most {MOST_CHARS:,} are taken")
    return sizes
