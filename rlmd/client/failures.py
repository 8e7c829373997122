"""From the protocol's error objects back to the error tree, so that a caller catches ``NotFound`` and not a number.

Must not know: sockets, methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlmd import errors
from rlmd.errors import Detail, HostOverloaded, NotConnected, RlmdError


def _tree(base: type[RlmdError]) -> Iterator[type[RlmdError]]:
    yield base
    for kind in base.__subclasses__():
        yield from _tree(kind)


#: Only the errors of the tree's own file: a subclass elsewhere shares its parent's code.
BY_CODE: dict[int, type[RlmdError]] = {
    kind.code: kind for kind in _tree(RlmdError) if kind.__module__ == errors.__name__ and kind is not RlmdError
}


class UnknownError(RlmdError):
    """An error code that this client does not know: the daemon is newer. Its own code and kind are in ``details``."""


def error_from(told: object) -> RlmdError:
    """The error that a JSON-RPC error object stands for.

    Args:
        told: The response's ``error`` member, as parsed; any shape is survived.
    """
    fields = told if isinstance(told, dict) else {}
    data = fields.get("data")
    extra = dict(data) if isinstance(data, dict) else {}
    message = str(fields.get("message") or "The daemon answered with an error that has no message.")
    hint = str(extra.pop("hint", "") or "")
    code, kind = fields.get("code"), extra.pop("kind", None)
    details = {name: value for name, value in extra.items() if _is_detail(value) and name != "message"}
    found = BY_CODE.get(code) if isinstance(code, int) else None
    if found is None:
        return UnknownError(message, hint=hint, **{**details, "code": code, "kind": kind})
    if issubclass(found, HostOverloaded):
        seconds = details.pop("retry_after", None)
        wait = float(seconds) if isinstance(seconds, int | float) else None
        return HostOverloaded(message, hint=hint, retry_after=wait, **_named(details))
    return found(message, hint=hint, **_named(details))


def _named(details: dict[str, Any]) -> dict[str, Detail]:
    return {str(name): value for name, value in details.items()}


def _is_detail(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def lost(sentence: str, hint: str = "") -> NotConnected:
    """The error of every call that a connection's end leaves unanswered."""
    return NotConnected(sentence, hint=hint or "The daemon may be restarting; rlmctl status tells.")
