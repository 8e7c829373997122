"""``rlmctl ask``: load what was named, start a run, show it, print the answer."""

from __future__ import annotations

import json as json_module
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rlmd.ctl import options
from rlmd.ctl.exits import Exit
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.following import Form
    from rlmd.ctl.sources import LoadOptions
    from rlmd.ctl.terminal import Output
    from rlmd.wire.methods import RunParams

_EXAMPLES = """\b
examples:
  rlmctl ask -f src/ "Where is the socket opened?"
  rlmctl ask -f src/ --include '*.py' --exclude tests/ "…"
  rlmctl ask -c linux --session rtnl "Who takes rtnl_lock?"     go on in a session
  rlmctl ask -c linux --root m40/qwen2.5-coder:32b --limit seconds=300 "…"
  rlmctl ask -c linux --schema people.json "Who signed off?"    the answer as JSON
  rlmctl ask -c linux --detach "…"                              print the run's id and leave
  rlmctl ask -f mail/ --json "…" | jq -r '.citations[].locator.label'

The answer and its citations go to stdout, all else to stderr.
Ctrl-C offers to detach; pressed again, it cancels the run.
"""


@dataclass(frozen=True, slots=True)
class Sources:
    """What is asked: named files and directories, contexts by name, standard input."""

    files: tuple[str, ...]
    contexts: tuple[str, ...]
    session: str | None
    load: LoadOptions


def register(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(ask)


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know.", show_default=False)],
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="PATH", help="A file or directory; - is standard input."),
    ] = None,
    context: options.Contexts = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Ask about standard input too.")] = False,
    include: options.Include = None,
    exclude: options.Exclude = None,
    everything: options.Everything = False,
    raw: options.Raw = False,
    strategy: options.Strategy = "auto",
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="HOST/MODEL", help="Use only this one; can be repeated.")
    ] = None,
    root: Annotated[
        list[str] | None, typer.Option("--root", metavar="HOST/MODEL", help="The same, for the root role alone.")
    ] = None,
    sub: Annotated[
        list[str] | None, typer.Option("--sub", metavar="HOST/MODEL", help="The same, for sub-queries alone.")
    ] = None,
    limit: options.Limit = None,
    session: options.Session = None,
    if_busy: Annotated[
        Literal["queue", "fresh", "refuse"], typer.Option("--if-busy", help="When the session is held by another run.")
    ] = "queue",
    schema: Annotated[
        str | None,
        typer.Option("--schema", metavar="FILE", help="A JSON Schema; the answer is then JSON that fits it."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask every sub-query anew, not from the cache.")] = False,
    private: options.Private = False,
    ephemeral: options.Ephemeral = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="However long it takes, ask nobody; its limits and the budget hold.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run's id and leave it to run.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print run, answer, citations and receipt as JSON.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Print each fact as a line of JSON as it comes.")] = False,
    no_daemon: Annotated[
        bool, typer.Option("--no-daemon", help="With a daemon of its own, which ends with the answer.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask a question of files, directories, contexts or standard input."""
    from rlmd.ctl.sources import STDIN, LoadOptions

    if sum((json, events, detach)) > 1:
        raise options.usage_error("--json, --events and --detach exclude one another.")
    if detach and no_daemon:
        raise options.usage_error("--detach leaves the run to a daemon: leave out --no-daemon.")
    if not question.strip():
        raise options.usage_error("The question is empty.")
    files = [*(file or ()), *([STDIN] if stdin else ())]
    if not (files or context or session) and not sys.stdin.isatty():
        files = [STDIN]
    if not (files or context or session):
        raise options.usage_error("There is no text to ask: name it with -f PATH, -c NAME or --stdin.")
    if files.count(STDIN) > 1:
        raise options.usage_error("Standard input can be read only once.")
    limits = options.parse_limits(limit)
    load = LoadOptions(
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        everything=everything,
        raw=raw,
        private=private,
        ephemeral=ephemeral,
    )
    sources = Sources(tuple(files), tuple(context or ()), session, load)
    wanted = _schema(schema) if schema is not None else None
    form: Form = "json" if json else "events" if events else "text"

    async def work(client: Client, output: Output) -> Exit:
        from rlmd.wire.methods import RunParams

        params = RunParams(
            run_id=str(uuid.uuid4()),
            question=question,
            contexts=await _contexts(client, output, sources),
            strategy=strategy,
            session=session,
            if_busy=if_busy,
            root=tuple(root or model or ()) or None,
            sub=tuple(sub or model or ()) or None,
            limits=limits,
            fresh=fresh,
            schema=wanted,
            confirm="accept" if yes else "ask",
            attach=not detach,
        )
        return await (_start_detached if detach else _start_and_follow)(client, output, params, form)

    with_daemon(work, quiet=quiet, private=no_daemon)


def _schema(file: str) -> Any:
    """The JSON of a file. Raises ``typer.Exit`` where there is none."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise options.usage_error(f"--schema {file}: {getattr(error, 'strerror', None) or 'no text'}.") from None
    try:
        found = json_module.loads(text)
    except ValueError as error:
        raise options.usage_error(f"--schema {file}: no JSON: {error}.") from None
    if not isinstance(found, dict | bool):
        raise options.usage_error(f"--schema {file}: a JSON Schema is an object.")
    return found


async def _contexts(client: Client, output: Output, sources: Sources) -> tuple[str, ...]:
    """Names of the contexts to ask, each once, in the order given."""
    from rlmd.ctl.sources import load_source, remark_load

    names = list(sources.contexts)
    for file in sources.files:
        loaded = await load_source(client, file, sources.load)
        assert loaded.context is not None, "only a dry run loads nothing"
        if loaded.change != "unchanged":
            remark_load(output, loaded)
        names.append(loaded.context.name)
    if not names and sources.session is not None:
        names = await _contexts_of_session(client, sources.session)
    return tuple(dict.fromkeys(names))


async def _contexts_of_session(client: Client, session: str) -> list[str]:
    """A session that is continued without naming texts is asked about those that it has."""
    from rlmd.errors import NotFound

    for known in (await client.call("session/list")).sessions:
        if known.name == session and known.contexts:
            return [pin.context for pin in known.contexts]
    raise NotFound(
        f"There is no session {session!a} with contexts to go on with.",
        hint="Name the text with -f or -c; rlmctl session list shows the sessions.",
    )


async def _start_detached(client: Client, output: Output, params: RunParams, _form: Form) -> Exit:
    started = await client.call("run/start", params)
    output.print(started.run_id)
    output.remark(f"To come back to it: rlmctl run attach {started.run_id[:8]}")
    return Exit.DONE


async def _start_and_follow(client: Client, output: Output, params: RunParams, form: Form) -> Exit:
    from rlmd.ctl.following import follow_to_end

    async with client.start(params) as run:
        return await follow_to_end(client, run, output, form)
