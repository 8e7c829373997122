"""The strategy ``map``: the program of that name over all pieces, and what its answer amounts to."""

from __future__ import annotations

from string import Template

from rlmd.engine.conclusion import Conclusion
from rlmd.engine.direct import ask_root
from rlmd.engine.programs import map_cell
from rlmd.engine.prompts import PROMPTS
from rlmd.engine.run import Run
from rlmd.errors import NoHost, TooLarge


async def run_map(run: Run) -> Conclusion | None:
    """All pieces are asked, then combined. None when a limit was reached before there was anything to tell."""
    if run.sub_facts is None:
        raise NoHost(
            "No model may and can take the sub-queries of this run.",
            hint="Add one with `rlmctl host add NAME URL`, or ask with the strategy quote, which needs no model.",
        )
    check_question(run, run.sub_facts.piece_chars)
    run.asking.small = None
    run.confirming.tell("map", run.asking.expect(run.pieces + 1, sum(one.pin.chars for one in run.contexts)))
    source = map_cell(run.request.question, run.sub_facts.piece_chars)
    report = await run.cells.run(
        source, 0, program="map", output_chars=run.parts.settings.repl.output_chars, seconds=run.purse.limits.seconds
    )
    text = report.final.text.strip() if report.final else ""
    if (limit := run.asking.limit) is not None:
        return Conclusion("partial", text, limit.message, error=limit) if text else None
    if not text:
        return Conclusion("none", "", f"the program failed: {report.error or 'no answer'}", citations=())
    conclusion = await as_typed(run, text, "answered by the program map")
    if run.cells.host is not None and (failed := sum(run.cells.host.failures.values())):
        return Conclusion("partial", conclusion.answer, f"{failed:,} of {run.cells.host.asked:,} sub-queries failed")
    return conclusion


async def as_typed(run: Run, text: str, why: str) -> Conclusion:
    """A program's answer; a typed one is made of it by the root, unless it is one already."""
    if run.answer_type is None:
        return Conclusion("answered", text, why)
    typed, wrong = run.answer_type.read(text)
    if not wrong:
        return Conclusion("answered", typed, why)
    run.cells.answer = text
    prompt = Template(PROMPTS.made_typed).substitute(
        text=text, question=run.request.question, typed=run.answer_type.asked
    )
    return await ask_root(run, prompt, why)


def check_question(run: Run, chars: int) -> None:
    """The programs hand the question on whole, to each sub-query or to the search."""
    if len(run.request.question) > chars:
        raise TooLarge(
            f"The question has {len(run.request.question):,} characters; here it may have {chars:,}.",
            hint="Put its long part into a context of its own and refer to that.",
            chars=len(run.request.question),
            allowed=chars,
        )
