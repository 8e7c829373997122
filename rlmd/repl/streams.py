"""stdin, stdout and stderr of cells (child side, standard library alone)."""

from __future__ import annotations

import io
import os
import sys

from rlmd.repl import cage

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

#: Where a second descriptor of the output is kept: out of the way of what cells open and close.
OUTPUT = 201
#: Taken while a cell runs and given back when it fails: to explain a failure takes modules and source files, also of
#: one that has opened all that it may.
_RESERVE = range(202, 210)


class Streams:
    """The three streams, whole again before each cell."""

    def __init__(self) -> None:
        self._input, self._outputs = open_input(), open_outputs()
        flush_c_by_line()

    def mend(self) -> None:
        """What an earlier cell may have broken of them comes back."""
        for descriptor in (1, 2):
            os.dup2(OUTPUT, descriptor)
        for descriptor in _RESERVE:
            os.dup2(OUTPUT, descriptor, inheritable=False)
        if not all(map(_is_whole, self._outputs)):
            self._outputs = open_outputs()
        if self._input.closed:
            self._input = open_input()
        sys.stdin = self._input
        sys.stdout, sys.stderr = self._outputs

    def write(self, text: str) -> None:
        """Writes into the output, whatever the cell has made of the streams."""
        self.flush()
        rest = text.encode("utf-8", "backslashreplace")
        while rest:
            rest = rest[os.write(OUTPUT, rest) :]

    def flush(self) -> None:
        """Sends on what stands in a buffer, of ours and of what the cell put in their place."""
        for stream in (sys.stdout, sys.stderr, *self._outputs):
            attempt(lambda one: one.flush(), stream)


def give_reserve_back() -> None:
    """Lets go of the descriptors that were kept from the cell."""
    os.closerange(_RESERVE.start, _RESERVE.stop)


def attempt(action: Callable[..., object], *arguments: object) -> None:
    """Does what a cell may have broken (a closed stdout, a replaced stream); its failure is the cell's own."""
    try:
        action(*arguments)
    except BaseException:  # noqa: BLE001  see above
        return


def open_outputs() -> tuple[TextIO, TextIO]:
    """stdout and stderr over the pipe that the parent reads; a lone surrogate is shown as an escape.

    They share one buffer, so that also the parts of a line come in the order in which they were written. It is sent on
    with each line: what a cell printed before it was killed is there.
    """
    buffer = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
    stdout, stderr = (
        io.TextIOWrapper(buffer, "utf-8", "backslashreplace", newline="", line_buffering=True, write_through=True)
        for _ in range(2)
    )
    return stdout, stderr


def open_input() -> TextIO:
    """stdin, at whose end we are."""
    return open(0, encoding="utf-8", closefd=False)


def flush_c_by_line() -> None:
    """What C code prints comes with its line, as Python's does, and not when the process ends."""
    by_line = 1  # _IOLBF
    stream = cage.Pointer.from_address(cage.c_symbol("stdout"))
    cage.c_function("setvbuf")(stream, None, by_line, 0)


def _is_whole(stream: TextIO) -> bool:
    try:
        return stream.encoding == "utf-8" and stream.errors == "backslashreplace" and not stream.closed
    except ValueError:  # it was taken off its buffer
        return False
