"""The parent's side of a helper process: started on demand, asked over pipes, ended when idle, killed when late.

Searching holds the GIL for seconds, so it happens in a process of its own (``helper_child``). Requests go one after
the other; a reply that does not come in time, or a caller that is cancelled, costs the process, which the next request
starts anew. Frames: four bytes of length (big-endian), then JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rlmd
from rlmd.errors import InternalError, InvalidParams, NotFound, RlmdError, TooLarge, Unavailable

#: A reply above this is a fault: hits are few and short.
MAX_FRAME = 256 << 20
_ERRORS: dict[str, type[RlmdError]] = {
    e.kind: e for e in (InvalidParams, NotFound, TooLarge, Unavailable, InternalError)
}


class HelperDied(Exception):
    """The process ended, or was ended, before it answered."""


class Helper:
    """One helper process and the order of requests to it.

    Args:
        name: For the process list and error messages.
        arguments: Handed to the child: the folders that it works on.
        idle_seconds: It is ended after this long without a request.
    """

    def __init__(self, name: str, arguments: Sequence[str], *, idle_seconds: float) -> None:
        self._name = name
        self._arguments = tuple(arguments)
        self._idle_seconds = idle_seconds
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._endings: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def ask(
        self,
        operation: str,
        *,
        seconds: float,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        **arguments: object,
    ) -> Any:
        """One request and its reply. A process that dies of it is asked a second time, in a new one.

        Args:
            operation: Which of the child's operations.
            seconds: From the moment the process takes it up; then the process is killed.
            on_progress: Takes what the child says before it answers; each word of it renews the deadline.
            arguments: The operation's own.

        Raises:
            RlmdError: As the child said.
            Unavailable: It was late, or died twice.
        """
        request = json.dumps({"operation": operation, **arguments}).encode()
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            try:
                for last in (False, True):
                    try:
                        return await self._exchange(request, seconds, on_progress)
                    except HelperDied as error:
                        if last:
                            raise Unavailable(
                                f"The {self._name} process died twice over one request.",
                                hint="The text may be too large for this machine's memory; see daemon/doctor.",
                            ) from error
            finally:
                if self._process is not None:
                    loop = asyncio.get_running_loop()
                    self._idle = loop.call_later(self._idle_seconds, self._end_if_idle)
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Ends the process; waits for its end."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        await self._kill()
        while self._endings:
            await asyncio.gather(*self._endings, return_exceptions=True)

    async def _exchange(
        self, request: bytes, seconds: float, on_progress: Callable[[dict[str, Any]], None] | None
    ) -> Any:
        answered = False
        try:
            process = await self._running()
            assert process.stdin is not None
            async with asyncio.timeout(seconds) as deadline:
                process.stdin.write(len(request).to_bytes(4, "big") + request)
                await process.stdin.drain()
                while True:
                    reply = await self._read(process)
                    if "progress" not in reply:
                        break
                    deadline.reschedule(asyncio.get_running_loop().time() + seconds)
                    if on_progress is not None:
                        on_progress(reply["progress"])
            answered = True
        except (OSError, EOFError) as error:
            raise HelperDied from error
        except TimeoutError as error:
            raise Unavailable(
                f"The {self._name} process gave no answer within {seconds:g} s.",
                hint="Narrow the search, or load less into one context.",
            ) from error
        finally:
            if not answered:  # also when cancelled: a late reply must not meet the next request
                await asyncio.shield(self._kill())
        if "error" in reply:
            raise _ERRORS.get(reply["error"], InternalError)(reply["message"], hint=reply.get("hint", ""))
        return reply["result"]

    async def _read(self, process: Process) -> dict[str, Any]:
        assert process.stdout is not None
        length = int.from_bytes(await process.stdout.readexactly(4), "big")
        if length > MAX_FRAME:
            raise EOFError
        reply: dict[str, Any] = json.loads(await process.stdout.readexactly(length))
        return reply

    async def _running(self) -> Process:
        if self._closed:
            raise Unavailable("The daemon is stopping.", hint="Ask again when it has started.")
        if self._process is not None and self._process.returncode is None:
            return self._process
        # Nothing is inherited from the environment but what finds the interpreter's own packages.
        start = (
            f"import sys; sys.path.append({_ROOT!r}); from rlmd.contexts.helper_child import main; main({os.getpid()})"
        )
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", start, *self._arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd="/",
            env={k: v for k, v in os.environ.items() if k in _KEPT_ENVIRONMENT}, limit=1 << 20,
        )  # fmt: skip
        return self._process

    def _end_if_idle(self) -> None:
        self._idle = None
        if self._turn.locked():
            return
        task = asyncio.get_running_loop().create_task(self._kill(), name=f"end idle {self._name}")
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


#: Where the package ``rlmd`` is found, also when it is not installed.
_ROOT = str(Path(rlmd.__file__).resolve().parent.parent)
_KEPT_ENVIRONMENT = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONHOME", "PYTHONUSERBASE", "TMPDIR"})
