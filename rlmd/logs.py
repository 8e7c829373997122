"""Logging: one structlog set-up for the process. Entries with fields for systemd's journal, columns for a terminal,
JSON lines for anything else.

What is logged are sizes, ids, digests, names of types: never prompt text, context text or keys. Exceptions are
logged by ``wire.dispatch.incident`` without their text; the processors here have no way to render one, and what nobody
caught, which Python would write to the same stream with its text, is told by type and place.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
import warnings
from types import TracebackType
from typing import TextIO

import structlog
from structlog.processors import CallsiteParameter
from structlog.typing import EventDict, Processor, WrappedLogger

#: The journal reads a priority from the beginning of a line, sd-daemon(3).
_PRIORITY = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_PLACES = (CallsiteParameter.PATHNAME, CallsiteParameter.LINENO, CallsiteParameter.FUNC_NAME)


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Call once, before the first line is logged."""
    out = stream or sys.stderr
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _drop_exceptions,
    ]
    structlog.configure(
        processors=[*common, *_rendering(out)],
        logger_factory=structlog.WriteLoggerFactory(file=out),
    )
    set_log_level(level)
    # Libraries: their warnings may hold addresses and bodies, so only their level and name are kept.
    logging.basicConfig(level=logging.WARNING, handlers=[_Reduced()], force=True)
    sys.excepthook = _uncaught
    sys.unraisablehook = lambda unraisable: _uncaught(
        unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback
    )
    threading.excepthook = lambda thrown: _uncaught(thrown.exc_type, thrown.exc_value, thrown.exc_traceback)
    warnings.showwarning = _warned


def _uncaught(kind: type[BaseException], _: BaseException | None, trace: TracebackType | None) -> None:
    """An exception that nobody caught: its text may be a prompt's, and so may that of the ones that led to it."""
    places = [f"{place.filename.rpartition('rlmd/')[2]}:{place.lineno}" for place in traceback.extract_tb(trace)]
    structlog.get_logger(__name__).critical("uncaught", exception=kind.__name__, places=places[-12:])


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    place = f"{filename.rpartition('rlmd/')[2]}:{lineno}"
    structlog.get_logger(__name__).warning("python warning", category=category.__name__, place=place)


def set_log_level(level: str) -> None:
    """Another least that is logged, at any time."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(**{**structlog.get_config(), "wrapper_class": structlog.make_filtering_bound_logger(number)})


def _rendering(out: TextIO) -> list[Processor]:
    if out.isatty():
        return _for_terminal()
    # systemd tells by this variable which stream leads to the journal; a library is loaded for it only
    if out is sys.stderr and "JOURNAL_STREAM" in os.environ:
        from rlmd.systemd_journal import Journal, leads_to_journal

        if leads_to_journal():
            return [structlog.processors.CallsiteParameterAdder(_PLACES), Journal(_PRIORITY), *_as_lines()]
    return _as_lines()


def _for_terminal() -> list[Processor]:
    return [structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False), structlog.dev.ConsoleRenderer()]


def _as_lines() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(),
        _prioritised,
    ]


def _drop_exceptions(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name in ("exc_info", "stack_info"):
        event.pop(name, None)
    return event


def _prioritised(_: WrappedLogger, method: str, line: EventDict | str) -> str:
    return f"<{_PRIORITY.get(method, 6)}>{line}"


class _Reduced(logging.Handler):
    """Standard logging of the libraries below us: where and how bad, not what."""

    def emit(self, record: logging.LogRecord) -> None:
        exception = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        structlog.get_logger(record.name).log(
            record.levelno, "library message", logger=record.name, line=record.lineno, exception=exception
        )
