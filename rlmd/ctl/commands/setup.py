"""``rlmctl setup``: from nothing to a working desk, by questions. Nothing is changed before the last yes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl import options
from rlmd.ctl.exits import Exit
from rlmd.ctl.running import leave

if TYPE_CHECKING:
    from rlmd.config import Paths
    from rlmd.ctl.host_questions import Said
    from rlmd.ctl.interview import Plan
    from rlmd.ctl.setup_hosts import Caller
    from rlmd.ctl.terminal import Output

_EXAMPLES = """\b
examples:
  rlmctl setup                          asks everything
  rlmctl setup m40 rtx p100:8080        these servers; asks the rest
  rlmctl setup --yes m40 rtx            asks nothing, takes what it proposes
  rlmctl setup --yes m40 --cloud deepseek --key-file ~/deepseek.key --day 1 --month 20
  rlmctl setup --yes m40 --dry-run      prints the config instead of writing it
"""
#: A question that anybody can try: about a text that is on every machine that has rlmd.
_QUESTION = "How does Python avoid zombie processes?"


def register(app: typer.Typer) -> None:
    app.command("setup", epilog=_EXAMPLES)(setup)


def setup(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ADDRESS]...", help="Your model servers: m40, rtx:8080 or http://192.168.1.5:11434."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take what would be proposed.")] = False,
    cloud: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER", help="Also a cloud provider: deepseek, anthropic, glm, openrouter or a URL."),
    ] = None,
    cloud_model: Annotated[
        str | None, typer.Option("--cloud-model", metavar="MODEL", help="Its model; by default the cheapest.")
    ] = None,
    key_file: Annotated[
        str | None, typer.Option("--key-file", metavar="PATH", help="File that holds the provider's key.")
    ] = None,
    key_command: Annotated[
        str | None, typer.Option("--key-command", metavar="COMMAND", help="Command that prints it.")
    ] = None,
    key_credential: Annotated[
        str | None, typer.Option("--key-credential", metavar="NAME", help="systemd credential of the daemon with it.")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option("--key-env", metavar="VARIABLE", help="Variable of the daemon's environment with it.")
    ] = None,
    day: Annotated[float | None, typer.Option(metavar="DOLLARS", min=0, help="To spend in a day at most.")] = None,
    month: Annotated[float | None, typer.Option(metavar="DOLLARS", min=0, help="To spend in a month at most.")] = None,
    calibrate: Annotated[
        bool | None, typer.Option("--calibrate/--no-calibrate", help="Measure the new hosts' speeds and slots.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the config, and write nothing.")] = False,
) -> None:
    """Set up hosts, roles and budget. It looks at your servers, proposes, and writes a commented config.

    What your other files of settings say stays as it is. A key is never part of the config.
    """
    from rlmd.ctl.host_questions import Said
    from rlmd.ctl.setup_keys import Key, parsed_command, readable

    if sum(one is not None for one in (key_file, key_command, key_credential, key_env)) > 1:
        raise options.usage_error("Of --key-file, --key-command, --key-credential and --key-env give one.")
    if key_command is not None and not parsed_command(key_command):
        raise options.usage_error(f"--key-command {shlex.quote(key_command)} cannot be read as a command.")
    file = readable(key_file) if key_file else key_credential
    key = Key(env=key_env, file=file, command=parsed_command(key_command or ""))
    if cloud is not None and yes and not key.settings:
        raise options.usage_error("--cloud with --yes needs a key: --key-file, --key-command or another of them.")
    said = Said(tuple(addresses or ()), cloud, cloud_model, key, day, month)
    leave(lambda output: _set_up(output, said, yes=yes, calibrate=calibrate, dry_run=dry_run))


def _set_up(output: Output, said: Said, *, yes: bool, calibrate: bool | None, dry_run: bool) -> Exit:
    from rlmd.config import Paths
    from rlmd.ctl import setup_file
    from rlmd.ctl.asking import Nobody, Person
    from rlmd.ctl.interview import interview
    from rlmd.ctl.setup_hosts import Caller
    from rlmd.errors import InvalidParams

    if not (yes or sys.stdin.isatty()):
        raise InvalidParams(
            "There is nobody to ask: standard input is no terminal.",
            hint="Say --yes with what you would answer, such as: rlmctl setup --yes m40:11434",
        )
    ask = Nobody() if yes else Person(output)
    paths, call = Paths.from_environment(), Caller()
    try:
        plan = interview(ask, call, output, paths, said)
        if dry_run:
            output.out.write(plan.text)
            return Exit.DONE
        for file in (*plan.keys, setup_file.place(paths)):
            output.print(f"write {file}{' (in place of the one that is there)' if file.exists() else ''}")
        if not ask.yes("Write it?", otherwise=True):
            output.remark("Nothing was changed.", None)
            return Exit.CANCELLED
    except KeyboardInterrupt:
        output.remark("\nNothing was changed.", None)
        raise
    with _undisturbed():
        _write(output, paths, plan)
    _reload(output, call)
    if plan.measure and (ask.yes(_MEASURE, otherwise=True) if calibrate is None else calibrate):
        _measure(output, call, plan)
    folder = os.path.dirname(os.__file__)
    output.print(f'Try it: rlmctl ask -f {folder} --exclude site-packages "{_QUESTION}"')
    return Exit.DONE


_MEASURE = "Measure the new hosts now? It takes some seconds each, and longer where a model must be loaded first"


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and the like wait for the few milliseconds that the files take."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _write(output: Output, paths: Paths, plan: Plan) -> None:
    """The keys first: a config never names a key that is not there."""
    from rlmd.ctl import setup_file

    for file, key in plan.keys.items():
        setup_file.write_private(file, key + "\n")
    kept = setup_file.write(paths, plan.text)
    output.remark(f"written to {setup_file.place(paths)}" + (f"; what was there is {kept}" if kept else ""), None)


def _reload(output: Output, call: Caller) -> None:
    waiting = call(lambda client: client.call("daemon/reload")).restart
    output.remark("The daemon uses it.", None)
    if waiting:
        output.remark(f"{', '.join(waiting)} will be used when it is started again: rlmctl daemon stop", "yellow")


def _measure(output: Output, call: Caller, plan: Plan) -> None:
    """What cannot be measured now can be later: the config stands all the same."""
    from rlmd.ctl.commands.host import print_calibrations
    from rlmd.errors import RlmdError
    from rlmd.wire.methods import HostCalibrateParams

    for host, model in plan.measure:
        output.remark(f"measuring {host}/{model} … (Ctrl-C: later, by rlmctl host calibrate {host})")
        params = HostCalibrateParams(name=host, model=model)
        try:
            print_calibrations(output, call(lambda client, params=params: client.call("host/calibrate", params)))  # type: ignore[misc]
        except RlmdError as error:
            output.remark(f"{host} was not measured: {error.message}", "yellow")
            output.hint(f"Later: rlmctl host calibrate {host}")
        except KeyboardInterrupt:
            output.remark(f"{host} is not measured; later: rlmctl host calibrate {host}", None)
            return
