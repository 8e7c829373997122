"""``rlmctl mcp``: the MCP server, for Claude Code, OpenCode and other clients to start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlmd.ctl import options
from rlmd.ctl.exits import Exit
from rlmd.ctl.running import leave
from rlmd.ctl.terminal import Output
from rlmd.errors import Unavailable

_EXAMPLES = """\b
It speaks MCP on standard input and output, so a client starts it:
  claude mcp add rlmd -- rlmctl mcp
  rlmctl install opencode --write
What is private does not exist for it. Files are loaded only beneath the client's roots, or --root, or the folder that
it was started in. All that a client asks takes from one purse: --limit sub_queries=500
"""


def register(app: typer.Typer) -> None:
    app.command("mcp", epilog=_EXAMPLES)(mcp)


def mcp(
    root: Annotated[
        list[Path] | None,
        typer.Option("--root", metavar="FOLDER", help="Beneath which files may be loaded; can be repeated."),
    ] = None,
    limit: options.Limit = None,
) -> None:
    """Serve the tools of rlmd to one MCP client (stdio)."""
    limits = options.parse_limits(limit)

    def work(_: Output) -> Exit:
        try:
            from rlmd.mcp.server import run
        except ModuleNotFoundError as error:
            if error.name not in ("mcp", "mcp_types"):
                raise
            raise Unavailable(
                "The MCP SDK is not installed.", hint="Install it with: pip install 'rlmd[mcp]'"
            ) from None
        run(roots=[folder.absolute() for folder in root or ()], limits=limits)
        return Exit.DONE

    leave(work)
