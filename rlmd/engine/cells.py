"""What a cell may ask while it runs: sub-queries, searches, output. One ``RunCellHost`` a cell.

A sub-query is claimed from the purse, sent to the pool, journalled with its reply, and only then answered; a failure
is a typed slot, never an exception in the batch.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rlmd.engine.child_asking import AskChild, ChildAsking
from rlmd.engine.confirming import Confirming, Forecast, estimate_of
from rlmd.engine.journal import clean
from rlmd.engine.limits import Claim, Purse, money_is_spent
from rlmd.engine.parts import Parts, PinnedContext
from rlmd.engine.passages import passages_at, passages_of, span_of, verified
from rlmd.engine.past import Past, SubQueryEnd
from rlmd.engine.recorder import Recorder
from rlmd.engine.small_queries import SmallQueries, is_small
from rlmd.engine.tokens import tokens_of
from rlmd.engine.typed_asking import TypedAsking
from rlmd.errors import (
    CompletionCut,
    InvalidParams,
    LimitReached,
    NoHost,
    NotFound,
    OverUse,
    PromptTooLong,
    ReplyMismatch,
    RlmdError,
)
from rlmd.events import (
    PREVIEW_CHARS,
    BatchStarted,
    ErrorRecord,
    Estimate,
    LimitHit,
    Searched,
    SubQueryFailed,
    SubQueryReplied,
    Text,
    digest_of,
)
from rlmd.pool import PATIENCE, Candidate, CompletionRequest, PooledCompletion
from rlmd.providers.base import Message, Sampling
from rlmd.repl import ChildQuery, SearchPassage, SubQuery, SubQueryFailure, SubQueryReply

#: Passages of a cell that are looked for in its output, to know what the root was shown.
_REMEMBERED = 1000


@dataclass(slots=True)
class Asking:
    """What all cells of a run share when they ask models.

    ``seen`` counts equal prompts within the run: at a temperature above 0 each repeat is another sample.
    """

    run_id: str
    parts: Parts
    purse: Purse
    contexts: Sequence[PinnedContext]
    private: Callable[[], bool]
    sub: tuple[str, ...] | None
    fresh: bool
    piece_chars: int
    children: AskChild
    #: Contexts whose text prompts may hold: what is cached of them goes with them.
    held: tuple[str, ...] = ()
    ephemeral: bool = False
    seen: Counter[str] = field(default_factory=Counter)
    limit: LimitReached | None = None
    #: None where cells may ask as they like: those of a person, and of programs.
    small: SmallQueries | None = None
    past: Past = field(default_factory=Past)
    #: None where nobody is asked, however long it takes.
    confirming: Confirming | None = None
    #: Seconds for which a request may wait for a host.
    patience: Callable[[], float] = lambda: PATIENCE

    def candidates(self) -> tuple[Candidate, ...]:
        return self.parts.pool.candidates("sub", private=self.private(), narrowed_to=self.sub)

    def expect(self, requests: int, chars: int) -> Estimate:
        """What so many sub-queries with so many characters together would take."""
        found = self.parts.pool.expect("sub", requests, chars, private=self.private(), narrowed_to=self.sub)
        return estimate_of(found, requests, chars)


class RunCellHost:
    """Args:
    cell: The cell's number in its run.
    stream: Where its output is told.
    asking: What the run's cells share.
    recorder: Where facts go.
    """

    def __init__(self, cell: int, stream: str, asking: Asking, recorder: Recorder) -> None:
        self._cell = cell
        self._stream = stream
        self._asking = asking
        self._recorder = recorder
        self._offset = 0
        self._batches: dict[int, int] = {}
        self._occurrences: Counter[str] = Counter()
        self._typed = TypedAsking(asking.parts.threads)
        self._children = ChildAsking(cell, asking.children, asking.purse, asking.past, recorder)
        confirming = asking.confirming
        self._forecast = None if confirming is None else Forecast(cell, confirming, asking.expect)
        self.passages: list[SearchPassage] = []
        self.asked = 0
        self.failures: Counter[str] = Counter()

    # ── CellHost ────────────────────────────────────────────────────────────────────────────────────────────

    def batch_started(self, batch: int, total: int) -> None:
        self._batches[batch] = total
        if self._forecast is not None:
            self._forecast.batch(total)
        self._recorder.add(BatchStarted, cell=self._cell, batch=batch, total=total)

    def output(self, text: str) -> None:
        self._recorder.delta(self._stream, self._offset, text)
        self._offset += len(text)

    async def search(self, query: str, k: int) -> list[SearchPassage]:
        """The best passages of the run's contexts, best first."""
        passages = await passages_of(self._asking.parts.contexts, self._asking.contexts, query, k)
        self.passages.extend(passages[: _REMEMBERED - len(self.passages)])
        self._recorder.add(
            Searched,
            cell=self._cell,
            contexts=tuple(context.pin.context for context in self._asking.contexts),
            chars=sum(context.pin.chars for context in self._asking.contexts),
            hits=tuple(span_of(passage) for passage in passages),
        )
        return passages

    async def answer(self, query: SubQuery | ChildQuery, *, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        if isinstance(query, ChildQuery):
            return self._counted(await self._children.answer(query, batch, slot))
        if query.schema is None:
            return await self._ask(query, batch, slot)
        try:
            return await self._typed.answer(query, lambda asked: self._ask(asked, batch, slot))
        except (InvalidParams, ReplyMismatch) as error:
            return self._failure(error)

    def _counted(self, reply: SubQueryReply | SubQueryFailure) -> SubQueryReply | SubQueryFailure:
        self.asked += 1
        if isinstance(reply, SubQueryFailure):
            self.failures[reply.kind] += 1
        return reply

    def _failure(self, error: RlmdError) -> SubQueryFailure:
        self.failures[error.kind] += 1
        return SubQueryFailure(kind=error.kind, message=_for_a_cell(error, self._asking.piece_chars))

    async def _ask(self, query: SubQuery, batch: int, slot: int) -> SubQueryReply | SubQueryFailure:
        prompt = clean(query.prompt)
        digest = digest_of(prompt)
        self.asked += 1
        self._occurrences[digest] += 1
        self._asking.seen[digest] += 1
        known = self._asking.past.sub_query(self._cell, digest, self._occurrences[digest])
        if known is not None:
            return await self._as_it_was(known)
        if self._forecast is not None:
            request = self._request(prompt, query, self._asking.seen[digest], batch)
            await self._forecast.before(len(prompt), lambda: self._asking.parts.pool.holds(request))
        try:
            reply, _ = await self._ask_anew(replace(query, prompt=prompt), digest, batch, slot)
        except RlmdError as error:
            return self._failure(error)
        return SubQueryReply(reply)

    async def ask(self, query: SubQuery, batch: int, slot: int) -> tuple[str, PooledCompletion]:
        """The reply to a sub-query that a client asked, and who gave it. Raises ``RlmdError``."""
        prompt = clean(query.prompt)
        digest = digest_of(prompt)
        self._occurrences[digest] += 1
        self._asking.seen[digest] += 1
        return await self._ask_anew(replace(query, prompt=prompt), digest, batch, slot)

    async def _ask_anew(self, query: SubQuery, digest: str, batch: int, slot: int) -> tuple[str, PooledCompletion]:
        """Through purse and pool; the reply, or why there is none, is journalled before anybody has it."""
        prompt = query.prompt
        sample = self._asking.seen[digest]
        lone = self._batches.get(batch, 1) == 1 and query.schema is None
        stream = f"cell-{self._cell}/sub-{batch}" if lone else None
        which = {
            "cell": self._cell,
            "batch": batch,
            "slot": slot,
            "prompt_digest": digest,
            "occurrence": self._occurrences[digest],
            "prompt_chars": len(prompt),
            "prompt_preview": prompt[:PREVIEW_CHARS],
            "spans": verified(query.spans, prompt, self._asking.contexts),
            "stream": stream,
        }
        if self._unwritten:
            which |= {"prompt_digest": digest_of(stream or ""), "prompt_preview": ""}
        try:
            done = await self._complete(query, sample, batch, stream)
        except RlmdError as error:
            told = _for_a_cell(error, self._asking.piece_chars)
            self._recorder.add(
                SubQueryFailed, **which, error=error_record(error), told=told if told != error.message else None
            )
            raise
        text = clean(done.completion.text)
        reply = Text(chars=len(text), text="") if self._unwritten else await self._recorder.text(text)
        self._recorder.add(SubQueryReplied, **which, reply=reply, completion=done.record)
        return text, done

    @property
    def _unwritten(self) -> bool:
        """Whether prompts may hold ephemeral text while the journal is on disk: an open run, within which one over such
        text was. It is not taken up again, so it needs no reply."""
        return self._asking.ephemeral and not self._recorder.record.ephemeral

    async def restore(self) -> None:
        """Takes over what a cell of the past asked and found, so that it counts as it did."""
        past = self._asking.past
        for end in past.sub_queries(self._cell):
            self.asked += 1
            self._asking.seen[end.prompt_digest] += 1
            self._spent(end)
        self._children.restore()
        for searched in past.searches(self._cell):
            self.passages.extend(passages_at(searched.hits, self._asking.contexts))

    async def _as_it_was(self, end: SubQueryEnd) -> SubQueryReply | SubQueryFailure:
        """A reply out of the journal: asked once, it is not asked again."""
        self._spent(end)
        if self._forecast is not None:
            self._forecast.answered()
        if isinstance(end, SubQueryReplied):
            return SubQueryReply(await self._asking.past.text(end.reply))
        return SubQueryFailure(kind=end.error.kind, message=end.told or end.error.message)

    def _spent(self, end: SubQueryEnd) -> None:
        """What the purse had to give for it."""
        tokens = 0
        if isinstance(end, SubQueryFailed):
            self.failures[end.error.kind] += 1
            spent = end.error.kind not in (LimitReached.kind, OverUse.kind)
        else:
            spent = end.completion.source == "model"
            tokens = end.completion.prompt_tokens + end.completion.completion_tokens
        if spent and (small := self._asking.small) is not None and is_small(end.prompt_chars, self._asking.piece_chars):
            small.sent += 1
            small.chars += end.prompt_chars
        if spent:
            self._asking.purse.restore({"sub_queries": 1, "tokens": tokens})

    def _request(self, prompt: str, query: SubQuery, sample: int, batch: int) -> CompletionRequest:
        asking = self._asking
        candidates = asking.candidates()
        first = candidates[0] if candidates else None
        temperature = first.temperature if first else 0.0
        return CompletionRequest(
            role="sub",
            messages=(Message("user", prompt),),
            sampling=Sampling(temperature=temperature, max_tokens=first.max_tokens if first else 1024),
            run_id=asking.run_id,
            candidates=asking.sub,
            model=query.model,
            private=asking.private(),
            ephemeral=asking.ephemeral,
            contexts=asking.held,
            sample=sample if temperature > 0 else 1,
            fresh=asking.fresh,
            batch=self._batches.get(batch, 1) > 1,
            schema=query.schema,
            patience=asking.patience(),
        )

    async def _complete(self, query: SubQuery, sample: int, batch: int, stream: str | None) -> PooledCompletion:
        """One sub-query through purse and pool. A reply cut at its token limit is no answer."""
        asking, prompt = self._asking, query.prompt
        request = self._request(prompt, query, sample, batch)
        small = self._claim_small(prompt)
        claim = await self._claim(tokens_of(prompt) + request.sampling.max_tokens)
        spent, tokens = True, None
        try:
            # It may have become private while the claim was waited for.
            done = await asking.parts.pool.complete(
                replace(request, private=asking.private()),
                None if stream is None else lambda offset, text: self._recorder.delta(stream, offset, text),
            )
            spent = done.record.source == "model"
            tokens = done.record.prompt_tokens + done.record.completion_tokens
        except (NoHost, NotFound, PromptTooLong) as error:
            tokens = 0  # nothing was sent
            if isinstance(error, NoHost):
                raise self._told(money_is_spent(error)) from error
            raise
        except asyncio.CancelledError:
            spent = False  # nobody is charged for what was not waited for
            raise
        finally:
            claim.settle(spent=spent, tokens=tokens)
            if small is not None and not spent:
                small.sent -= 1
                small.chars -= len(prompt)
        if done.completion.finish == "length":
            raise CompletionCut(
                f"The reply was cut at {done.record.completion_tokens:,} tokens.",
                hint="Ask for a shorter reply, or raise max_tokens of the model.",
            )
        return done

    def _claim_small(self, prompt: str) -> SmallQueries | None:
        """Counts a small sub-query. Raises ``OverUse`` when there were too many."""
        small, piece = self._asking.small, self._asking.piece_chars
        if small is None or not is_small(len(prompt), piece):
            return None
        if small.sent >= small.cap:
            raise OverUse(small.advice(piece))
        small.sent += 1
        small.chars += len(prompt)
        return small

    async def _claim(self, tokens: int) -> Claim:
        """Takes a sub-query from the purse."""
        try:
            return await self._asking.purse.claim_completion("sub_queries", tokens)
        except LimitReached as error:
            raise self._told(error) from None

    def _told(self, error: RlmdError) -> RlmdError:
        """The first refusal of a run is a fact."""
        if isinstance(error, LimitReached) and self._asking.limit is None:
            self._asking.limit = error
            hit_limit(self._recorder, error)
        return error


def hit_limit(recorder: Recorder, error: LimitReached) -> None:
    """Records that a limit was reached."""
    recorder.add(
        LimitHit,
        limit=str(error.details.get("limit", "")),
        allowed=float(error.details.get("allowed") or 0),
        why=error.message,
    )


def error_record(error: RlmdError) -> ErrorRecord:
    return ErrorRecord(code=error.code, kind=error.kind, message=error.message, hint=error.hint)


def _for_a_cell(error: RlmdError, piece_chars: int) -> str:
    if isinstance(error, PromptTooLong):
        return f"{error.message} Put at most {piece_chars:,} characters of text into one prompt."
    return error.message
