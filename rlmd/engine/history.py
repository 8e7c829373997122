"""The conversation with the root, kept within its window.

Append-only between compactions, so that a host's prefix cache holds. When the next prompt would not fit, the history
is compacted to ``_ROOMY`` of the budget at once: outputs of old cells shrink to head and tail, then old replies, then
whole turns to a line each; the system prompt, the question and the newest exchange stay longest, and the answer so far
is repeated. ``messages`` never
returns more than the budget: that is its one promise. Knows tokens and messages, nothing of runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlmd.engine.tokens import TokenMeter
from rlmd.errors import PromptTooLong
from rlmd.providers.base import Message

#: A compaction makes room for several turns, else every turn would rewrite the prefix.
_ROOMY = 0.6
#: Head and tail kept of an old output or reply: enough to know what it was about.
_HEAD, _TAIL = 400, 200
_LINE_CHARS = 160
#: Characters of the whole conversation that are kept for the REPL, newest first: a cell's source may have 1.9 million.
_WHOLE_CHARS = 800_000
#: Head and tail of the answer so far that a root is reminded of.
_FOUND_HEAD, _FOUND_TAIL = 900, 300
_FOUND = 'Your answer["content"] so far:'
#: What a root is told of the turns that it sees shortened.
_SHORTENED = "Earlier turns, shortened (whole in `history`, a list of messages with role and content):"


@dataclass(slots=True)
class _Exchange:
    """A root's reply and what it was told then."""

    turn: int
    reply: str
    told: str | None = None


class History:
    """Args:
    system: The system prompt.
    opening: The first message of the user.
    meter: Estimates tokens for this root.
    found: What it has put down as its answer so far; it is reminded of that when what it had read is shortened.
    """

    def __init__(self, system: str, opening: str, meter: TokenMeter, found: Callable[[], str] = str) -> None:
        self._system = system
        self._opening = opening
        self._meter = meter
        self._exchanges: list[_Exchange] = []
        self._dropped: list[str] = []
        self._found = found
        self._reminder = ""
        self._whole: list[dict[str, str]] = []
        #: How often the history was rewritten; between two of these it only grew.
        self.compactions = 0

    def replied(self, turn: int, reply: str) -> None:
        self._exchanges.append(_Exchange(turn, reply))
        self._whole.append({"role": "assistant", "content": reply})

    def told(self, text: str) -> None:
        """What the root is told after its last reply; several calls make one message."""
        last = self._exchanges[-1]
        last.told = text if last.told is None else last.told + "\n" + text
        if self._whole[-1]["role"] == "user":
            self._whole[-1]["content"] += "\n" + text
        else:
            self._whole.append({"role": "user", "content": text})

    def cell(self) -> str:
        """The cell that binds ``history`` to all that was said, whatever became of it here."""
        kept: list[dict[str, str]] = []
        room = _WHOLE_CHARS
        for message in reversed(self._whole):
            room -= len(message["content"])
            if room < 0:
                break
            kept.append(message)
        return f"history = {kept[::-1]!r}\n"

    def messages(self, budget: int, extra: str = "") -> tuple[Message, ...]:
        """The prompt, at most ``budget`` tokens by the meter's estimate.

        Args:
            budget: Tokens for the prompt: the window without the reply.
            extra: A last message of the user that is not kept.

        Raises:
            PromptTooLong: Not even the question fits.
        """
        messages = self._build(extra)
        if self._meter.of(messages) <= budget:
            return messages
        self.compactions += 1
        found = elide(self._found().strip(), _FOUND_HEAD, _FOUND_TAIL)
        self._reminder = f"\n\n{_FOUND}\n{found}" if found else ""
        self._compact(int(budget * _ROOMY), extra)
        messages = self._build(extra)
        if self._meter.of(messages) > budget:
            self._reminder = ""
            self._squeeze(budget, extra)
            messages = self._build(extra)
        tokens = self._meter.of(messages)
        if tokens > budget:
            raise PromptTooLong(
                f"The question and what the model must know take about {tokens:,} tokens; {budget:,} are free.",
                hint="Put the long part of the question into a context, or use a root with a larger window.",
                tokens=tokens,
                window=budget,
            )
        return messages

    def _build(self, extra: str) -> tuple[Message, ...]:
        opening = self._opening
        if self._dropped:
            opening += f"\n\n{_SHORTENED}\n" + "\n".join(self._dropped)
        opening += self._reminder
        messages = [Message("system", self._system), Message("user", opening)]
        for exchange in self._exchanges:
            messages.append(Message("assistant", exchange.reply))
            if exchange.told is not None:
                messages.append(Message("user", exchange.told))
        if extra:
            if messages[-1].role == "user":
                messages[-1] = Message("user", messages[-1].content + "\n\n" + extra)
            else:
                messages.append(Message("user", extra))
        return tuple(messages)

    def _compact(self, target: int, extra: str) -> None:
        """Oldest first, outputs before replies before whole turns; the newest exchange stays whole."""
        old = self._exchanges[:-1]
        for exchange in old:
            if self._fits(target, extra):
                return
            exchange.told = elide(exchange.told or "", _HEAD, _TAIL, "characters of old output")
        for exchange in old:
            if self._fits(target, extra):
                return
            exchange.reply = elide(exchange.reply, _HEAD, _TAIL, "characters of your reply")
        while len(self._exchanges) > 1 and not self._fits(target, extra):
            self._dropped.append(_line(self._exchanges.pop(0)))
        while self._dropped and not self._fits(target, extra):
            del self._dropped[0]

    def _squeeze(self, budget: int, extra: str) -> None:
        """The newest exchange alone is too long: its output gives way, then its reply."""
        if not self._exchanges:
            return
        last = self._exchanges[-1]
        for name, chars in (("told", "characters of output"), ("reply", "characters of your reply")):
            size = len(getattr(last, name) or "")
            while size > 0 and not self._fits(budget, extra):
                size = size * 2 // 3
                whole = getattr(last, name)
                shorter = elide(whole, size * 2 // 3, size // 3, chars) if size > 100 else whole[:size] + "…"
                setattr(last, name, shorter)

    def _fits(self, tokens: int, extra: str) -> bool:
        return self._meter.of(self._build(extra)) <= tokens


def elide(text: str, head: int, tail: int, what: str = "characters") -> str:
    """Head and tail of ``text`` with the number left out between them; the text itself when that would be longer."""
    cut = len(text) - head - tail
    if cut <= 60:
        return text
    return f"{text[:head]}\n[… {cut:,} {what} left out …]\n{text[len(text) - tail :]}"


def _line(exchange: _Exchange) -> str:
    """One line of what a dropped turn did and saw."""
    did = " ".join(exchange.reply.split())[:_LINE_CHARS]
    saw = " ".join((exchange.told or "").split())[:_LINE_CHARS]
    return f"Turn {exchange.turn}: {did} → {saw}"
