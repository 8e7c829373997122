"""The worker's end of the channel: frames, interrupts, and waiting for answers (child side, standard library alone).

A frame is two big-endian 32-bit lengths, a header (a JSON object with its type in ``t``), and a body (UTF-8).

    parent → worker                                      worker → parent
    start     what to seal, seeds                        ready     layers, python  ·  failed   message
    documents docs, context, kind (+ descriptors)        loaded
    contexts  names in order: what is not named goes     loaded
    run       cell, echo; body: the source               batch     id, total, model; body: sizes (32 bits each)
    pull      id, slots                                  prompt    id, slot, spans; body: the prompt
    reply     id, slot, ok, kind; body: text or reason   cancel    id
    hits      id, hits                                   search    id, k; body: the query
    value     id, name                                   value     id, found; body: the text
                                                         done      cell, ok, error, …; body: final text, answer
Waiting for a reply, any thread may be the one that reads; it serves the others' frames too.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import struct
import threading
from collections import deque
from typing import Any, NoReturn

from rlmd.repl.spans import Tracer

Header = dict[str, Any]
Frame = tuple[Header, bytes]

_MAIN = threading.get_ident()

#: Bytes of a frame, either way; the parent holds the same number against us.
MOST_FRAME = 8 << 20
#: Characters of one prompt, final answer or value: 4 bytes each still fit a frame.
MOST_CHARS = 1_900_000
#: Sub-queries of one batch.
MOST_SLOTS = 100_000
#: Variables that are reported after a cell.
MOST_NAMES = 200


class Interrupts:
    """SIGINT becomes KeyboardInterrupt in a cell only, and never inside a frame."""

    def __init__(self) -> None:
        self._armed = False
        self.stopped = False
        self._held = 0
        self._pending = False

    def install(self) -> None:
        signal.signal(signal.SIGINT, self._strike)

    def arm(self) -> None:
        """A cell begins: SIGINT may stop it."""
        self.stopped = self._pending = False
        self._armed = True

    def disarm(self) -> None:
        self._armed = False

    def _strike(self, _signal: int, _frame: object) -> None:
        if not self._armed:
            return
        self.stopped = True
        if self._held:
            self._pending = True
        else:
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        if threading.get_ident() == _MAIN:
            self._held += 1

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() == _MAIN:
            self._held -= 1
            if self._pending and not self._held:
                self._pending = False
                raise KeyboardInterrupt


class Channel:
    """Whole frames over a stream socket, from any thread."""

    def __init__(self, descriptor: int, interrupts: Interrupts) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._interrupts = interrupts
        self._sending = threading.Lock()
        self.descriptors: list[int] = []

    def send(self, header: Header, body: bytes = b"") -> None:
        head = json.dumps(header).encode()
        if len(head) + len(body) > MOST_FRAME:
            raise ValueError(f"{len(head) + len(body):,} bytes are more than a frame holds ({MOST_FRAME:,})")
        with self._interrupts, self._sending:
            self._socket.sendall(struct.pack(">II", len(head), len(body)) + head + body)

    def receive(self) -> Frame:
        """The next frame. Waiting for it can be interrupted, reading it cannot."""
        select_one(self._socket.fileno())
        with self._interrupts:
            head, body = struct.unpack(">II", self._exactly(8))
            return json.loads(self._exactly(head)), self._exactly(body)

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece, ancillary, _, _ = self._socket.recvmsg(min(size - len(data), 1 << 20), 4096)
            if not piece:
                os._exit(0)  # the parent is gone
            for _, _, raw in ancillary:
                self.descriptors += struct.unpack(f"{len(raw) // 4}i", raw)
            data += piece
        return bytes(data)


def select_one(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()


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

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(str, name):
            self._refuse()
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")


class Ticket:
    """Something asked of the parent and not yet answered."""

    def __init__(self, total: int = 1) -> None:
        self.results: list[Any] = [None] * total
        self.remaining = total

    def settle(self, slot: int, value: Any) -> None:
        self.results[slot] = value
        self.remaining -= 1


class Batch(Ticket):
    """The prompts of one call, which the parent pulls in its own order."""

    def __init__(self, prompts: list[str], spans: list[list[list[Any]]]) -> None:
        super().__init__(len(prompts))
        self.prompts, self.spans = prompts, spans


class Parent:
    """Asks the parent and waits; one thread reads for all that wait."""

    def __init__(self, channel: Channel, tracer: Tracer) -> None:
        self.channel = channel
        self.inbox: deque[Frame] = deque()
        self._tracer = tracer
        self._tickets: dict[int, Ticket] = {}
        self._numbers = 0
        self._turn = threading.Condition()
        self._reading = False

    def ask(self, prompts: list[str], model: str | None) -> list[Any]:
        self._tracer.begin_batch()
        spans = [
            [[found.context, found.name, start, end] for found, start, end in self._tracer.trace(prompt)]
            for prompt in prompts
        ]
        batch = Batch(prompts, spans)
        number = self._open(batch)
        try:
            header = {"t": "batch", "id": number, "total": len(prompts), "model": model}
            if len(prompts) == 1:  # a lone prompt rides along and saves a round trip
                self.channel.send(header | {"spans": spans[0]}, encode(prompts[0]))
            else:
                self.channel.send(header, struct.pack(f">{len(prompts)}I", *map(len, prompts)))
            self._wait(batch)
        except BaseException:
            self._close(number)
            self.channel.send({"t": "cancel", "id": number})
            raise
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

    def _open(self, ticket: Ticket) -> int:
        with self._turn:
            self._numbers += 1
            self._tickets[self._numbers] = ticket
            return self._numbers

    def _close(self, number: int) -> None:
        self._tickets.pop(number, None)

    def _wait(self, ticket: Ticket) -> None:
        while True:
            with self._turn:
                while ticket.remaining and self._reading:
                    self._turn.wait()
                if not ticket.remaining:
                    return
                self._reading = True
            try:
                self._dispatch(*self.channel.receive())
            finally:
                with self._turn:
                    self._reading = False
                    self._turn.notify_all()

    def _dispatch(self, header: Header, body: bytes) -> None:
        kind, ticket = header["t"], self._tickets.get(header.get("id", 0))
        if kind in ("run", "value", "documents", "contexts"):
            self.inbox.append((header, body))
        elif kind == "pull" and isinstance(ticket, Batch):
            for slot in header["slots"]:
                self.channel.send(
                    {"t": "prompt", "id": header["id"], "slot": slot, "spans": ticket.spans[slot]},
                    encode(ticket.prompts[slot]),
                )
        elif kind == "reply" and ticket is not None:
            slot, text = header["slot"], body.decode()
            total = len(ticket.results)
            ticket.settle(slot, text if header["ok"] else SubQueryError.make(header["kind"], text, slot, total))
        elif kind == "hits" and ticket is not None:
            ticket.settle(0, header["error"] or header["hits"])


def encode(text: str) -> bytes:
    """UTF-8; a lone surrogate, which stands for a raw byte of a source, becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()
