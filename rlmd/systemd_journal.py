"""Log entries with fields for systemd's journal, over its own protocol: ``journalctl --user RUN_ID=…``.

The protocol is logging-journald's. Fields are what is logged anyhow: ids, names, sizes.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from logging_journald import JournaldTransport, check_journal_stream
from structlog.typing import EventDict, WrappedLogger

#: Where a line was logged, as systemd.journal-fields(7) calls it.
_PLACE = {"pathname": "CODE_FILE", "lineno": "CODE_LINE", "func_name": "CODE_FUNC"}


def leads_to_journal() -> bool:
    """Whether our stderr is the journal's, and not what somebody redirected it to."""
    try:
        return bool(check_journal_stream())
    except (OSError, ValueError):  # a variable that is not what systemd writes
        return False


class Journal:
    """The last processor of structlog for what the journal takes; an entry that it does not take goes on, as a line.

    ``priorities``: by level, of syslog(3).
    """

    def __init__(self, priorities: Mapping[str, int]) -> None:
        self._priorities = priorities
        # each entry by the path: journald may be started anew at any time
        self._transport = JournaldTransport(connected=False)
        # a journal that has no room must not hold up the loop
        self._transport.socket.setblocking(False)

    def close(self) -> None:
        self._transport.socket.close()

    def __call__(self, _: WrappedLogger, method: str, event: EventDict) -> EventDict:
        fields = {"PRIORITY": self._priorities.get(method, 6), **fields_of(event)}
        try:
            self._transport.send(fields.items())
        except OSError:
            return {name: value for name, value in event.items() if name not in _PLACE}
        raise structlog.DropEvent


def fields_of(event: Mapping[str, object]) -> dict[str, str]:
    """An entry's fields: the message, for a reader who sees no more than that, has the others too."""
    told = {name: value for name, value in event.items() if name not in ("event", "level", *_PLACE)}
    message = " ".join([str(event["event"]), *(f"{name}={_text(value)}" for name, value in told.items())])
    return {
        "MESSAGE": message,
        "SYSLOG_IDENTIFIER": "rlmd",
        "EVENT": str(event["event"]),
        **{_PLACE[name]: _text(value) for name, value in event.items() if name in _PLACE},
        **{name.upper(): _text(value) for name, value in told.items() if value is not None},
    }


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
