"""``rlmctl run``: runs of the past and the present."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlmd.ctl import options
from rlmd.ctl.exits import Exit, exit_of_run
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output
    from rlmd.wire.methods import RunInfo

app = typer.Typer(help="Questions asked so far, and those at work.", no_args_is_help=True, rich_markup_mode=None)

State = Literal["queued", "running", "asking", "waiting", "ended", "failed", "cancelled", "interrupted"]
Events = Annotated[bool, typer.Option("--events", help="Print its facts as lines of JSON.")]


@app.command("list")
def list_runs(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=10_000, help="How many, newest first.")
    ] = 20,
    json: options.Json = False,
) -> None:
    """List runs, newest first."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import ago, one_line
        from rlmd.wire.methods import RunListParams

        result = await client.call("run/list", RunListParams(state=state, limit=limit))
        if json:
            output.model(result)
            return
        now = time.time()
        digits = 8 if output.out.isatty() else None  # scripts get the whole id
        output.table(
            ("RUN", "STATE", "STARTED", "STRATEGY", "TURNS", "SUB-QUERIES", "QUESTION"),
            [
                (
                    run.run_id[:digits], _state(run), ago(now - run.created), run.strategy, str(run.turns),
                    str(run.sub_queries), one_line(run.question.text or run.question.preview or "", 80),
                )
                for run in result.runs
            ],
            right=(4, 5),
        )  # fmt: skip

    with_daemon(work)


@app.command()
def show(run: options.RunId, json: options.Json = False, events: Events = False) -> None:
    """Show a run with its answer, citations and receipt."""

    async def work(client: Client, output: Output) -> Exit | None:
        from rlmd.ctl.answer import print_answer
        from rlmd.ctl.progress import waits_until
        from rlmd.ctl.terminal import shown
        from rlmd.wire.methods import RunIdParams

        result = await client.call("run/show", RunIdParams(run_id=await options.resolve_run(client, run)))
        if json:
            output.model(result)
        elif events:
            await _print_facts(client, output, result.run)
        else:
            output.remark(shown(result.run.question.text or result.run.question.preview or ""), "bold")
            contexts = ", ".join(f"{pin.context} (revision {pin.revision})" for pin in result.run.contexts)
            output.remark(f"{result.run.run_id} · {_state(result.run)} · {result.run.strategy} · {shown(contexts)}")
            if result.run.asks is not None:
                output.remark(f"Waits for a yes: {shown(result.run.asks.why)}", "yellow")
                output.remark(f"rlmctl run confirm {result.run.run_id[:8]} [accept|refuse]")
            if result.run.waits is not None:
                output.remark(f"{shown(result.run.waits.why)} {waits_until(result.run.waits)}.", "yellow")
                for host in result.run.waits.hosts:
                    if host.why:
                        output.remark(shown(f"{host.name}: {host.why}"))
            print_answer(output, result)
        going = result.run.state in ("queued", "running", "asking", "waiting")
        return Exit.DONE if going else exit_of_run(result.run.state, result.run.outcome)

    with_daemon(work)


@app.command()
def cancel(
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Ids, or enough of their beginnings.", autocompletion=options.complete_run),
    ],
    json: options.Json = False,
) -> None:
    """Cancel runs; returns when they have ended."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import CancelParams

        for one in run:
            run_id = await options.resolve_run(client, one)
            ended = await client.call("run/cancel", CancelParams(run_id=run_id, why="rlmctl run cancel"))
            output.json_line(ended) if json else output.remark(f"{run_id[:8]} is {_state(ended)}", None)

    with_daemon(work)


@app.command()
def confirm(
    run: options.RunId,
    choice: Annotated[
        Literal["accept", "refuse"],
        typer.Argument(metavar="[accept|refuse]", help="refuse ends it with what it has found."),
    ] = "accept",
    strategy: Annotated[
        Literal["direct", "rlm", "map", "quote"] | None,
        typer.Option(help="Go about it so instead; the question names what can be chosen."),
    ] = None,
) -> None:
    """Answer a run that waits (as asking) because it would take long."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import ConfirmParams

        run_id = await options.resolve_run(client, run)
        params = ConfirmParams(run_id=run_id, choice=choice, strategy=strategy)
        answered = await client.call("run/confirm", params)
        output.remark(f"{run_id[:8]} is {_state(answered)}", None)

    with_daemon(work)


