"""What every fake model server keeps: its requests and how they went, scripts, slots, and waiting for a state.

Owns nothing of a wire protocol: a fake adds that in ``_route``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from tests.fakes.httpd import HttpServer, Reply, Request

#: What goes wrong after ``after`` characters of the reply: the stream ends without its last record (``cut``), the
#: connection is reset, nothing more comes (``hang``), an error line comes in the 200, a line is not JSON.
Fault = Literal["cut", "reset", "hang", "error_line", "garbage"]


@dataclass(frozen=True, slots=True)
class Scripted:
    """One reply. ``status`` answers with that HTTP status and ``text`` as the error; ``headers`` go with it.

    ``latency``: seconds before the first piece; ``pause``: seconds between pieces of ``chunk`` characters.
    ``prompt_eval_count`` replaces the honest count. ``until``: held back until that is set.
    """

    text: str = ""
    thinking: str = ""
    finish: Literal["stop", "length"] = "stop"
    fault: Fault | None = None
    after: int = 0
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    latency: float | None = None
    pause: float = 0.0
    chunk: int = 64
    prompt_eval_count: int | None = None
    until: asyncio.Event | None = None


@dataclass(slots=True)
class Seen:
    """A request for a completion, and how it went: ``outcome`` is held, answered, aborted (by the client) or failed."""

    model: str
    messages: list[dict[str, Any]]
    body: dict[str, Any]
    outcome: str = "held"
    arrived: float = field(default_factory=time.monotonic)

    @property
    def prompt(self) -> str:
        return str(self.messages[-1]["content"]) if self.messages else ""

    @property
    def chars(self) -> int:
        """Of all its messages."""
        return sum(len(str(message["content"])) for message in self.messages)

    @property
    def options(self) -> dict[str, Any]:
        return self.body.get("options") or {}


Entry = str | Scripted | Callable[[Seen], "str | Scripted"]


def echo(prompt: str) -> str:
    """The default answer: equal prompts, equal replies."""
    return f"digest {hashlib.sha256(prompt.encode('utf-8', 'replace')).hexdigest()[:12]} of {len(prompt)} characters"


class FakeServer:
    """Base of the fakes. ``slots`` requests are served at a time; others wait."""

    def __init__(self, *, slots: int, port: int) -> None:
        self.slots = slots
        self.answer: Callable[[str], str | Scripted] = echo
        self.scripts: dict[str, list[Entry]] = {}
        #: Models that think for themselves: called with each request.
        self.minds: dict[str, Callable[[Seen], str | Scripted]] = {}
        self.seen: list[Seen] = []
        self.held = 0
        self.max_held = 0
        self.changed = asyncio.Condition()
        self._free = asyncio.Semaphore(slots)
        self.http = HttpServer(self._route, port)

    async def _route(self, request: Request, reply: Reply) -> None:
        raise NotImplementedError

    # ── for tests ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        return self.http.url

    async def __aenter__(self) -> Self:
        await self.http.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.stop()

    async def serve(self) -> None:
        """As a program: tells where it listens, and serves until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with self:
            print(f"listening on {self.url}", flush=True)
            await stop.wait()

    def script(self, model: str, entries: Iterable[Entry]) -> None:
        """Replies of ``model``, one a request, in the order in which the requests get a slot."""
        self.scripts[self._full(model)] = list(entries)

    def mind(self, model: str, mind: Callable[[Seen], str | Scripted]) -> None:
        """Lets ``mind`` make every reply of ``model``."""
        self.minds[self._full(model)] = mind

    def prompts(self, model: str | None = None) -> list[str]:
        return [seen.prompt for seen in self.seen if model is None or seen.model == self._full(model)]

    def outcomes(self, outcome: str) -> int:
        return sum(seen.outcome == outcome for seen in self.seen)

    @property
    def aborted(self) -> int:
        return self.outcomes("aborted")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a state of this server, such as ``lambda: fake.serving == 2``."""
        async with self.changed:
            await self.changed.wait_for(condition)

    async def die(self) -> None:
        """Connection refused from now on; what is open is reset."""
        await self.http.die()

    async def revive(self) -> None:
        await self.http.revive()

    # ── for the fakes ───────────────────────────────────────────────────────────────────────────────────────

    def _full(self, name: str) -> str:
        """A model's name as it is kept; fakes whose names have more than one form override it."""
        return name

    @contextlib.asynccontextmanager
    async def _recorded(self, seen: Seen) -> AsyncIterator[Seen]:
        self.seen.append(seen)
        self.held += 1
        self.max_held = max(self.max_held, self.held)
        await self._tell()
        try:
            yield seen
        except (asyncio.CancelledError, ConnectionResetError):
            seen.outcome = "aborted"
            raise
        finally:
            self.held -= 1
            if seen.outcome == "held":
                seen.outcome = "failed"
            asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self._tell()))

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def _entry(self, seen: Seen) -> Scripted:
        script = self.scripts.get(seen.model)
        if (mind := self.minds.get(seen.model)) is not None:
            try:
                given: str | Scripted = mind(seen)
            except Exception as error:
                given = Scripted(status=400, text=f"the mind of {seen.model} failed: {error!r}")
        elif script is None:
            given = self.answer(seen.prompt)
        elif not script:
            given = Scripted(status=400, text=f"the script of {seen.model} is used up")
        else:
            entry = script.pop(0)
            given = entry(seen) if callable(entry) else entry
        return Scripted(text=given) if isinstance(given, str) else given
