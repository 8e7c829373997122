"""HTTP to one server: pooled connections, streamed lines, and the border where foreign errors end.

httpx in front, aiohttp underneath (with 64 connections 0.27 ms of CPU a call against 8.4 ms of httpx's own pool).
What either library raises leaves here as an error of ``rlmd.errors``; no message holds a header or a body.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from httpx_aiohttp import AiohttpTransport
from pydantic import SecretStr

from rlmd.errors import HostFailed, MalformedReply
from rlmd.providers.addresses import checked_key, checked_url, is_local_address

#: A LAN host answers a SYN in milliseconds; a sleeping one never does.
CONNECT_SECONDS = 5.0
PROBE_SECONDS = 10.0
#: A line of a stream; a whole reply of 32K tokens in one line stays far below.
MAX_LINE_BYTES = 1 << 20
#: A body that is read whole: lists of models, errors, replies to servers that do not stream.
MAX_BODY_BYTES = 32 << 20
#: All text of one streamed reply with its framing: about 150 bytes a token for 400K tokens.
MAX_STREAM_BYTES = 64 << 20
#: How long the end of a stream may take after its last record, for the connection to be kept.
DRAIN_SECONDS = 0.5

FOREIGN: tuple[type[Exception], ...] = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    httpx.CookieConflict,
    aiohttp.ClientError,
    HttpProcessingError,
    TimeoutError,
    OSError,
)

#: No connection came to be, so that nothing was sent.
_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

#: TLS is the session's (aiohttp verifies by the system's store). The transport would otherwise load a store of its own
#: for nothing: 30 ms of the event loop a client.
_UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

_reused: ContextVar[bool] = ContextVar("reused", default=False)


@contextlib.contextmanager
def translated(server: str) -> Iterator[None]:
    """The border: foreign errors become ``HostFailed``. ``refused`` in the details: nothing listens there."""
    try:
        yield
    except FOREIGN as error:
        raise _as_ours(server, error) from error


def _as_ours(server: str, error: BaseException) -> HostFailed:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 10:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for found in chain:
        if isinstance(found, (ConnectionRefusedError, aiohttp.ClientConnectorDNSError)):
            what = "refused the connection" if isinstance(found, ConnectionRefusedError) else "has no known address"
            return HostFailed(f"{server} {what}.", hint="Is the server running and the URL right?", refused=True)
        if isinstance(found, ssl.SSLError):
            reason = getattr(found, "reason", None) or "TLS failed"
            return HostFailed(f"{server} could not be trusted: {reason}.", refused=True)
    unsent = any(isinstance(found, _UNSENT) for found in chain)
    if any(isinstance(found, (httpx.TimeoutException, TimeoutError)) for found in chain) and not _is_reset(chain):
        return HostFailed(f"{server} did not answer in time.", hint="Is the machine awake?", refused=unsent)
    if _is_reset(chain):
        return HostFailed(f"{server} closed the connection.")
    if unsent:
        return HostFailed(f"{server} cannot be reached ({_reason(chain)}).", hint="Is the machine on?", refused=True)
    return HostFailed(f"{server} broke the connection ({type(chain[-1]).__name__}).")


def _reason(chain: list[BaseException]) -> str:
    """What the system said, or the last error's name."""
    numbers = [found.errno for found in chain if isinstance(found, OSError) and found.errno]
    return os.strerror(numbers[-1]).lower() if numbers else type(chain[-1]).__name__


def _is_reset(chain: list[BaseException]) -> bool:
    return any(
        isinstance(
            found, (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError, aiohttp.ClientPayloadError)
        )
        for found in chain
    )


def _is_stale(error: BaseException) -> bool:
    """A kept connection that the server closed meanwhile: nothing was answered on it, so asking again is safe."""
    return _reused.get() and isinstance(
        error.__cause__, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError)
    )


def _proxy_for(url: str) -> httpx.Proxy | None:
    """The environment's proxy, for servers outside only: one for a LAN host would see private text."""
    if is_local_address(url):
        return None
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    return httpx.Proxy(proxy) if proxy else None


