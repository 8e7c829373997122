"""What a root is told of its run, in words: outputs of cells, where the run stands, what a session brings along.

Reads the run; when what is said stands in ``conversation.py``.
"""

from __future__ import annotations

from string import Template

from rlmd.engine.confirming import in_words
from rlmd.engine.history import elide
from rlmd.engine.prompts import PROMPTS, turn_line
from rlmd.engine.run import Run
from rlmd.repl import CellReport

_MOST_NAMES = 24
#: Share of the sub-queries below which the root is told how many are left.
_SHORT_SHARE = 0.25


class Words:
    """Args:
    run: Whose root is told.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def observation(self, report: CellReport) -> str:
        """A cell's output, what became of its sub-queries, and the variables."""
        output = report.output.strip("\n") or "(no output)"
        lines = [f"[output of cell {self._run.cells.count}]", output, "[end of output]"]
        if report.cut:
            lines.append(f"{report.cut:,} characters were cut from the middle of the output.")
        if report.lost:
            lines.append("The REPL was started anew: all variables are gone; define again what you need.")
        elif report.interrupted:
            lines.append("The cell was stopped because it took too long; variables are kept.")
        if (host := self._run.cells.host) is not None and host.failures:
            failed = ", ".join(f"{count} {kind}" for kind, count in host.failures.most_common(4))
            lines.append(f"Sub-queries: {host.asked} asked, {sum(host.failures.values())} failed ({failed}).")
        if (small := self._run.asking.small) and small.warn():
            lines.append(small.advice(self._run.asking.piece_chars))
        if report.names:
            shown = ", ".join(f"{one.name} ({one.size or one.type})" for one in report.names[-_MOST_NAMES:])
            lines.append(f"Variables: {elide(shown, 700, 200)}")
        return "\n".join(lines)

    def turn_line(self, turn: int) -> str:
        """Sub-queries left are told only when they run short: the number depends on what the cache held, and a
        prompt that differs would keep the root's own reply from coming out of the cache."""
        purse = self._run.purse
        short = purse.left("sub_queries") < _SHORT_SHARE * purse.limits.sub_queries
        # Turns that were taken back when the run was continued are spent, and have no number any more.
        last = purse.limits.turns - self._run.past.paid.get("turns", 0)
        left = purse.left("sub_queries") if short else None
        return turn_line(turn, last, left, last_word=not self._run.cells.answer)

    def map_offer(self) -> str:
        """What a root that cannot write cells is offered, with what it takes; empty where it cannot be afforded."""
        pieces = self._run.pieces
        if not 0 < pieces + 2 <= self._run.purse.left("sub_queries"):
            return ""
        run = self._run
        expected = run.asking.expect(pieces + 1, sum(one.pin.chars for one in run.contexts))
        takes = f" (about {in_words(expected.seconds)})" if expected.seconds is not None else ""
        return filled(PROMPTS.offer_map, pieces=f"{pieces:,}", takes=takes)

    def session_lines(self) -> str:
        """What a continued session brings along."""
        session = self._run.session
        lines = [
            f'Earlier in this session: "{question}" — answered: {answer}' for question, answer in session.exchanges
        ]
        if lost := self._run.take_lost(1):
            lines.append(lost)
        if session.alive and session.names:
            names = ", ".join(f"{one.name} ({one.size or one.type})" for one in session.names[-_MOST_NAMES:])
            lines.append(f"Variables that still exist: {names}")
        return elide("\n".join(lines), 1200, 300)


def filled(template: str, **values: str) -> str:
    return Template(template).substitute(values).strip()
