"""The worker's end of the channel: frames and interrupts (child side, standard library alone).

A frame is two big-endian 32-bit lengths, a header (a dict with its type in ``t``), and a body (UTF-8). Headers from the
parent are marshalled, which is trusted and read at once; those to it are JSON, which can be checked.

    parent → worker                                      worker → parent
    start     what to seal, seeds                        ready     layers, python  ·  failed   message
    documents docs, context, kind (+ descriptors)        loaded
    contexts  names in order: what is not named goes     loaded
    run       cell, echo; body: the source               batch     id, total, model, schema; body: sizes (32 bits each)
    pull      id, slots                                  prompt    id, slot, spans; body: the prompt
                                                         a batch of kind "run" asks child runs; its prompts are a
                                                         question and texts, with their lengths in question and given
    reply     id, slot, ok, kind; body: text or reason   cancel    id
    hits      id, hits                                   search    id, k; body: the query
    value     id, name                                   value     id, found; body: the text
                                                         done      cell, ok, error, …; body: final text, answer
"""

from __future__ import annotations

# Each start of a worker pays for what is imported here: json, re, signal, socket and threading take 1 to 4 ms each.
import _socket
import _thread
import marshal
import os
import select

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any
else:
    import _signal

    Any = object

Header = dict[str, Any]
Frame = tuple[Header, bytes]

_MAIN = _thread.get_ident()

#: Bytes of a frame, either way; the parent holds the same number against us.
MOST_FRAME = 8 << 20
#: Bytes of a frame's header from the worker, which takes the parent up to 5 ms to read.
MOST_HEADER = 1 << 18
#: Bytes of a list in a header: of names, of spans.
MOST_LIST = 80_000
#: Characters of one prompt, final answer or value: 4 bytes each still fit a frame.
MOST_CHARS = 1_900_000
#: Sub-queries of one batch.
MOST_SLOTS = 100_000
#: Characters of the JSON schema of a batch.
MOST_SCHEMA = 20_000
#: Stretches and texts that one child run is given.
MOST_GIVEN = 1000
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
        _signal.signal(_signal.SIGINT, self._strike)

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
        if _thread.get_ident() == _MAIN:
            self._held += 1

    def __exit__(self, *_: object) -> None:
        if _thread.get_ident() == _MAIN:
            self._held -= 1
            if self._pending and not self._held:
                self._pending = False
                raise KeyboardInterrupt


class Channel:
    """Whole frames over a stream socket, from any thread."""

    def __init__(self, descriptor: int, interrupts: Interrupts) -> None:
        self._socket = _socket.socket(fileno=descriptor)
        self._interrupts = interrupts
        self._sending = _thread.allocate_lock()
        self.descriptors: list[int] = []

    def send(self, header: Header, body: bytes = b"") -> None:
        head = encode(to_json(header))
        if len(head) > MOST_HEADER:
            raise ValueError(
                f"too many pieces, or too long names: {len(head):,} bytes; at most {MOST_HEADER:,} can be sent"
            )
        if len(head) + len(body) > MOST_FRAME:
            raise ValueError(f"{len(head) + len(body):,} bytes are more than a frame holds ({MOST_FRAME:,})")
        with self._interrupts, self._sending:
            self._socket.sendall(len(head).to_bytes(4, "big") + len(body).to_bytes(4, "big") + head + body)

    def receive(self) -> Frame:
        """The next frame. Waiting for it can be interrupted, reading it cannot."""
        is_readable(self._socket.fileno(), None)
        with self._interrupts:
            lengths = self._exactly(8)
            head, body = int.from_bytes(lengths[:4], "big"), int.from_bytes(lengths[4:], "big")
            content = self._exactly(head + body)
            return marshal.loads(content[:head]), content[head:]

    @property
    def descriptor(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece, ancillary, _, _ = self._socket.recvmsg(min(size - len(data), 1 << 20), 4096)
            if not piece:
                os._exit(0)  # the parent is gone
            for _, _, raw in ancillary:
                self.descriptors += memoryview(raw).cast("i")
            data += piece
        return bytes(data)


def is_readable(descriptor: int, milliseconds: float | None = 0) -> bool:
    """Whether something can be read, now or (None: whenever that is) within a time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(milliseconds))


def encode(text: str) -> bytes:
    """UTF-8; a lone surrogate, which stands for a raw byte of a source, becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        import re

        return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()


def fitting(items: list[Any], most: int = MOST_LIST) -> list[Any]:
    """The last of the items whose JSON fits ``most`` bytes together."""
    kept = len(items)
    while kept and (most := most - len(encode(to_json(items[kept - 1]))) - 1) >= 0:
        kept -= 1
    return items[kept:]


def to_json(value: Any) -> str:
    """JSON of what headers hold: texts, integers, truth values, None, lists, and dicts by name."""
    if isinstance(value, str):
        plain = value.isprintable() and '"' not in value and "\\" not in value
        return f'"{value if plain else value.translate(_ESCAPES)}"'
    if isinstance(value, dict):
        return f"{{{','.join([f'{to_json(name)}:{to_json(one)}' for name, one in value.items()])}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join([to_json(one) for one in value])}]"
    return _WORDS[value] if value is None or isinstance(value, bool) else int.__repr__(value)


_ESCAPES = {number: f"\\u{number:04x}" for number in range(0x20)} | {ord('"'): '\\"', ord("\\"): "\\\\"}
_WORDS = {None: "null", True: "true", False: "false"}
