"""The strategy ``rlm``: turn by turn, the root writes cells, reads their output, and finishes.

One method a step; ``answer`` reads as the loop that it is.
"""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING

from rlmd.engine.conclusion import Conclusion
from rlmd.engine.finals import Accepted, Refused, judge
from rlmd.engine.history import History, elide
from rlmd.engine.parsing import Cell
from rlmd.engine.prompts import PROMPTS, opening, system_prompt, turn_line
from rlmd.engine.root import Root, RootReply
from rlmd.engine.tokens import CHARS_PER_TOKEN
from rlmd.errors import CompletionCut, LimitReached, MalformedReply, PromptTooLong, TooLarge
from rlmd.events import FinalRefused
from rlmd.repl import CellReport

if TYPE_CHECKING:
    from rlmd.engine.run import Run

#: Share of the root's window that the output of one turn's cells may take.
_OUTPUT_SHARE = 0.25
#: Share of the root's window that a question may take.
_QUESTION_SHARE = 0.3
#: Cells of one reply that are run; a model that writes more has not waited for any output.
_MOST_CELLS = 6
_MOST_NAMES = 24
_EMPTY = "is empty; put the answer in it first."
#: Share of the sub-queries below which the root is told how many are left.
_SHORT_SHARE = 0.25
#: The least window in which system prompt, question and one exchange have room.
LEAST_WINDOW = 3072


