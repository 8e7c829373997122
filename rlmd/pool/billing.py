"""What each attempt took: its energy, and its money as the ledger has it; added to the request's and the host's own."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from rlmd.pool.host import Host
from rlmd.pool.ledger import Ledger
from rlmd.pool.prices import NANO, energy, energy_cost
from rlmd.pool.tickets import Running, Ticket
from rlmd.providers.base import Usage

log = structlog.get_logger(__name__)


class Billing:
    """Over the ledger, which decides what is on disk and when."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def reserve(self, running: Running) -> None:
        """What the attempt may cost is on disk when this returns; only then may it be sent. Raises ``DiskFull``."""
        if running.dispatch.entry is not None:
            await self._ledger.keep(self._ledger.budget.entry(running.dispatch.entry))
        running.sent = True

    def settle(self, running: Running, ticket: Ticket | None, host: Host | None, seconds: float) -> bool:
        """An attempt has ended, however it did. Whether the host turned out to cost more than was reserved."""
        watts, slots = (host.settings.watts, host.slots) if host is not None else (None, 1)
        took = energy(watts, seconds, slots) if running.sent else 0.0
        cost = energy_cost(took, self._ledger.budget.price_per_kwh)
        if ticket is not None:
            ticket.energy += took
            ticket.energy_cost += cost
        if host is not None:
            host.meter.energy += took
            host.meter.energy_cost += cost
            if running.completion is not None:
                host.meter.replied(running.completion.usage, running.first_token, seconds)
        return running.dispatch.entry is not None and self._settle_money(running.dispatch.entry, running, ticket, host)

    def _settle_money(self, number: int, running: Running, ticket: Ticket | None, host: Host | None) -> bool:
        usage = running.completion.usage if running.completion is not None else None
        if not running.sent:
            running.spent = 0
        elif usage is not None and not usage.estimated:
            running.spent = self._cost(number, running, host, usage)
        read, written = (usage.prompt_tokens, usage.completion_tokens) if usage is not None else (0, 0)
        entry = self._ledger.budget.settle(number, running.spent, read, written)
        if running.sent:
            self._ledger.note(entry)
        if ticket is not None:
            ticket.spent += entry.counts
        if host is None:
            return False
        host.meter.money += entry.counts / NANO
        if entry.counts <= entry.reserved:
            return False
        host.overcharged(running.dispatch.target.model, entry.counts / entry.reserved)
        log.warning("reservation_exceeded", host=host.name, spent=entry.counts, reserved=entry.reserved)
        return True

    def _cost(self, number: int, running: Running, host: Host | None, usage: Usage) -> int | None:
        model = running.dispatch.target.model
        offered = host.models((model,)).get(model) if host is not None else None
        if offered is None or offered.price is None:
            return None
        sent = datetime.fromtimestamp(self._ledger.budget.entry(number).at, UTC)
        return offered.price.cost(usage, (sent, datetime.now(UTC)))
