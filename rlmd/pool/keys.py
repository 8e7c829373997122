"""A host's key: from a variable, a file, or what a command prints. No error shows it, nor what the command says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from rlmd.config import HostSettings
from rlmd.errors import ConfigInvalid
from rlmd.pool.commands import CommandFailed, output_of
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
        printed = await output_of(command, environment, COMMAND_SECONDS)
    except CommandFailed as failure:
        raise ConfigInvalid(
            f"Host {name}: {command[0]} gave no key: {failure}.",
            hint="Run it in a terminal; it must print the key, and nothing may be asked.",
        ) from None
    return checked_key(SecretStr(printed.decode("utf-8", "replace").strip()))