class Conversation:
    """Args:
    run: The run whose question is answered.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.root = Root(run)
        if self.root.window < LEAST_WINDOW:
            raise PromptTooLong(
                f"The root's window of {self.root.window:,} tokens is too small for the strategy rlm, which needs "
                f"{LEAST_WINDOW:,}.",
                hint="Use a root with a larger window, or the strategy map.",
                tokens=LEAST_WINDOW,
                window=self.root.window,
            )
        self._check_question()
        self._turn = 0
        self._output_chars = min(
            run.parts.settings.repl.output_chars, int(self.root.window * _OUTPUT_SHARE * CHARS_PER_TOKEN)
        )
        self.history = History(
            system_prompt(
                run.sub_facts,
                output_chars=self._output_chars,
                cell_seconds=run.parts.settings.repl.cell_seconds,
            ),
            opening(run.request.question, [one.pin for one in run.contexts], self._turn_line(1), self._session_lines()),
            self.root.meter,
        )

    @property
    def begun(self) -> bool:
        """Whether there is anything that a last word could rest on."""
        return self._run.cells_run > 0

    async def answer(self) -> Conclusion:
        """Turns until one of them concludes. Raises ``LimitReached``."""
        while True:
            self._run.purse.check_time()
            self._run.purse.claim("turns")
            conclusion = await self._take_turn()
            if conclusion is not None:
                return conclusion

    async def last_word(self, limit: LimitReached) -> str | None:
        """A last root call over what was found; None if it gives nothing."""
        self._turn += 1
        extra = _filled(PROMPTS.conclude, why=limit.message, question=elide(self._run.request.question, 2000, 500))
        said = await self.root.ask(self._turn, lambda budget: self.history.messages(budget, extra))
        verdict = judge(
            said.reply.finals, ran_cells=False, cell_failed=False, anything_executed=True, variables=self._variables()
        )
        if isinstance(verdict, Accepted) and verdict.name is not None:
            return await self._run.value_of(verdict.name)
        if isinstance(verdict, Accepted):
            return (verdict.literal or "").strip() or None
        if verdict is not None or said.reply.cells:
            return None  # a final of nothing, or more code: neither says anything
        text = said.reply.prose.strip()
        return f"{text}\n\n[The reply was cut at {said.tokens:,} tokens.]" if text and not said.whole else text or None

    # ── a turn ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _take_turn(self) -> Conclusion | None:
        """Asks the root and acts on its reply. One that was cut or garbled is none: the root is told to mend it."""
        self._turn += 1
        try:
            said = await self.root.ask(self._turn, self.history.messages)
        except (CompletionCut, MalformedReply) as error:
            self.history.replied(self._turn, PROMPTS.not_kept)
            self._missed(_filled(PROMPTS.cut, why=error.message, tokens=f"{self.root.reply_tokens:,}", unrun=""))
            return None
        self.history.replied(self._turn, said.raw if not said.reply.thinking else said.reply.text)
        return await self._act_on(said)

    async def _act_on(self, said: RootReply) -> Conclusion | None:
        """Runs the reply's cells, then looks at its final; what the root is told of both goes into the history."""
        cells, unrun = self._runnable(said)
        reports, final = await self._run_cells(cells)
        if final is not None:
            return final
        if not said.whole:
            why = f"It ran into the limit of {self.root.reply_tokens:,} tokens."
            self._missed(_filled(PROMPTS.cut, why=why, tokens=f"{self.root.reply_tokens:,}", unrun=unrun))
            return None
        verdict = judge(
            said.reply.finals,
            ran_cells=bool(reports),
            cell_failed=any(not report.ok for report in reports),
            anything_executed=self._run.cells_run > 0,
            variables=self._variables(),
        )
        if isinstance(verdict, Accepted):
            return await self._accept(verdict)
        if isinstance(verdict, Refused):
            self._refuse(verdict.why)
            return None
        if not reports:
            self._missed(PROMPTS.nudge)
            return None
        self._next_turn(went_well=all(report.ok for report in reports))
        return None

    @staticmethod
    def _runnable(said: RootReply) -> tuple[tuple[Cell, ...], str]:
        """The cells to run, and what to say of one that is not: the last of a cut reply is not whole."""
        cells = said.reply.cells
        if not said.whole and cells and not cells[-1].closed:
            return cells[:-1], " Its last block was not run."
        return cells[:_MOST_CELLS], ""

    async def _run_cells(self, cells: tuple[Cell, ...]) -> tuple[list[CellReport], Conclusion | None]:
        """Runs cells in order, up to a final or a failure; tells the root of each."""
        reports: list[CellReport] = []
        share = self._output_chars // max(1, len(cells))
        for index, cell in enumerate(cells):
            report = await self._run.run_cell(cell.source, self._turn, output_chars=max(500, share))
            reports.append(report)
            if report.final is not None and report.final.text.strip():
                return reports, Conclusion("answered", report.final.text.strip(), f"finished by {report.final.via}")
            self._tell(self._observation(report))
            if report.final is not None:
                why = f"{report.final.via} was called with nothing in it."
                self._run.recorder.add(FinalRefused, turn=self._turn, why=why)
                self._tell(why)
            if not report.ok:
                if index + 1 < len(cells):
                    self._tell("The blocks after the failed one were not run.")
                break
        return reports, None

    async def _accept(self, verdict: Accepted) -> Conclusion | None:
        """Turns an accepted final into the answer; a value that is empty after all is refused."""
        if verdict.expression is not None:
            source = f"{verdict.via}({verdict.expression})\n"
            _, conclusion = await self._run_cells((Cell(source),))
            if conclusion is None:
                self._next_turn(went_well=False)
            return conclusion
        text = verdict.literal if verdict.literal is not None else await self._run.value_of(verdict.name or "")
        if text is None or not text.strip():
            too_long = text is None and verdict.name in self._variables()
            self._refuse(f"{verdict.name} " + ("is too long for an answer." if too_long else _EMPTY))
            return None
        return Conclusion("answered", text.strip(), f"finished by {verdict.via}")

    def _refuse(self, why: str) -> None:
        self._run.recorder.add(FinalRefused, turn=self._turn, why=why)
        self._missed(f"The final was not accepted. {why}")

    def _missed(self, why: str) -> None:
        """A turn that brought nothing: the root is told why, and it counts as an error."""
        self._tell(why)
        self._next_turn(went_well=False)

    def _next_turn(self, *, went_well: bool) -> None:
        """Tells where the run stands; errors in a row may end it."""
        self._tell(self._turn_line(self._turn + 1))
        if went_well:
            self._run.purse.went_well()
        else:
            self._run.purse.went_wrong()

    # ── what the root is told ───────────────────────────────────────────────────────────────────────────────

    def _tell(self, text: str) -> None:
        self.history.told(text)

    def _observation(self, report: CellReport) -> str:
        """A cell's output, what became of its sub-queries, and the variables."""
        output = report.output.strip("\n") or "(no output)"
        lines = [f"[output of cell {self._run.cells_run}]", output, "[end of output]"]
        if report.cut:
            lines.append(f"{report.cut:,} characters were cut from the middle of the output.")
        if report.lost:
            lines.append("The REPL was started anew: all variables are gone; define again what you need.")
        elif report.interrupted:
            lines.append("The cell was stopped because it took too long; variables are kept.")
        if (host := self._run.host) is not None and host.failures:
            failed = ", ".join(f"{count} {kind}" for kind, count in host.failures.most_common(4))
            lines.append(f"Sub-queries: {host.asked} asked, {sum(host.failures.values())} failed ({failed}).")
        if report.names:
            shown = ", ".join(f"{one.name} ({one.size or one.type})" for one in report.names[-_MOST_NAMES:])
            lines.append(f"Variables: {elide(shown, 700, 200)}")
        return "\n".join(lines)

    def _turn_line(self, turn: int) -> str:
        """Sub-queries left are told only when they run short: the number depends on what the cache held, and a
        prompt that differs would keep the root's own reply from coming out of the cache."""
        purse = self._run.purse
        short = purse.left("sub_queries") < _SHORT_SHARE * purse.limits.sub_queries
        return turn_line(turn, purse.limits.turns, purse.left("sub_queries") if short else None)

    def _session_lines(self) -> str:
        """What a continued session brings along."""
        session = self._run.session
        lines = [
            f'Earlier in this session: "{question}" — answered: {answer}' for question, answer in session.exchanges
        ]
        if session.alive and session.names:
            names = ", ".join(f"{one.name} ({one.size or one.type})" for one in session.names[-_MOST_NAMES:])
            lines.append(f"Variables that still exist: {names}")
        return elide("\n".join(lines), 1200, 300)

    def _variables(self) -> set[str]:
        return {one.name for one in self._run.session.names}

    def _check_question(self) -> None:
        tokens = self.root.meter.of_text(self._run.request.question)
        room = int(self.root.window * _QUESTION_SHARE)
        if tokens > room:
            raise TooLarge(
                f"The question takes about {tokens:,} tokens; with this root it may take {room:,}.",
                hint="Put its long part into a context of its own and refer to that.",
                tokens=tokens,
                allowed=room,
            )


def _filled(template: str, **values: str) -> str:
    return Template(template).substitute(values).strip()
