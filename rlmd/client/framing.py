"""The client's end of the two framings: newline-delimited JSON, or ``Content-Length`` headers.

A daemon answers in the framing that it was spoken to in. Lines are the default; headers exist so that the
same client can be used behind anything that speaks as an editor does.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

from rlmd.client.failures import lost

Framing = Literal["lines", "headers"]

#: Room for the longest legal result, a fetched value of 10,000,000 characters; a longer message is no message.
MAX_MESSAGE = 64 << 20
MAX_HEADER = 8 << 10


def encode(message: dict[str, Any], framing: Framing) -> bytes:
    """One message ready to be written. Raises ``ValueError`` for what JSON cannot carry (NaN, lone surrogates)."""
    body = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if framing == "lines":
        return body + b"\n"
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


async def read_message(reader: asyncio.StreamReader, framing: Framing) -> dict[str, Any] | None:
    """The next message; None at the end of the stream. Raises ``NotConnected`` when the stream makes no sense."""
    try:
        body = await (_read_line(reader) if framing == "lines" else _read_headed(reader))
    except asyncio.LimitOverrunError:
        raise lost(f"The daemon sent a message of more than {MAX_MESSAGE} bytes.") from None
    except (asyncio.IncompleteReadError, OSError):
        return None
    if body is None:
        return None
    try:
        message = json.loads(body)
    except ValueError:
        raise lost("What came from the socket is not JSON.", hint="Another program may be listening there.") from None
    if not isinstance(message, dict):
        raise lost("What came from the socket is not a JSON-RPC message.")
    return message


async def _read_line(reader: asyncio.StreamReader) -> bytes | None:
    while True:
        line = await reader.readuntil(b"\n")
        if line.strip():
            return line


async def _read_headed(reader: asyncio.StreamReader) -> bytes | None:
    block = await reader.readuntil(b"\r\n\r\n")
    for line in block.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
            if length > MAX_MESSAGE:
                raise lost(f"The daemon announced a message of {length} bytes; {MAX_MESSAGE} are allowed.")
            return await reader.readexactly(length)
    raise lost("A message came without Content-Length.", hint="Another program may be listening there.")
