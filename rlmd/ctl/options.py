"""Options that several commands share, spelled once, and what completes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl.exits import Exit

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.wire.methods import LimitParams

#: Seconds after which completing gives up: a person waits at the TAB key.
COMPLETION = 1.0
#: Runs offered by completion.
RUNS = 30


Names = Callable[["Client"], Awaitable[list[tuple[str, str]]]]


def _complete(names: Names) -> Callable[[str], list[tuple[str, str]]]:
    """Completes from what a running daemon tells; never starts one, never complains."""

    async def ask() -> list[tuple[str, str]]:
        from rlmd.client import connect

        async with asyncio.timeout(COMPLETION), connect(start=False, name="rlmctl completion") as client:
            return await names(client)

    def complete(incomplete: str) -> list[tuple[str, str]]:
        from rlmd.errors import RlmdError

        with contextlib.suppress(RlmdError, TimeoutError, OSError):
            return [(name, told) for name, told in asyncio.run(ask()) if name.startswith(incomplete)]
        return []

    return complete


async def _contexts(client: Client) -> list[tuple[str, str]]:
    from rlmd.ctl.terminal import count

    listed = (await client.call("context/list")).contexts
    return [(context.name, count(context.documents, "document")) for context in listed]


async def _runs(client: Client) -> list[tuple[str, str]]:
    from rlmd.ctl.terminal import one_line
    from rlmd.wire.methods import RunListParams

    listed = (await client.call("run/list", RunListParams(limit=RUNS))).runs
    return [(run.run_id, one_line(run.question.text or run.question.preview or "", 60)) for run in listed]


async def _sessions(client: Client) -> list[tuple[str, str]]:
    listed = (await client.call("session/list")).sessions
    return [(session.name, f"{session.cells} cells") for session in listed]


async def _strategies(client: Client) -> list[tuple[str, str]]:
    from rlmd.events import STRATEGIES

    own = (await client.call("program/list")).programs
    return [*((name, "") for name in STRATEGIES), *((one.name, one.summary) for one in own if one.problem is None)]


async def _hosts(client: Client) -> list[tuple[str, str]]:
    return [(host.name, host.url) for host in (await client.call("host/list")).hosts]


complete_context = _complete(_contexts)
complete_run = _complete(_runs)
complete_session = _complete(_sessions)
complete_host = _complete(_hosts)
complete_strategy = _complete(_strategies)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks; errors still.")]
Private = Annotated[bool, typer.Option("--private", help="Only hosts that you trust may read this text.")]
Ephemeral = Annotated[
    bool,
    typer.Option(
        "--ephemeral",
        help="Private, and never on disk: text, runs and answers are in the daemon's memory, and gone when it stops.",
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="PATTERN", help="Of directories, only files that match (gitignore syntax)."),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Of directories, no files that match (gitignore syntax)."),
]
Everything = Annotated[
    bool, typer.Option("--everything", help="Of directories, also what is generated, vendored or minified.")
]
Raw = Annotated[
    bool, typer.Option("--raw", help="Take files as they are: HTML and notebooks with their markup, no decoding.")
]
Contexts = Annotated[
    list[str] | None,
    typer.Option("--context", "-c", metavar="NAME", help="A loaded context.", autocompletion=complete_context),
]
Session = Annotated[
    str | None,
    typer.Option(
        "--session",
        metavar="NAME",
        help="Go on in this session, with its names; made when it does not exist.",
        autocompletion=complete_session,
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="How to go about it: auto, direct, rlm, map, quote (no model), or a program of yours.",
        autocompletion=complete_strategy,
    ),
]
ContextName = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_context)]
RunId = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's id, or enough of its beginning.", autocompletion=complete_run),
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="WHAT=N",
        help="turns=N, sub-queries=N, tokens=N, seconds=N (on the clock), waiting=N (seconds for a host to come), "
        "money=N (dollars), depth=N or consecutive-errors=N; can be repeated.",
    ),
]


def usage_error(sentence: str) -> typer.Exit:
    """Tells what is wrong with the command line; to be raised."""
    typer.echo(f"error: {sentence}", err=True)
    return typer.Exit(int(Exit.USAGE))


def parse_limits(given: list[str] | None) -> LimitParams:
    """``["turns=5", "seconds=60"]`` as parameters. Raises ``typer.Exit`` for what is no limit."""
    from pydantic import ValidationError

    from rlmd.wire.methods import LimitParams

    known = {name.replace("_", "-"): name for name in LimitParams.model_fields}
    values: dict[str, float | str] = {}
    for pair in given or ():
        name, separator, value = pair.partition("=")
        if not separator or name.replace("_", "-") not in known:
            raise usage_error(f"--limit {pair}: give WHAT=N, where WHAT is one of {', '.join(known)}.")
        values[known[name.replace("_", "-")]] = _number(value)
    try:
        return LimitParams.model_validate(values)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        field = str(wrong["loc"][0]).replace("_", "-")
        raise usage_error(f"--limit {field}: {wrong['msg'].lower()}.") from None


def _number(text: str) -> float | str:
    """What is no number stays, and is told to be none."""
    try:
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return text


async def resolve_run(client: Client, given: str) -> str:
    """The id of the run that ``given`` begins.

    Raises:
        NotFound: No run of the last 10,000 begins so.
        Conflict: Several do.
    """
    from rlmd.errors import Conflict, NotFound
    from rlmd.wire.methods import RunListParams

    wanted = given.lower()
    if len(wanted) == 36:
        return wanted
    runs = (await client.call("run/list", RunListParams(limit=10_000))).runs
    found = [run.run_id for run in runs if run.run_id.startswith(wanted)]
    if not found:
        raise NotFound(f"No run begins with {given!a}.", hint="rlmctl run list shows them.")
    if len(found) > 1:
        raise Conflict(f"{len(found)} runs begin with {given!a}.", hint="Give more of the id: " + ", ".join(found[:5]))
    return found[0]
