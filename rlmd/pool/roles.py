"""Which models of which hosts may take which part: as the config names them, else every model of every host.

A host that never said which models it has may yet bring one: what is asked of it alone waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from rlmd.config import RoleSettings
from rlmd.pool.choosing import Choice, Silent, narrowed
from rlmd.pool.host import Host
from rlmd.pool.pulse import Pulse
from rlmd.pool.status import candidate_of

Role = Literal["root", "sub"]


class Roles:
    """Args:
    hosts: All of them, by name, as they come and go.
    settings: The candidates that the config names.

    Attributes:
        changes: Beats when the candidates may be others.
    """

    def __init__(self, hosts: Mapping[str, Host], settings: RoleSettings) -> None:
        self._hosts = hosts
        self._settings = settings
        self._choices: dict[Role, list[Choice]] = {}
        self.changes = Pulse()

    def use(self, settings: RoleSettings) -> None:
        self._settings = settings
        self.host_changed()

    def host_changed(self) -> None:
        """A host came, went, or offers something else."""
        self._choices.clear()
        self.changes.beat()

    def choices(self, role: Role) -> list[Choice]:
        """The role's candidates as configured; without any, every model of every host. Kept until a host changes."""
        if (known := self._choices.get(role)) is None:
            known = self._choices[role] = self._find_choices(role)
        return known

    def _find_choices(self, role: Role) -> list[Choice]:
        offers = {
            Choice(candidate_of(host, offered), offered): None
            for host in self._hosts.values()
            for offered in host.models(self.models_named(host.name)).values()
        }
        named = self._named(role)
        if not named:
            return list(offers)
        by_name = {choice.candidate.name: choice for choice in offers}
        found = (by_name.get(name) or by_name.get(f"{name}:latest") for name in named)
        return [choice for choice in found if choice is not None]

    def roles_of(self, host: str) -> tuple[Role, ...]:
        """Those that it may take."""
        roles: tuple[Role, ...] = ("root", "sub")
        return tuple(role for role in roles if any(choice.candidate.host == host for choice in self.choices(role)))

    def models_named(self, host: str) -> tuple[str, ...]:
        """The models of a host that the config names for a role, whether its server lists them or not."""
        roles = (*self._settings.root, *self._settings.sub)
        return tuple(dict.fromkeys(name.removeprefix(host + "/") for name in roles if name.startswith(host + "/")))

    def narrowed(self, role: Role, *narrowings: tuple[str, ...] | None) -> list[Choice]:
        """The candidates that each narrowing in turn leaves; None leaves all.

        Raises:
            NotFound: A name means none of them, nor anything that a silent host may bring.
        """
        return self._narrowed(role, narrowings, private=False)[0]

    def awaited(self, role: Role, *narrowings: tuple[str, ...] | None, private: bool) -> tuple[str, ...]:
        """While there is no candidate to which such text may go: the configured hosts that never said which models they
        have and may yet bring one. Raises ``NotFound`` as ``narrowed``."""
        choices, silent = self._narrowed(role, narrowings, private=private)
        if any(not private or choice.candidate.trust == "mine" for choice in choices):
            return ()
        return tuple(one.host for one in silent)

    def _narrowed(
        self, role: Role, narrowings: Iterable[tuple[str, ...] | None], *, private: bool
    ) -> tuple[list[Choice], list[Silent]]:
        choices, silent = self.choices(role), self._silent(role, private=private)
        for names in narrowings:
            if names is not None and (choices or silent):
                choices, silent = narrowed(choices, silent, names, role)
        return choices, silent

    def _silent(self, role: Role, *, private: bool) -> list[Silent]:
        """None where the config names the role's candidates."""
        if self._named(role):
            return []
        quiet = (host for host in self._hosts.values() if host.silent(private=private))
        return [Silent(host.name, frozenset(host.digests)) for host in quiet]

    def _named(self, role: Role) -> tuple[str, ...]:
        return self._settings.root if role == "root" else self._settings.sub
