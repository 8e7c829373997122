"""``rlmctl query``: one prompt to one of the sub-models, with the pool's queue, cache and budget."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl import options
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output


def register(app: typer.Typer) -> None:
    app.command("query")(query)


def query(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="- reads it from standard input.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="MODEL, HOST or HOST/MODEL of the sub role.")
    ] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="To hosts of yours alone, and nothing of it on disk.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Ask a sub-model one prompt, as it is. It sees no context; `rlmctl ask` asks about texts."""
    text = sys.stdin.read() if prompt == "-" else prompt

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import shown
        from rlmd.wire.methods import OpenParams, QueryParams, RunIdParams

        run_id = str(uuid.uuid4())
        await client.call("run/open", OpenParams(run_id=run_id, title="rlmctl query", ephemeral=ephemeral))
        result = await client.call("llm/query", QueryParams(run_id=run_id, prompt=text, model=model))
        await client.call("run/close", RunIdParams(run_id=run_id))
        if json:
            output.model(result)
        else:
            output.print(shown(result.reply).rstrip("\n"))
            output.remark(f"{result.host}/{result.model}, from the {result.source}")

    with_daemon(work)
