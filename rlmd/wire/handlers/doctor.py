"""Tries each part as it is really used, and says for each that fails what to do about it."""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from rlmd.changed import changed, waits
from rlmd.config import Settings, check_settings
from rlmd.errors import RlmdError
from rlmd.ownprocess import swapped_to
from rlmd.pool import HostStatus
from rlmd.wire.handlers.parts import Parts
from rlmd.wire.methods import Check

#: Below this the next large load may fail; bytes.
LEAST_FREE = 1 << 30
_REINSTALL = "Reinstall rlmd; the journal has the helper's last words."


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
        return (
            self._config,
            self._socket,
            self._folders,
            self._contexts,
            self._ephemeral,
            self._nights,
            self._cage,
            self._hosts,
        )

    async def _config(self) -> list[Check]:
        settings, problems = check_settings(self._parts.paths)
        files = ", ".join(map(str, self._parts.paths.config_files)) or "no file; everything has its default"
        if problems:
            return [Check(name="config", ok=False, message=str(problem), hint=problem.hint) for problem in problems]
        if settings is not None and (differ := changed(self._parts.current.settings, settings)):
            message = f"The files have other values than those in use: {', '.join(differ[:5])}."
            hint = (
                "rlmctl daemon stop; the next command starts it anew"
                if any(map(waits, differ))
                else "rlmctl daemon reload"
            )
            return [Check(name="config", ok=False, message=message, hint=hint)]
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
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._parts.threads, _folder_check, *one) for one in named]

    async def _contexts(self) -> list[Check]:
        """Notices of the start, and the search helper, asked as a client asks it."""
        store = self._parts.contexts
        notices = [Check(name="contexts", ok=False, message=_sentence(n.text), hint=n.hint) for n in store.notices]
        number, size, _ = store.statistics()
        found = notices or [Check(name="contexts", ok=True, message=f"{number} contexts, {size / 1e6:.1f} MB of text")]
        try:
            await store.try_search()
        except RlmdError as error:
            return [*found, Check(name="search", ok=False, message=error.message, hint=error.hint or _REINSTALL)]
        return [*found, Check(name="search", ok=True, message="the helper process answers")]

    async def _ephemeral(self) -> list[Check]:
        """Memory is no disk, unless it is swapped to one."""
        disks = swapped_to()
        message = f"Memory may be swapped to {', '.join(disks)}." if disks else "memory is not swapped to a disk"
        hint = "Encrypt the swap, or set MemorySwapMax=0: systemctl --user edit rlmd" if disks else ""
        return [Check(name="ephemeral", ok=not disks, message=message, hint=hint, needed=False)]

    async def _nights(self) -> list[Check]:
        """Whether it goes on while its user is logged out, and what was asked for can be done."""
        parts = self._parts
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(parts.threads, _night_checks, parts.current.settings, parts.under_manager)

    async def _cage(self) -> list[Check]:
        proofs = await self._parts.workers.prove_layers()
        # One of these beside seccomp is the least that runs cells; more is better.
        either = {"landlock", "bubblewrap", "namespaces"}
        enough = any(proof.ok for proof in proofs if proof.layer in either)
        spared = either | {"watch"} if enough else {"watch"}
        return [
            Check(
                name=f"cage: {proof.layer}",
                ok=proof.ok,
                message=_sentence(proof.message),
                hint=proof.hint,
                needed=proof.layer not in spared,
            )
            for proof in proofs
        ]

    async def _hosts(self) -> list[Check]:
        await self._parts.pool.find_default_host()
        hosts = self._parts.pool.hosts()
        if not hosts:
            message = "No host: questions are answered by quotes, without a language model."
            hint = "rlmctl setup finds yours; rlmctl host add NAME URL adds one."
            return [Check(name="hosts", ok=True, message=message, hint=hint)]
        return [_host_check(host) for host in hosts]


def _host_check(host: HostStatus) -> Check:
    name = f"host {host.name}"
    if host.state in ("down", "unknown"):
        message = f"{host.last_error or 'It has not answered yet.'}"
        hint = f"Is the server at {host.url} running, and may this machine reach it?"
        return Check(name=name, ok=False, message=message, hint=hint)
    if not host.models:
        return Check(name=name, ok=False, message="It lists no model that chats.", hint="Pull one on that machine.")
    models = ", ".join(f"{model.name} ({model.window} tokens)" for model in host.models[:5])
    more = f" and {len(host.models) - 5} more" if len(host.models) > 5 else ""
    return Check(name=name, ok=True, message=f"{host.trust}, {host.slots} slots: {models}{more}")


def _night_checks(settings: Settings, under_manager: bool) -> list[Check]:
    found = []
    if under_manager:
        lingers = Path("/var/lib/systemd/linger", getpass.getuser()).exists()
        message = (
            "goes on while you are logged out" if lingers else "ends when you log out, and goes on when you are back"
        )
        hint = "" if lingers else "For runs over night: loginctl enable-linger"
        found.append(Check(name="linger", ok=True, message=message, hint=hint))
    command = "".join(settings.finish.command[:1])
    wanted = (
        ("power.keep_awake", settings.power.keep_awake, "systemd-inhibit"),
        ("finish.notify", settings.finish.notify, "busctl"),
        ("finish.command", command, os.path.expanduser(command)),
    )
    for name, asked, program in wanted:
        if asked:
            there = shutil.which(program) is not None
            message = program if there else f"{program} is not there, or cannot be run."
            hint = "" if there else "Install it, or correct the setting."
            found.append(Check(name=name, ok=there, message=message, hint=hint, needed=False))
    return found


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


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
