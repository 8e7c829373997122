"""The strategy ``direct``: one streamed completion over the whole text, where that fits the root's useful window."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from string import Template

from rlmd.engine.conclusion import Conclusion
from rlmd.engine.confirming import Redirected, estimate_of
from rlmd.engine.finals import Accepted, judge
from rlmd.engine.parsing import read_reply
from rlmd.engine.parts import PinnedContext
from rlmd.engine.prompts import PROMPTS, direct_prompt
from rlmd.engine.root import Root, RootReply
from rlmd.engine.run import Run
from rlmd.engine.tokens import tokens_of
from rlmd.errors import CompletionCut, PromptTooLong
from rlmd.events import Estimate, FinalRefused
from rlmd.providers.base import Message

#: No tokenizer makes more characters of a token than this on real text; beyond it a text surely does not fit.
_MOST_CHARS_PER_TOKEN = 8
#: A text of more characters is read in a thread.
_INLINE_READ = 100_000


async def fits(run: Run, tokens: int) -> bool:
    """Whether all that is asked of takes at most so many tokens, the question included."""
    chars = sum(context.pin.chars for context in run.contexts)
    if chars > _MOST_CHARS_PER_TOKEN * tokens:
        return False
    return tokens_of(await _whole_text(run)) + tokens_of(run.request.question) <= tokens


async def answer_directly(run: Run) -> Conclusion:
    """One completion; of a typed answer as many as it takes within the limits, each told what was wrong."""
    text, question = await _whole_text(run), run.request.question
    if run.answer_type is not None:
        question += "\n\n" + run.answer_type.asked
    if (other := run.past.chosen_instead()) is not None:
        raise Redirected(other)  # the turns that the journal holds are the other's
    if not run.past.last_turn:
        await run.confirming.look("direct", _estimate(run, len(text)))
    return await ask_root(run, direct_prompt(text, question), "answered directly")


def _estimate(run: Run, chars: int) -> Estimate:
    found = run.parts.pool.expect("root", 1, chars, private=run.private, narrowed_to=run.request.root)
    return estimate_of(found, 1, chars)


async def ask_root(run: Run, prompt: str, why: str) -> Conclusion:
    """The root's reply to one prompt as the conclusion. Raises ``LimitReached``, ``PromptTooLong``."""
    messages = [Message("user", prompt)]
    root = Root(run, needs=lambda: root.meter.of(messages))

    def build(budget: int) -> tuple[Message, ...]:
        tokens = root.meter.of(messages)
        if tokens > budget:
            raise PromptTooLong(
                f"The text and the question take about {tokens:,} tokens; {budget:,} are free in the root's window.",
                hint="Ask with the strategy auto, rlm or map.",
                tokens=tokens,
                window=root.window,
            )
        return tuple(messages)

    build(root.budget)
    while True:
        turn = run.claim_turn()
        said = await root.ask(turn, build)
        text = unwrapped(said.reply.text, said.raw)
        if run.answer_type is None or not said.whole:
            return _concluded(said, text, why)
        typed, wrong = run.answer_type.read(text)
        if not wrong:
            return Conclusion("answered", typed, why, stream=said.stream if typed == said.raw else None)
        run.cells.answer = run.cells.answer or text
        run.recorder.add(FinalRefused, turn=turn, why=wrong)
        run.purse.went_wrong()
        told = Template(PROMPTS.mistyped).substitute(why=wrong)
        messages[1:] = [Message("assistant", said.reply.text or "(nothing)"), Message("user", told)]


def _concluded(said: RootReply, text: str, why: str) -> Conclusion:
    stream = said.stream if text == said.raw else None
    if not said.whole:
        why = f"the reply was cut at {said.tokens:,} tokens"
        cut = CompletionCut(f"{why[0].upper()}{why[1:]}.", hint="Raise max_tokens of the model, or ask for less.")
        return Conclusion("partial", text, why, stream=stream, error=cut)
    if not text:
        return Conclusion("none", "", "the model's reply was empty")
    return Conclusion("answered", text, why, stream=stream)


def unwrapped(text: str, raw: str) -> str:
    """The reply as an answer: without FINAL(...) if it is nothing else, and as it was streamed if it is the same."""
    reply = read_reply(text)
    if text.lstrip().startswith(("FINAL(", "SUBMIT(")):
        verdict = judge(reply.finals, ran_cells=False, cell_failed=False, anything_executed=True, variables=())
        if isinstance(verdict, Accepted) and verdict.literal is not None:
            return verdict.literal.strip()
    return raw if text.strip() == raw.strip() else text.strip()


async def _whole_text(run: Run) -> str:
    chars = sum(context.pin.chars for context in run.contexts)
    if chars <= _INLINE_READ:
        return _joined(run.contexts)
    return await asyncio.get_running_loop().run_in_executor(run.parts.threads, _joined, run.contexts)


def _joined(contexts: Sequence[PinnedContext]) -> str:
    """All documents, each under its name when there are several."""
    documents = [(context, document) for context in contexts for document in context.documents]
    texts = [context.read(document.name, 0, document.chars) for context, document in documents]
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"=== {document.name} ===\n{text}" for (_, document), text in zip(documents, texts, strict=True))
