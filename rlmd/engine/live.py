"""A run that has not ended, as the engine and a parent hold it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rlmd.engine.recorder import Recorder
from rlmd.engine.run import Run


@dataclass(slots=True)
class Live:
    """``ended`` is set when all is said and told."""

    run: Run
    recorder: Recorder
    task: asyncio.Task[None]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
