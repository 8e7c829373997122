"""What is done when a module is first imported, by whomever (child side, standard library alone).

So that ``random`` and numpy's are seeded and ``linecache`` knows the cells' lines, and no worker waits for any of them
at its start.
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

    def seed(self, seed: int) -> None:
        """Whatever draws random numbers in a cell draws the same again under an equal seed; what is asked of the
        system itself (``secrets``, ``os.urandom``) does not."""
        self.await_module("random", lambda random: random.seed(seed))
        self.await_module("numpy.random", lambda numpy_random: _seed_numpy(numpy_random, seed))

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


def _seed_numpy(numpy_random: Any, seed: int) -> None:
    """The global generator, and where those that cells make without a seed take theirs from."""
    from random import Random

    numpy_random.seed(seed % (1 << 32))
    bits: Any = getattr(numpy_random, "bit_generator", None)
    if hasattr(bits, "randbits"):
        bits.randbits = Random(seed).getrandbits  # noqa: S311  to be the same again is what it is for
