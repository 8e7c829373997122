"""Sub-queries whose reply is to be JSON of a schema: asked for, checked, and asked once more. Knows no pool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

from rlmd.engine.typed import AnswerType, answer_type
from rlmd.errors import InvalidParams, ReplyMismatch
from rlmd.repl import SubQuery, SubQueryFailure, SubQueryReply

Ask = Callable[[SubQuery], Awaitable[SubQueryReply | SubQueryFailure]]


class TypedAsking:
    """The schemas of one cell.

    Args:
        threads: Where replies are checked: both they and the schema were written by models, and may take long.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._types: dict[str, AnswerType | InvalidParams] = {}

    async def answer(self, query: SubQuery, ask: Ask) -> SubQueryReply | SubQueryFailure:
        """The reply as JSON of the query's schema; asked once more when it is something else.

        Raises:
            InvalidParams: That is no schema.
            ReplyMismatch: Neither reply did.
        """
        wanted = self._wanted(query.schema or "")
        asked = replace(query, prompt=f"{query.prompt}\n\n{wanted.asked}", schema=wanted.text)
        wrong = ""
        for _ in range(2):
            prompt = f"{asked.prompt}\n\nAn earlier reply did not do: {wrong}" if wrong else asked.prompt
            reply = await ask(replace(asked, prompt=prompt))
            if isinstance(reply, SubQueryFailure):
                return reply
            check = partial(wanted.read_within, reply.text)
            value, mismatch = await asyncio.get_running_loop().run_in_executor(self._threads, check)
            if mismatch is None:
                return SubQueryReply(value)
            wrong = mismatch
        raise ReplyMismatch(f"Two replies did not fit the schema. {wrong}")

    def _wanted(self, schema: str) -> AnswerType:
        """What replies are to be; checked once a cell, whatever the size of its batches."""
        if schema not in self._types:
            try:
                self._types[schema] = answer_type(schema)
            except InvalidParams as error:
                self._types[schema] = error
        wanted = self._types[schema]
        if isinstance(wanted, InvalidParams):
            raise wanted
        return wanted
