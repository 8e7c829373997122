"""``rlmctl host``: the servers whose models answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlmd.ctl import options
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output
    from rlmd.wire.methods import HostCalibrateResult, HostInfo, HostResult, NameParams

app = typer.Typer(help="The servers whose models answer.", no_args_is_help=True, rich_markup_mode=None)

_EXAMPLES = """\b
examples:
  rlmctl host add m40 http://m40:11434                      an Ollama: all its chat models
  rlmctl host add rtx http://rtx:11434 --model llama3.3:70b --slots 4 --window 16384
  rlmctl host add cloud https://api.deepseek.com --api-key-file ~/.config/rlmd/deepseek.key
  rlmctl host add cloud https://api.deepseek.com --api-key-command "pass show deepseek"
"""


@app.command("list")
def list_hosts(json: options.Json = False) -> None:
    """List hosts with state, slots and queue."""

    async def work(client: Client, output: Output) -> None:
        result = await client.call("host/list")
        if json:
            output.model(result)
        elif not result.hosts:
            output.remark("No host yet: rlmctl setup finds yours. Until then, questions are answered by quotes.", None)
        else:
            print_hosts(output, result.hosts)

    with_daemon(work)


@app.command(epilog=_EXAMPLES)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it listens, such as http://m40:11434.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Of its models only this one; can be repeated."),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=512, help="Requests that it may hold at a time.")
    ] = None,
    window: Annotated[int | None, typer.Option(metavar="TOKENS", min=256, help="Window to ask for, in tokens.")] = None,
    trust: Annotated[Literal["mine", "cloud"] | None, typer.Option(help="Whether private text may go there.")] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option("--api-key-env", metavar="VARIABLE", help="Variable of the daemon's environment with its key."),
    ] = None,
    api_key_file: Annotated[
        str | None, typer.Option("--api-key-file", metavar="PATH", help="File with its key.")
    ] = None,
    api_key_command: Annotated[
        str | None,
        typer.Option("--api-key-command", metavar="COMMAND", help="Command that prints its key and asks nothing."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Add a server to the config. It is asked what it is and which models it has."""
    if sum(one is not None for one in (api_key_env, api_key_file, api_key_command)) > 1:
        raise typer.BadParameter("give one of --api-key-env, --api-key-file and --api-key-command.")
    key_file = str(Path(api_key_file).expanduser().absolute()) if api_key_file else None
    key_command = _command(api_key_command)

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import shown
        from rlmd.wire.methods import HostAddParams

        params = HostAddParams(
            name=name,
            url=url,
            models=tuple(model or ()),
            slots=slots,
            window=window,
            trust=trust,
            api_key_env=api_key_env,
            api_key_file=key_file,
            api_key_command=key_command,
        )
        result = await client.call("host/add", params)
        if json:
            output.model(result)
            return
        print_hosts(output, (result.host,))
        for note in result.notes:
            output.remark(shown(note), "yellow")
        output.remark(f"written to {result.file}")

    with_daemon(work)


@app.command()
def pause(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=options.complete_host)],
    json: options.Json = False,
) -> None:
    """Give a host nothing more until it is resumed. What is under way there goes on."""
    _change(lambda client, host: client.call("host/pause", host), name, json)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=options.complete_host)],
    json: options.Json = False,
) -> None:
    """Give a paused host work again."""
    _change(lambda client, host: client.call("host/resume", host), name, json)


@app.command()
def wake(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=options.complete_host)],
    json: options.Json = False,
) -> None:
    """Wake a host's machine now. Its configuration has the command; when work waits, this happens by itself."""
    _change(lambda client, host: client.call("host/wake", host), name, json)


