"""What is private by rule: paths that the settings name. Knows patterns and paths, no contexts.

A rule counts for a path as it was named and for what it leads to, so that a link is no way around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from pathspec import GitIgnoreSpec


class PrivacyRules:
    """Args:
    private: gitignore patterns of absolute paths; ``~/`` is the home folder.
    ephemeral: The same, of what is private and must not be on a disk.
    """

    def __init__(self, private: Sequence[str] = (), ephemeral: Sequence[str] = ()) -> None:
        self.use(private, ephemeral)

    def use(self, private: Sequence[str], ephemeral: Sequence[str]) -> None:
        """Other patterns from now on."""
        self._private = _spec((*private, *ephemeral))
        self._ephemeral = _spec(ephemeral)

    def cover(self, paths: Iterable[str | None]) -> bool:
        """Whether one of these is private; what is no absolute path is not."""
        return _covers(self._private, paths)

    def cover_as_ephemeral(self, paths: Iterable[str | None]) -> bool:
        """Whether one of these is ephemeral."""
        return _covers(self._ephemeral, paths)


def _spec(patterns: Sequence[str]) -> GitIgnoreSpec | None:
    home = os.path.expanduser("~")
    lines = [home + pattern[1:] if pattern.startswith("~/") else pattern for pattern in patterns]
    return GitIgnoreSpec.from_lines(lines, backend="simple") if lines else None


def _covers(spec: GitIgnoreSpec | None, paths: Iterable[str | None]) -> bool:
    if spec is None:
        return False
    absolute = [path for path in paths if path and os.path.isabs(path)]
    named = {way for path in absolute for way in (os.path.abspath(path), os.path.realpath(path))}
    # A pattern such as "mail/" is of folders: asked once as a file and once as a folder.
    return any(spec.match_file(one[1:] + end) for one in named for end in ("", "/"))


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
