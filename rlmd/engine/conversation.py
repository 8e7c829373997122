"""The strategy ``rlm``: turn by turn, the root writes cells, reads their output, and finishes.

One method a step; ``answer`` reads as the loop that it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlmd.engine.conclusion import Conclusion
from rlmd.engine.finals import Accepted, Refused, judge, unread
from rlmd.engine.guards import Guards
from rlmd.engine.history import History, elide
from rlmd.engine.parsing import Cell
from rlmd.engine.prompts import PROMPTS, opening, own_prompts, system_prompt
from rlmd.engine.root import Root, RootReply
from rlmd.engine.run import Run
from rlmd.engine.tokens import CHARS_PER_TOKEN
from rlmd.engine.words import Words, filled
from rlmd.errors import CompletionCut, LimitReached, MalformedReply, PromptTooLong, TooLarge
from rlmd.events import FinalRefused
from rlmd.repl import CellReport

#: Share of the root's window that the output of one turn's cells may take.
_OUTPUT_SHARE = 0.25
#: Share of the root's window that a question may take.
_QUESTION_SHARE = 0.3
#: Cells of one reply that are run; a model that writes more has not waited for any output.
_MOST_CELLS = 6
#: What the cell is called that binds ``history``; characters kept of any cell's output at least.
_HISTORY = "history"
_LEAST_OUTPUT = 500
_EMPTY = "is empty; put the answer in it first."
#: The least window in which system prompt, question and one exchange have room.
LEAST_WINDOW = 3072


@dataclass(slots=True)
class _Ran:
    """What became of a reply's cells; ``refused`` says why a final that one of them handed over does not count."""

    reports: list[CellReport] = field(default_factory=list)
    conclusion: Conclusion | None = None
    refused: str = ""

    @property
    def went_well(self) -> bool:
        return all(report.ok for report in self.reports)