@app.command()
def calibrate(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=options.complete_host)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="Of its models only this one.")
    ] = None,
    useful_window: Annotated[
        int | None,
        typer.Option(
            "--useful-window",
            min=128,
            metavar="TOKENS",
            help="Measure nothing: remember that --model reads well up to so many tokens.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure a host. How fast does it read and write, how long load, how many requests at once are worth it?

    It does nothing else meanwhile. What was measured is remembered, and corrected as the host works.
    `rlmctl eval --quick` finds the useful windows of models and has them remembered here."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import HostCalibrateParams

        result = await client.call(
            "host/calibrate", HostCalibrateParams(name=name, model=model, useful_window=useful_window)
        )
        if json:
            output.model(result)
            return
        if useful_window is not None:
            used = next(one for one in result.host.models if model in (one.name, one.name.removesuffix(":latest")))
            output.remark(f"{name}/{used.name}: useful window {used.useful_window:,} of {used.window:,} tokens", None)
            return
        print_calibrations(output, result)

    with_daemon(work)


def print_calibrations(output: Output, result: HostCalibrateResult) -> None:
    from rlmd.ctl.terminal import duration

    output.table(
        ("MODEL", "READS TOK/S", "WRITES TOK/S", "SLOTS", "ALL SLOTS TOK/S", "FIRST", "LOADS", "WINDOW"),
        [
            (
                one.model,
                f"{one.prompt_speed:,.0f}",
                f"{one.output_speed:,.1f}",
                str(one.slots),
                f"{one.total_speed:,.1f}",
                f"{one.first_token:.2f} s",
                "–" if one.load_seconds is None else duration(one.load_seconds),
                str(one.window or "–"),
            )
            for one in result.calibrations
        ],
        right=(1, 2, 3, 4, 5, 6, 7),
    )
    measured = max(one.slots for one in result.calibrations)
    if measured != result.host.slots:
        output.remark(
            f"{result.host.name} is configured with {result.host.slots} slots; {measured} were measured. "
            f"Set slots = {measured} in its section of the config to use them.",
            "yellow",
        )


def _command(text: str | None) -> tuple[str, ...]:
    from rlmd.ctl.setup_keys import parsed_command

    if text is not None and not parsed_command(text):
        raise typer.BadParameter("--api-key-command is no command: is a quote open, or is it empty?")
    return parsed_command(text or "")


def _change(change: Callable[[Client, NameParams], Awaitable[HostResult]], name: str, json: bool) -> None:
    """Does it, and shows the host as it is then."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import NameParams

        result = await change(client, NameParams(name=name))
        output.model(result) if json else print_hosts(output, (result.host,))

    with_daemon(work)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=options.complete_host)],
    json: options.Json = False,
) -> None:
    """Remove a host that `host add` wrote."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.wire.methods import NameParams

        done = await client.call("host/remove", NameParams(name=name))
        output.model(done) if json else output.remark(f"{name} is removed", None)

    with_daemon(work)


def print_hosts(output: Output, hosts: tuple[HostInfo, ...]) -> None:
    """One line a host, then its models."""
    from rlmd.ctl.terminal import duration, one_line

    def state(host: HostInfo) -> str:
        if host.retry_in is not None:
            return f"{host.state}, retry in {duration(host.retry_in)}"
        return f"{host.state}, loading {one_line(host.loading)}" if host.loading else host.state

    output.table(
        ("HOST", "STATE", "SLOTS", "QUEUED", "DONE", "FAILED", "TRUST", "ROLES", "MODELS (WINDOW)", "URL"),
        [
            (
                host.name,
                state(host),
                f"{host.slots_used}{f'+{host.foreign}' if host.foreign else ''}/{host.slots}",
                str(host.queued),
                str(host.completed),
                str(host.failed),
                host.trust,
                " ".join(host.roles),
                ", ".join(f"{model.name} ({model.window})" for model in host.models),
                host.url,
            )
            for host in hosts
        ],
        right=(2, 3, 4, 5),
    )
    for host in hosts:
        if host.last_error:
            output.remark(f"{host.name}: {host.last_error}", "yellow")
