"""The worker's first code: its modules come out of what the parent handed over (child side, standard library alone).

Each is run when it is first imported, as any module is: most cells neither cut a text nor ask for data.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec  # importlib.machinery takes 1 ms

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType


class HandedOver:
    """Finds modules among marshalled code, by name; a package has none."""

    def __init__(self, codes: Mapping[str, bytes]) -> None:
        self._codes = codes

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        code = self._codes.get(name)
        return None if code is None else ModuleSpec(name, self, is_package=not code)  # type: ignore[arg-type]

    def create_module(self, _spec: ModuleSpec) -> None:
        return None  # an ordinary one

    def exec_module(self, module: ModuleType) -> None:
        if packed := self._codes[module.__name__]:
            code = marshal.loads(packed)
            module.__file__ = code.co_filename
            exec(code, module.__dict__)


def start(codes: Mapping[str, bytes]) -> None:
    """Runs the worker on the channel whose descriptor is the program's argument."""
    sys.meta_path.insert(0, HandedOver(codes))
    from rlmd.repl import worker

    worker.main(int(sys.argv[1]))
    os._exit(0)
