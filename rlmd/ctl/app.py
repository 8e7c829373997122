"""The command line as a whole: which commands there are, the general help, nothing of what they do.

Importing this file must stay cheap (typer and the commands' signatures): what a command needs is imported when
it runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from rlmd import __version__
from rlmd.ctl.commands import (
    ask,
    batch,
    budget,
    config,
    context,
    daemon,
    evaluate,
    execute,
    host,
    install,
    mcp,
    program,
    query,
    rpc,
    run,
    session,
    setup,
    top,
)
from rlmd.ctl.examples import add_examples
from rlmd.ctl.exits import MEANING

_HELP = """Ask questions of texts of any size, answered with citations.

\b
  rlmctl ask -f /usr/share/doc "How do I …?"      a directory
  rlmctl ask -f report.txt -f notes/ "What …?"    several
  journalctl -b | rlmctl ask --stdin "What failed first?"
  rlmctl context load ~/src/linux --name linux    keep it under a name
  rlmctl ask -c linux "Who takes rtnl_lock?"      and ask it again and again
  rlmctl setup                                    the models that answer, asked for one by one
"""
_EXITS = "\b\nexit status:\n" + "\n".join(f"  {int(status):3}  {meaning}" for status, meaning in MEANING.items())

app = typer.Typer(
    help=_HELP,
    epilog=_EXITS,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rlmctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Takes the options that stand before a command."""


for module in (setup, ask, batch, execute, query, rpc, top, mcp, install, evaluate):
    module.register(app)
for name, group in (
    ("context", context.app),
    ("run", run.app),
    ("session", session.app),
    ("host", host.app),
    ("program", program.app),
    ("budget", budget.app),
    ("cache", budget.cache),
    ("daemon", daemon.app),
    ("config", config.app),
):
    app.add_typer(group, name=name)
daemon.register_short(app)
add_examples(app)
