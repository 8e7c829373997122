"""What is private by rule: paths that the settings name. Knows patterns and paths, no contexts.

A rule counts for a path as it was named and for what it leads to, so that a link is no way around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from pathspec import GitIgnoreSpec


class PrivacyRules:
    """Args:
    patterns: gitignore patterns of absolute paths; ``~/`` is the home folder.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.use(patterns)

    def use(self, patterns: Sequence[str]) -> None:
        """Other patterns from now on."""
        home = os.path.expanduser("~")
        lines = [home + pattern[1:] if pattern.startswith("~/") else pattern for pattern in patterns]
        self._spec: GitIgnoreSpec | None = GitIgnoreSpec.from_lines(lines, backend="simple") if lines else None

    def cover(self, paths: Iterable[str | None]) -> bool:
        """Whether one of these is private; what is no absolute path is not."""
        if self._spec is None:
            return False
        return any(self._covers(path) for path in paths if path and os.path.isabs(path))

    def _covers(self, path: str) -> bool:
        assert self._spec is not None
        named = {os.path.abspath(path), os.path.realpath(path)}
        # A pattern such as "mail/" is of folders: asked once as a file and once as a folder.
        return any(self._spec.match_file(one[1:] + end) for one in named for end in ("", "/"))


def overlap(path: str, others: Iterable[str]) -> bool:
    """Whether a path is one of the others, or within one, or holds one; links are followed."""
    ways = {os.path.abspath(path), os.path.realpath(path)}
    for other in others:
        if os.path.isabs(other) and any(_within(a, b) for b in (other, os.path.realpath(other)) for a in ways):
            return True
    return False


def _within(one: str, other: str) -> bool:
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)
