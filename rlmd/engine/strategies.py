"""The ways to answer a question, and how ``auto`` chooses among them.

Each takes a run and gives a ``Conclusion``. ``FOLLOW`` is the table; ``conclude`` is what remains at a limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rlmd.engine.conclusion import Conclusion
from rlmd.engine.confirming import Redirected
from rlmd.engine.conversation import LEAST_WINDOW, Conversation
from rlmd.engine.direct import answer_directly, fits
from rlmd.engine.mapping import run_map
from rlmd.engine.programming import run_program
from rlmd.engine.quoting import run_quote
from rlmd.engine.run import Run
from rlmd.engine.small_queries import small_queries
from rlmd.errors import LimitReached, NoHost, PromptTooLong, PromptTruncated, RlmdError
from rlmd.events import Strategy

#: Pieces up to which mapping all of them is cheaper than exploring: two rounds of the slots, but never many, and as
#: many as an exploration takes turns in any case.
_FEW_ROUNDS, _LEAST_FEW, _FEW_PIECES = 2, 4, 12
#: Seconds that a last root call may take after the time is over: a tenth of the limit within these bounds.
_LEAST_GRACE, _MOST_GRACE = 10.0, 120.0


async def choose(run: Run) -> tuple[Strategy, str]:
    """Fits the useful window → direct; few pieces → map; else rlm. Without a model → quote."""
    roots = run.candidates("root")
    chars = sum(context.pin.chars for context in run.contexts)
    if not roots:
        if wanted := (*(run.request.root or ()), *(run.request.sub or ())):
            raise _nobody_of(tuple(dict.fromkeys(wanted)), private=run.private)
        return "quote", "there is no language model to ask"
    root = roots[0]
    if await fits(run, root.useful_window):
        return "direct", f"{chars:,} characters fit the useful window of {root.useful_window:,} tokens"
    facts = run.sub_facts
    pieces = run.pieces
    if root.window < LEAST_WINDOW and facts:
        return "map", f"the root's window of {root.window:,} tokens is too small to explore with"
    few = min(_FEW_PIECES, max(_LEAST_FEW, _FEW_ROUNDS * facts.slots), facts.sub_queries - 2) if facts else 0
    if 0 < pieces <= few:
        return "map", f"{chars:,} characters are only {pieces} pieces"
    return "rlm", f"{chars:,} characters are far more than {root.model} reads at once"


def _nobody_of(wanted: tuple[str, ...], *, private: bool) -> NoHost:
    """Quotes are no answer to somebody who has named a model."""
    allowed = " that may see private text" if private else ""
    return NoHost(
        f"No model{allowed} is there, and this run was to ask {', '.join(wanted)}.",
        hint="`rlmctl host list` shows what there is, `rlmctl setup` asks for hosts; without a model's name the answer "
        "is made of quotes.",
    )


def asks_a_model(run: Run) -> bool:
    """Whether nothing can come of it without one, or it would be another strategy with one."""
    chosen = run.past.strategy()
    return (chosen[0] if chosen else run.request.strategy) in ("auto", "direct", "map", "rlm")


async def asks_sub_models(run: Run) -> bool:
    """Whether it matters from the start who answers its sub-queries: the size of the pieces goes by them."""
    chosen = run.past.strategy()
    strategy = chosen[0] if chosen else run.request.strategy
    if strategy == "auto":
        roots = run.candidates("root")
        return bool(roots) and not await fits(run, roots[0].useful_window)
    return strategy in ("map", "rlm")


async def answer(run: Run) -> Conclusion:
    """Follows the strategy that was asked for, or the one that ``auto`` chooses; each choice is a fact."""
    strategy: Strategy
    if run.request.strategy != "auto":
        strategy, why = run.request.strategy, "asked for"
    else:
        strategy, why = run.past.strategy() or await choose(run)
    while True:
        run.chosen(strategy, why)
        try:
            return await _follow(run, strategy)
        except Redirected as chosen:
            strategy, why = chosen.strategy, "chosen instead of what would have taken long"
            run.confirming.redirect_taken()


async def _follow(run: Run, strategy: Strategy) -> Conclusion:
    """The strategy, with those that may be chosen instead where it turns out to take long."""
    run.confirming.alternatives = _INSTEAD.get(strategy, ())
    try:
        return await FOLLOW.get(strategy, programmed)(run)
    except (PromptTooLong, PromptTruncated) as error:
        if strategy != "direct" or run.request.strategy != "auto":
            raise
        run.chosen("rlm", f"it did not fit after all: {error.message}")
        return await converse(run)


# ── rlm ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def converse(run: Run) -> Conclusion:
    """Turns of a root that explores by code; one that cannot write any is helped out by the program ``map``."""
    await run.wake()
    run.asking.small = small_queries(run.purse.limits)
    conversation = run.conversation = Conversation(run)
    why = "the root asked for it, because its cells did not run"
    try:
        conclusion = await conversation.answer()
    except LimitReached as limit:
        if limit.details.get("limit") != "consecutive_errors" or not conversation.map_instead:
            raise
        conclusion, why = None, f"none of the root's cells ran. {limit.message}"
    if conclusion is not None:
        return conclusion
    run.chosen("map", why)
    return await mapped(run)


async def mapped(run: Run) -> Conclusion:
    """The program ``map`` over all pieces; at a limit what there is by then."""
    conclusion = await run_map(run)
    if conclusion is not None:
        return conclusion
    assert run.asking.limit is not None
    return await conclude(run, run.asking.limit)


async def programmed(run: Run) -> Conclusion:
    """A program of the user; at a limit what there is by then."""
    conclusion = await run_program(run)
    if conclusion is not None:
        return conclusion
    assert run.asking.limit is not None
    return await conclude(run, run.asking.limit)


async def conclude(run: Run, limit: LimitReached) -> Conclusion:
    """At a limit: the answer as it stands, else a last root call over the findings, else an honest none."""
    text, stream = run.cells.answer, None
    if not text and run.conversation is not None and run.conversation.begun:
        grace = min(_MOST_GRACE, max(_LEAST_GRACE, run.purse.limits.seconds / 10))
        try:
            async with asyncio.timeout(grace):
                text, stream = await run.conversation.last_word(limit) or ("", None)
        except (RlmdError, TimeoutError):
            text = ""
    if not text:
        return Conclusion("none", f"No answer was found. {limit.message}", limit.message, error=limit, citations=())
    wrong = None
    if run.answer_type is not None:
        stream = None
        text, wrong = run.answer_type.read(text)
    return Conclusion("partial", text, f"{limit.message} {wrong or ''}".strip(), stream=stream, error=limit)


# ── execute ─────────────────────────────────────────────────────────────────────────────────────────────────


async def run_execute(run: Run) -> Conclusion:
    """One cell that a client wrote."""
    report = await run.cells.run(run.request.question, 0, output_chars=run.parts.settings.repl.output_chars)
    text = report.final.text if report.final else ""
    if not report.ok:
        return Conclusion("none", text, report.error or "the cell failed", citations=())
    return Conclusion("answered", text, "the cell ran", citations=())


async def stay_open(run: Run) -> Conclusion:
    """What a client asks one by one."""
    return await run.open.stay_open(run)


_INSTEAD: dict[Strategy, tuple[Strategy, ...]] = {"direct": ("rlm", "map", "quote"), "map": ("rlm", "quote")}

FOLLOW: dict[Strategy, Callable[[Run], Awaitable[Conclusion]]] = {
    "direct": answer_directly,
    "rlm": converse,
    "map": mapped,
    "quote": run_quote,
    "execute": run_execute,
    "open": stay_open,
}
