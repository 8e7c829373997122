"""Which files of a directory are loaded: .gitignore at every level, include and exclude, no links, no special files.

Walks and decides; opens no file but .gitignore. Names of documents are paths below the root, with "/".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pathspec import GitIgnoreSpec

from rlmd.contexts import sorting
from rlmd.contexts.records import Skipped, SkipReason
from rlmd.errors import InvalidParams

#: Folders that hold a version control system's own files.
_VCS = frozenset({".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", "CVS"})
_EXAMPLES = 5
#: A .gitignore beyond this is not one.
_MAX_RULES_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FoundFile:
    """``path`` may hold undecodable bytes as surrogates; ``name`` is safe to print and to store."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a folder lists; a link is neither folder nor file."""

    name: str
    is_folder: bool
    is_file: bool


@dataclass(slots=True)
class Tally:
    """Counts what was skipped, by reason, with the first few names."""

    _skipped: dict[SkipReason, tuple[int, list[str]]] = field(default_factory=dict)

    def skip(self, reason: SkipReason, name: str) -> None:
        count, examples = self._skipped.get(reason, (0, []))
        if len(examples) < _EXAMPLES:
            examples.append(name)
        self._skipped[reason] = (count + 1, examples)

    def report(self) -> tuple[Skipped, ...]:
        return tuple(Skipped(reason, count, tuple(names)) for reason, (count, names) in sorted(self._skipped.items()))


def printable(path: str) -> str:
    """A path as text: bytes that are no UTF-8 are shown as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class Scanner:
    """Walks one root.

    Args:
        root: An existing directory; it may itself be a link.
        include: gitignore patterns; when given, only files that match are found.
        exclude: gitignore patterns of files and folders that are left out.
        tally: Where skipped ones are counted. A skipped folder counts once.
        everything: Also what is generated, vendored or minified.
        opened: Opens folders. Errors other than of the system go to who asked.
    """

    def __init__(
        self,
        root: str,
        include: Sequence[str],
        exclude: Sequence[str],
        tally: Tally,
        *,
        everything: bool = True,
        opened: Callable[[str, int], int] = os.open,
    ) -> None:
        self._opened = opened
        self._root = os.path.abspath(root)
        self._include = _spec(include) if include else None
        self._exclude = _spec(exclude)
        self._tally = tally
        self._everything = everything
        self._meant = sorting.named_in(tuple(include))

    def files(self) -> Iterator[FoundFile]:
        """The files, in the order of their names within each folder."""
        listings = [self._folder("", _inherited_rules(self._root))]
        while listings:
            for found in listings[-1]:
                if isinstance(found, FoundFile):
                    yield found
                else:
                    listings.append(found)
                    break
            else:
                listings.pop()

    def _folder(self, prefix: str, rules: _Rules) -> Iterator[FoundFile | Iterator[Any]]:
        """Its files, and for each folder in it the same again."""
        path = os.path.join(self._root, prefix)
        try:
            folder = self._opened(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                entries = _listed(folder)
                rules = rules.below(path, folder)
            finally:
                os.close(folder)
        except OSError:
            self._tally.skip("unreadable", printable(prefix or self._root))
            return
        for entry in entries:
            name = prefix + entry.name
            reason = self._reason_to_skip(entry, name, rules)
            if reason is not None:
                self._tally.skip(reason, printable(name))
            elif entry.is_folder:
                if entry.name not in _VCS:
                    yield self._folder(name + "/", rules)
            elif entry.name != ".git":  # a worktree's or submodule's .git is a file
                yield FoundFile(printable(name), os.path.join(self._root, name))

    def _reason_to_skip(self, entry: _Entry, name: str, rules: _Rules) -> SkipReason | None:
        is_folder = entry.is_folder
        if not is_folder and not entry.is_file:
            return "special"  # a link's target is found where it lies, or lies outside; loops cannot arise
        if is_folder and entry.name in _VCS:
            return None
        shown = _matchable(name + "/" if is_folder else name)
        if rules.ignores(os.path.join(self._root, name), is_folder):
            return "ignored"
        if not self._everything and (reason := self._unmeant(entry.name, is_folder)):
            return reason
        if self._exclude.match_file(shown):
            return "excluded"
        if self._include is not None and not is_folder and not self._include.match_file(shown):
            return "excluded"
        return None

    def _unmeant(self, name: str, is_folder: bool) -> SkipReason | None:
        if name in self._meant:
            return None
        return sorting.FOLDERS.get(name) if is_folder else sorting.of_name(name)


def _listed(folder: int) -> list[_Entry]:
    """By name."""
    with os.scandir(folder) as listing:
        entries = [_Entry(e.name, e.is_dir(follow_symlinks=False), e.is_file(follow_symlinks=False)) for e in listing]
    return sorted(entries, key=lambda e: e.name)


@dataclass(frozen=True, slots=True)
class _Rules:
    """.gitignore files from the outermost to the innermost; the innermost that says anything decides, as in git."""

    layers: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    def below(self, folder: str, opened: int | None = None) -> _Rules:
        """``opened``: the folder itself, where its path might lead elsewhere by now."""
        spec = _read_rules(".gitignore" if opened is not None else os.path.join(folder, ".gitignore"), opened)
        return self if spec is None else _Rules((*self.layers, (os.path.abspath(folder), spec)))

    def ignores(self, path: str, is_folder: bool) -> bool:
        for folder, spec in reversed(self.layers):
            relative = path[len(folder) :].lstrip("/")
            verdict = spec.check_file(_matchable(relative + "/" if is_folder else relative)).include
            if verdict is not None:
                return verdict
        return False


def _inherited_rules(root: str) -> _Rules:
    """The rules of the folders above ``root`` within the same repository, and its .git/info/exclude.

    None when they ignore ``root`` itself: whoever names an ignored folder wants what is in it. (A Python of pyenv lies
    in such a folder.)
    """
    above: list[str] = []
    folder = root
    while not os.path.lexists(os.path.join(folder, ".git")):
        parent = os.path.dirname(folder)
        if parent == folder:
            return _Rules()
        above.append(parent)
        folder = parent
    private = _read_rules(os.path.join(folder, ".git", "info", "exclude"))
    rules = _Rules() if private is None else _Rules(((folder, private),))
    for parent in reversed(above):
        rules = rules.below(parent)
    below_top = (root, *above[:-1]) if above else ()
    return _Rules() if any(rules.ignores(named, True) for named in below_top) else rules


def _read_rules(path: str, folder: int | None = None) -> GitIgnoreSpec | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        return None
    try:
        text = os.read(fd, _MAX_RULES_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    return _compiled([line for line in lines if _compiled([line]) is not None]) if lines else None


def _compiled(lines: Sequence[str]) -> GitIgnoreSpec | None:
    """None if a line is no pattern. git passes over such lines."""
    if any("[[" in line for line in lines):
        return None  # a class of classes, which Python reads differently
    try:
        # Python's own re: the re2 behind pathspec raises errors of its own, and only when it matches.
        return GitIgnoreSpec.from_lines(lines, backend="simple")
    except (ValueError, re.error):
        return None


def _spec(patterns: Sequence[str]) -> GitIgnoreSpec:
    for pattern in patterns:
        if _compiled([pattern]) is None:
            raise InvalidParams(f"{pattern[:100]!r} is no gitignore pattern.", hint="See gitignore(5).")
    spec = _compiled(patterns)
    assert spec is not None
    return spec


def _matchable(path: str) -> str:
    """A path for patterns, which know no undecodable bytes."""
    return os.fsencode(path).decode("utf-8", "replace")
