"""The daemon itself: what it is and does, and whether each part works."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlmd.wire.methods.base import Method, Nothing, Params, Result
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
    implicit_days: float = Field(0.0, description="An implicit context that is unused for so long goes")
    revisions_kept: int = Field(0, description="Of a context; older ones stay while runs name them")
    run_days: float = Field(0.0, description="A run goes so long after its end, unless it is a named session's")
    run_bytes: int = Field(0, description="Size of all runs above which the oldest go")
    index_days: float = Field(0.0, description="A search index that is unused for so long goes")
    ledger_days: int = Field(0, description="What single requests cost; then their sums by day, run and model")
    sizes: dict[str, int] = Field({}, description="Bytes on disk by part, counted at most once a minute")
    ephemeral_bytes: int = Field(0, description="Of contexts that are in memory alone")


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


class GcParams(Params):
    dry_run: bool = False


class Collected(Result):
    """``name`` is the context's whose text, older revisions or search index went, or the id of the run."""

    what: Literal["context", "revisions", "uploads", "index", "run"]
    name: str
    bytes: int
    why: str


class GcResult(Result):
    collected: tuple[Collected, ...]
    bytes: int


class ReloadResult(Result):
    """Names of settings, such as ``limits.turns``; of a host, ``hosts.m40``."""

    applied: tuple[str, ...] = Field(
        description="What differs and is used from now on; a run that goes on keeps its own"
    )
    restart: tuple[str, ...] = Field(description="What differs and waits for a restart of the daemon")


METHODS = (
    Method("daemon/status", Nothing, StatusResult, "What the daemon is and does."),
    Method("daemon/gc", GcParams, GcResult, "Removes what has expired, or says what would be."),
    Method("daemon/reload", Nothing, ReloadResult, "Takes the settings as their files have them now."),
    Method("daemon/doctor", Nothing, DoctorResult, "Tries each part and says what to mend."),
)
