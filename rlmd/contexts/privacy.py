"""What is private by rule: paths that the settings name, and rlmd's own. Knows patterns and paths, no contexts.

A rule counts for a path as it was named and for what it leads to, so that a link is no way around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec


class PrivacyRules:
    """Args:
    private: gitignore patterns of absolute paths; ``~/`` is the home folder.
    ephemeral: The same, of what is private and must not be on a disk.
    own: Folders of rlmd's, with keys and with texts that are private; always private.
    """

    def __init__(
        self, private: Sequence[str] = (), ephemeral: Sequence[str] = (), own: Iterable[str | Path] = ()
    ) -> None:
        self._own = Places(map(str, own))
        self.use(private, ephemeral)

    def use(self, private: Sequence[str], ephemeral: Sequence[str]) -> None:
        """Other patterns from now on."""
        self._private = _spec((*private, *ephemeral))
        self._ephemeral = _spec(ephemeral)

    def cover(self, paths: Iterable[str | None]) -> bool:
        """Whether one of these is private; what is no absolute path is not."""
        named = list(paths)
        return any(path is not None and self._own.hold(path) for path in named) or _covers(self._private, named)

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


class Places:
    """Files and folders, as they are named and as what that leads to now."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._ends = {way for path in paths if os.path.isabs(path) for way in _ways(path)}

    def hold(self, path: str) -> bool:
        """Whether a path is one of them or within one; links are followed."""
        return os.path.isabs(path) and any(way.startswith(end) for way in _ways(path) for end in self._ends)

    def overlap(self, path: str) -> bool:
        """Whether a path is one of them, or within one, or holds one; links are followed."""
        return self.hold(path) or any(end.startswith(way) for way in _ways(path) for end in self._ends)


def _ways(path: str) -> set[str]:
    """With a slash at the end, so that no name is taken for the beginning of another."""
    return {way.rstrip("/") + "/" for way in (os.path.abspath(path), os.path.realpath(path))}
