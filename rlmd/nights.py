"""What a run's life means for the machine and the person: it stays awake while one is at work, and they are told when
one that took long has ended.

Programs of the desktop do it: systemd-inhibit, busctl, and a command of the user's own. None of them is given any text:
no question, no answer, and of a private run no context's name either.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import signal
from collections.abc import Callable, Coroutine, Mapping

import structlog

from rlmd.config import Settings
from rlmd.engine import RunRecord
from rlmd.pool.commands import CommandFailed, output_of

#: A run must be at work for so long before the machine is kept awake: nothing falls asleep in less.
AWAKE_AFTER = 3.0
#: A run that waits for a host keeps it awake for so long: a host that is started anew, or boots, is back by then. One
#: that is gone must not keep a machine awake all night.
AWAKE_WAITING = 600.0
#: For the desktop to take a notification; for the user's command.
NOTIFY_SECONDS, COMMAND_SECONDS = 10.0, 300.0
#: Runs that nobody waits for the end of: what another program asks one thing after another, and single cells.
_UNTOLD = frozenset({"open", "execute"})
#: By systemd-inhibit: the lock is held until its command ends, and that ends with its input, so with us.
_INHIBIT = (
    *("systemd-inhibit", "--what=idle:sleep", "--who=rlmd", "--mode=block"),
    *("--why=A question is being answered", "cat"),
)
#: Up to the text: an application's name, no notification that it replaces, an icon; after it no actions, no hints, and
#: the desktop's own time.
_NOTIFY = (
    *("busctl", "--user", "--", "call", "org.freedesktop.Notifications", "/org/freedesktop/Notifications"),
    *("org.freedesktop.Notifications", "Notify", "susssasa{sv}i", "rlmd", "0", "dialog-information"),
)

log = structlog.get_logger(__name__)


class Nights:
    """``start`` it, hand ``changed`` to the engine, ``close`` it after the engine.

    Args:
        settings: Those in use at each moment.
        environment: For what is started.
    """

    def __init__(self, settings: Callable[[], Settings], environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._at_work: set[str] = set()
        #: Runs that wait for a host: when they cease to count.
        self._waiting: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._rest = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Programs that hold the lock, or were told to let go of it.
        self._letting_go: set[asyncio.Task[int]] = set()

    def start(self) -> None:
        self._own(self._keep_awake(), "keep awake")

    async def close(self) -> None:
        """What is still being told is cut off."""
        for timer in self._waiting.values():
            timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._letting_go:  # cut off while it waited for that
            await asyncio.wait(self._letting_go)

    def changed(self, record: RunRecord) -> None:
        """A run has begun, or its state is another."""
        if record.strategy != "open":  # open runs wait for their client, and what is asked in them are runs
            self._count(record)
        if record.outcome is not None and record.outcome != "cancelled" and record.strategy not in _UNTOLD:
            self._finished(record)

    # ── the machine ─────────────────────────────────────────────────────────────────────────────────────────

    def _count(self, record: RunRecord) -> None:
        """One that asks does not count, nor one that has waited long for a host: it may be long until anybody comes."""
        if record.state == "waiting" and record.run_id in self._at_work:
            if record.run_id not in self._waiting:
                loop = asyncio.get_running_loop()
                self._waiting[record.run_id] = loop.call_later(AWAKE_WAITING, self._rests, record.run_id)
            return
        if (timer := self._waiting.pop(record.run_id, None)) is not None:
            timer.cancel()
        if record.state == "running":
            self._at_work.add(record.run_id)
        else:
            self._at_work.discard(record.run_id)
        self._weigh()

    def _rests(self, run_id: str) -> None:
        self._waiting.pop(run_id, None)
        self._at_work.discard(run_id)
        self._weigh()

    def _weigh(self) -> None:
        busy = bool(self._at_work) and self._settings().power.keep_awake
        (self._wake.set if busy else self._wake.clear)()
        (self._rest.clear if busy else self._rest.set)()

    async def _keep_awake(self) -> None:
        while await self._wake.wait():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AWAKE_AFTER):
                    await self._rest.wait()
            if not self._rest.is_set() and not await self._held():
                await self._rest.wait()  # it is not tried again for this work

    async def _held(self) -> bool:
        """Holds the lock until nothing is at work; False where it cannot be had."""
        try:
            holder = await asyncio.create_subprocess_exec(
                *_INHIBIT, env=dict(self._environment), start_new_session=True, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            log.warning("not_kept_awake", error=type(error).__name__)
            return False
        log.info("kept_awake")
        ended = asyncio.create_task(holder.wait(), name="systemd-inhibit")
        self._letting_go.add(ended)
        ended.add_done_callback(self._letting_go.discard)
        rested = asyncio.create_task(self._rest.wait(), name="rest")
        try:
            await asyncio.wait({ended, rested}, return_when=asyncio.FIRST_COMPLETED)
            if self._rest.is_set():
                return True
            log.warning("not_kept_awake", status=holder.returncode)
            return False
        finally:
            rested.cancel()
            if holder.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(holder.pid, signal.SIGTERM)
            await asyncio.wait({ended, rested})

    # ── the person ──────────────────────────────────────────────────────────────────────────────────────────

    def _finished(self, record: RunRecord) -> None:
        finish = self._settings().finish
        seconds = max(0.0, (record.ended or record.created) - record.created)
        if seconds < finish.after:
            return
        if finish.notify:
            self._own(self._notify(record, seconds), f"notification of {record.run_id}")
        if finish.command:
            command = (os.path.expanduser(finish.command[0]), *finish.command[1:])
            self._own(self._run(command, record, seconds), f"command after {record.run_id}")

    async def _notify(self, record: RunRecord, seconds: float) -> None:
        summary = f"rlmd: {record.outcome} after {_span(seconds)}"
        # the desktop may read it as markup
        body = html.escape(f"{_contexts(record)} rlmctl run show {record.run_id[:8]}".strip(), quote=False)
        await self._tell(record, (*_NOTIFY, summary, body, "0", "0", "-1"), self._environment, NOTIFY_SECONDS)

    async def _run(self, command: tuple[str, ...], record: RunRecord, seconds: float) -> None:
        told = {
            "RLMD_RUN_ID": record.run_id,
            "RLMD_OUTCOME": record.outcome or "",
            "RLMD_SECONDS": f"{seconds:.0f}",
            "RLMD_PRIVATE": "1" if record.private else "0",
            "RLMD_CONTEXTS": _contexts(record),
        }
        await self._tell(record, command, {**self._environment, **told}, COMMAND_SECONDS)

    async def _tell(
        self, record: RunRecord, command: tuple[str, ...], environment: Mapping[str, str], seconds: float
    ) -> None:
        try:
            await output_of(command, environment, seconds)
        except CommandFailed as failure:
            log.warning("finish_not_told", run_id=record.run_id, program=command[0], error=str(failure))
        else:
            log.info("finish_told", run_id=record.run_id, program=command[0])

    def _own(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _contexts(record: RunRecord) -> str:
    return "" if record.private else ", ".join(pin.context for pin in record.contexts)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
