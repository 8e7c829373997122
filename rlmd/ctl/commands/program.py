"""``rlmctl program``: strategies of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from rlmd.ctl import options
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output

app = typer.Typer(help="Strategies of your own, for --strategy.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Keeps ``list`` a command of its own while it is the only one."""


@app.command("list")
def list_programs(json: options.Json = False) -> None:
    """List your programs. They are in ~/.config/rlmd/programs; what is wrong with one is told."""

    async def work(client: Client, output: Output) -> None:
        result = await client.call("program/list")
        if json:
            output.model(result)
        elif not result.programs:
            output.remark(f"No program yet: a file {result.folder}/NAME.py is one.", None)
        else:
            output.table(
                ("PROGRAM", "WHAT", "FILE"),
                [(one.name, one.problem or one.summary, one.file) for one in result.programs],
            )

    with_daemon(work)
