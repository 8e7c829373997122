"""The two vaults, as one set of names: what is on disk, and what is ephemeral and in memory alone.

A name is in one of them; a context never moves from one to the other.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path

from rlmd.contexts.catalogue import ContextRow
from rlmd.contexts.threads import Threads
from rlmd.contexts.vault import Vault
from rlmd.errors import Conflict


class Vaults:
    """Made by ``open``.

    Attributes:
        disk, memory: The two.
        rows: All contexts at their newest revision, by name.
    """

    rows: Mapping[str, ContextRow]

    @classmethod
    async def open(cls, folder: Path, index_folder: Path, threads: Threads) -> Vaults:
        """As ``Vault.open``; nothing is in memory yet."""
        disk = await Vault.open(folder, index_folder, threads)
        return cls(disk, await Vault.in_memory(threads))

    def __init__(self, disk: Vault, memory: Vault) -> None:
        self.disk, self.memory = disk, memory
        self.rows = ChainMap(disk.rows, memory.rows)

    def __iter__(self) -> Iterator[Vault]:
        return iter((self.disk, self.memory))

    async def close(self) -> None:
        for vault in self:
            await vault.close()

    def of(self, row: ContextRow) -> Vault:
        """The vault that a context is in."""
        return self.memory if row.info.ephemeral else self.disk

    def to_load(self, name: str | None, *, ephemeral: bool) -> Vault:
        """The vault that a load goes to: what is ephemeral once stays so.

        Raises:
            Conflict: It is to be ephemeral, and is on disk already.
        """
        row = self.rows.get(name) if name is not None else None
        if row is None:
            return self.memory if ephemeral else self.disk
        if ephemeral and not row.info.ephemeral:
            raise Conflict(
                f"Context {row.info.name!r} is on disk already, so it cannot be ephemeral.",
                hint="Load under another name, or drop that one first: what is dropped is erased.",
            )
        return self.of(row)