@app.command("continue")
def continue_run(
    run: options.RunId,
    turns: Annotated[int, typer.Option("--turns", metavar="N", min=0, help="More turns.")] = 0,
    sub_queries: Annotated[int, typer.Option("--sub-queries", metavar="N", min=0, help="More sub-queries.")] = 0,
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=0, help="More tokens.")] = 0,
    minutes: Annotated[float, typer.Option("--minutes", metavar="N", min=0, help="More time.")] = 0,
    errors: Annotated[int, typer.Option("--errors", metavar="N", min=0, help="More errors in a row.")] = 0,
    budget: Annotated[
        float, typer.Option("--budget", metavar="DOLLARS", min=0, help="More money, above budget.run.")
    ] = 0,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it to run.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print run, answer, citations and receipt as JSON.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Print each fact as a line of JSON as it comes.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Go on with a run that ended at a limit, from there. Without an amount it gets of that limit once more what it
    had."""
    if sum((json, events, detach)) > 1:
        raise options.usage_error("--json, --events and --detach exclude one another.")

    async def work(client: Client, output: Output) -> Exit:
        from rlmd.ctl.following import follow_to_end
        from rlmd.wire.methods import ContinueParams, RunIdParams

        run_id = await options.resolve_run(client, run)
        known = (await client.call("run/show", RunIdParams(run_id=run_id))).run
        params = ContinueParams(
            run_id=run_id,
            turns=turns,
            sub_queries=sub_queries,
            tokens=tokens,
            seconds=60 * minutes,
            consecutive_errors=errors,
            money=budget,
            last_seq=known.last_seq,
            attach=not detach,
        )
        if detach:
            await client.call("run/continue", params)
            output.remark(f"The run goes on. To come back: rlmctl run attach {run_id[:8]}", None)
            return Exit.DONE
        async with client.continue_run(params) as follower:
            return await follow_to_end(client, follower, output, "json" if json else "events" if events else "text")

    with_daemon(work, quiet=quiet)


@app.command()
def export(
    run: options.RunId,
    form: Annotated[
        Literal["html", "jsonl"],
        typer.Option("--format", "-f", help="A page for a browser, or the reference implementation's log."),
    ] = "html",
    file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it there, for you alone to read."),
    ] = None,
) -> None:
    """Export a run: the whole of it on one page, or as a log."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import ExportParams

        run_id = await options.resolve_run(client, run)
        parts: list[str] = []
        length, whole = 0, 1
        while length < whole:
            part = await client.call("run/export", ExportParams(run_id=run_id, form=form, start=length))
            parts.append(part.text)
            length, whole = length + len(part.text), part.chars
            if not part.text:
                break
        if file is None:
            output.print("".join(parts).rstrip("\n"))
        else:
            _write(file, "".join(parts))
            output.remark(f"{file}: {length:,} characters", None)

    with_daemon(work)


@app.command()
def fetch(
    run: options.RunId,
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="As a fact names it: run show --events.")],
) -> None:
    """Print a long text that a fact of a run names. Facts name a cell's output or a reply by its digest."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import shown
        from rlmd.wire.methods import FetchParams

        run_id = await options.resolve_run(client, run)
        parts: list[str] = []
        length, whole = 0, 1
        while length < whole:
            part = await client.call("run/fetch", FetchParams(run_id=run_id, digest=digest, start=length))
            parts.append(part.text or "")
            length, whole = length + len(parts[-1]), part.chars or 0
            if not part.text:
                break
        output.print(shown("".join(parts)).rstrip("\n"))

    with_daemon(work)


@app.command()
def delete(
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Ids, or enough of their beginnings.", autocompletion=options.complete_run),
    ],
    json: options.Json = False,
) -> None:
    """Delete runs that do not go on. Answer, facts, and what the models said go with them."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import RunIdParams

        for one in run:
            run_id = await options.resolve_run(client, one)
            done = await client.call("run/delete", RunIdParams(run_id=run_id))
            output.json_line(done) if json else output.remark(f"{run_id[:8]} is deleted", None)

    with_daemon(work)


@app.command()
def attach(
    run: options.RunId,
    json: Annotated[bool, typer.Option("--json", help="Print run, answer, citations and receipt as JSON.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Print each fact as a line of JSON as it comes.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Follow a run, from its beginning, to its end."""
    if json and events:
        raise options.usage_error("--json and --events exclude one another.")

    async def work(client: Client, output: Output) -> Exit:
        from rlmd.ctl.following import follow_to_end

        run_id = await options.resolve_run(client, run)
        async with client.follow(run_id) as follower:
            return await follow_to_end(client, follower, output, "json" if json else "events" if events else "text")

    with_daemon(work, quiet=quiet)


def _write(file: Path, text: str) -> None:
    """Nobody else may read it: a private text may be quoted in it."""
    from rlmd.errors import InvalidParams

    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.fchmod(descriptor, 0o600)
            stream.write(text)
    except OSError as error:
        raise InvalidParams(f"{file} cannot be written: {os.strerror(error.errno or 0)}.") from error


async def _print_facts(client: Client, output: Output, run: RunInfo) -> None:
    """Those that exist by now; a run that goes on is not waited for."""
    from rlmd.events import Delta

    if run.last_seq == 0:
        return
    async with client.follow(run.run_id, deltas=False) as follower:
        async for event in follower:
            if isinstance(event, Delta):
                continue
            output.json_line(event)
            if event.seq >= run.last_seq:
                break


def _state(run: RunInfo) -> str:
    """``ended`` says less than how it ended."""
    if run.state == "ended" and run.strategy == "execute":
        return "done" if run.outcome == "answered" else "error"
    if run.state == "ended" and run.outcome is not None:
        return "no answer" if run.outcome == "none" else run.outcome
    return run.state
