"""What both wire protocols need to read a reply: text and thinking as they come, and how much of the prompt was read.

Owns the splitting of inline ``<think>`` blocks (wherever a tag was cut in two), and the local bounds on a prompt's
tokens by which a silent truncation is noticed, and the reading of JSON from servers that may send anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rlmd.errors import MalformedReply, PromptTruncated
from rlmd.providers.base import Message

#: Bytes of UTF-8 a token, before a model has told its own rate; English prose and code of common tokenizers.
BYTES_PER_TOKEN = 3.6
#: What a chat template adds to a message, at most about this many tokens.
TOKENS_PER_MESSAGE = 8
#: Below this share of the estimate a reported prompt is suspected to have been cut.
SUSPICIOUS_SHARE = 0.6
MAX_REPLY_CHARS = 8_000_000

_OPEN, _CLOSE = "<think>", "</think>"


class ReplyText:
    """Collects a reply. ``on_delta`` gets answer text as it comes, and "" for thinking: a sign of life, no text.

    A reply that *begins* with ``<think>`` is thinking up to ``</think>``; the tag anywhere else is text.
    """

    def __init__(self, on_delta: Callable[[str], None]) -> None:
        self._on_delta = on_delta
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._held = ""
        self._where = "start"
        self._chars = 0

    def add_text(self, piece: str) -> None:
        self._count(piece)
        if self._where == "text":
            self._emit(piece)
            return
        self._held += piece
        if self._where == "start":
            self._begin()
        if self._where == "thinking":
            self._end_thinking()

    def add_thinking(self, piece: str) -> None:
        self._count(piece)
        self._thinking.append(piece)
        self._on_delta("")

    def close(self) -> tuple[str, str]:
        """The whole text and the whole thinking."""
        if self._where == "start":
            self._emit(self._held)
        elif self._where == "thinking":
            self._thinking.append(self._held)
        self._held = ""
        return "".join(self._text), "".join(self._thinking)

    def _begin(self) -> None:
        seen = self._held.lstrip()
        if seen.startswith(_OPEN):
            self._where = "thinking"
            self._held = seen[len(_OPEN) :]
        elif not _OPEN.startswith(seen):
            self._where = "text"
            held, self._held = self._held, ""
            self._emit(held)

    def _end_thinking(self) -> None:
        inside, found, after = self._held.partition(_CLOSE)
        if found:
            self._thinking.append(inside)
            self._held = ""
            self._where = "text"
            self._emit(after.lstrip())
        else:
            keep = len(_CLOSE) - 1
            self._thinking.append(self._held[:-keep])
            self._held = self._held[-keep:]
            self._on_delta("")

    def _emit(self, piece: str) -> None:
        if piece:
            self._text.append(piece)
            self._on_delta(piece)

    def _count(self, piece: str) -> None:
        self._chars += len(piece)
        if self._chars > MAX_REPLY_CHARS:
            raise MalformedReply(f"The reply grew beyond {MAX_REPLY_CHARS} characters.")


def byte_count(messages: tuple[Message, ...]) -> int:
    return sum(len(message.content.encode("utf-8", "replace")) for message in messages)


def estimated_tokens(byte_total: int, messages: int) -> int:
    return round(byte_total / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * messages


def read_too_little(messages: tuple[Message, ...], window: int, reported: int) -> bool:
    """Whether a server that says it read ``reported`` tokens must have cut the prompt.

    Only a prompt that could exceed the window can have been cut (no token is shorter than a byte), and only one of
    which fewer tokens were read than it has words: text with long runs of one sign has few tokens and is whole.
    """
    total = byte_count(messages)
    if total + TOKENS_PER_MESSAGE * len(messages) <= window:
        return False
    if reported >= SUSPICIOUS_SHARE * estimated_tokens(total, len(messages)):
        return False
    return reported < sum(len(message.content.split()) for message in messages)


def check_read(server: str, messages: tuple[Message, ...], window: int, reported: int) -> None:
    """Raises ``PromptTruncated`` when ``read_too_little``."""
    if read_too_little(messages, window, reported):
        estimate = estimated_tokens(byte_count(messages), len(messages))
        raise PromptTruncated(
            f"{server} read {reported} tokens of the prompt, which has about {estimate}.",
            hint="Send smaller pieces, or set the host's real window.",
            tokens=estimate,
            window=window,
        )


def parsed(server: str, line: bytes) -> dict[str, Any]:
    """A JSON object, or ``MalformedReply``."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise MalformedReply(f"{server} sent {len(line)} bytes that are not a JSON object.")
    return value


def record(of: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under ``name``; empty when absent or of another type."""
    value = of.get(name)
    return value if isinstance(value, dict) else {}


def records(of: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects in the list under ``name``."""
    value = of.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def integer(of: dict[str, Any], name: str) -> int:
    """The positive integer under ``name``, else 0."""
    value = of.get(name)
    return value if type(value) is int and value > 0 else 0
