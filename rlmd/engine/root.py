"""The root model as one run asks it: a prompt within its window, a streamed reply, both journalled.

A prompt that proves too long is built again for less. Knows prompts only as messages, hosts only as candidates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from rlmd.engine.cells import error_record
from rlmd.engine.families import STOP, Family, family_of
from rlmd.engine.journal import clean
from rlmd.engine.lasting import stopped
from rlmd.engine.limits import money_is_spent, time_is_over
from rlmd.engine.parsing import Reply, read_reply
from rlmd.engine.run import Run
from rlmd.engine.tokens import TokenMeter
from rlmd.errors import NoHost, NotFound, PromptTooLong, PromptTruncated, RlmdError, RunCancelled
from rlmd.events import RootFailed, RootReplied, TurnStarted
from rlmd.pool import Candidate, CompletionRequest, PooledCompletion
from rlmd.providers.base import Message, Sampling

#: A turn's prompt is built and sent at most so often.
_ATTEMPTS = 4
#: Tokens kept free beside prompt and reply: what a template adds beyond the estimate.
_MARGIN = 64
_MARGIN_SHARE = 0.02
#: Share of the tokens left that the reply of a last word may take; the prompt has the rest.
_LAST_REPLY_SHARE = 0.3

Build = Callable[[int], tuple[Message, ...]]


@dataclass(frozen=True, slots=True)
class RootReply:
    """``whole``: the reply did not run into its token limit. ``stream`` equals ``raw``, the text as it was sent."""

    reply: Reply
    raw: str
    whole: bool
    stream: str
    tokens: int


class Root:
    """Args:
    run: The run that asks.
    needs: Tokens of a prompt that can be no shorter: it goes to the first candidate that holds it, and from one that
        proves too small on to the larger ones. By default prompts are built for the first.
    """

    def __init__(self, run: Run, needs: Callable[[], int] | None = None) -> None:
        self._run = run
        self._needs = needs
        #: The largest window that proved too small.
        self._outgrown = 0
        self.meter = TokenMeter()
        #: A window smaller than the candidate's, once a server said so.
        self._told_window: int | None = None
        #: Tokens that the reply to what is being asked may have.
        self._reply_room = 0

    @property
    def candidate(self) -> Candidate:
        """The first choice as things stand. Raises ``NoHost``."""
        candidates = self._larger or self._run.candidates("root")
        if not candidates:
            raise NoHost(
                "No model may and can be the root of this run.",
                hint="Add one with `rlmctl host add NAME URL`, or ask with the strategy quote, which needs no model.",
            )
        if self._needs is None:
            return candidates[0]
        needs = self._needs()
        holding = (one for one in candidates if self._budget(one, one.window) >= needs)
        return next(holding, None) or max(candidates, key=lambda one: one.window)

    @property
    def _larger(self) -> tuple[Candidate, ...]:
        """Those whose window is larger than what proved too small, if that is of use."""
        return tuple(one for one in self._run.candidates("root") if one.window > self._outgrown > 0)

    @property
    def window(self) -> int:
        window = self.candidate.window
        return min(window, self._told_window) if self._told_window else window

    @property
    def reply_tokens(self) -> int:
        """Tokens for a reply: as configured and as models of its family need, at most a share of the window."""
        return self._reply_tokens(self.candidate, self.window)

    @property
    def family(self) -> Family:
        return self._family(self.candidate)

    @property
    def budget(self) -> int:
        """Tokens for a prompt."""
        return self._budget(self.candidate, self.window)

    def _family(self, candidate: Candidate) -> Family:
        return family_of(candidate.model, self._run.parts.settings.prompts.families)

    def _reply_tokens(self, candidate: Candidate, window: int) -> int:
        return self._family(candidate).reply_tokens(window, candidate.max_tokens)

    def _budget(self, candidate: Candidate, window: int) -> int:
        return window - self._reply_tokens(candidate, window) - _MARGIN - int(window * _MARGIN_SHARE)

    async def ask(self, turn: int, build: Build, *, last: bool = False) -> RootReply:
        """One turn: ``build(budget)`` makes the prompt, as often as needed.

        Args:
            turn: Its number, claimed from the purse.
            build: Makes messages of at most so many tokens.
            last: It is the last word at a limit, and has to do with the tokens that are left.

        Raises:
            RlmdError: No reply that counts could be had.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            stream = f"turn-{turn}/root" if attempt == 1 else f"turn-{turn}/root-{attempt}"
            budget, self._reply_room = self.budget, self.reply_tokens
            if last:
                left = self._run.purse.left("tokens")
                self._reply_room = min(self._reply_room, int(left * _LAST_REPLY_SHARE))
                budget = min(budget, left - self._reply_room)
            messages = build(budget)
            try:
                return await self._attempt(turn, stream, messages, last=last)
            except (PromptTooLong, PromptTruncated) as error:
                if attempt == _ATTEMPTS:
                    raise
                self._learn(messages, error)
        raise AssertionError("unreachable")

    async def _attempt(self, turn: int, stream: str, messages: tuple[Message, ...], *, last: bool) -> RootReply:
        recorder = self._run.recorder
        if (known := self._run.past.reply(stream)) is not None:
            return await self._as_it_was(known, messages)
        self._run.goes_on()
        recorder.add(
            TurnStarted,
            turn=turn,
            stream=stream,
            prompt_tokens_estimated=self.meter.of(messages),
            window=self.window,
            last=last,
        )
        try:
            done = await self._paid(stream, messages)
        except RlmdError as error:
            recorder.add(RootFailed, turn=turn, stream=stream, error=error_record(error))
            raise
        except asyncio.CancelledError:
            stopped = RunCancelled("The reply was not waited for.")
            recorder.add(RootFailed, turn=turn, stream=stream, error=error_record(stopped))
            raise
        self.meter.counted(messages, done.record.prompt_tokens)
        raw = clean(done.completion.text)
        reply = read_reply(raw)
        thinking = "\n".join(part for part in (clean(done.completion.thinking).strip(), reply.thinking) if part)
        recorder.add(
            RootReplied,
            turn=turn,
            stream=stream,
            reply=await recorder.text(raw),
            thinking=await recorder.text(thinking) if thinking else None,
            completion=done.record,
        )
        whole = done.completion.finish == "stop"
        return RootReply(reply, raw, whole, stream, done.record.completion_tokens)

    async def _as_it_was(self, known: RootReplied | RootFailed, messages: tuple[Message, ...]) -> RootReply:
        """A reply out of the journal: asked once, it is not asked again."""
        if isinstance(known, RootFailed):
            raise time_is_over(self._run.purse.limits) if stopped(known) else self._run.past.error(known.error)
        self.meter.counted(messages, known.completion.prompt_tokens)
        if known.completion.source == "model":
            self._run.purse.restore({"tokens": known.completion.prompt_tokens + known.completion.completion_tokens})
        raw = await self._run.past.text(known.reply)
        whole = known.completion.finish == "stop"
        return RootReply(read_reply(raw), raw, whole, known.stream, known.completion.completion_tokens)

    async def _paid(self, stream: str, messages: tuple[Message, ...]) -> PooledCompletion:
        """The completion, its tokens claimed before and settled after. Raises ``LimitReached`` too."""
        claim = await self._run.purse.claim_completion(None, self.meter.of(messages) + self._reply_room)
        spent, tokens = True, None
        try:
            done = await self._complete(stream, messages)
            spent = done.record.source == "model"
            tokens = done.record.prompt_tokens + done.record.completion_tokens
        except (NoHost, NotFound, PromptTooLong) as error:
            tokens = 0  # nothing was sent
            if isinstance(error, NoHost):
                raise money_is_spent(error) from error
            raise
        finally:
            claim.settle(spent=spent, tokens=tokens)
        return done

    async def _complete(self, stream: str, messages: tuple[Message, ...]) -> PooledCompletion:
        run = self._run
        request = CompletionRequest(
            role="root",
            messages=messages,
            sampling=Sampling(temperature=self.candidate.temperature, max_tokens=self._reply_room, stop=STOP),
            run_id=run.tree,
            candidates=tuple(one.name for one in self._larger) or run.request.root,
            private=run.private,
            ephemeral=run.recorder.record.ephemeral,
            contexts=run.recorder.record.held,
            fresh=run.request.fresh,
            prefix_group=run.request.run_id,
            patience=run.waits.patience,
        )
        return await run.parts.pool.complete(request, lambda offset, text: run.recorder.delta(stream, offset, text))

    def _learn(self, messages: tuple[Message, ...], error: RlmdError) -> None:
        """A prompt that should have fitted did not: take the server's numbers where it gave any, unless a larger model
        is there for one that can be no shorter, and counts its tokens in its own way."""
        if self._needs is not None and any(one.window > self.window for one in self._run.candidates("root")):
            self._outgrown, self._told_window = self.window, None
            self.meter = TokenMeter()
            return
        tokens, window = error.details.get("tokens"), error.details.get("window")
        if isinstance(window, int) and 0 < window < self.window:
            self._told_window = window
        if isinstance(tokens, int) and tokens > self.meter.of(messages):
            self.meter.counted(messages, tokens)
        else:
            self.meter.was_too_low()
