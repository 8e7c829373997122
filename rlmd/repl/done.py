"""The worker's word on how a cell ended, taken apart and checked (parent side)."""

from __future__ import annotations

from typing import Any, Literal, get_args

from rlmd.repl import channel as frames
from rlmd.repl.base import Final, Name
from rlmd.repl.channel import Breach, Header
from rlmd.repl.link import MOST_NAMES

_VIA = ("FINAL", "FINAL_VAR", "SUBMIT", "answer")

Via = Literal["FINAL", "FINAL_VAR", "SUBMIT", "answer"]
assert get_args(Via) == _VIA


class Done:
    """The worker's word on how a cell ended, taken apart and checked."""

    def __init__(self, ok: bool, stopped: bool, error: str | None, final: Final | None, answer: str | None,
                 names: tuple[Name, ...], threads: int) -> None:  # fmt: skip
        self.ok, self.stopped, self.error, self.final, self.answer = ok, stopped, error, final, answer
        self.names, self.threads = names, threads

    @classmethod
    def of(cls, header: Header, body: bytes) -> Done:
        final, content = None, header.get("answer")
        if header.get("final") is not None:
            length, via, name = (*frames.items(header, "final", 3), None, None, None)[:3]
            if type(length) is not int or not 0 <= length <= len(body) or via not in _VIA:
                raise Breach("done.final is malformed")
            if name is not None and not (isinstance(name, str) and name.isidentifier() and len(name) <= 200):
                raise Breach("done.final is malformed")
            final, body = Final(frames.body_text(header, body[:length]), via, name), body[length:]
        if content is not None and (type(content) is not int or content != len(body)):
            raise Breach("done.answer is malformed")
        return cls(
            frames.flag(header, "ok"), frames.flag(header, "stopped"), frames.optional_text(header, "error", 2000),
            final, frames.body_text(header, body) if content is not None else None,
            tuple(_name(one) for one in frames.items(header, "names", MOST_NAMES)),
            frames.integer(header, "threads", 1, 1 << 20),
        )  # fmt: skip


def _name(one: Any) -> Name:
    if not isinstance(one, list) or len(one) != 3 or not all(isinstance(p, str) and len(p) <= 200 for p in one):
        raise Breach("done.names is malformed")
    if not all(frames.encodable(part) for part in one):
        raise Breach("done.names is malformed")
    return Name(*one)
