"""One client: reads its requests, runs each as a task of its own, follows runs for it.

Going away cancels nothing: requests in flight run to their end and their replies are thrown away, except that
runs started with ``on_disconnect = cancel`` are cancelled. A client that only shuts its sending half (``nc``,
``socat``) still gets its answers and the runs it follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable
from typing import Any

import structlog

from rlmd.errors import InvalidRequest, RequestCancelled, RlmdError, TooManyRequests
from rlmd.wire.dispatch import (
    Dispatcher,
    Request,
    RequestId,
    error_response,
    id_of,
    incident,
    parse_request,
    response_message,
)
from rlmd.wire.follower import Follower
from rlmd.wire.framing import FrameReader, FramingLost, Message, Refused, framed
from rlmd.wire.outbox import Outbox
from rlmd.wire.strictjson import loads

#: Requests of one client at work at once; each waiting ``run/ask`` is one.
MAX_IN_FLIGHT = 1024
MAX_BATCH = 1000
#: Bytes of one message that are handed to the socket between two turns of the loop: some 0.1 ms.
_AT_ONCE = 128 << 10
#: How often a client that shut its sending half is looked at: has it gone altogether? Seconds.
HANG_UP_CHECK = 1.0

log = structlog.get_logger(__name__)


class Connection:
    """What handlers know of the client that called.

    Attributes:
        egress: What this client reads may leave the machine: nothing private exists for it.
        protocol: What it speaks, since it said so; 1 without a word.
        following: Runs that it is told about, by id.
        on_gone: Called once when the client has gone; the keys say what for.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        dispatcher: Dispatcher[Connection],
        number: int,
    ) -> None:
        # for the whole connection
        self.number = number
        self.outbox = Outbox(self._send)
        self._writer = writer
        self._frames = FrameReader(reader.read)
        self._dispatcher = dispatcher
        self._socket: socket.socket = writer.get_extra_info("socket")
        # what the client said and asked for
        self.egress = False
        self.protocol = 1
        self.client = ""
        self.following: dict[str, Follower] = {}
        self.on_gone: dict[str, Callable[[], None]] = {}
        #: Open runs of this client, and the session that goes with each.
        self.open_sessions: dict[str, str | None] = {}
        # requests at work
        self._tasks: dict[asyncio.Task[None], RequestId] = {}
        self._withdrawn: set[asyncio.Task[Any]] = set()
        self._quiet = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._stopping = False
        self._gone = asyncio.Event()

    @property
    def answering(self) -> bool:
        """Whether a request of this client's is at work."""
        return bool(self._tasks)

    def stop_reading(self) -> None:
        """Takes no more requests; those at work are answered, and what is queued is written."""
        self._stopping = True
        if self._reading is not None:
            self._reading.cancel()

    async def serve(self) -> None:
        """Until the client has gone and its requests are done. Cancelling it cancels those too."""
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._write(), name=f"client-{self.number}-writer")
                self._reading = group.create_task(self._read(group), name=f"client-{self.number}-reader")
                await asyncio.wait([self._reading])
                await self._finish()
                writing.cancel()
        finally:
            self._hang_up()
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _write(self) -> None:
        try:
            await self.outbox.run()
        except OSError:
            self._hang_up()

    async def _send(self, message: Message) -> None:
        pieces: list[bytes] = []
        for piece in framed(message, self._frames.framing or "lines"):
            pieces.append(piece)
            if sum(map(len, pieces)) > _AT_ONCE:
                self._writer.write(b"".join(pieces))
                pieces.clear()
                await self._writer.drain()
                await asyncio.sleep(0)  # a client that reads as fast as we write lets drain return at once
        self._writer.write(b"".join(pieces))
        await self._writer.drain()

    def _hang_up(self) -> None:
        if self._gone.is_set():
            return
        self._gone.set()
        self.outbox.close()
        on_gone = list(self.on_gone.values())
        self._stop_following()
        for call in on_gone:
            call()

    def _stop_following(self) -> None:
        for following in list(self.following.values()):
            following.close()
        self.following.clear()

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _read(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self.outbox.wait_room()  # a client that does not read its answers is not read either
            try:
                message = await self._frames.next()
            except FramingLost as lost:
                await self._reply(error_response(None, lost))
                return
            except OSError:
                self._hang_up()
                return
            if message is None:
                return
            await self._take(message, group)
            # A chunk may hold thousands of requests: each begins, and others have their turn, before the next is read.
            await asyncio.sleep(0)

    async def _take(self, message: bytes | Refused, group: asyncio.TaskGroup) -> None:
        if isinstance(message, Refused):
            await self._reply(error_response(message.id, message.error))
            return
        try:
            parsed = loads(message)
        except RlmdError as error:
            await self._reply(error_response(None, error))
            return
        if isinstance(parsed, list):
            await self._take_batch(parsed, group)
        else:
            await self._take_one(parsed, group)

    async def _take_one(self, message: object, group: asyncio.TaskGroup) -> None:
        if isinstance(message, dict) and "method" not in message and ("result" in message or "error" in message):
            return  # an answer; the daemon asks nothing
        try:
            request = parse_request(message)
            if request.method == "$/cancelRequest":
                self._cancel(request)
                return
            self._check_in_flight(1)
        except RlmdError as error:
            await self._reply(error_response(id_of(message), error))
            return
        self._start(self._answer_one(request), request.id, f"{request.method}", group)

    async def _take_batch(self, messages: list[Any], group: asyncio.TaskGroup) -> None:
        try:
            if not messages:
                raise InvalidRequest("A batch must hold at least one request.", hint="Send the request itself.")
            if len(messages) > MAX_BATCH:
                raise InvalidRequest(
                    f"The batch has {len(messages)} requests; {MAX_BATCH} are allowed.", hint="Send several batches."
                )
            self._check_in_flight(len(messages))
        except RlmdError as error:
            await self._reply(error_response(None, error))
            return
        self._start(self._answer_batch(messages), None, "batch", group)

    def _check_in_flight(self, more: int) -> None:
        if len(self._tasks) + more > MAX_IN_FLIGHT:
            raise TooManyRequests(
                f"This client has {len(self._tasks)} requests at work; {MAX_IN_FLIGHT} are allowed.",
                hint="Wait for answers before asking more.",
            )

    # ── requests at work ────────────────────────────────────────────────────────────────────────────────────

    def _start(self, work: Any, request_id: RequestId, what: str, group: asyncio.TaskGroup) -> None:
        task = group.create_task(work, name=f"client-{self.number}-{what[:60]}")
        self._tasks[task] = request_id
        self._quiet.clear()
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._withdrawn.discard(task)
        if not self._tasks:
            self._quiet.set()

    async def _answer_one(self, request: Request) -> None:
        try:
            response = await self._dispatcher.answer(request, self)
        except asyncio.CancelledError:
            if asyncio.current_task() not in self._withdrawn:
                raise
            response = error_response(request.id, RequestCancelled("The request was cancelled."))
        if request.wants_reply:
            await self._reply(response)

    async def _answer_batch(self, messages: list[Any]) -> None:
        answers = await asyncio.gather(*(self._answer_item(message) for message in messages))
        if present := [answer for answer in answers if answer is not None]:
            pieces = [piece for answer in present for piece in (b",", *self._written(answer))]
            await self.outbox.reply((b"[", *pieces[1:], b"]"))

    async def _answer_item(self, message: object) -> dict[str, Any] | None:
        try:
            request = parse_request(message)
        except RlmdError as error:
            return error_response(id_of(message), error)
        response = await self._dispatcher.answer(request, self)
        return response if request.wants_reply else None

    def _cancel(self, request: Request) -> None:
        wanted = request.params.get("id") if isinstance(request.params, dict) else None
        for task, request_id in self._tasks.items():
            if request_id is not None and request_id == wanted:
                self._withdrawn.add(task)
                task.cancel()

    async def _reply(self, response: dict[str, Any]) -> None:
        await self.outbox.reply(self._written(response))

    @staticmethod
    def _written(response: dict[str, Any]) -> Message:
        try:
            return response_message(response)
        except (ValueError, TypeError, RecursionError) as error:
            broken = incident(error, method="reply")
            return response_message(error_response(id_of(response), broken))

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _finish(self) -> None:
        """After the last request: until all is answered and followed to its end, or the client is gone."""
        if self._stopping:
            self._stop_following()
        while not self._gone.is_set():
            if not self._tasks and not self.following:
                await self.outbox.wait_idle()
                return
            if self._peer_closed():
                self._hang_up()
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANG_UP_CHECK):
                    await (self._quiet.wait() if self._tasks else self._gone.wait())
        while self._tasks:
            await self._quiet.wait()

    def _peer_closed(self) -> bool:
        """Whether the peer closed both ways: a half shut by ``nc`` gives no POLLHUP."""
        poll = select.poll()
        poll.register(self._socket.fileno(), 0)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
