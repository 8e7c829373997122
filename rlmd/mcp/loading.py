"""How what an MCP client named gets to the daemon: a file by the spool folder, a folder by its path.

Of a folder the size is told before it is read into a context, and there is a limit to it. Knows no MCP.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from rlmd.client import Client
from rlmd.ctl.sources import LoadOptions, identity_of, load_stream
from rlmd.errors import InvalidParams, NotAllowed, NotVisible, TooLarge
from rlmd.mcp.files import Opened
from rlmd.wire.methods import LoadParams, LoadResult, PathSource

#: Bytes of text that a folder may have: the sources of the Linux kernel fit.
MAX_FOLDER_BYTES = 2 << 30

Tell = Callable[[LoadResult], Awaitable[None]]


async def load_opened(client: Client, place: Opened, options: LoadOptions, tell: Tell) -> LoadResult:
    """Loads a file or folder, and closes it.

    Args:
        client: Connected, with ``egress``.
        place: As ``open_beneath`` gave it.
        options: Patterns are of folders.
        tell: Is told how much a folder holds, before it is loaded.

    Raises:
        InvalidParams: Patterns for a file.
        TooLarge: The folder has more than ``MAX_FOLDER_BYTES`` of text.
        NotVisible: The daemon lives where that folder is another.
    """
    if place.is_folder:
        os.close(place.descriptor)
        return await _load_folder(client, place, options, tell)
    with os.fdopen(place.descriptor, "rb") as file:
        if options.include or options.exclude or options.everything:
            raise InvalidParams(f"{place.shown!a} is a file; include, exclude and everything are of folders.")
        return await load_stream(client, file, place.shown, options, raw=False)


async def _load_folder(client: Client, place: Opened, options: LoadOptions, tell: Tell) -> LoadResult:
    source = PathSource(
        paths=(place.path,),
        include=options.include,
        exclude=options.exclude,
        everything=options.everything,
        convert=True,
        identity=identity_of(place.status),
        confined=True,
    )
    params = LoadParams(name=options.name, source=source, dry_run=True, max_bytes=MAX_FOLDER_BYTES)
    try:
        found = await client.call("context/load", params)
        if options.dry_run:
            return found
        await tell(found)
        return await client.call("context/load", params.model_copy(update={"dry_run": False}))
    except TooLarge as error:
        raise TooLarge(
            f"The folder {place.shown!a} has more than the {MAX_FOLDER_BYTES:,} bytes of text that may be loaded here.",
            hint="Name a folder in it, or give include or exclude. "
            "A person loads all of it with: rlmctl context load FOLDER --name NAME",
            limit=MAX_FOLDER_BYTES,
        ) from error
    except InvalidParams as error:
        if "confined" not in error.message:
            raise
        raise NotAllowed(
            "The daemon is of an earlier release, which cannot load folders for this client.",
            hint="A person restarts it with: rlmctl daemon restart",
        ) from error
    except NotVisible as error:
        raise NotVisible(
            f"The daemon does not see the folder {place.shown!a} as this server does.",
            hint="Load its files one by one, by path.",
        ) from error
