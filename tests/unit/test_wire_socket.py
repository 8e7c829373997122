"""The socket that the server is given: its file is not the server's to remove, on whichever Python and loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import uvloop

from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Dispatcher
from rlmd.wire.methods import METHODS
from rlmd.wire.server import Server


async def unasked(_: object, __: object) -> NoReturn:
    raise AssertionError("nothing is asked here")


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_file_of_the_socket_outlives_the_server(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """As systemd needs it, which listens on, and whose next connection starts the next daemon."""
    place = tmp_path / "s"

    async def served(listener: socket.socket) -> None:
        server = Server(listener, Dispatcher[Connection](dict.fromkeys(METHODS, unasked)))
        await server.start()
        await server.stop(1)
        while listener.fileno() != -1:  # it is closed a turn of the loop later
            await asyncio.sleep(0)

    with socket.socket(socket.AF_UNIX) as systemds:
        systemds.bind(str(place))
        systemds.listen()
        ours = systemds.dup()
        ours.setblocking(False)
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(served(ours))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
