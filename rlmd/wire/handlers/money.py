"""``budget/*`` and ``cache/*``. A client whose reading may leave the machine neither spends nor clears."""

from __future__ import annotations

from collections.abc import Mapping

from rlmd.errors import NotAllowed
from rlmd.wire import methods as m
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Handler
from rlmd.wire.handlers.parts import Parts


class MoneyHandlers:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def table(self) -> Mapping[str, Handler[Connection]]:
        return {
            "budget/show": self.show,
            "budget/allow": self.allow,
            "cache/stats": self.stats,
            "cache/clear": self.clear,
        }

    async def show(self, client: Connection, params: m.BudgetParams) -> m.BudgetResult:
        if params.run_id is not None:  # raises for one that this client may not know of
            self._parts.engine.run(params.run_id, egress=client.egress)
        return self._result(params.run_id)

    async def allow(self, client: Connection, params: m.BudgetAllowParams) -> m.BudgetResult:
        _refuse_egress(client, "let a run spend", "rlmctl budget allow")
        self._parts.engine.run(params.run_id, egress=client.egress)
        self._parts.pool.allow_spending(params.run_id)
        return self._result(params.run_id)

    async def stats(self, _: Connection, __: m.Nothing) -> m.CacheResult:
        return self._cache()

    async def clear(self, client: Connection, _: m.Nothing) -> m.CacheResult:
        _refuse_egress(client, "clear the cache", "rlmctl cache clear")
        await self._parts.pool.clear_cache()
        return self._cache()

    def _result(self, run_id: str | None) -> m.BudgetResult:
        pool, settings = self._parts.pool, self._parts.current.settings.budget
        accounts = (m.BudgetAccount.model_validate(one, from_attributes=True) for one in pool.accounts(run_id))
        return m.BudgetResult(
            accounts=tuple(accounts),
            ask=settings.ask,
            overflow_after=settings.overflow_after,
            blocked=pool.spending_blocked,
        )

    def _cache(self) -> m.CacheResult:
        now = self._parts.pool.statistics()
        return m.CacheResult(
            entries=now.cache_entries,
            bytes=now.cache_bytes,
            limit_bytes=self._parts.current.settings.cache.bytes,
            hits=now.cache_hits,
            joined=now.joined,
            completed=now.completed,
        )


def _refuse_egress(client: Connection, what: str, command: str) -> None:
    if client.egress:
        raise NotAllowed(
            f"This client may not {what}: what it reads may leave the machine.", hint=f"Use {command} in a terminal."
        )
