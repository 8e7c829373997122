"""A text on its way to a daemon that shares no folder with this process: in chunks, resumed after a lost connection."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import TYPE_CHECKING, BinaryIO

from rlmd.errors import Conflict, NotConnected, NotFound
from rlmd.wire.methods import AppendParams, BeginParams, CommitParams, LoadResult, UploadResult

if TYPE_CHECKING:
    from rlmd.client.client import Client

#: How often a lost connection is made anew without a chunk coming through in between.
_ATTEMPTS = 5


async def upload(
    client: Client,
    file: BinaryIO,
    *,
    name: str | None = None,
    origin: str | None = None,
    private: bool = False,
    ephemeral: bool = False,
    raw: bool = False,
) -> LoadResult:
    """Loads an open file as a context, in chunks.

    Args:
        client: Connected; it connects anew by itself.
        file: Seekable; read from its beginning, twice: once for its digest.
        name: The context's; without one it is implicit.
        origin: What citations show.
        private: Only trusted hosts and clients may know of it.
        ephemeral: And it is never on disk.
        raw: Keep every byte, so that offsets are those of the file; else it is decoded and converted as a file is.

    Raises:
        RlmdError: The daemon's; ``NotConnected`` when it does not come back.
    """
    digest, size = _measured(file)
    begin = BeginParams(
        digest=digest, bytes=size, name=name, origin=origin, private=private, ephemeral=ephemeral, raw=raw
    )
    failures, progress = 0, -1
    while True:
        try:
            at = await client.call("context/begin", begin)
            at = await _send_rest(client, file, at, size)
            return await client.call("context/commit", CommitParams(upload_id=at.upload_id))
        except (NotConnected, NotFound, Conflict) as error:
            # Lost, or the daemon was started anew: ask where to go on. A commit that was done is found unchanged.
            sent = file.tell()
            failures = 0 if sent > progress else failures + 1
            progress = max(progress, sent)
            if failures >= _ATTEMPTS or (isinstance(error, Conflict) and "received" not in error.details):
                raise
            await asyncio.sleep(0.1 * failures)


async def _send_rest(client: Client, file: BinaryIO, at: UploadResult, size: int) -> UploadResult:
    while at.received < size:
        file.seek(at.received)
        data = base64.b64encode(file.read(at.chunk_bytes)).decode()
        at = await client.call("context/append", AppendParams(upload_id=at.upload_id, offset=at.received, data=data))
    return at


def _measured(file: BinaryIO) -> tuple[str, int]:
    total, size = hashlib.sha256(), 0
    file.seek(0)
    while piece := file.read(1 << 20):
        total.update(piece)
        size += len(piece)
    return total.hexdigest(), size
