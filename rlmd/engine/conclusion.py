"""How a run ends, before citations and receipt are added."""

from __future__ import annotations

from dataclasses import dataclass

from rlmd.errors import RlmdError
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
