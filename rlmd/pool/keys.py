"""A host's key: from a variable, a file, or what a command prints. No error shows it, nor what the command says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from rlmd.config import HostSettings
from rlmd.errors import ConfigInvalid
from rlmd.providers.addresses import checked_key

#: A password store that must first be unlocked asks somebody; nobody waits for that.
COMMAND_SECONDS = 5.0


def read_key(name: str, settings: HostSettings, environment: Mapping[str, str]) -> SecretStr | None:
    """The key that a variable or a file of the settings has. A relative ``api_key_file`` is below
    ``$CREDENTIALS_DIRECTORY`` (systemd's LoadCredential). Raises ``ConfigInvalid`` when it is not there."""
    if settings.api_key_env:
        if not (key := environment.get(settings.api_key_env, "").strip()):
            raise ConfigInvalid(
                f"Host {name}: the environment variable {settings.api_key_env} is not set.",
                hint="Set it for the daemon (systemctl --user edit rlmd), then restart it; or use api_key_file.",
            )
        return checked_key(SecretStr(key))
    if settings.api_key_file and not settings.api_key_command:
        path = Path(environment.get("CREDENTIALS_DIRECTORY", "."), os.path.expanduser(settings.api_key_file))
        try:
            return checked_key(SecretStr(path.read_text(encoding="utf-8").strip()))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise ConfigInvalid(
                f"Host {name}: {settings.api_key_file} could not be read: {reason}.",
                hint="Check the path, and that it is readable for you.",
            ) from None
    return None


async def printed_key(name: str, command: tuple[str, ...], environment: Mapping[str, str]) -> SecretStr | None:
    """What a command prints, without the space around it. Raises ``ConfigInvalid`` when that is no key, or it takes
    too long; it has ended then."""
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
        raise _no_key(name, command, type(error).__name__) from None
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise _no_key(name, command, f"it took more than {COMMAND_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            await _end(process)
    if process.returncode:
        raise _no_key(name, command, f"it ended with status {process.returncode}")
    return checked_key(SecretStr(printed.decode("utf-8", "replace").strip()))


async def _end(process: asyncio.subprocess.Process) -> None:
    """With whatever it started: a prompt of a password store must not outlive the question."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _no_key(name: str, command: tuple[str, ...], why: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"Host {name}: {command[0]} gave no key: {why}.",
        hint="Run it in a terminal; it must print the key, and nothing may be asked.",
    )
