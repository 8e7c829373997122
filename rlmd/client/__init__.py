"""The Python client of the daemon's socket.

    async with connect() as client:
        loaded = await client.call("context/load", LoadParams(source=PathSource(paths=("/usr/share/doc",))))
        async with client.start(RunParams(run_id=str(uuid.uuid4()), question="…", contexts=("…",))) as run:
            async for event in run:  # facts in order and whole, deltas between them
                ...

docs/python.md has a whole example and what is promised.
Knows the wire's messages and nothing else of the daemon.
"""

from __future__ import annotations

import functools
from pathlib import Path

from rlmd.client.client import Client
from rlmd.client.follow import Event, Follower, UnknownFact
from rlmd.client.start import start_daemon
from rlmd.client.uploading import upload
from rlmd.config import Paths
from rlmd.events import Delta

__all__ = ["Client", "Delta", "Event", "Follower", "UnknownFact", "connect", "upload"]


def connect(
    socket: Path | None = None, *, start: bool = True, name: str = "rlmd.client", egress: bool = False
) -> Client:
    """A client, connected when its ``async with`` block begins.

    Args:
        socket: The daemon's socket; by default where XDG says.
        start: Whether to start the daemon when none runs.
        name: Who calls, for the daemon's log.
        egress: Whether what is read here may leave the machine. Then private contexts do not exist.
    """
    paths = Paths.from_environment(socket=socket)
    starter = functools.partial(start_daemon, paths) if start else None
    return Client(paths.socket, start=starter, name=name, egress=egress)
