"""Hosts: what they are and do, adding and removing them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlmd.wire.methods.base import Done, Method, NameParams, Nothing, Params, Result


class HostModel(Result):
    name: str
    window: int
    useful_window: int
    digest: str | None = None


class HostInfo(Result):
    """``state``: ok, busy (all slots used), down (``retry_in`` seconds), paused, unknown (not asked yet)."""

    name: str
    url: str
    provider: str
    trust: Literal["mine", "cloud"]
    state: Literal["ok", "busy", "down", "paused", "unknown"]
    retry_in: float | None
    slots: int
    slots_used: int
    queued: int
    completed: int
    failed: int
    models: tuple[HostModel, ...]
    roles: tuple[str, ...]
    last_error: str | None


class HostListResult(Result):
    hosts: tuple[HostInfo, ...]


class HostAddParams(Params):
    """Asks the server at ``url`` what it is and writes ``config.d/host-NAME.toml``."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    url: str
    models: tuple[str, ...] = Field((), description="Of those served; by default every chat model")
    slots: int | None = Field(None, ge=1, le=512)
    window: int | None = Field(None, ge=256)
    trust: Literal["mine", "cloud"] | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None


class HostAddResult(Result):
    host: HostInfo
    file: str
    notes: tuple[str, ...]


METHODS = (
    Method("host/list", Nothing, HostListResult, "Lists hosts with state, slots and queue depth."),
    Method("host/add", HostAddParams, HostAddResult, "Asks a server what it is and adds it."),
    Method("host/remove", NameParams, Done, "Removes a host that host/add wrote."),
)
