"""Who may know of which context: the door through which every name and path goes.

For a client whose reading may leave the machine (``egress``) private contexts do not exist: not by their name, not by
their paths, and not by a refusal that would tell of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rlmd.contexts.catalogue import ContextRow
from rlmd.contexts.loading import Loaded
from rlmd.contexts.privacy import Places, PrivacyRules
from rlmd.contexts.records import PathSource, Source
from rlmd.errors import NotAllowed, NotFound
from rlmd.validation import did_you_mean

#: Before the names of contexts that such clients bring.
EGRESS = "egress/"


class Access:
    """Args:
    rows: The contexts by name, as they are at each moment.
    rules: What is private by rule.
    """

    def __init__(self, rows: Mapping[str, ContextRow], rules: PrivacyRules) -> None:
        self._rows = rows
        self._rules = rules

    def row(self, name: str, egress: bool) -> ContextRow:
        """The context that a client means by a name.

        Raises:
            NotFound: There is none, or none that this client may know of.
        """
        row = self._rows.get(self.kept_name(name, egress))
        if row is None:
            near = did_you_mean(name, self._names(egress))
            raise NotFound(f"There is no context {name!r}.", hint=f"{near}context/list shows those that there are.")
        return row

    def _names(self, egress: bool) -> Iterator[str]:
        """As the client would say them; those that somebody gave come first."""
        seen = [row.info for row in self._rows.values() if not (egress and row.info.private)]
        for info in sorted(seen, key=lambda info: info.implicit):
            yield info.name.removeprefix(EGRESS) if egress else info.name

    def is_private(self, name: str) -> bool:
        row = self._rows.get(name)
        return row is not None and row.info.private

    def kept_name(self, name: str, egress: bool) -> str:
        """The name under which is kept what a client loads or loaded by this one.

        With ``egress`` that of a public context is that context. Any other leads to a name of such clients' own,
        whether there is a private context of that name or none: the answer does not tell which.
        """
        if not egress or self._public(name):
            return name
        name = EGRESS + name
        while self.is_private(name):
            name = EGRESS + name
        return name

    def check_paths(self, source: Source) -> None:
        """Before a load with ``egress``: what is private under one name is not public under another.

        Raises:
            NotAllowed: A path, or where a text says that it comes from, is private or lies in one that is; or a path
                holds one that is. (A confined source leaves that out.)
        """
        private = self._private_places()
        whole = isinstance(source, PathSource) and not source.confined
        touches = private.overlap if whole else private.hold
        named = _named(source)
        if any(path is not None and touches(path) for path in named) or self._rules.cover(named):
            raise self.refused()

    def left_out(self) -> Callable[[str], bool]:
        """Which files a confined source does not have, as the contexts are now: to be called in a thread."""
        places = self._private_places()
        return lambda path: places.hold(path) or self._rules.cover([path])

    def _private_places(self) -> Places:
        return Places(path for row in self._rows.values() if row.info.private for path in row.info.sources)

    def ruled(self, source: Source, loaded: Loaded) -> bool:
        """Whether what was read is private by rule; documents that are as they were have been asked about."""
        return self._rules.cover([*_named(source), *(one.document.origin for one in loaded.fresh)])

    def ruled_ephemeral(self, source: Source) -> bool:
        """Whether what is about to be read is ephemeral by rule, as far as its name tells."""
        return self._rules.cover_as_ephemeral(_named(source))

    @staticmethod
    def refused() -> NotAllowed:
        return NotAllowed(
            "This client may not load that path: what it reads may leave the machine.",
            hint="Load it with rlmctl or from Emacs.",
        )

    def _public(self, name: str) -> bool:
        row = self._rows.get(name)
        return row is not None and not row.info.private


def _named(source: Source) -> list[str | None]:
    return list(source.paths) if isinstance(source, PathSource) else [source.origin]
