"""``daemon/*``: what the daemon is and does, what to mend, what to throw away, and other settings."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping

from rlmd import __version__
from rlmd.errors import NotAllowed
from rlmd.pool.ledger import KEPT_DAYS
from rlmd.wire.connection import Connection
from rlmd.wire.dispatch import Handler
from rlmd.wire.handlers.doctor import Doctor
from rlmd.wire.handlers.hosts import host_info
from rlmd.wire.handlers.parts import Parts
from rlmd.wire.handlers.usage import Usage
from rlmd.wire.methods import DoctorResult, GcParams, GcResult, Nothing, ReloadResult, StatusResult


class DaemonHandlers:
    """``reload`` takes the settings as their files have them now."""

    def __init__(self, parts: Parts, reload: Callable[[], Awaitable[ReloadResult]]) -> None:
        self._parts = parts
        self._reload = reload
        self._doctor = Doctor(parts)
        self._usage = Usage(parts.paths, parts.threads)
        self._started = time.monotonic()

    def table(self) -> Mapping[str, Handler[Connection]]:
        return {
            "daemon/status": self.status,
            "daemon/doctor": self.doctor,
            "daemon/gc": self.gc,
            "daemon/reload": self.reload,
        }

    async def status(self, client: Connection, _: Nothing) -> StatusResult:
        """Counts are of what this client may know of."""
        parts = self._parts
        contexts = parts.contexts.statistics(egress=client.egress)
        runs, active = parts.engine.counts(egress=client.egress)
        pool = parts.pool.statistics()
        kept = parts.current.settings.retention
        return StatusResult(
            version=__version__,
            pid=os.getpid(),
            uptime=time.monotonic() - self._started,
            socket=str(parts.paths.socket),
            state_folder=str(parts.paths.state),
            config_files=tuple(map(str, parts.paths.config_files)),
            contexts=contexts.contexts,
            context_bytes=contexts.bytes,
            runs_active=active,
            runs=runs,
            sessions=parts.engine.session_count(egress=client.egress),
            workers=parts.workers.alive,
            hosts=tuple(map(host_info, parts.pool.hosts())),
            cache_entries=pool.cache_entries,
            cache_bytes=pool.cache_bytes,
            memory_bytes=resident_bytes(),
            draining=parts.engine.statistics().draining,
            implicit_days=kept.implicit_days,
            revisions_kept=kept.revisions,
            run_days=kept.run_days,
            run_bytes=kept.run_bytes,
            index_days=kept.index_days,
            ledger_days=KEPT_DAYS,
            sizes={} if client.egress else dict(await self._usage.sizes()),
            ephemeral_bytes=contexts.ephemeral_bytes,
        )

    async def gc(self, client: Connection, params: GcParams) -> GcResult:
        if client.egress:
            raise NotAllowed("This client may not remove anything.", hint="Use rlmctl gc.")
        found = await self._parts.engine.collect(dry_run=params.dry_run)
        total = sum(one.bytes for one in found)
        return GcResult.model_validate({"collected": found, "bytes": total}, from_attributes=True)

    async def reload(self, client: Connection, _: Nothing) -> ReloadResult:
        if client.egress:
            raise NotAllowed("This client may not change settings.", hint="Use rlmctl daemon reload.")
        return await self._reload()

    async def doctor(self, _: Connection, __: Nothing) -> DoctorResult:
        checks = await self._doctor.examine()
        return DoctorResult(ok=all(check.ok or not check.needed for check in checks), checks=checks)


def resident_bytes() -> int:
    """This process's memory in use, from the kernel."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
