"""A daemon for one client alone: started with a block, ended with it, whatever becomes of the client.

It has the user's folders, so that contexts, cache and budget are the same as ever, and a socket that nobody else knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from rlmd.client.failures import lost
from rlmd.client.start import BACK_OFF, daemon_environment, last_words, listens, log_file, open_log
from rlmd.config import Paths
from rlmd.errors import Busy

#: Exit status of a daemon that finds another one at its folders.
_TAKEN = 3


@contextlib.asynccontextmanager
async def private_daemon(paths: Paths) -> AsyncIterator[Path]:
    """The socket of a daemon that ends with the block.

    Raises:
        Busy: A daemon has the folders already.
        NotConnected: It did not start; the message names the log.
    """
    with tempfile.TemporaryDirectory(prefix="rlmd-") as folder:
        socket = Path(folder) / "rlmd.sock"
        process = await _started(paths, socket)
        try:
            await _wait_listening(paths, socket, process)
            yield socket
        finally:
            assert process.stdin is not None
            process.stdin.close()  # it stops at the end of its input: also when this process is killed
            await process.wait()


async def _started(paths: Paths, socket: Path) -> asyncio.subprocess.Process:
    log = open_log(paths)
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "rlmd", "--socket", str(socket), "--until-eof",
            stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log,
            env=daemon_environment(os.environ), start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(log)


async def _wait_listening(paths: Paths, socket: Path, process: asyncio.subprocess.Process) -> None:
    for seconds in BACK_OFF:
        if await listens(socket):
            return
        if process.returncode is not None:
            break
        await asyncio.sleep(seconds)
    if process.returncode == _TAKEN:
        raise Busy(
            "A daemon runs already, and the folders are its own.",
            hint="Ask it: leave out --no-daemon. Or stop it: rlmctl daemon stop",
        )
    ended = "did not start" if process.returncode is None else f"ended at once with status {process.returncode}"
    raise lost(f"The daemon {ended}.", hint=f"{last_words(paths)}The log is {log_file(paths)}.")
