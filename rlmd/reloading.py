"""Takes the settings as their files have them now, while everything goes on: ``daemon/reload`` and SIGHUP.

All or nothing: files with a mistake change nothing. Runs that go on keep the settings that they began with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from rlmd.changed import changed, in_use, waits
from rlmd.config import Settings, load_settings
from rlmd.contexts import Converters, Retention
from rlmd.errors import ConfigInvalid
from rlmd.systemd import ServiceManager
from rlmd.wire.methods import ReloadResult

if TYPE_CHECKING:
    from rlmd.wire.handlers.parts import Parts

log = structlog.get_logger(__name__)


class Reload:
    """Args:
    parts: What takes the settings.
    manager: Is told when a reload begins and ends.
    set_level: Takes the least that is logged.
    """

    def __init__(self, parts: Parts, manager: ServiceManager, set_level: Callable[[str], None]) -> None:
        self._parts = parts
        self._manager = manager
        self._set_level = set_level

    async def __call__(self) -> ReloadResult:
        """Raises ``ConfigInvalid`` for files with a mistake; nothing has changed then."""
        current = self._parts.current
        async with current.changing:
            with self._manager.reloading():
                before, files = current.settings, load_settings(self._parts.paths)
                await self._take(in_use(before, files))
        names = changed(before, files)
        applied = tuple(name for name in names if not waits(name))
        restart = tuple(name for name in names if waits(name))
        log.info("reloaded", applied=applied, restart=restart)
        return ReloadResult(applied=applied, restart=restart)

    async def asked_by_signal(self) -> None:
        """For a signal, which nobody waits for the answer of: a mistake is in the log alone."""
        try:
            await self()
        except ConfigInvalid as error:
            log.error("not_reloaded", problems=error.details.get("problems"), hint="rlmctl config check")

    async def _take(self, settings: Settings) -> None:
        """What is private first: no host that is new may see a text that is private from now on."""
        parts = self._parts
        privacy = settings.privacy
        await parts.contexts.use(privacy.private, privacy.ephemeral, converters_of(settings), retention_of(settings))
        parts.engine.privacy_changed()
        parts.engine.use(settings)
        await parts.pool.use(settings)
        self._set_level(settings.log.level)
        parts.current.settings = settings


def converters_of(settings: Settings) -> Converters:
    return Converters({name: (one.suffixes, one.command) for name, one in settings.converters.items()})


def retention_of(settings: Settings) -> Retention:
    return Retention(settings.retention.implicit_days, settings.retention.revisions, settings.retention.index_days)
