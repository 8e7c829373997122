"""Commands of the user's own: they print a key, wake a machine, send it to sleep. What they say is never shown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping


class CommandFailed(Exception):
    """Its words say why, and quote nothing."""


async def output_of(command: tuple[str, ...], environment: Mapping[str, str], seconds: float) -> bytes:
    """What it prints. Cancelled or too late, it is killed with whatever it started.

    Raises:
        CommandFailed: it could not be started, took longer than ``seconds``, or ended with another status than 0.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise CommandFailed(type(error).__name__) from None
    try:
        async with asyncio.timeout(seconds):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise CommandFailed(f"it took more than {seconds:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise CommandFailed(f"it ended with status {process.returncode}")
    return printed
