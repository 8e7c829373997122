"""Tries each part as it is really used, and says for each that fails what to do about it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from rlmd.config import check_settings
from rlmd.wire.handlers.parts import Parts
from rlmd.wire.methods import Check

#: Below this the next large load may fail; bytes.
LEAST_FREE = 1 << 30


class Doctor:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def examine(self) -> tuple[Check, ...]:
        """All checks, in the order in which a person should mend things."""
        found: list[Check] = []
        for examine in self._examinations():
            found += await examine()
        return tuple(found)

    def _examinations(self) -> tuple[Callable[[], Awaitable[list[Check]]], ...]:
        return (self._config, self._socket, self._folders)

    async def _config(self) -> list[Check]:
        settings, problems = check_settings(self._parts.paths)
        files = ", ".join(map(str, self._parts.paths.config_files)) or "no file; everything has its default"
        if problems:
            return [Check(name="config", ok=False, message=str(problem), hint=problem.hint) for problem in problems]
        if settings != self._parts.settings:
            hint = "Restart the daemon to use them: systemctl --user restart rlmd"
            return [
                Check(name="config", ok=False, message="The files have changed since the daemon started.", hint=hint)
            ]
        return [Check(name="config", ok=True, message=files)]

    async def _socket(self) -> list[Check]:
        path = self._parts.paths.socket
        try:
            status = path.stat()
        except OSError as error:
            hint = "Restart the daemon; something removed its socket."
            return [Check(name="socket", ok=False, message=f"{path}: {error.strerror}.", hint=hint)]
        mode = stat.S_IMODE(status.st_mode)
        closed = mode & 0o077 == 0
        hint = "" if closed else f"chmod 600 {path}"
        return [Check(name="socket", ok=closed, message=f"{path}, mode {mode:04o}", hint=hint)]

    async def _folders(self) -> list[Check]:
        paths = self._parts.paths
        named = (("state folder", paths.state), ("cache folder", paths.cache), ("spool folder", paths.spool))
        return [await asyncio.to_thread(_folder_check, name, folder) for name, folder in named]


def _folder_check(name: str, folder: Path) -> Check:
    trial = folder / f".doctor-{secrets.token_hex(4)}"
    try:
        descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"rlmd")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            os.unlink(trial)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(
            name=name, ok=False, message=f"{folder}: {error.strerror}.", hint="Check its owner, mode and disk."
        )
    hint = "" if free >= LEAST_FREE else "Free some space: rlmctl context drop, or delete the cache folder."
    return Check(name=name, ok=free >= LEAST_FREE, message=f"{folder}, {free / 1e9:.1f} GB free", hint=hint)
