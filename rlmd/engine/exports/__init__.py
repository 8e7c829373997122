"""Exports of a run: the reference's log format, and one page for a browser. Both tell the same ``Story``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from rlmd.engine.exports.page import page
from rlmd.engine.exports.reference import reference
from rlmd.engine.exports.story import Story, story_of
from rlmd.engine.runfolder import RunFolder

ExportForm = Literal["jsonl", "html"]

_FORMS: Mapping[ExportForm, Callable[[Story], str]] = MappingProxyType({"jsonl": reference, "html": page})


def export(folder: RunFolder, form: ExportForm) -> str:
    """A run's journal in another form. Reads files: a matter for a thread.

    Raises:
        InternalError: The journal, or a text that it names, cannot be read.
    """
    return _FORMS[form](story_of(folder))


__all__ = ["ExportForm", "export"]
