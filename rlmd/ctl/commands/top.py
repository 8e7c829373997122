"""``rlmctl top``: the hosts at work, live on a terminal; in a pipe or with ``--once``, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl.commands.budget import dollars
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output
    from rlmd.wire.methods import BudgetResult, HostInfo, HostListResult

HEADER = ("HOST", "STATE", "SLOTS", "QUEUED", "DONE", "FAILED", "TOK/S", "FIRST", "WH", "WH $", "$", "IN MEMORY")
_RIGHT = (2, 3, 4, 5, 6, 7, 8, 9, 10)
#: What a narrow terminal does without, the first first.
_SPARED = ("WH $", "FIRST", "FAILED", "DONE", "IN MEMORY", "TOK/S", "WH", "QUEUED")
#: Between columns.
_GAP = 2


def register(root: typer.Typer) -> None:
    root.command()(top)


def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", "-s", metavar="N", min=0.2, help="Between looks.")] = 0.5,
) -> None:
    """Watch the hosts: slots, queue, speed, energy and money. Ctrl-C ends it. Never starts a daemon."""

    async def work(client: Client, output: Output) -> None:
        if once or not output.live:
            print_top(output, *await _look(client))
            return
        await _watch(client, output, seconds)

    with_daemon(work, start=False)


async def _look(client: Client) -> tuple[HostListResult, BudgetResult]:
    from rlmd.wire.methods import BudgetParams

    return await client.call("host/list"), await client.call("budget/show", BudgetParams())


async def _watch(client: Client, output: Output, seconds: float) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from rlmd.errors import NotConnected
    from rlmd.wire.methods import BudgetParams

    console = Console(file=output.out, no_color=not output.colour_out, highlight=False)

    def shown(hosts: HostListResult, budget: BudgetResult) -> Group:
        rows = rows_of(hosts.hosts)
        columns = columns_in(console.width, rows)
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
        for number in columns:
            table.add_column(HEADER[number], justify="right" if number in _RIGHT else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(row[number]) for number in columns))
        return Group(*map(Text, summary_of(hosts, budget)), Text(""), table, *map(Text, troubles_of(hosts.hosts)))

    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            try:
                async for hosts in client.watch_hosts(seconds):
                    live.update(shown(hosts, await client.call("budget/show", BudgetParams())), refresh=True)
            except NotConnected:  # stopped, or being restarted
                live.update(Text("No daemon runs. Waiting for one; Ctrl-C ends this."), refresh=True)
            await asyncio.sleep(seconds)


def print_top(output: Output, hosts: HostListResult, budget: BudgetResult) -> None:
    for line in summary_of(hosts, budget):
        output.print(line)
    output.table(HEADER, rows_of(hosts.hosts), right=_RIGHT)
    for line in troubles_of(hosts.hosts):
        output.remark(line, None)


def summary_of(hosts: HostListResult, budget: BudgetResult) -> list[str]:
    """What holds for all hosts together."""
    from rlmd.ctl.terminal import duration

    asked = hosts.cache_hits + hosts.completed
    share = f"{100 * hosts.cache_hits / asked:.0f} % of {asked:,} from the cache" if asked else "nothing asked yet"
    drain = f", done in about {duration(hosts.drain)}" if hosts.drain else ""
    spent = "   ".join(
        f"{account.name} ${dollars(account.spent)}"
        + (f" of {dollars(account.limit)}" if account.limit is not None else "")
        for account in budget.accounts
    )
    return [f"{hosts.queued:,} wait, {hosts.in_flight:,} under way{drain}   {share}", spent]


def columns_in(width: int, rows: Sequence[tuple[str, ...]]) -> list[int]:
    """Numbers of the columns for which a terminal of so many characters has room; what matters most stays."""
    columns = list(range(len(HEADER)))
    widths = [max(map(len, column)) + _GAP for column in zip(HEADER, *rows, strict=True)]
    for spared in map(HEADER.index, _SPARED):
        if sum(widths[number] for number in columns) - _GAP <= width:
            break
        columns.remove(spared)
    return columns


def troubles_of(hosts: Iterable[HostInfo]) -> list[str]:
    """Why hosts that are down are."""
    from rlmd.ctl.terminal import one_line

    return [f"{host.name}: {one_line(host.last_error)}" for host in hosts if host.state == "down" and host.last_error]


def _state_of(host: HostInfo) -> str:
    from rlmd.ctl.terminal import duration

    if host.retry_in is not None:
        return f"{host.state} {duration(host.retry_in)}"
    return "loading" if host.loading and host.state in ("ok", "busy") else host.state


def rows_of(hosts: Iterable[HostInfo]) -> list[tuple[str, ...]]:
    from rlmd.ctl.terminal import one_line

    def number(value: float | None, form: str = ".1f") -> str:
        return "–" if value is None else format(value, form)

    return [
        (
            host.name,
            _state_of(host),
            f"{host.slots_used}{f'+{host.foreign}' if host.foreign else ''}/{host.slots}",
            str(host.queued),
            str(host.completed),
            str(host.failed),
            number(host.meter.output_speed, ",.1f" if (host.meter.output_speed or 0) < 100 else ",.0f"),
            "–" if host.meter.first_token is None else f"{host.meter.first_token:.2f} s",
            number(host.meter.energy or None, ".2f"),
            dollars(host.meter.energy_cost) if host.meter.energy_cost else "–",
            dollars(host.meter.money) if host.meter.money else "–",
            one_line(", ".join([*host.resident, *([f"{host.loading} (loading)"] if host.loading else ())])) or "–",
        )
        for host in hosts
    ]
