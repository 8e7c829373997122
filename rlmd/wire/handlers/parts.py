"""What handlers are given: the daemon's long-lived parts, made in ``daemon.py``."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass

from rlmd.config import Paths, Settings, check_settings
from rlmd.contexts import ContextStore
from rlmd.engine import Engine
from rlmd.pool import Pool
from rlmd.repl import Workers


class Current:
    """The settings in use: those of the start or the last reload, with the hosts that were added and removed since."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        #: One change at a time: of two that add one name, the second must find the first.
        self.changing = asyncio.Lock()

    def take_hosts(self, paths: Paths) -> None:
        """Takes the hosts from the files as they are now; other changes wait for a reload."""
        settings, _ = check_settings(paths)
        if settings is not None:
            self.settings = self.settings.model_copy(update={"hosts": settings.hosts})


@dataclass(frozen=True, slots=True)
class Parts:
    """``threads`` are for short work on files. ``under_manager``: a service manager started us."""

    paths: Paths
    current: Current
    contexts: ContextStore
    pool: Pool
    workers: Workers
    engine: Engine
    threads: Executor
    under_manager: bool = False
