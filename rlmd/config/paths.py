"""Where everything is, by the XDG base directory specification."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything is. The daemon and its clients find each other by computing the same ones.

    Attributes:
        config: Folder of ``config.toml`` and ``config.d/``.
        state: What must survive: contexts, journals. Never shared by two daemons.
        cache: What may be deleted at any time.
        runtime: Folder of the socket and the spool folder; mode 0700.
    """

    config: Path
    state: Path
    cache: Path
    runtime: Path
    socket: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, *, socket: Path | None = None) -> Paths:
        """By the XDG base directory specification: a relative path in a variable is ignored."""
        home = Path(environment.get("HOME") or Path("~").expanduser())

        def folder(variable: str, otherwise: Path) -> Path:
            given = Path(environment.get(variable, ""))
            return given if given.is_absolute() else otherwise

        base = folder("XDG_RUNTIME_DIR", Path())
        runtime = base / "rlmd" if base.is_absolute() else Path(f"/tmp/rlmd-{os.getuid()}")  # noqa: S108  owner and mode are checked before use
        return cls(
            config=folder("XDG_CONFIG_HOME", home / ".config") / "rlmd",
            state=folder("XDG_STATE_HOME", home / ".local" / "state") / "rlmd",
            cache=folder("XDG_CACHE_HOME", home / ".cache") / "rlmd",
            runtime=runtime,
            socket=socket or runtime / "rlmd.sock",
        )

    @property
    def own(self) -> tuple[Path, ...]:
        """The folders that are rlmd's alone: keys, journals, texts and answers are in them."""
        return self.config, self.state, self.cache, self.runtime

    @property
    def spool(self) -> Path:
        return self.runtime / "spool"

    @property
    def programs(self) -> Path:
        """Folder of the user's programs."""
        return self.config / "programs"

    @property
    def config_files(self) -> tuple[Path, ...]:
        """The files that exist, in the order in which later ones win."""
        more = sorted((self.config / "config.d").glob("*.toml"))
        return tuple(file for file in (self.config / "config.toml", *more) if file.is_file())
