"""The tasks by name."""

from __future__ import annotations

from pathlib import Path

from rlmd.evaluation import code, hops, needles, oolong
from rlmd.evaluation.item import Task

NAMES = ("niah", "oolong", "pairs", "code", "hops")


def tasks(source: Path | None = None) -> dict[str, Task]:
    """Args:
    source: Folder of Python source that ``code`` asks about; None makes one.
    """
    found = (needles.TASK, oolong.TASK, oolong.PAIRS, code.task_over(source), hops.TASK)
    return {task.name: task for task in found}
