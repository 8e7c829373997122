"""Where one message ends and the next begins: two framings on one socket, told apart by the first byte.

A connection whose first non-blank byte is ``{`` or ``[`` speaks newline-delimited JSON (rlmctl, nc, socat);
any other speaks ``Content-Length`` headers (jsonrpc.el). Answers go out in the framing that came in.
Knows bytes only: not JSON-RPC, not sockets. Memory is bounded by ``MAX_MESSAGE`` whatever the peer sends: the
rest of a longer message is read and thrown away, and the connection lives on.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from rlmd.errors import InvalidRequest, RequestError, TooLarge

Framing = Literal["lines", "headers"]
#: One message in pieces that stand one after the other: one of megabytes is never joined, which would hold the loop.
Message = tuple[bytes, ...]

#: Room for the longest legal request, a question of 1,000,000 characters outside the BMP written as
#: ``\\ud83d\\ude00`` (12 bytes each). Contexts go by path or spool above 256 KiB.
MAX_MESSAGE = 16 << 20
#: A header block is two lines of 40 bytes; one that is longer is no header block.
MAX_HEADER = 8 << 10
CHUNK = 256 << 10

_BLANK = b" \t\r\n"
_LENGTH = re.compile(rb"content-length[ \t]*:[ \t]*(.*?)[ \t]*", re.IGNORECASE)
_EARLY_ID = re.compile(
    rb'\s*\{(?:\s*"(?:jsonrpc|method)"\s*:\s*"[^"\\]{0,100}"\s*,)*'
    rb'\s*"id"\s*:\s*(?:(\d{1,15})|"([\x20\x21\x23-\x5b\x5d-\x7e]{1,200})")\s*[,}]'
)


class FramingLost(InvalidRequest):
    """The peer's framing cannot be followed: the connection ends after the error is sent."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Stands in the place of a message that is too long; ``id`` is the request's where its beginning shows it."""

    error: RequestError
    id: int | str | None = None


def framed(message: Message, framing: Framing) -> Message:
    """Wraps one message for sending. jsonrpc.el looks for ``Content-Length`` in the first 100 characters only."""
    if framing == "lines":
        return (*message, b"\n")
    return (b"Content-Length: %d\r\n\r\n" % sum(map(len, message)), *message)


class FrameReader:
    """Cuts a stream of bytes into messages.

    Args:
        read: Gives the next bytes, at most so many; ``b""`` at the end of the stream.
        limit: Bytes that one message may have.
    """

    def __init__(self, read: Callable[[int], Awaitable[bytes]], *, limit: int = MAX_MESSAGE) -> None:
        self._read = read
        self._limit = limit
        self._buffer = bytearray()
        self._ended = False
        #: What is left of a refused message: a count of bytes, or the rest of the line.
        self._unwanted: int | Literal["line"] = 0
        self.framing: Framing | None = None

    async def next(self) -> bytes | Refused | None:
        """The next message, a refusal in its place, or None at the end. Raises ``FramingLost``."""
        await self._discard_unwanted()
        if not await self._skip_blanks():
            return None
        if self.framing is None:
            self.framing = "lines" if self._buffer[0] in b"{[" else "headers"
        return await (self._line() if self.framing == "lines" else self._headed())

    async def _fill(self, most: int = CHUNK) -> bool:
        if self._ended:
            return False
        chunk = await self._read(most)
        self._ended = not chunk
        self._buffer += chunk
        return bool(chunk)

    def _take(self, count: int) -> bytes:
        with memoryview(self._buffer) as view:
            taken = bytes(view[:count])
        del self._buffer[:count]
        return taken

    async def _skip_blanks(self) -> bool:
        while True:
            for index, byte in enumerate(self._buffer):
                if byte not in _BLANK:
                    del self._buffer[:index]
                    return True
            self._buffer.clear()
            if not await self._fill():
                return False

    async def _discard_unwanted(self) -> None:
        while self._unwanted:
            if self._unwanted == "line":
                end = self._buffer.find(b"\n")
                if end >= 0:
                    self._unwanted = 0
                del self._buffer[: end + 1 if end >= 0 else len(self._buffer)]
            else:
                self._unwanted -= len(self._take(self._unwanted))
            if self._unwanted and not await self._fill():
                return

    async def _line(self) -> bytes | Refused:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > self._limit:
                break
            if not await self._fill():
                return self._take(searched)  # the last line may lack its newline: printf without \n
        if end < 0 or end > self._limit:
            self._unwanted = "line"
            return self._too_large(f"The message is longer than the {self._limit} bytes allowed.")
        return self._take(end + 1)[:-1]

    async def _headed(self) -> bytes | Refused:
        length = self._content_length(await self._header_block())
        if length > self._limit:
            await self._fill()
            self._unwanted = length
            return self._too_large(f"The message has {length} bytes; {self._limit} are allowed.")
        while len(self._buffer) < length:
            if not await self._fill():
                raise FramingLost(
                    f"The stream ended after {len(self._buffer)} of {length} bytes of a message.",
                    hint="Content-Length counts bytes of UTF-8, not characters.",
                )
        return self._take(length)

    async def _header_block(self) -> list[bytes]:
        lines: list[bytes] = []
        used = 0
        while True:
            while (end := self._buffer.find(b"\n")) < 0 and used + len(self._buffer) <= MAX_HEADER:
                if not await self._fill(MAX_HEADER):
                    raise self._no_header("the stream ended there")
            used += end + 1
            if end < 0 or used > MAX_HEADER:
                raise self._no_header(f"no end of the headers within {MAX_HEADER} bytes")
            line = self._take(end + 1).rstrip(b"\r\n")
            if not line:
                return lines
            lines.append(line)

    def _content_length(self, lines: list[bytes]) -> int:
        found = {match[1] for line in lines if (match := _LENGTH.fullmatch(line))}
        if len(found) != 1:
            raise self._no_header("Content-Length is missing" if not found else "Content-Length is given twice")
        digits = found.pop()
        if not digits.isdigit() or len(digits) > 15:
            raise self._no_header("Content-Length is not a number of bytes")
        return int(digits)

    def _too_large(self, sentence: str) -> Refused:
        early = _EARLY_ID.match(self._buffer[:1024])
        request_id = None if early is None else int(early[1]) if early[1] else early[2].decode("ascii")
        hint = "Load a large text by path, or write it to the spool folder that initialize names."
        return Refused(TooLarge(sentence, hint=hint, limit=self._limit), request_id)

    @staticmethod
    def _no_header(why: str) -> FramingLost:
        return FramingLost(
            f"A message must begin with {{ or [ on a line of its own, or with a Content-Length header: {why}.",
            hint="Send one JSON object a line, or Content-Length: BYTES, an empty line and the object.",
        )
