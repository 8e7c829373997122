"""What is done when a module is first imported, by whomever (child side, standard library alone).

So that ``random`` is seeded and ``linecache`` knows the cells' lines, and no worker waits for either at its start.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from typing import Any


class Arrivals:
    """Stands before the finders of modules."""

    def __init__(self) -> None:
        self._awaited: dict[str, Callable[[Any], object]] = {}
        sys.meta_path.insert(0, self)

    def await_module(self, name: str, then: Callable[[Any], object]) -> None:
        """Calls ``then`` with the module once it is there."""
        if name in sys.modules:
            then(sys.modules[name])
        else:
            self._awaited[name] = then

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        then = self._awaited.pop(name, None)
        if then is None:
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def run(module: Any) -> None:
                execute(module)
                then(module)

            loader.exec_module = run  # of this loader alone, which is made for the one module
        return spec
