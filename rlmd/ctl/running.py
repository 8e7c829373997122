"""What every command does: connect, do its work, tell errors, end with the right status."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

import typer

from rlmd.ctl.exits import Exit, exit_of_error
from rlmd.ctl.terminal import Output
from rlmd.errors import RlmdError

if TYPE_CHECKING:
    from rlmd.client import Client

Work = Callable[["Client", Output], Awaitable[Exit | None]]


def with_daemon(work: Work, *, start: bool = True, quiet: bool = False, private: bool = False) -> NoReturn:
    """Runs ``work`` with a connected client and leaves with its exit status.

    Args:
        start: Whether to start the daemon when none runs.
        private: Whether to have a daemon that ends with the work.
    """

    async def connected(output: Output) -> Exit | None:
        from rlmd.client import connect

        if private:
            from rlmd.client.private import private_daemon
            from rlmd.config import Paths

            paths = Paths.from_environment()
            async with private_daemon(paths) as socket, connect(socket, start=False, name="rlmctl") as client:
                return await work(client, output)
        async with connect(start=start, name="rlmctl") as client:
            return await work(client, output)

    leave(lambda output: asyncio.run(connected(output)), quiet=quiet)


def leave(work: Callable[[Output], Exit | None], *, quiet: bool = False) -> NoReturn:
    """Runs ``work``; every error that a user can meet becomes a sentence, a hint and an exit status."""
    output = Output.standard(quiet=quiet)
    try:
        status = work(output) or Exit.DONE
        output.flush()
    except RlmdError as error:
        output.error(error)
        status = exit_of_error(error)
    except ValueError as error:
        status = _wrong_values(error)
    except KeyboardInterrupt:
        status = Exit.CANCELLED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter's own flush must not fail
        status = Exit.BROKEN_PIPE
    raise typer.Exit(int(status))


def _wrong_values(error: ValueError) -> Exit:
    """Tells what the protocol does not take: an empty name, an argument that is no text in this locale."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        raise error
    for one in error.errors(include_url=False, include_input=False):
        where = ".".join(str(step).replace("_", "-") for step in one["loc"])
        what = "it is not UTF-8" if one["type"] == "string_unicode" else one["msg"][:1].lower() + one["msg"][1:]
        typer.echo(f"error: {where}: {what}.", err=True)
    return Exit.USAGE