class Conversation:
    """Args:
    run: The run whose question is answered.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.root = Root(run)
        self._words = Words(run)
        if self.root.window < LEAST_WINDOW:
            raise PromptTooLong(
                f"The root's window of {self.root.window:,} tokens is too small for the strategy rlm, which needs "
                f"{LEAST_WINDOW:,}.",
                hint="Use a root with a larger window, or the strategy map.",
                tokens=LEAST_WINDOW,
                window=self.root.window,
            )
        self._check_question()
        #: Of the reply that is being acted on; 0 before the first.
        self._turn = 0
        self.guards = Guards(run.purse.limits.repeats)
        self._offered_map = self._wants_map = False
        #: Compactions after which the REPL got the history.
        self._bound = 0
        self._output_chars = min(
            run.parts.settings.repl.output_chars, int(self.root.window * _OUTPUT_SHARE * CHARS_PER_TOKEN)
        )
        own = run.parts.settings.prompts
        self.history = History(
            system_prompt(
                run.sub_facts,
                output_chars=self._output_chars,
                cell_seconds=run.parts.settings.repl.cell_seconds,
                depth=run.purse.limits.depth,
                notes=(self.root.family.note, own.note),
                prompts=own_prompts(own.system, own.note),
            ),
            opening(
                run.request.question,
                [one.pin for one in run.contexts],
                self._words.turn_line(1),
                self._words.session_lines(),
                run.answer_type.asked if run.answer_type else "",
            ),
            self.root.meter,
            lambda: run.cells.answer,
        )

    @property
    def map_instead(self) -> bool:
        """Whether the program ``map`` is the way out: no cell ever ran, and its sub-queries can be afforded."""
        return not self.guards.ran and bool(self._words.map_offer())

    @property
    def begun(self) -> bool:
        """Whether there is anything that a last word could rest on."""
        return self._run.cells.count > 0

    async def answer(self) -> Conclusion | None:
        """Turns until one of them concludes; None when the root asks for the program ``map`` instead.

        Raises:
            LimitReached: A limit, or a root that goes on checking what it has.
        """
        while not self._wants_map:
            self._run.check_time()
            if self._run.going:
                await self._run.confirming.time_passed()
            if self.guards.endless:
                raise _endless(self.guards.repeats)
            self._turn = self._run.claim_turn(last_word=not self._run.cells.answer)
            conclusion = await self._take_turn()
            if conclusion is not None:
                return conclusion
        return None

    async def last_word(self, limit: LimitReached) -> tuple[str, str | None] | None:
        """A last root call over what was found, and the stream that it equals if it equals one; None if it gives
        nothing. Raises ``LimitReached`` where the tree's purse has nothing for it."""
        self._turn = self._run.claim_last_turn()
        extra = filled(PROMPTS.conclude, why=limit.message, question=elide(self._run.request.question, 2000, 500))
        if self._run.answer_type is not None:
            extra += "\n\n" + self._run.answer_type.asked
        said = await self.root.ask(self._turn, lambda budget: self.history.messages(budget, extra), last=True)
        verdict = judge(
            said.reply.finals, ran_cells=False, cell_failed=False, anything_executed=True, variables=self._variables()
        )
        if isinstance(verdict, Accepted) and verdict.name is not None:
            value = await self._run.cells.value_of(verdict.name)
            return (value, None) if value else None
        if isinstance(verdict, Accepted):
            literal = (verdict.literal or "").strip()
            return (literal, None) if literal else None
        if verdict is not None or said.reply.cells:
            return None  # a final of nothing, or more code: neither says anything
        text = said.reply.prose.strip()
        if text and not said.whole:
            return f"{text}\n\n[The reply was cut at {said.tokens:,} tokens.]", None
        return (text, said.stream if text == said.raw else None) if text else None

    # ── a turn ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _take_turn(self) -> Conclusion | None:
        """Asks the root and acts on its reply. One that was cut or garbled is none: the root is told to mend it."""
        self._tell_what_is_lost()
        try:
            said = await self.root.ask(self._turn, self.history.messages)
        except (CompletionCut, MalformedReply) as error:
            self.history.replied(self._turn, PROMPTS.not_kept)
            self.guards.replied([])
            self._missed(filled(PROMPTS.cut, why=error.message, tokens=f"{self.root.reply_tokens:,}", unrun=""))
            return None
        self.history.replied(self._turn, _kept(said))
        return await self._act_on(said)

    async def _act_on(self, said: RootReply) -> Conclusion | None:
        """Runs the reply's cells, then looks at its final; what the root is told of both goes into the history."""
        cells, unrun = self._runnable(said)
        if self._offered_map and not cells and asks_for_map(said.reply.prose):
            self._wants_map = True
            return None
        read_before = self._run.cells.count > 0
        if cells:
            await self._bind_history()
        ran = await self._run_cells(cells, read_before=read_before)
        if ran.conclusion is not None:
            return ran.conclusion
        self.guards.replied(ran.reports)
        if len(said.reply.cells) > len(cells) == _MOST_CELLS:
            self._tell(f"Only the first {_MOST_CELLS} of your {len(said.reply.cells)} blocks were run.")
        if not said.whole:
            why = f"It ran into the limit of {self.root.reply_tokens:,} tokens."
            self._missed(filled(PROMPTS.cut, why=why, tokens=f"{self.root.reply_tokens:,}", unrun=unrun))
            return None
        if ran.refused:
            self._next_turn(went_well=False)
            return None
        verdict = judge(
            said.reply.finals,
            ran_cells=bool(ran.reports),
            cell_failed=not ran.went_well,
            anything_executed=self._run.cells.count > 0,
            variables=self._variables(),
        )
        if isinstance(verdict, Accepted):
            return await self._accept(verdict)
        if isinstance(verdict, Refused):
            self._refuse(verdict.why)
            return None
        if not ran.reports:
            self._missed(PROMPTS.nudge)
            return None
        self._next_turn(went_well=ran.went_well)
        return None

    @staticmethod
    def _runnable(said: RootReply) -> tuple[tuple[Cell, ...], str]:
        """The cells to run, and what to say of one that is not: the last of a cut reply is not whole."""
        cells = said.reply.cells
        if not said.whole and cells and not cells[-1].closed:
            return cells[:-1], " Its last block was not run."
        return cells[:_MOST_CELLS], ""

    async def _bind_history(self) -> None:
        """After a compaction ``history`` in the REPL holds what the root sees shortened. A run that is taken up does so
        where its journal did."""
        begun = self._run.past.source(self._run.cells.count + 1)
        due = self.history.compactions > self._bound if begun is None else begun.program == _HISTORY
        if due:
            self._bound = self.history.compactions
            await self._run.cells.run(self.history.cell(), self._turn, program=_HISTORY, output_chars=_LEAST_OUTPUT)

    async def _run_cells(self, cells: tuple[Cell, ...], *, read_before: bool = True) -> _Ran:
        """Runs cells in order, up to a final or a failure; tells the root of each."""
        ran = _Ran()
        share = self._output_chars // max(1, len(cells))
        for index, cell in enumerate(cells):
            report = await self._run.cells.run(cell.source, self._turn, output_chars=max(_LEAST_OUTPUT, share))
            ran.reports.append(report)
            if report.final is not None:
                sources = [cell.source for cell in cells[: index + 1]]
                ran.conclusion, ran.refused = self._finished(report.final.text, report.final.via, sources, read_before)
                if ran.conclusion is not None:
                    return ran
            self._tell(self._words.observation(report))
            if ran.refused:
                self._run.recorder.add(FinalRefused, turn=self._turn, why=ran.refused)
                self._tell(f"The final was not accepted. {ran.refused}")
            if ran.refused or not report.ok:
                if index + 1 < len(cells):
                    self._tell("The blocks after this one were not run.")
                break
        return ran

    def _finished(
        self, text: str, via: str, sources: Sequence[str] = (), read_before: bool = True
    ) -> tuple[Conclusion | None, str]:
        """The conclusion that a final amounts to, or why it is none."""
        text = text.strip()
        if not text:
            return None, f"{via} was called with nothing in it."
        if why := unread(sources, anything_executed=read_before):
            return None, why
        if self._run.answer_type is not None:
            text, wrong = self._run.answer_type.read(text)
            if wrong:
                return None, wrong
        return Conclusion("answered", text, f"finished by {via}"), ""

    async def _accept(self, verdict: Accepted) -> Conclusion | None:
        """Turns an accepted final into the answer; a value that is empty after all is refused."""
        if verdict.expression is not None:
            source = f"{verdict.via}({verdict.expression})\n"
            ran = await self._run_cells((Cell(source),))
            if ran.conclusion is None:
                self._next_turn(went_well=False)
            return ran.conclusion
        if (why := self._run.past.refused(self._turn)) is not None:  # the variable may be another by now
            self._refuse(why)
            return None
        text = verdict.literal if verdict.literal is not None else await self._run.cells.value_of(verdict.name or "")
        if text is None or not text.strip():
            too_long = text is None and verdict.name in self._variables()
            self._refuse(f"{verdict.name} " + ("is too long for an answer." if too_long else _EMPTY))
            return None
        conclusion, why = self._finished(text, verdict.via)
        if conclusion is None:
            self._refuse(why)
        return conclusion

    def _refuse(self, why: str) -> None:
        self._run.recorder.add(FinalRefused, turn=self._turn, why=why)
        self._missed(f"The final was not accepted. {why}")

    def _missed(self, why: str) -> None:
        """A turn that brought nothing: the root is told why, and it counts as an error."""
        self._tell(why)
        self._next_turn(went_well=False)

    def _next_turn(self, *, went_well: bool) -> None:
        """Tells where the run stands; errors in a row may end it."""
        if self.guards.repeating:
            self._tell(PROMPTS.repeating)
        if self.guards.offer_map and (offer := self._words.map_offer()):
            self._tell(offer)
            self._offered_map = True
        self._tell(self._words.turn_line(self._turn + 1))
        if went_well:
            self._run.purse.went_well()
        else:
            self._run.purse.went_wrong()

    # ── what the root is told ───────────────────────────────────────────────────────────────────────────────

    def _tell_what_is_lost(self) -> None:
        """Before the reply that comes next: the earlier ones knew nothing of it. Before the first the opening tells."""
        if self._turn > 1 and (lost := self._run.take_lost(self._turn)):
            self._tell(lost)

    def _tell(self, text: str) -> None:
        self.history.told(text)

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


def asks_for_map(prose: str) -> bool:
    """Whether a reply takes the offer: the word alone on a line, however it is decorated."""
    return re.search(r"^[\W_]*(?:RUN_)?MAP(?:\(\))?[\W_]*$", prose, re.MULTILINE) is not None


def _kept(said: RootReply) -> str:
    """What the history keeps of a reply: what was written behind its last block was written before any output was
    read, and an invented output that stays would be believed."""
    reply = said.reply
    if not reply.cells:
        return reply.text if reply.thinking else said.raw
    return reply.text[: reply.cells[-1].end].rstrip("\n")


def _endless(repeats: int) -> LimitReached:
    return LimitReached(
        f"The root went on checking what it had: {repeats} outputs came again.",
        hint="Continue the run, or ask with another root model.",
        limit="repeats",
        allowed=repeats,
        used=repeats,
    )
