"""``rlmctl exec``: one cell in a session's REPL, by the person instead of a model."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl import options
from rlmd.ctl.exits import Exit
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output

_EXAMPLES = """\b
examples:
  rlmctl exec -c linux 'len(documents)'
  rlmctl exec -c linux --session rtnl 'hits = grep(r"rtnl_lock\\(")'
  rlmctl exec --session rtnl 'len(hits)'          the names are still there
  rlmctl exec -c linux - < cell.py
"""


def register(app: typer.Typer) -> None:
    app.command("exec", epilog=_EXAMPLES)(execute)


def execute(
    code: Annotated[
        str, typer.Argument(metavar="CODE", help="Python code; - reads it from standard input.", show_default=False)
    ],
    context: options.Contexts = None,
    session: options.Session = None,
    limit: options.Limit = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run code in the caged REPL. It has `context`, `documents`, `search`, `llm_query` and the rest."""
    limits = options.parse_limits(limit)
    source = sys.stdin.read() if code == "-" else code

    async def work(client: Client, output: Output) -> Exit:
        from rlmd.ctl.terminal import duration, shown
        from rlmd.wire.methods import ExecuteParams

        params = ExecuteParams(
            code=source, run_id=str(uuid.uuid4()), contexts=tuple(context or ()), session=session, limits=limits
        )
        result = await client.call("repl/execute", params)
        if json:
            output.model(result)
        else:
            output.out.write(shown(result.output))
            if result.output and not result.output.endswith("\n"):
                output.print()
            if result.final is not None:
                output.print(shown(result.final))
        if result.output_cut:
            output.remark(f"{result.output_cut:,} characters of output were left out")
        # The traceback stands in the output; an error without one, such as a limit, is told here alone.
        error = shown(result.error or "failed")
        word = "done" if result.ok else "failed" if error in result.output else error
        output.remark(f"{word} after {duration(result.seconds)}")
        return Exit.DONE if result.ok else Exit.ERROR

    with_daemon(work, quiet=quiet)
