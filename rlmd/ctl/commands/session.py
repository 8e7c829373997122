"""``rlmctl session``: named REPLs that questions go on in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl import options
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output

app = typer.Typer(help="Named REPLs that questions go on in.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_sessions(json: options.Json = False) -> None:
    """List the named sessions."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import ago

        result = await client.call("session/list")
        if json:
            output.model(result)
            return
        now = time.time()
        output.table(
            ("NAME", "STATE", "CELLS", "USED", "CONTEXTS"),
            [
                (
                    session.name,
                    f"held by {session.held_by[:8]}" if session.held_by else "idle" if session.alive else "asleep",
                    str(session.cells),
                    ago(now - session.used),
                    ", ".join(f"{pin.context}@{pin.revision}" for pin in session.contexts),
                )
                for session in result.sessions
            ],
            right=(2,),
        )

    with_daemon(work)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=options.complete_session)],
    json: options.Json = False,
) -> None:
    """Show a session's variables and its last questions."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import ago, count, one_line
        from rlmd.wire.methods import NameParams

        result = await client.call("session/show", NameParams(name=name))
        if json:
            output.model(result)
            return
        session = result.session
        contexts = ", ".join(f"{pin.context}@{pin.revision}" for pin in session.contexts)
        used = f"used {ago(time.time() - session.used)}" if session.used else "not used yet"
        output.remark(" · ".join([session.name, count(session.cells, "cell"), used, *([contexts] if contexts else [])]))
        for question, answer in result.exchanges:
            output.remark(f"{one_line(question, 120)} — {one_line(answer, 200)}", None)
        output.table(("VARIABLE", "TYPE", "SIZE"), [(one.name, one.type, one.size) for one in result.names])

    with_daemon(work)


@app.command()
def reset(
    name: Annotated[list[str], typer.Argument(metavar="NAME", autocompletion=options.complete_session)],
    json: options.Json = False,
) -> None:
    """Begin sessions anew: their variables and questions are forgotten."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import NameParams

        for one in name:
            begun = await client.call("session/reset", NameParams(name=one))
            output.json_line(begun) if json else output.remark(f"{one} begins anew", None)

    with_daemon(work)


@app.command()
def drop(
    name: Annotated[list[str], typer.Argument(metavar="NAME", autocompletion=options.complete_session)],
    json: options.Json = False,
) -> None:
    """End sessions and forget their names."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import NameParams

        for one in name:
            done = await client.call("session/drop", NameParams(name=one))
            output.json_line(done) if json else output.remark(f"{one} is ended", None)

    with_daemon(work)
