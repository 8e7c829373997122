"""From a parsed message to a handler and back to a response: the only file that knows jsonrpcserver.

jsonrpcserver binds the call and shapes the response; envelope, parameters and errors are ours, because it would
validate in time proportional to the parameters (142 ms for 40 MB), refuse ``params: null``, and send the text
of unexpected exceptions to the client. Nothing raised by a handler leaves here except cancellation.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import structlog
from jsonrpcserver import Error, Success, async_dispatch_to_serializable
from pydantic import ValidationError

from rlmd.errors import InternalError, InvalidParams, InvalidRequest, MethodNotFound, RlmdError
from rlmd.validation import nearest_of, problems_of
from rlmd.wire.framing import Message
from rlmd.wire.methods import METHODS, PROTOCOL, Method, Params, Result, Spoken
from rlmd.wire.strictjson import MAX_INTEGER, dumps, encoded

#: It logs exceptions with their text, which may be private. Nothing reaches that line while the wrapper below
#: holds; this keeps it so if it ever does.
logging.getLogger("jsonrpcserver").disabled = True

ContextT = TypeVar("ContextT")
RequestId = int | str | None
#: Takes the connection's context and the validated parameters.
Handler = Callable[[ContextT, Any], Awaitable["Result | Encoded"]]

#: The hint to whoever sent something that is no request.
_FORM = 'Send {"jsonrpc": "2.0", "id": 1, "method": "daemon/status", "params": {}}.'

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """One well-formed request. ``wants_reply`` is False for a notification."""

    method: str
    params: dict[str, Any] | list[Any]
    id: RequestId
    wants_reply: bool


class Encoded:
    """A result, written already, in pieces: ``response_message`` puts them in as they are."""

    def __init__(self, pieces: Message) -> None:
        self.pieces = pieces


def response_message(response: dict[str, Any]) -> Message:
    """One response as JSON. Raises ``ValueError`` for what JSON cannot hold."""
    result = response.get("result")
    if not isinstance(result, Encoded):
        return (dumps(response),)
    return (b'{"jsonrpc":"2.0","result":', *result.pieces, b',"id":%b}' % dumps(response["id"]))


def parse_request(message: object) -> Request:
    """Checks the envelope. Raises ``InvalidRequest``."""
    if not isinstance(message, dict):
        raise InvalidRequest("A request is a JSON object.", hint=_FORM)
    if message.get("jsonrpc") != "2.0":
        raise InvalidRequest('The member "jsonrpc" must be "2.0".', hint=_FORM)
    method = message.get("method")
    if not isinstance(method, str):
        raise InvalidRequest('The member "method" must be a string.', hint=_FORM)
    params = message.get("params")
    if params is not None and not isinstance(params, dict | list):
        raise InvalidRequest('The member "params" must be an object.', hint=_FORM)
    return Request(method, params if params is not None else {}, _checked_id(message), "id" in message)


def _checked_id(message: dict[str, Any]) -> RequestId:
    request_id = message.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, int | str | None):
        raise InvalidRequest('The member "id" must be a string, an integer or null.', hint=_FORM)
    if isinstance(request_id, int) and abs(request_id) > MAX_INTEGER:
        raise InvalidRequest(f'The member "id" must be within ±{MAX_INTEGER}.', hint=_FORM)
    return request_id


def id_of(message: object) -> RequestId:
    """The id to answer a malformed request with: its own where that is usable."""
    try:
        return _checked_id(message) if isinstance(message, dict) else None
    except InvalidRequest:
        return None


def error_response(request_id: RequestId, error: RlmdError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": error_object(error), "id": request_id}


def error_object(error: RlmdError) -> dict[str, Any]:
    """The error as the protocol carries it; numbers beyond a double's mantissa become strings."""
    details = {
        name: str(value) if isinstance(value, int) and abs(value) > MAX_INTEGER else value
        for name, value in error.details.items()
    }
    return {
        "code": error.code,
        "message": error.message,
        "data": {**details, "kind": error.kind, "hint": error.hint},
    }


def incident(error: BaseException, **where: str) -> InternalError:
    """Logs an unexpected exception by type and code lines, never by its text, and makes what the client sees."""
    number = secrets.token_hex(4)
    frames = [
        f"{frame.filename.rpartition('rlmd/')[2]}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    log.error("internal error", incident=number, exception=type(error).__name__, frames=frames[-12:], **where)
    return InternalError(
        f"Something unexpected went wrong in rlmd (incident {number}).",
        hint=f"The log has more under this number: journalctl --user -u rlmd | grep {number}",
        incident=number,
    )


def known_error(error: Exception) -> RlmdError | None:
    """The error of ours that ``error`` is, or that a group of one holds."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, RlmdError) else None


def parse_params(method: Method, params: dict[str, Any]) -> Params:
    """Validates once, at the edge. Raises ``InvalidParams`` that names the first wrong field, and how many more."""
    try:
        return method.params.model_validate(params)
    except ValidationError as error:
        first, *others = problems_of(error, method.params)
        more = f" ({len(others)} more)" if others else ""
        hint = first.hint or f"docs/protocol.md lists what {method.name} takes."
        raise InvalidParams(f"{method.name}: {first.sentence}{more}.", hint=hint, field=first.where) from None


class Dispatcher(Generic[ContextT]):
    """The table of handlers behind jsonrpcserver.

    Args:
        handlers: One for each method of the protocol, no more and no fewer.
    """

    def __init__(self, handlers: Mapping[str, Handler[ContextT]]) -> None:
        if differing := METHODS.keys() ^ handlers.keys():
            raise ValueError(f"methods and handlers differ: {sorted(differing)}")
        self._methods = {name: _bound(METHODS[name], handler) for name, handler in handlers.items()}

    async def answer(self, request: Request, context: ContextT) -> dict[str, Any]:
        """The response to one request, ready to be sent (or thrown away, after a notification)."""
        if request.method not in self._methods:
            return error_response(request.id, self._unknown(request.method))
        message = {"jsonrpc": "2.0", "method": request.method, "params": request.params, "id": request.id}
        response = await async_dispatch_to_serializable(
            message, self._methods, context=context, deserializer=_same, validator=_same
        )
        return cast("dict[str, Any]", response)

    def _unknown(self, name: str) -> MethodNotFound:
        near = nearest_of(name, self._methods)
        hint = f"Did you mean {near}?" if near else "rpc.discover lists the methods."
        return MethodNotFound(f"There is no method {name[:100]!r}.", hint=hint)


def _same(message: Any) -> Any:
    return message


def _bound(method: Method, handler: Handler[ContextT]) -> Callable[..., Awaitable[Any]]:
    async def bound(context: ContextT, /, *positional: object, **params: object) -> Any:
        try:
            if positional:
                raise InvalidParams(f"{method.name}: params must be an object with named fields.", hint=_FORM)
            result = await handler(context, parse_params(method, params))
            if isinstance(result, Encoded):
                return Success(result)
            return Success(Encoded((encoded(result, Spoken(getattr(context, "protocol", PROTOCOL))),)))
        except Exception as error:  # noqa: BLE001  the border: every error becomes a response
            known = known_error(error) or incident(error, method=method.name)
            return Error(**error_object(known))

    return bound