class Response:
    """A reply whose body is still coming."""

    def __init__(self, server: str, response: httpx.Response) -> None:
        self._server = server
        self._parts = response.aiter_bytes()
        self.status = response.status_code
        self.headers = response.headers
        self.content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def body(self) -> bytes:
        """All of it. Raises ``MalformedReply`` above the cap."""
        parts: list[bytes] = []
        size = 0
        with translated(self._server):
            async for part in self._parts:
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise MalformedReply(f"{self._server} sent a body above {MAX_BODY_BYTES} bytes.")
                parts.append(part)
        return b"".join(parts)

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Lines without their ends (LF or CRLF), wherever the bytes were split; a last one without end counts."""
        rest = b""
        size = 0
        with translated(self._server):
            async for part in self._parts:
                size += len(part)
                if size > MAX_STREAM_BYTES or len(rest) > MAX_LINE_BYTES:
                    raise MalformedReply(f"{self._server} sent more than a reply can be ({size} bytes).")
                *whole, rest = (rest + part).split(b"\n") if rest else part.split(b"\n")
                for line in whole:
                    yield line.removesuffix(b"\r")
        if rest:
            yield rest

    async def drain(self) -> None:
        """Reads what follows the last record, so that the connection can be kept. A server that does not end its
        stream loses the connection, nothing else."""
        with contextlib.suppress(*FOREIGN):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in self._parts:
                    pass


class Http:
    """The connections to one server. ``base`` is its URL; ``server`` how messages name it."""

    def __init__(
        self,
        url: str,
        *,
        api_key: SecretStr | None = None,
        connections: int = 66,
        key_header: str = "Authorization",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base = checked_url(url)
        self._key_header = key_header
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "rlmd", **(headers or {})}
        parts = urlsplit(self.base)
        self.server = f"{parts.scheme}://{parts.netloc}"
        self._key = checked_key(api_key)
        self._connections = connections
        self._pooled: AiohttpTransport | None = None
        self._fresh: AiohttpTransport | None = None
        self._urls: dict[str, httpx.URL] = {}

    def __repr__(self) -> str:
        return f"Http({self.server})"

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self._key.get_secret_value(),) if self._key else ()

    async def get(self, path: str, *, root: bool = False, seconds: float = PROBE_SECONDS) -> tuple[int, bytes]:
        """Status and body of a GET below ``base``, or below the server's root."""
        base = self.server if root else self.base
        async with self._open("GET", base + path, None, seconds) as response:
            return response.status, await response.body()

    async def post(self, path: str, body: Any, *, seconds: float = PROBE_SECONDS) -> tuple[int, bytes]:
        async with self._open("POST", self.base + path, body, seconds) as response:
            return response.status, await response.body()

    def stream(self, path: str, body: Any) -> contextlib.AbstractAsyncContextManager[Response]:
        """A POST whose reply is read as it comes; leaving the block closes the stream, which frees the slot.
        There is no read timeout: who waits decides how long (a cold model loads for minutes)."""
        return self._open("POST", self.base + path, body, None)

    async def close(self) -> None:
        for transport in (self._pooled, self._fresh):
            if transport is not None:
                await transport.aclose()
        self._pooled = self._fresh = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def _open(self, method: str, url: str, body: Any, seconds: float | None) -> AsyncIterator[Response]:
        content = None if body is None else encoded(body)
        with translated(self.server):
            response = await self._send(method, url, content, seconds)
        try:
            yield Response(self.server, response)
        finally:
            with contextlib.suppress(*FOREIGN):
                await response.aclose()

    async def _send(self, method: str, url: str, content: bytes | None, seconds: float | None) -> httpx.Response:
        """Sends; once more on a fresh connection when a kept one turned out to be closed (llama-server promises
        ``timeout=5`` and closes at once: 5 of 18 requests in a row met that)."""
        if self._pooled is None:
            self._pooled = self._transport(reuse=True)
        _reused.set(False)
        try:
            return await self._send_by(self._pooled, method, url, content, seconds)
        except httpx.HTTPError as error:
            if not _is_stale(error):
                raise
        if self._fresh is None:
            self._fresh = self._transport(reuse=False)
        return await self._send_by(self._fresh, method, url, content, seconds)

    async def _send_by(
        self, transport: AiohttpTransport, method: str, url: str, content: bytes | None, seconds: float | None
    ) -> httpx.Response:
        """Past httpx's client: redirects, cookies and authentication flows are not ours, and cost as much as all
        the rest."""
        headers = dict(self._headers)
        if content is not None:
            headers["Content-Type"] = "application/json"
        if self._key is not None:
            prefix = "Bearer " if self._key_header == "Authorization" else ""
            headers[self._key_header] = prefix + self._key.get_secret_value()
        if (parsed := self._urls.get(url)) is None:
            parsed = self._urls[url] = httpx.URL(url)
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS, pool=None).as_dict()
        request = httpx.Request(method, parsed, headers=headers, content=content, extensions={"timeout": timeout})
        request.headers.encoding = "ascii"  # else guessed anew for each header
        return await transport.handle_async_request(request)

    def _transport(self, *, reuse: bool) -> AiohttpTransport:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        trace.on_request_end.append(_Bodies().begun)

        def session() -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(limit=self._connections, force_close=not reuse)
            return aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace], trust_env=False
            )

        return AiohttpTransport(verify=_UNUSED, client=session, proxy=_proxy_for(self.base), trust_env=False)


async def _note_reuse(*_: object) -> None:
    _reused.set(True)


class _Bodies:
    """Ends each body with its connection. One whose framing breaks in the middle is given up by aiohttp (3.14.5)
    without a word to who reads it: the connection is closed, and the reader would wait for ever."""

    def __init__(self) -> None:
        self._on: dict[asyncio.Future[None], aiohttp.StreamReader] = {}

    async def begun(self, _session: object, _context: object, ended: aiohttp.TraceRequestEndParams) -> None:
        content, connection = ended.response.content, ended.response.connection
        if connection is None or connection.protocol is None:
            return  # nothing more is to come
        if (closed := connection.protocol.closed) is None:
            _give_up(content)
            return
        if closed not in self._on:
            closed.add_done_callback(self._closed)
        self._on[closed] = content

    def _closed(self, closed: asyncio.Future[None]) -> None:
        content = self._on.pop(closed)
        if not closed.cancelled():
            closed.exception()  # seen: who reads the body is told
        _give_up(content)


def _give_up(content: aiohttp.StreamReader) -> None:
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError("the connection ended before the body did"))


def encoded(body: Any) -> bytes:
    """JSON as UTF-8. Lone surrogates (raw bytes of a text that is not UTF-8) become U+FFFD: servers differ in what
    they make of them, up to a 500."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
