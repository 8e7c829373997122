"""The one error tree, ordered by what the catcher can do.

Every error that a user can meet is an ``RlmdError``: a stable ``code`` and ``kind``, a sentence that says
what was wrong (with both numbers where there are two), and a hint that says what to do next. Messages never
hold prompt text, context text or keys.

    RlmdError
    ├── RequestError          the caller must change the request
    │   ├── InvalidRequest · InvalidParams · MethodNotFound · ParseError   (codes of JSON-RPC 2.0)
    │   ├── NotFound · Conflict · Busy · TooLarge · TooManyRequests · RequestCancelled · NotAllowed
    │   ├── SourceMissing · SourceUnreadable · NotText · NotVisible
    │   └── ConfigInvalid
    ├── Unavailable           the same request may succeed later or elsewhere
    │   ├── NoHost · HostFailed · HostOverloaded · Draining · DiskFull
    │   ├── CageUnavailable
    │   └── NotConnected
    ├── CompletionError       a host answered, but the answer does not count
    │   ├── PromptTooLong · PromptTruncated · CompletionCut · MalformedReply
    │   └── ModelMissing · HostRefused
    ├── RunError              a run or its session could not go on
    │   ├── LimitReached · OverUse · RunCancelled · SessionLost
    └── InternalError         our fault
"""

from __future__ import annotations

from typing import ClassVar

Detail = str | int | float | bool | None


class RlmdError(Exception):
    """Base of all errors that leave a part of the house.

    Args:
        message: One sentence saying what was wrong.
        hint: What to do next; empty when there is nothing to do.
        details: Plain facts for programs (sizes, ids, names).
    """

    code: ClassVar[int] = -32603
    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str = "", **details: Detail) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class RequestError(RlmdError):
    """The caller must change the request."""

    code, kind = 1000, "request"


class ParseError(RequestError):
    """The message is no JSON, or not the strict kind."""

    code, kind = -32700, "parse"


class InvalidRequest(RequestError):
    """JSON, but no JSON-RPC 2.0 request; or a framing that cannot be followed."""

    code, kind = -32600, "invalid_request"


class MethodNotFound(RequestError):
    """There is no such method; the hint names the nearest."""

    code, kind = -32601, "method_not_found"


class InvalidParams(RequestError):
    """A parameter is unknown, missing or wrong; ``field`` in the details says which."""

    code, kind = -32602, "invalid_params"


class NotFound(RequestError):
    """A context, document, run, session, fact or value of that name does not exist (for this client)."""

    code, kind = 1001, "not_found"


class Conflict(RequestError):
    """What is there differs from what was asked: a known run id with other parameters, a name of another kind."""

    code, kind = 1002, "conflict"


class Busy(RequestError):
    """The session is held by another run."""

    code, kind = 1003, "busy"


class TooLarge(RequestError):
    """A message, text or file is larger than it may be; ``limit`` in the details."""

    code, kind = 1004, "too_large"


class SourceMissing(RequestError):
    """There is no such file or folder."""

    code, kind = 1005, "source_missing"


class SourceUnreadable(RequestError):
    """The file is there, but cannot be read."""

    code, kind = 1006, "source_unreadable"


class NotText(RequestError):
    """The source is binary."""

    code, kind = 1007, "not_text"


class NotVisible(RequestError):
    """The daemon does not see the file that the client sees (mount namespace, container, ssh): spool it."""

    code, kind = 1008, "not_visible"


class ConfigInvalid(RequestError):
    """The settings, or the folders that they name, cannot be used."""

    code, kind = 1009, "config_invalid"


class TooManyRequests(RequestError):
    """One client has more requests at work than it may."""

    code, kind = 1010, "too_many_requests"


class NotAllowed(RequestError):
    """Not for this client: what it reads may leave the machine."""

    code, kind = 1012, "not_allowed"


class RequestCancelled(RequestError):
    """The client withdrew the request by ``$/cancelRequest``; the code is the one of the Language Server Protocol."""

    code, kind = -32800, "request_cancelled"


class Unavailable(RlmdError):
    """The same request may succeed later or elsewhere."""

    code, kind = 1100, "unavailable"


class NoHost(Unavailable):
    """No configured host may and can take this request."""

    code, kind = 1101, "no_host"


class HostFailed(Unavailable):
    """Transport error, 5xx, a stream that died or went silent."""

    code, kind = 1102, "host_failed"


class HostOverloaded(Unavailable):
    """429 or 503; ``retry_after`` (seconds) closes the host."""

    code, kind = 1103, "host_overloaded"

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "", **details: Detail) -> None:
        super().__init__(message, hint=hint, **details)
        self.retry_after = retry_after


class Draining(Unavailable):
    """The daemon is stopping and takes no new runs."""

    code, kind = 1104, "draining"


class DiskFull(Unavailable):
    """The disk is full; nothing was kept."""

    code, kind = 1105, "disk_full"


class CageUnavailable(Unavailable):
    """This machine offers too few layers of protection to run model-written code."""

    code, kind = 1106, "cage_unavailable"


class NotConnected(Unavailable):
    """No daemon answers on the socket, it could not be started, or the connection ended before the answer."""

    code, kind = 1107, "not_connected"


class CompletionError(RlmdError):
    """A host answered, but the answer does not count: never cached, never shown as an answer."""

    code, kind = 1200, "completion"


class PromptTooLong(CompletionError):
    """The prompt exceeds the window; ``tokens`` and ``window`` in the details where the server told them."""

    code, kind = 1201, "prompt_too_long"


class PromptTruncated(CompletionError):
    """The server read only part of the prompt and answered 200."""

    code, kind = 1202, "prompt_truncated"


class CompletionCut(CompletionError):
    """The terminal record is missing, or the reply ran into the token limit."""

    code, kind = 1203, "completion_cut"


class MalformedReply(CompletionError):
    """What came is not what this kind of server sends."""

    code, kind = 1204, "malformed_reply"


class ModelMissing(CompletionError):
    """The host does not serve the model."""

    code, kind = 1205, "model_missing"


class HostRefused(CompletionError):
    """Authentication, payment or policy: final for this host."""

    code, kind = 1206, "host_refused"


class ReplyMismatch(CompletionError):
    """A reply does not fit the schema that was asked for, and neither did the second."""

    code, kind = 1207, "reply_mismatch"


class RunError(RlmdError):
    """A run or its session could not go on."""

    code, kind = 1300, "run"


class LimitReached(RunError):
    """One of the run's limits is used up; ``limit``, ``allowed`` and ``used`` in the details."""

    code, kind = 1301, "limit_reached"


class OverUse(RunError):
    """Very many sub-queries that hold next to nothing each; the message says how to ask instead."""

    code, kind = 1304, "over_use"


class ProgramFailed(RunError):
    """A program of the user ended with an error, or without an answer."""

    code, kind = 1310, "program_failed"


class RunCancelled(RunError):
    """The run was cancelled; by whom and why is in its facts."""

    code, kind = 1302, "cancelled"


class SessionLost(RunError):
    """The REPL worker died or broke the protocol; its names are gone."""

    code, kind = 1303, "session_lost"


class InternalError(RlmdError):
    """Our fault; the log has the details under the same incident id."""
