"""The roles and the money of ``rlmctl setup``: proposed, taken as they are or changed by a person."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from rlmd.config import BudgetSettings, RoleSettings
from rlmd.ctl.asking import Asker
from rlmd.ctl.proposing import Offer, Roles, by_candidate, proposed
from rlmd.ctl.terminal import Output
from rlmd.errors import InvalidParams, NotFound
from rlmd.validation import nearest_of

Table = dict[str, Any]
Remarks = dict[tuple[str, ...], str]

#: Dollars that are proposed where nothing is set.
_PROPOSED = {"day": 1.0, "month": 20.0}
_MEANING = {
    "root": "Who leads a run and writes its cells, best first; the next one only when those before it do not answer.",
    "sub": "Who answers the cells' sub-queries, all of them at once; a model that is not named, for --model only.",
}


class RoleQuestions:
    """Each method gives what belongs into the section; None leaves it to the other files.

    Args:
        offers: All models that can be named.
        earlier: What an earlier setup wrote.
    """

    def __init__(self, ask: Asker, output: Output, offers: Sequence[Offer], earlier: Table) -> None:
        self._ask, self._output, self._earlier = ask, output, earlier
        self._offers = offers
        self._known = by_candidate(offers)

    def roles(self, others: RoleSettings) -> Roles | None:
        if others.root or others.sub:
            self._output.print(f"Roles of your config:\n{_told(Roles(others.root, others.sub))}")
            if self._ask.yes("Do they stay as they are?", otherwise=True):
                return None
        before, found = roles_of(self._earlier), proposed(self._offers)
        self._output.print(f"Proposed, best first:\n{_told(found)}")
        if before:
            self._output.print(f"Until now:\n{_told(before)}")
        choices = ("take", "edit", "keep") if before else ("take", "edit")
        match self._ask.choice("Take what is proposed", choices, otherwise="take"):
            case "edit":
                return Roles(self._role("root", found.root), self._role("sub", found.sub))
            case "keep" if before:
                return before
            case _:
                return found

    def remarks(self, roles: Roles) -> Remarks:
        """What is said of the candidates in the file."""
        found: Remarks = {}
        for role, candidates in (("root", roles.root), ("sub", roles.sub)):
            each = [f"  {one}: {self._known[one].told()}" for one in candidates if one in self._known]
            found["roles", role] = "\n".join([_MEANING[role], *each])
        return found

    def budget(self, others: BudgetSettings, said: Mapping[str, float | None]) -> Table | None:
        """Asked only where something can cost money, and only for what no other file says.

        Args:
            said: Dollars of ``day`` and ``month``, where the command line has them.
        """
        found = {name: value for name, value in said.items() if value is not None}
        if any(offer.trust == "cloud" for offer in self._offers):
            earlier = self._earlier.get("budget", {})
            for name, proposal in _PROPOSED.items():
                if name in found or getattr(others, name) is not None:
                    continue
                value = self._money(name, earlier.get(name, proposal))
                if value is not None:
                    found[name] = value
        return found or None

    def _role(self, role: str, proposal: tuple[str, ...]) -> tuple[str, ...]:
        while True:
            given = self._ask.text(f"{role}, best first", otherwise=" ".join(proposal)).replace(",", " ").split()
            wrong = next((one for one in given if one not in self._known), None)
            if wrong is None:
                return tuple(dict.fromkeys(given))
            near = nearest_of(wrong, self._known)
            hint = f"Did you mean {near}?" if near else f"There are: {', '.join(self._known)}."
            self._ask.again(NotFound(f"No host offers {wrong[:100]!r}.", hint=hint))

    def _money(self, name: str, now: float) -> float | None:
        while True:
            given = self._ask.text(f"Dollars a {name} at most (none: no limit)", otherwise=f"{now:g}").lstrip("$")
            if given.lower() == "none":
                return None
            with contextlib.suppress(ValueError):
                if 0 <= (dollars := float(given)) < 1e9:
                    return dollars
            self._ask.again(InvalidParams(f"{given[:100]!r} is no sum of money.", hint="Such as 1.50, or none."))


def roles_of(table: Table) -> Roles | None:
    """The roles of a config, where it has some."""
    roles = table.get("roles")
    if not isinstance(roles, dict):
        return None
    return Roles(tuple(roles.get("root", ())), tuple(roles.get("sub", ())))


def _told(roles: Roles) -> str:
    each = (("root", roles.root), ("sub ", roles.sub))
    return "\n".join(f"    {role}  {', '.join(candidates) or 'every model'}" for role, candidates in each)
