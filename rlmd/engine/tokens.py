"""How many tokens a text will be: a conservative estimate without a tokenizer, corrected by the server's own counts.

No tokenizer runs on the loop. The estimate weighs classes of characters as the poorest of the usual vocabularies
splits them (Qwen: a token a digit), so it is too high for prose, seldom too low; where a server counted more than
was estimated, the meter raises all later estimates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from rlmd.providers.base import Message

#: Characters of ASCII letters and spaces a token; English prose has some 4.4, code 3.3 with its signs.
_LETTERS_PER_TOKEN = 3.6
_TOKENS_PER_DIGIT = 1.0
_TOKENS_PER_SIGN = 0.6
#: UTF-8 bytes above ASCII: two make an accented letter, three a Chinese character of one to one and a half tokens.
_TOKENS_PER_BYTE = 0.5
#: Role and delimiters that a chat template puts around a message.
_TOKENS_PER_MESSAGE = 8
_DIGITS = b"0123456789"
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n\t"
_HIGH = bytes(range(128, 256))
#: Texts whose estimate is remembered: more than a history has messages.
_REMEMBERED = 256
#: What prompts and pieces are sized by where only a number of characters is known (DESIGN §6).
CHARS_PER_TOKEN = 3.0


def tokens_of(text: str) -> int:
    """A conservative estimate; runs at memory speed."""
    data = text.encode("utf-8", "replace")
    total = len(data)
    high = total - len(data.translate(None, _HIGH)) if not text.isascii() else 0
    digits = total - len(data.translate(None, _DIGITS))
    letters = total - len(data.translate(None, _LETTERS))
    signs = total - high - digits - letters
    return math.ceil(
        letters / _LETTERS_PER_TOKEN + digits * _TOKENS_PER_DIGIT + signs * _TOKENS_PER_SIGN + high * _TOKENS_PER_BYTE
    )


class TokenMeter:
    """Estimates prompts for one root; never below the plain estimate, above it once a server counted more."""

    def __init__(self) -> None:
        self.factor = 1.0
        self._known: dict[str, int] = {}

    def of(self, messages: Iterable[Message]) -> int:
        return math.ceil(self.factor * self._plain(messages))

    def of_text(self, text: str) -> int:
        return math.ceil(self.factor * tokens_of(text))

    def counted(self, messages: Iterable[Message], prompt_tokens: int) -> None:
        """Learns from the server's count of these messages."""
        plain = self._plain(messages)
        if plain:
            self.factor = max(self.factor, min(8.0, 1.03 * prompt_tokens / plain))

    def was_too_low(self) -> None:
        """A prompt that was estimated to fit did not."""
        self.factor *= 1.3

    def _plain(self, messages: Iterable[Message]) -> int:
        return sum(self._tokens(message.content) + _TOKENS_PER_MESSAGE for message in messages)

    def _tokens(self, text: str) -> int:
        """The estimate of one text, remembered: a history is weighed again and again while it is made to fit."""
        if text not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[text] = tokens_of(text)
        return self._known[text]
