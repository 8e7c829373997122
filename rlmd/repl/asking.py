"""Asking the parent and waiting for its answers, from any thread and from an event loop (child side, standard library
alone).

Whoever waits may be the one that reads; it serves the others' frames too. A coroutine waits by the loop's own watch
on the channel, so that nothing blocks the loop and no thread is needed.
"""

from __future__ import annotations

import _thread

from rlmd.repl.link import Channel, Frame, Header, encode, fitting, is_readable

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from rlmd.repl.spans import Tracer
else:
    Any = object


class SubQueryError(Exception):
    """A sub-query that failed, raised by ``llm_query`` and standing in its slot of a batch. It is falsy and not a
    ``str``; using it as text raises, with the slot and the cause, so that a failure never passes for a finding."""

    def __init__(self, kind: str, message: str, slot: int = 0, total: int = 1) -> None:
        super().__init__(f"slot {slot} of {total}: {message} ({kind})" if total > 1 else f"{message} ({kind})")
        self.kind, self.message, self.slot, self.total = kind, message, slot, total

    @classmethod
    def make(cls, kind: str, message: str, slot: int = 0, total: int = 1) -> SubQueryError:
        # str.join names no more of a wrong item than its type, so the type is named for the failure.
        about = f"SubQueryError(slot {slot}: {message[:48]})"
        named: type[SubQueryError] = type(about, (cls,), {"__module__": "builtins"})
        return named(kind, message, slot, total)

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<SubQueryError: {self!s}>"

    def __format__(self, _spec: str) -> str:
        return f"[sub-query failed: {self!s}]"

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(f"a failed sub-query is not text: {self!s}. Keep the good results with ok(results).")

    __add__ = __radd__ = __getitem__ = __len__ = __iter__ = __contains__ = __mul__ = __mod__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return SubQueryError.make, (self.kind, self.message, self.slot, self.total)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(str, name):
            self._refuse()
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")


class Ticket:
    """Something asked of the parent and not yet answered. ``when_settled`` is called once, by whichever thread reads
    the last answer."""

    def __init__(self, total: int = 1) -> None:
        self.results: list[Any] = [None] * total
        self.remaining = total
        self.when_settled: Callable[[], object] | None = None

    def settle(self, slot: int, value: Any) -> None:
        self.results[slot] = value
        self.remaining -= 1
        if not self.remaining and self.when_settled is not None:
            self.when_settled()


class Batch(Ticket):
    """The prompts of one call, which the parent pulls in its own order; ``more`` goes into the header of each, and
    ``asked`` into that of the batch."""

    def __init__(self, prompts: list[str], more: list[Header], asked: Header) -> None:
        super().__init__(len(prompts))
        self.prompts, self.more, self.asked = prompts, more, asked


