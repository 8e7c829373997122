"""The daemon itself: what it is and does, and whether each part works."""

from __future__ import annotations

from rlmd.wire.methods.base import Method, Nothing, Result
from rlmd.wire.methods.hosts import HostInfo


class StatusResult(Result):
    version: str
    pid: int
    uptime: float
    socket: str
    state_folder: str
    config_files: tuple[str, ...]
    contexts: int
    context_bytes: int
    runs_active: int
    runs: int
    sessions: int
    workers: int
    hosts: tuple[HostInfo, ...]
    cache_entries: int
    cache_bytes: int
    memory_bytes: int
    draining: bool


class Check(Result):
    """``needed``: whether something is wrong when it is not ``ok``; else it is a thing that could be better."""

    name: str
    ok: bool
    message: str
    hint: str = ""
    needed: bool = True


class DoctorResult(Result):
    ok: bool
    checks: tuple[Check, ...]


METHODS = (
    Method("daemon/status", Nothing, StatusResult, "What the daemon is and does."),
    Method("daemon/doctor", Nothing, DoctorResult, "Tries each part and says what to mend."),
)
