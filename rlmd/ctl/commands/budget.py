"""``rlmctl budget`` and ``rlmctl cache``: what was spent, and what was not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl import options
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output
    from rlmd.wire.methods import BudgetResult, CacheResult

app = typer.Typer(
    help="What was spent, and what may be.", rich_markup_mode=None, invoke_without_command=True, no_args_is_help=False
)
cache = typer.Typer(help="Finished sub-queries on disk.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def show(
    context: typer.Context,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Also of this run.")] = None,
    json: options.Json = False,
) -> None:
    """Show what was spent today and this month, and the limits."""
    if context.invoked_subcommand is not None:
        return

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import BudgetParams

        result = await client.call("budget/show", BudgetParams(run_id=run))
        output.model(result) if json else print_budget(output, result)

    with_daemon(work)


@app.command()
def allow(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    json: options.Json = False,
) -> None:
    """Let a run spend, where budget.ask is on."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import BudgetAllowParams

        result = await client.call("budget/allow", BudgetAllowParams(run_id=run))
        output.model(result) if json else print_budget(output, result)

    with_daemon(work)


@cache.command()
def stats(json: options.Json = False) -> None:
    """Show how full the cache is. What it saved since the daemon's start is told too."""

    async def work(client: Client, output: Output) -> None:
        result = await client.call("cache/stats")
        output.model(result) if json else print_cache(output, result)

    with_daemon(work)


@cache.command()
def clear(json: options.Json = False) -> None:
    """Forget every finished sub-query. Runs keep theirs."""

    async def work(client: Client, output: Output) -> None:
        result = await client.call("cache/clear")
        output.model(result) if json else print_cache(output, result)

    with_daemon(work)


def dollars(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 100 else f"{amount:.4f}"


def print_budget(output: Output, result: BudgetResult) -> None:
    output.table(
        ("", "SPENT $", "SET ASIDE $", "LIMIT $"),
        [
            (
                account.name,
                dollars(account.spent),
                dollars(account.reserved),
                "none" if account.limit is None else dollars(account.limit),
            )
            for account in result.accounts
        ],
        right=(1, 2, 3),
    )
    if result.blocked:
        output.remark(result.blocked, "yellow")
    if result.ask:
        output.remark("Runs spend only after rlmctl budget allow RUN.")


def print_cache(output: Output, result: CacheResult) -> None:
    from rlmd.ctl.terminal import count, size

    output.print(f"{count(result.entries, 'entry', 'entries')}, {size(result.bytes)} of {size(result.limit_bytes)}")
    output.print(
        f"since the start: {result.hits:,} from the cache, {result.joined:,} shared with an equal request, "
        f"{result.completed:,} asked of hosts"
    )
