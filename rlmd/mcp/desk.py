"""What one MCP client has at the daemon: a connection, an open run for all it asks, and a session for its cells.

Owns their beginning and end. When the daemon was started anew the run is opened anew; when the process goes, however it
goes, the daemon closes the run with all that is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from rlmd.client import Client
from rlmd.errors import Conflict, NotFound, RlmdError
from rlmd.wire.methods import CancelParams, LimitParams, OpenParams, RunIdParams

R = TypeVar("R")

#: Of all that a client asks as long as it lives: far more than one question may, for it asks many.
GENEROUS = {"turns": 3000, "sub_queries": 100_000, "seconds": 30 * 86_400.0}


class Desk:
    """Args:
    client: Connected, with ``egress``.
    title: Who asks, for lists of runs.
    limits: Of the open run; what is not given is generous.
    """

    def __init__(self, client: Client, title: str, limits: LimitParams) -> None:
        self.client = client
        given = limits.model_dump(exclude_none=True)
        self._limits = LimitParams.model_validate(GENEROUS | given)
        self._title = title
        self._run_id: str | None = None
        self._opening = asyncio.Lock()
        self._later: set[asyncio.Task[None]] = set()
        #: Of the cells; it goes with the open run.
        self.session = f"mcp-{uuid.uuid4().hex[:12]}"

    async def close(self) -> None:
        """Ends what is under way, at the daemon too."""
        for task in list(self._later):
            await task
        if self._run_id is not None:
            with contextlib.suppress(RlmdError):
                await self.client.call("run/close", RunIdParams(run_id=self._run_id))

    async def programs(self) -> dict[str, str]:
        """The person's programs that can be asked for, and what each says of itself; none of a daemon that has none, or
        cannot say."""
        with contextlib.suppress(RlmdError):
            listed = (await self.client.call("program/list")).programs
            return {one.name: one.summary for one in listed if one.problem is None}
        return {}

    async def within(self, ask: Callable[[str], Awaitable[R]]) -> R:
        """Asks in the open run, whose id ``ask`` is given; once more in another when that one is no more."""
        run_id = await self._open()
        try:
            return await ask(run_id)
        except (Conflict, NotFound) as error:
            if error.details.get("run_id") != run_id:
                raise
        return await ask(await self._open(instead_of=run_id))

    @contextlib.asynccontextmanager
    async def cancelling(self, run_id: str) -> AsyncIterator[None]:
        """Cancels the run when the block is cancelled: the MCP client no longer waits for it."""
        try:
            yield
        except asyncio.CancelledError:
            why = CancelParams(run_id=run_id, why="the MCP client cancelled it")
            self.soon(self.client.call("run/cancel", why))
            raise

    def soon(self, work: Coroutine[Any, Any, object]) -> None:
        """Does something that a cancelled task must still see to; awaited at the end."""

        async def quietly() -> None:
            with contextlib.suppress(RlmdError):  # it is no more
                await work

        task = asyncio.create_task(quietly(), name="mcp after a cancel")
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _open(self, *, instead_of: str | None = None) -> str:
        async with self._opening:
            if self._run_id is None or self._run_id == instead_of:
                run_id = str(uuid.uuid4())
                params = OpenParams(run_id=run_id, title=self._title, session=self.session, limits=self._limits)
                await self.client.call("run/open", params)
                self._run_id = run_id
            return self._run_id
