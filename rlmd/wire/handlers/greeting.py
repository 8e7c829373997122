"""``initialize`` and ``rpc.discover``: who calls, and what can be called."""

from __future__ import annotations

from collections.abc import Mapping

from rlmd import __version__
from rlmd.config import Paths
from rlmd.contexts import in_memory
from rlmd.errors import InvalidParams
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Handler
from rlmd.wire.methods import (
    METHODS,
    PROTOCOL,
    DiscoverResult,
    InitializeParams,
    InitializeResult,
    Nothing,
)
from rlmd.wire.openrpc import openrpc


class GreetingHandlers:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._spool_in_memory = in_memory(paths.spool)

    def table(self) -> Mapping[str, Handler[Connection]]:
        return {"initialize": self.initialize, "rpc.discover": self.discover}

    async def initialize(self, client: Connection, params: InitializeParams) -> InitializeResult:
        """Once egress, always egress: a client cannot talk its way back to what is private."""
        if params.protocol < 1:
            raise InvalidParams(f"There is no protocol {params.protocol}.", hint=f"This rlmd speaks {PROTOCOL}.")
        client.egress = client.egress or params.egress
        client.protocol = min(params.protocol, PROTOCOL)
        client.client = params.client.name if params.client else ""
        return InitializeResult(
            protocol=client.protocol,
            server="rlmd",
            version=__version__,
            spool_folder=str(self._paths.spool),
            spool_in_memory=self._spool_in_memory,
            methods=tuple(METHODS),
        )

    async def discover(self, _: Connection, __: Nothing) -> DiscoverResult:
        return DiscoverResult.model_validate(openrpc())
