"""Which models of which hosts may take which part: as the config names them, else every model of every host.

A host that never said which models it has may yet bring one: what is asked of it alone waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from rlmd.config import RoleSettings
from rlmd.pool.choosing import Choice
from rlmd.pool.host import Host
from rlmd.pool.status import candidate_of

Role = Literal["root", "sub"]


class Roles:
    """Args:
    hosts: All of them, by name, as they come and go.
    settings: The candidates that the config names.
    """

    def __init__(self, hosts: Mapping[str, Host], settings: RoleSettings) -> None:
        self._hosts = hosts
        self._settings = settings
        self._choices: dict[Role, list[Choice]] = {}

    def use(self, settings: RoleSettings) -> None:
        self._settings = settings
        self.host_changed()

    def host_changed(self) -> None:
        """A host came, went, or offers something else."""
        self._choices.clear()

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

    def unheard(self, role: Role, *, private: bool) -> tuple[str, ...]:
        """Configured hosts that never said which models they have, and may yet bring one for the role: none where the
        config names the role's candidates."""
        if self._named(role):
            return ()
        return tuple(name for name, host in self._hosts.items() if host.unheard(private=private))

    def _named(self, role: Role) -> tuple[str, ...]:
        return self._settings.root if role == "root" else self._settings.sub
