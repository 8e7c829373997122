"""Framing, JSON, envelope and parameters under a fuzzer that follows what its inputs reach (atheris, libFuzzer).

    python -m tests.guided_fuzz -runs=1000000 -seed=1

Anything but an error of ours ends it with the input; so does a hang of 10 s, or more memory than a bound.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import atheris

with atheris.instrument_imports(include=["rlmd.wire"], enable_loader_override=False):
    from rlmd.errors import RlmdError
    from rlmd.wire.dispatch import error_response, id_of, known_error, parse_params, parse_request
    from rlmd.wire.framing import FrameReader, Refused
    from rlmd.wire.methods import METHODS
    from rlmd.wire.strictjson import dumps, loads

_LIMIT = 2000
_PIECE = 7


class Bytes:
    """A stream that is never waited for, in small pieces: every border of the framing is met."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    async def read(self, most: int) -> bytes:
        piece = self._data[self._at : self._at + min(most, _PIECE)]
        self._at += len(piece)
        return piece


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs what waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def one_input(data: bytes) -> None:
    reader = FrameReader(Bytes(data).read, limit=_LIMIT)
    while True:
        try:
            message = at_once(reader.next())
        except RlmdError:
            return
        if message is None:
            return
        if not isinstance(message, Refused):
            assert len(message) <= _LIMIT
            handle(message)


def handle(message: bytes) -> None:
    """As the connection does with one message."""
    parsed: object = None
    try:
        parsed = loads(message)
        request = parse_request(parsed)
        if request.method in METHODS and isinstance(request.params, dict):
            parse_params(METHODS[request.method], request.params)
    except Exception as error:
        known = error if isinstance(error, RlmdError) else known_error(error)
        if known is None:
            raise
        dumps(error_response(id_of(parsed), known))


def main() -> None:
    asyncio.set_event_loop(None)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
