"""The tools: what each is called, takes and does. ``TOOLS`` is the table; a tool gives text of bounded length.

Names and parameters that other RLM servers have are theirs; all else is optional. Knows no MCP: the server hands in
``Caller``, which tells progress and knows the client's roots.
"""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from rlmd.ctl.sources import LoadOptions, load_stream
from rlmd.errors import InvalidParams, NotFound
from rlmd.events import Delta
from rlmd.mcp import said
from rlmd.mcp.desk import Desk
from rlmd.mcp.files import open_beneath
from rlmd.mcp.loading import load_opened
from rlmd.wire.methods import (
    MAX_PEEK_CHARS,
    ContextParams,
    ExecuteParams,
    LoadResult,
    PeekParams,
    QueryParams,
    RunIdParams,
    RunParams,
    SearchParams,
)

R = TypeVar("R")

#: Seconds between signs of life of what has no other; clients that wait for progress give up after some 60.
BEAT = 5.0
#: Seconds that ``rlm_ask`` waits by itself: most clients give a tool 60.
WAIT = 45.0
#: Characters that ``peek_context`` gives when no end is named.
PEEK = 4000
#: What is said of ``rlm_ask``'s strategies; the person's own programs are added where there are any.
STRATEGY = "auto, direct, rlm, map, or quote, which needs no model"


class ToolFailed(Exception):
    """The tool did what it should, and what came of it is a failure: code that raised, a run without an answer."""


class Caller(Protocol):
    """The call that is being answered."""

    async def roots(self) -> tuple[Path, ...]: ...
    async def progress(self, message: str) -> None: ...


