"""``rlmctl daemon``: is it there, is it well, start it, stop it. ``status`` and ``doctor`` also stand alone."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl import options
from rlmd.ctl.exits import Exit
from rlmd.ctl.running import leave, with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output
    from rlmd.soundness import Finding
    from rlmd.wire.methods import Check, DoctorResult, StatusResult

app = typer.Typer(help="The daemon itself.", no_args_is_help=True, rich_markup_mode=None)

#: Seconds that a draining daemon is given before stop gives up waiting; it is not killed.
PATIENCE = 30.0


def register_short(root: typer.Typer) -> None:
    """The two that are wanted most stand at the top too."""
    root.command("status")(status)
    root.command("doctor")(doctor)
    root.command("gc")(gc)


@app.command()
def status(json: options.Json = False) -> None:
    """Say whether a daemon runs, and what it does. Never starts one."""

    async def work(client: Client, output: Output) -> None:
        result = await client.call("daemon/status")
        if json:
            output.model(result)
        else:
            _print_status(output, result)

    with_daemon(work, start=False)


@app.command()
def doctor(
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Where rlmd's Python was exchanged, make its environment anew without asking."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Try each part and say what to mend. Needs no daemon; where one runs or can be started, it is asked too."""
    del fix  # what it mends keeps this program from starting: launcher.py has done it before

    def work(output: Output) -> Exit:
        result = asyncio.run(_examine())
        if json:
            output.model(result)
        else:
            _print_checks(output, result)
        return Exit.DONE if result.ok else Exit.ERROR

    leave(work)


async def _examine() -> DoctorResult:
    """What the daemon says of itself; without one, what can be seen from here."""
    from rlmd.client import connect
    from rlmd.config import Paths
    from rlmd.errors import NotConnected
    from rlmd.soundness import of_folders, of_installation, of_settings
    from rlmd.wire.methods import Check, DoctorResult

    paths = Paths.from_environment()

    def checks(findings: list[Finding]) -> tuple[Check, ...]:
        return tuple(
            Check(name=one.name, ok=one.ok, message=one.message, hint="" if one.ok else one.hint) for one in findings
        )

    here = checks(of_installation(paths))
    try:
        async with connect(name="rlmctl") as client:
            told = (await client.call("daemon/doctor")).checks
    except NotConnected as error:
        missing = Check(name="daemon", ok=False, message=error.message, hint=error.hint)
        told = (*checks(of_settings(paths)), *checks(of_folders(paths)), missing)
    found = (*here, *told)
    return DoctorResult(ok=all(check.ok or not check.needed for check in found), checks=found)


def _print_checks(output: Output, result: DoctorResult) -> None:
    from rlmd.ctl.terminal import shown

    for check in result.checks:
        output.print(f"{_mark(output, check)} {check.name}: {shown(check.message)}")
        if check.hint:
            output.print("     " + shown(check.hint).strip().replace("\n", "\n     "))


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, say what would be.")] = False,
    json: options.Json = False,
) -> None:
    """Remove what has expired; once a day the daemon does so by itself. Named contexts stay."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import one_line, size
        from rlmd.wire.methods import GcParams

        result = await client.call("daemon/gc", GcParams(dry_run=dry_run))
        if json:
            output.model(result)
            return
        for one in result.collected:
            output.print(f"{one.what} {one_line(one.name)}: {size(one.bytes)}, {one.why}")
        output.remark(f"{size(result.bytes)} {'would be' if dry_run else 'are'} free", None)

    with_daemon(work)


def _mark(output: Output, check: Check) -> str:
    if check.ok:
        return output.painted("ok  ", "green")
    return output.painted("FAIL", "red") if check.needed else output.painted("--  ", "yellow")


@app.command()
def start() -> None:
    """Start the daemon if none runs. It is started by systemd's rlmd.socket, else as a process of its own."""

    leave(lambda output: asyncio.run(_started(output)))


@app.command()
def reload(json: options.Json = False) -> None:
    """Take the settings as their files have them now. Runs go on with those that they began with."""

    async def work(client: Client, output: Output) -> None:
        result = await client.call("daemon/reload")
        if json:
            output.model(result)
            return
        for name in result.applied:
            output.print(f"{name}: in use")
        for name in result.restart:
            output.print(f"{name}: needs a restart (rlmctl daemon restart)")
        if not result.applied and not result.restart:
            output.remark("Nothing has changed.", None)

    with_daemon(work, start=False)


