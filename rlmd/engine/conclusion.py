"""How a run ends, before citations and receipt are added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rlmd.errors import LimitReached, RlmdError
from rlmd.events import Citation, Outcome


@dataclass(frozen=True, slots=True)
class Conclusion:
    """``stream`` names the delta stream that the answer equals; citations are looked for unless they are given."""

    outcome: Outcome
    answer: str
    why: str
    stream: str | None = None
    error: RlmdError | None = None
    citations: tuple[Citation, ...] | None = None
    model_used: bool = True


class LastWord(Protocol):
    """A conversation with a root, which may be asked once more at a limit."""

    @property
    def begun(self) -> bool: ...
    async def last_word(self, limit: LimitReached) -> tuple[str, str | None] | None: ...