class Parent:
    """Asks the parent and waits; one thread reads for all that wait."""

    def __init__(self, channel: Channel, tracer: Callable[[], Tracer]) -> None:
        self.channel = channel
        self.inbox: list[Frame] = []
        self._tracer = tracer
        self._tickets: dict[int, Ticket] = {}
        self._numbers = 0
        self._turn = _thread.allocate_lock()
        self._sleepers: list[_thread.LockType] = []
        self._reading = False
        self._listeners = 0

    def ask(self, prompts: list[str], model: str | None = None, schema: str | None = None) -> list[Any]:
        """The replies, in order: texts, and a ``SubQueryError`` for each that failed."""
        return self._ask(self._batch(prompts, model, schema))

    def ask_runs(self, prompts: list[str], more: list[Header]) -> list[Any]:
        """Asks child runs; ``more`` says how each prompt is made up."""
        return self._ask(_runs(prompts, more))

    def _ask(self, batch: Batch) -> list[Any]:
        number = self._open(batch)
        try:
            self._send(number, batch)
            self._wait(batch)
        except BaseException:
            self._withdraw(number)
            raise
        self._close(number)
        return batch.results

    async def ask_async(self, prompts: list[str], model: str | None = None, schema: str | None = None) -> list[Any]:
        """As ``ask``, for a coroutine: the loop goes on meanwhile."""
        return await self._ask_async(self._batch(prompts, model, schema))

    async def ask_runs_async(self, prompts: list[str], more: list[Header]) -> list[Any]:
        """As ``ask_runs``, for a coroutine."""
        return await self._ask_async(_runs(prompts, more))

    async def _ask_async(self, batch: Batch) -> list[Any]:
        import asyncio  # 9 MB that most cells never need

        loop = asyncio.get_running_loop()
        settled = asyncio.Event()
        batch.when_settled = lambda: loop.call_soon_threadsafe(settled.set)
        number = self._open(batch)
        self._listen(loop, 1)
        try:
            self._send(number, batch)
            await settled.wait()
        except BaseException:
            self._withdraw(number)
            raise
        finally:
            self._listen(loop, -1)
        self._close(number)
        return batch.results

    def search(self, query: str, k: int) -> list[Any]:
        ticket = Ticket()
        number = self._open(ticket)
        try:
            self.channel.send({"t": "search", "id": number, "k": k}, encode(query))
            self._wait(ticket)
        finally:
            self._close(number)
        hits = ticket.results[0]
        if isinstance(hits, str):
            raise ValueError(hits)
        return list(hits)

    def _batch(self, prompts: list[str], model: str | None, schema: str | None) -> Batch:
        tracer = self._tracer()
        tracer.begin_batch()
        more: list[Header] = [
            {"spans": fitting([[found.context, found.name, start, end] for found, start, end in tracer.trace(prompt)])}
            for prompt in prompts
        ]
        return Batch(prompts, more, {"model": model, "schema": schema})

    def _send(self, number: int, batch: Batch) -> None:
        prompts = batch.prompts
        header = {"t": "batch", "id": number, "total": len(prompts)} | batch.asked
        if len(prompts) == 1:  # a lone prompt rides along and saves a round trip
            self.channel.send(header | batch.more[0], encode(prompts[0]))
        else:
            self.channel.send(header, b"".join([len(prompt).to_bytes(4, "big") for prompt in prompts]))

    def _withdraw(self, number: int) -> None:
        self._close(number)
        self.channel.send({"t": "cancel", "id": number})

    def _open(self, ticket: Ticket) -> int:
        with self._turn:
            self._numbers += 1
            self._tickets[self._numbers] = ticket
            return self._numbers

    def _close(self, number: int) -> None:
        self._tickets.pop(number, None)

    # Reading.

    def _wait(self, ticket: Ticket) -> None:
        while True:
            with self._turn:
                if not ticket.remaining:
                    return
                reads, self._reading = not self._reading, True
                sleeper = _thread.allocate_lock()
                if not reads:
                    sleeper.acquire()
                    self._sleepers.append(sleeper)
            if reads:
                self._read()
            else:
                sleeper.acquire()  # until whoever reads has read a frame

    def _listen(self, loop: Any, more: int) -> None:
        """Counts the coroutines that wait; while there are any, the loop watches the channel."""
        self._listeners += more
        if loop.is_closed():
            return
        if self._listeners:
            loop.add_reader(self.channel.descriptor, self._hear)
        else:
            loop.remove_reader(self.channel.descriptor)

    def _hear(self) -> None:
        """A frame may be there. If another thread reads, it is that one's."""
        with self._turn:
            if self._reading:
                return
            self._reading = True
        self._read(block=False)

    def _read(self, *, block: bool = True) -> None:
        try:
            if block or is_readable(self.channel.descriptor):
                self._dispatch(*self.channel.receive())
        finally:
            with self._turn:
                self._reading = False
                woken, self._sleepers = self._sleepers, []
            for sleeper in woken:
                sleeper.release()

    def _dispatch(self, header: Header, body: bytes) -> None:
        kind, ticket = header["t"], self._tickets.get(header.get("id", 0))
        if kind in ("run", "value", "documents", "contexts"):
            self.inbox.append((header, body))
        elif kind == "pull" and isinstance(ticket, Batch):
            for slot in header["slots"]:
                self.channel.send(
                    {"t": "prompt", "id": header["id"], "slot": slot} | ticket.more[slot],
                    encode(ticket.prompts[slot]),
                )
        elif kind == "reply" and ticket is not None:
            slot, text = header["slot"], body.decode()
            total = len(ticket.results)
            ticket.settle(slot, text if header["ok"] else SubQueryError.make(header["kind"], text, slot, total))
        elif kind == "hits" and ticket is not None:
            ticket.settle(0, header["error"] or header["hits"])


def _runs(prompts: list[str], more: list[Header]) -> Batch:
    return Batch(prompts, more, {"model": None, "schema": None, "kind": "run"})
