"""Who may know of which context: the door through which every name and path goes.

For a client whose reading may leave the machine (``egress``) private contexts do not exist: not by their name, not by
their paths, and not by a refusal that would tell of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from rlmd.contexts.catalogue import ContextRow
from rlmd.contexts.loading import Loaded
from rlmd.contexts.privacy import PrivacyRules, overlap
from rlmd.contexts.records import PathSource, Source
from rlmd.errors import NotAllowed, NotFound

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
            raise NotFound(f"There is no context {name!r}.", hint="context/list shows those that there are.")
        return row

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
            NotAllowed: A path is private, holds one that is, or lies in one.
        """
        if not isinstance(source, PathSource):
            return
        private = [path for row in self._rows.values() if row.info.private for path in row.info.sources]
        if any(overlap(path, private) for path in source.paths) or self._rules.cover(source.paths):
            raise self.refused()

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
