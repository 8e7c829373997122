"""The connection: who calls, and the protocol described by itself."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rlmd.wire.methods.base import PROTOCOL, Method, Nothing, Params, Result
from rlmd.wire.methods.contexts import INLINE_BYTES


class ClientName(Params):
    name: str = Field(max_length=100)
    version: str = Field("", max_length=100)


class InitializeParams(Params):
    """``egress``: what this client reads may leave the machine; private contexts do not exist for it."""

    protocol: int = PROTOCOL
    client: ClientName | None = None
    egress: bool = False


class InitializeResult(Result):
    protocol: int
    server: str
    version: str
    spool_folder: str
    spool_in_memory: bool = Field(False, description="Whether ephemeral text may be written there")
    inline_bytes: int = INLINE_BYTES
    methods: tuple[str, ...]


class DiscoverResult(Result):
    """An OpenRPC document."""

    openrpc: str
    info: dict[str, str]
    methods: tuple[dict[str, Any], ...]
    components: dict[str, Any]


METHODS = (
    Method("initialize", InitializeParams, InitializeResult, "Says who calls and agrees on the protocol."),
    Method("rpc.discover", Nothing, DiscoverResult, "This protocol as an OpenRPC document."),
)
