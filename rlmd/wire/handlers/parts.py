"""What handlers are given: the daemon's long-lived parts, made in ``daemon.py``."""

from __future__ import annotations

from dataclasses import dataclass

from rlmd.config import Paths, Settings
from rlmd.contexts import ContextStore


@dataclass(frozen=True, slots=True)
class Parts:
    paths: Paths
    settings: Settings
    contexts: ContextStore
