"""The files that come with rlmd and are no Python: in a wheel beside the package, in a checkout beside its folder."""

from __future__ import annotations

from pathlib import Path

import rlmd
from rlmd.errors import SourceMissing

_PACKAGE = Path(rlmd.__file__).resolve().parent


def shared(name: str) -> Path:
    """A folder of them: ``elisp`` or ``systemd``. Raises ``SourceMissing``."""
    for folder in (_PACKAGE / "share" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise SourceMissing(f"This rlmd came without its folder {name}.", hint="Install a wheel, or from a checkout.")