@app.command()
def restart() -> None:
    """Stop the daemon and start it anew. After an upgrade, or for settings that a reload does not take; runs at work go
    on in the new one."""

    def work(output: Output) -> Exit:
        from rlmd.errors import NotConnected

        try:
            asyncio.run(_stop(output, wait=True))
        except NotConnected as error:
            output.remark(error.message, None)
        return asyncio.run(_started(output))

    leave(work)


async def _started(output: Output) -> Exit:
    from rlmd.client import connect

    async with connect(name="rlmctl") as client:
        result = await client.call("daemon/status")
    output.remark(f"rlmd {result.version} runs as process {result.pid} on {result.socket}", None)
    return Exit.DONE


@app.command()
def stop(
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when it has ended.")] = True,
) -> None:
    """Stop the daemon. Runs at work are interrupted; contexts and answers stay."""

    def work(output: Output) -> Exit:
        return asyncio.run(_stop(output, wait))

    leave(work)


async def _stop(output: Output, wait: bool) -> Exit:
    import signal

    from rlmd.client import connect
    from rlmd.errors import Unavailable

    async with connect(start=False, name="rlmctl") as client:
        pid = (await client.call("daemon/status")).pid
        # A descriptor, not a number: the daemon cannot be mistaken for a later process of the same number.
        process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if wait and not await _ended(process):
            raise Unavailable(
                f"The daemon (process {pid}) has not ended after {PATIENCE:.0f} s.", hint="rlmctl status tells more."
            )
    finally:
        os.close(process)
    output.remark(f"rlmd (process {pid}) {'has ended' if wait else 'is ending'}", None)
    return Exit.DONE


async def _ended(process: int) -> bool:
    """Waits for the process of a descriptor to end; False when it takes too long."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(process, gone.set)
    try:
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(process)
    return True


def _print_status(output: Output, status: StatusResult) -> None:
    from rlmd import __version__
    from rlmd.ctl.commands.host import print_hosts
    from rlmd.ctl.terminal import count, duration, one_line, size

    draining = ", stopping" if status.draining else ""
    output.print(f"rlmd {status.version}, process {status.pid}, up {duration(status.uptime)}{draining}")
    output.print(f"contexts  {status.contexts} ({size(status.context_bytes)})")
    output.print(f"runs      {status.runs_active} at work, {count(status.runs, 'run')} in all")
    output.print(f"sessions  {status.sessions}, {count(status.workers, 'worker')}")
    output.print(f"cache     {count(status.cache_entries, 'reply', 'replies')} ({size(status.cache_bytes)})")
    if status.revisions_kept:
        kept = f"implicit contexts {status.implicit_days:g} days unused, {status.revisions_kept} revisions of each"
        if status.run_days:
            runs = f"runs {status.run_days:g} days and up to {size(status.run_bytes)}"
            kept = f"{kept}, {runs}, search indexes {status.index_days:g} days unused"
            kept += f", money by request {status.ledger_days} days, its sums for good" if status.ledger_days else ""
        output.print(f"kept      {kept} (rlmctl gc)")
    if status.sizes:
        parts = ", ".join(f"{name} {size(taken)}" for name, taken in status.sizes.items() if taken)
        output.print(f"on disk   {parts or 'nothing'}")
    in_memory = f", {size(status.ephemeral_bytes)} of ephemeral text" if status.ephemeral_bytes else ""
    output.print(f"memory    {size(status.memory_bytes)}{in_memory}")
    output.print(f"socket    {one_line(status.socket)}")
    output.print(f"state     {one_line(status.state_folder)}")
    output.print(f"config    {', '.join(map(one_line, status.config_files)) or 'defaults'}")
    if status.hosts:
        output.print()
        print_hosts(output, status.hosts)
    else:
        output.print("hosts     none: questions are answered by quotes (rlmctl host add NAME URL)")
    if status.version != __version__:
        output.remark(f"This rlmctl is {__version__}: restart the daemon (rlmctl daemon restart).", "yellow")
