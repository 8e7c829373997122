"""Server-sent events, in which OpenAI's and Anthropic's protocols stream: their data, and what came of one reply."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlmd.providers.base import Message, Usage
from rlmd.providers.reading import ReplyText, byte_count, estimated_tokens


@dataclass(slots=True)
class Streamed:
    """What has come of one reply: why it ended, as the server says it; ``done`` after its last event."""

    reply: ReplyText
    reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    done: bool = False


def data_of(line: bytes) -> bytes:
    """An event's data, or an error body sent bare into the stream; empty for comments and other fields."""
    if line.startswith(b"data:"):
        return line[5:].strip()
    return line if line.startswith(b"{") else b""


def guessed_usage(messages: tuple[Message, ...], written: str) -> Usage:
    """From the number of bytes, where the server does not tell."""
    reply = estimated_tokens(len(written.encode("utf-8", "replace")), 0)
    return Usage(estimated_tokens(byte_count(messages), len(messages)), reply, estimated=True)
