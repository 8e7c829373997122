"""What bad roots do, noticed from outside: replies that never run, and checking the same thing again and again.

Counts only; what is said and done about it stands in ``conversation.py``. Sources: Zhang et al., arXiv 2512.24601,
appendix B (a root that re-derives its right answer five times and then answers from memory).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from rlmd.repl import CellReport

#: Replies in a row without a cell that could run, after which the root is offered the program ``map``.
UNRUNNABLE = 2
#: How often outputs may come again before the root is told.
_TOLD_AFTER = 2
#: Outputs that say little and may well come again: nothing found, nothing printed. One that was cut is no checking.
_LEAST_OUTPUT = 8
_NEVER_COMPILED = ("SyntaxError", "IndentationError", "TabError")


@dataclass(slots=True)
class Guards:
    """``ran`` says whether any cell has ever run to its end; ``unrunnable`` counts replies in a row that could not.

    Args:
        most_repeats: How often outputs may come again before the run is concluded.
    """

    most_repeats: int
    ran: bool = False
    unrunnable: int = 0
    repeats: int = 0
    _outputs: Counter[str] = field(default_factory=Counter)

    def replied(self, reports: list[CellReport]) -> None:
        """One more reply, with the cells of it that were run."""
        for report in reports:
            self.ran = self.ran or report.ok
            if report.ok and not report.cut and len(report.output.strip()) >= _LEAST_OUTPUT:
                self._outputs[report.digest] += 1
                self.repeats += self._outputs[report.digest] > 1
        could_run = any(not (report.error or "").startswith(_NEVER_COMPILED) for report in reports)
        self.unrunnable = 0 if could_run else self.unrunnable + 1

    @property
    def offer_map(self) -> bool:
        return self.unrunnable >= UNRUNNABLE

    @property
    def repeating(self) -> bool:
        return self.repeats >= _TOLD_AFTER

    @property
    def endless(self) -> bool:
        return self.repeats >= self.most_repeats