class Arguments(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoadContext(Arguments):
    name: str = Field(min_length=1, max_length=200, description="Under which it is found again, by all clients")
    content: str | None = Field(None, description="The text itself")
    path: str | None = Field(
        None, description="A file (text, PDF, HTML, mail …) or folder beneath the roots, instead of content"
    )
    include: tuple[str, ...] = Field((), description="gitignore patterns: of a folder take only what matches")
    exclude: tuple[str, ...] = Field((), description="gitignore patterns: leave out of a folder what matches")
    everything: bool = Field(False, description="Of a folder: also what is generated, vendored or minified")
    dry_run: bool = Field(False, description="Only say how much it would be, and what would be skipped")


class PeekContext(Arguments):
    name: str
    start: int = Field(0, ge=0, description="Offset of the first character")
    end: int | None = Field(None, ge=0, description="Offset after the last; without it some 4,000 characters come")
    document: str | None = Field(None, description="Which, when the context has several; context_info lists them")


class ContextInfo(Arguments):
    name: str
    documents_from: int = Field(0, ge=0, description="Of a context of many documents: list them from this one on")


class ListContexts(Arguments):
    pass


class SearchContext(Arguments):
    name: str
    query: str = Field(min_length=1, max_length=10_000, description="A question, words, or a regular expression")
    mode: Literal["words", "regex"] = Field("words", description="words ranks passages; regex (RE2) finds matches")
    limit: int = Field(8, ge=1, le=50)


class LlmSubquery(Arguments):
    prompt: str = Field(min_length=1, max_length=10_000_000)
    provider: str | None = Field(None, description="A host's name or kind (ollama, openai, anthropic); any if left out")
    model: str | None = Field(None, description="One of the sub-models; the first that is free if left out")


class ExecuteCode(Arguments):
    code: str = Field(min_length=1, max_length=1_000_000, description="Python. The last expression is shown")
    context: str | None = Field(None, description="The context that `context` and `documents` are; else as before")


class RlmAsk(Arguments):
    question: str = Field(min_length=1, max_length=1_000_000)
    context: str = Field("", description="The context's name; several with a comma between them")
    path: str | None = Field(None, description="A file or folder beneath the roots, instead of context")
    strategy: str = Field("auto", pattern=r"^[a-z][a-z0-9_-]{0,63}$", description=STRATEGY)
    wait_seconds: float = Field(WAIT, ge=0, le=3600, description="After that an id is given, for rlm_result")


class RlmResult(Arguments):
    id: str = Field(description="As rlm_ask gave it")
    wait_seconds: float = Field(WAIT, ge=0, le=3600)


# ── contexts ────────────────────────────────────────────────────────────────────────────────────────────────────


async def load_context(desk: Desk, given: LoadContext, caller: Caller) -> str:
    """Keep a text of any size under a name, outside your own context window. Give content, or the path of a file or
    of a folder such as a source tree, of which .gitignore is honoured. Loading it again takes what has changed."""
    options = LoadOptions(
        name=given.name,
        include=given.include,
        exclude=given.exclude,
        everything=given.everything,
        dry_run=given.dry_run,
    )
    if given.content is not None and given.path is None:
        stream = io.BytesIO(given.content.encode("utf-8", "surrogatepass"))
        loaded = await load_stream(desk.client, stream, given.name, options)
    elif given.path is not None and given.content is None:
        loaded = await _load_path(desk, given.path, options, caller)
    else:
        raise InvalidParams("load_context takes content or path.", hint="Give one of the two.")
    return said.loaded(loaded, dry_run=given.dry_run)


async def _load_path(desk: Desk, named: str, options: LoadOptions, caller: Caller) -> LoadResult:
    place = open_beneath(await caller.roots(), named)

    async def tell(found: LoadResult) -> None:
        await caller.progress(f"reading {said.amount(found)}")

    return await _beating(load_opened(desk.client, place, options, tell), caller, "reading it")


async def list_contexts(desk: Desk, _: ListContexts, __: Caller) -> str:
    """List the contexts that there are, yours and those that the person loaded: books, repositories, logs."""
    listed = (await desk.client.call("context/list")).contexts
    return "\n".join(map(said.context_line, listed)) or "There are no contexts yet. load_context makes one."


async def context_info(desk: Desk, given: ContextInfo, _: Caller) -> str:
    """Show a context: its size, where it came from, its documents."""
    params = ContextParams(name=given.name, documents_from=given.documents_from)
    info = await desk.client.call("context/info", params)
    return said.context_details(info, given.documents_from)


async def peek_context(desk: Desk, given: PeekContext, _: Caller) -> str:
    """Read the characters from start to end of a context, as they are."""
    end = given.start + PEEK if given.end is None else given.end
    if end <= given.start:
        raise InvalidParams(f"end ({end}) is not after start ({given.start}).", hint="Offsets count characters from 0.")
    chars = min(end - given.start, MAX_PEEK_CHARS, said.ROOM)
    params = PeekParams(name=given.name, document=given.document, start=given.start, chars=chars)
    return said.stretch(await desk.client.call("context/peek", params), wanted=end)


async def search_context(desk: Desk, given: SearchContext, _: Caller) -> str:
    """Find passages in a context, best first, each with its place."""
    mode: Literal["bm25", "regex"] = "regex" if given.mode == "regex" else "bm25"
    params = SearchParams(name=given.name, query=given.query, mode=mode, limit=given.limit)
    return said.hits(await desk.client.call("context/search", params))


# ── models and code ─────────────────────────────────────────────────────────────────────────────────────────────


async def llm_subquery(desk: Desk, given: LlmSubquery, caller: Caller) -> str:
    """Ask a sub-model one prompt. Give it all it needs to know: it sees nothing else. Equal prompts are answered from
    the cache. For many pieces of a text write code: execute_code has llm_query_batched."""
    sub = await _hosts(desk, given.provider) if given.provider is not None else None

    async def ask(run_id: str) -> str:
        params = QueryParams(run_id=run_id, prompt=given.prompt, model=given.model, sub=sub)
        result = await desk.client.call("llm/query", params)
        return said.bounded(result.reply)

    return await _beating(desk.within(ask), caller, "a sub-model is answering")


async def _hosts(desk: Desk, provider: str) -> tuple[str, ...]:
    """Names of the hosts that are called so or are of that kind."""
    hosts = (await desk.client.call("host/list")).hosts
    found = tuple(host.name for host in hosts if provider in (host.name, host.provider))
    if not found:
        known = ", ".join(f"{host.name} ({host.provider})" for host in hosts) or "none is configured"
        raise NotFound(f"There is no host or kind of host {provider!a}.", hint=f"Hosts: {known}.")
    return found


async def execute_code(desk: Desk, given: ExecuteCode, caller: Caller) -> str:
    """Run Python in a caged REPL whose variables stay between your calls. It has `context` (the text, a str) and
    `documents`, search(query, k), grep(pattern), chunks(text, size), llm_query(prompt) and llm_query_batched(prompts),
    which ask sub-models, and ok(results). It has no network and no files. Print what you want to see."""

    async def run(within: str) -> str:
        params = ExecuteParams(
            code=given.code,
            run_id=str(uuid.uuid4()),
            contexts=(given.context,) if given.context else (),
            session=desk.session,
            within=within,
        )
        async with desk.cancelling(params.run_id):
            result = await desk.client.call("repl/execute", params)
        told = said.cell(result)
        if not result.ok:
            raise ToolFailed(told)
        return told

    return await _beating(desk.within(run), caller, "the code is running")


async def _beating(work: Awaitable[R], caller: Caller, what: str) -> R:
    """Does the work and tells that it goes on, for clients that give up on silence."""

    async def beat() -> None:
        beats = 0
        while True:
            await asyncio.sleep(BEAT)
            beats += 1
            await caller.progress(f"{what}, {beats * BEAT:.0f} s")

    beating = asyncio.create_task(beat(), name="mcp signs of life")
    try:
        return await work
    finally:
        beating.cancel()


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────


async def rlm_ask(desk: Desk, given: RlmAsk, caller: Caller) -> str:
    """Ask a question of contexts, or of a file or folder, and have it answered with citations, however large it is: a
    root model explores it by code and asks sub-models. Takes minutes for large ones; you get an id when it takes longer
    than you wait."""
    names = tuple(filter(None, (name.strip() for name in given.context.split(","))))
    if bool(names) == (given.path is not None):
        raise InvalidParams(
            "rlm_ask needs the name of a context, or a path.", hint="list_contexts shows those that there are."
        )
    if given.path is not None:
        loaded = await _load_path(desk, given.path, LoadOptions(), caller)
        names = (loaded.context.name,) if loaded.context else ()

    async def start(within: str) -> str:
        run_id = str(uuid.uuid4())
        params = RunParams(
            run_id=run_id,
            question=given.question,
            contexts=names,
            strategy=given.strategy,
            within=within,
            confirm="refuse",  # the agent's person is not at hand; the agent is told what it would have taken
            attach=False,
        )
        async with desk.cancelling(run_id):
            await desk.client.call("run/start", params)
            return await _result(desk, run_id, given.wait_seconds, caller)

    return await desk.within(start)


async def rlm_result(desk: Desk, given: RlmResult, caller: Caller) -> str:
    """The answer of a question asked by rlm_ask earlier; waits for it a while."""
    return await _result(desk, given.id, given.wait_seconds, caller)


async def _result(desk: Desk, run_id: str, seconds: float, caller: Caller) -> str:
    told = said.Story()
    try:
        async with asyncio.timeout(seconds), desk.client.follow(run_id) as run:
            async for event in run:
                if not isinstance(event, Delta) and (step := told.step(event)) is not None:
                    await caller.progress(step)
    except TimeoutError:
        pass
    result = await desk.client.call("run/show", RunIdParams(run_id=run_id))
    if result.run.outcome is None and result.run.state != "interrupted":
        return said.going(run_id, told.last)
    if result.run.outcome != "answered":
        raise ToolFailed(said.answer(result))
    return said.answer(result)


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Tool:
    """``reads``: it changes nothing."""

    arguments: type[Arguments]
    work: Callable[[Desk, Any, Caller], Awaitable[str]]
    reads: bool

    @property
    def name(self) -> str:
        return self.work.__name__

    @property
    def description(self) -> str:
        return " ".join((self.work.__doc__ or "").split())


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(ListContexts, list_contexts, reads=True),
        Tool(LoadContext, load_context, reads=False),
        Tool(ContextInfo, context_info, reads=True),
        Tool(PeekContext, peek_context, reads=True),
        Tool(SearchContext, search_context, reads=True),
        Tool(ExecuteCode, execute_code, reads=False),
        Tool(LlmSubquery, llm_subquery, reads=False),
        Tool(RlmAsk, rlm_ask, reads=False),
        Tool(RlmResult, rlm_result, reads=True),
    )
}
