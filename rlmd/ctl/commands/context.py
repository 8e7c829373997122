"""``rlmctl context``: load, list, look into, search and drop contexts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlmd.ctl import options
from rlmd.ctl.exits import Exit
from rlmd.ctl.running import with_daemon
from rlmd.errors import InvalidParams

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output
    from rlmd.wire.methods import ContextInfo, SearchHit, SearchParams

app = typer.Typer(help="The texts that questions are asked of.", no_args_is_help=True, rich_markup_mode=None)

_LOAD_EXAMPLES = """\b
examples:
  rlmctl context load ~/src/linux/Documentation --name kernel
  rlmctl context load report.txt appendix.txt --name report     one collection of two documents
  rlmctl context load ~/mail --name mail --private --dry-run    only say what would be loaded
  man bash | rlmctl context load - --name bash

Loading again under the same name brings the context up to date.
"""


@app.command(epilog=_LOAD_EXAMPLES)
def load(
    path: Annotated[list[str], typer.Argument(metavar="PATH", help="Files and directories; - is standard input.")],
    name: Annotated[str | None, typer.Option("--name", "-n", metavar="NAME", help="Keep it under this name.")] = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    everything: options.Everything = False,
    raw: options.Raw = False,
    private: options.Private = False,
    ephemeral: options.Ephemeral = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would be loaded.")] = False,
    json: options.Json = False,
) -> None:
    """Load files, directories or standard input as one context."""
    from rlmd.ctl.sources import STDIN, LoadOptions, describe, load_paths, load_source

    if STDIN in path and len(path) > 1:
        raise options.usage_error("Standard input is a context of its own: load it alone.")
    wanted = LoadOptions(name, tuple(include or ()), tuple(exclude or ()), everything, raw, private, dry_run, ephemeral)

    async def work(client: Client, output: Output) -> None:
        several = len(path) > 1
        result = await (load_paths(client, tuple(path), wanted) if several else load_source(client, path[0], wanted))
        if json:
            output.model(result)
        else:
            for line in describe(result):
                output.print(line)

    with_daemon(work)


@app.command()
def update(
    name: Annotated[list[str], typer.Argument(metavar="NAME", autocompletion=options.complete_context)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would be.")] = False,
    json: options.Json = False,
) -> None:
    """Look through the paths that contexts were loaded from again. Each question does so by itself."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.sources import describe
        from rlmd.wire.methods import UpdateParams

        for one in name:
            result = await client.call("context/update", UpdateParams(name=one, dry_run=dry_run))
            if json:
                output.model(result)
            else:
                for line in describe(result):
                    output.print(line)

    with_daemon(work)


@app.command()
def flags(
    name: options.ContextName,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Who may read its text; left out, it is only shown.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Mark a context private, or take the mark away. What was derived from it meanwhile stays private."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import shown
        from rlmd.wire.methods import FlagsParams

        result = await client.call("context/flags", FlagsParams(name=name, private=private))
        if json:
            output.model(result)
        else:
            output.print(f"{shown(result.name)} is {'private' if result.private else 'public'}")

    with_daemon(work)


@app.command()
def diff(
    name: options.ContextName,
    before: Annotated[
        int | None, typer.Option("--from", metavar="REVISION", min=1, help="By default the one before.")
    ] = None,
    after: Annotated[int | None, typer.Option("--to", metavar="REVISION", min=1, help="By default the newest.")] = None,
    first: Annotated[int, typer.Option("--skip", metavar="N", min=0, help="Leave out the first N documents.")] = 0,
    limit: Annotated[int, typer.Option(metavar="N", min=0, max=1000, help="Documents shown.")] = 100,
    json: options.Json = False,
) -> None:
    """Show what changed between two revisions. It lists documents, and how many of their lines."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import count
        from rlmd.wire.methods import DiffParams

        params = DiffParams(name=name, from_revision=before, to_revision=after, documents_from=first, limit=limit)
        result = await client.call("context/diff", params)
        if json:
            output.model(result)
            return
        output.table(
            ("DOCUMENT", "CHANGE", "LINES", ""),
            [(one.name, one.change, f"+{one.lines_added:,}", f"-{one.lines_removed:,}") for one in result.documents],
            right=(2, 3),
        )
        figures = f"{result.added} added, {result.removed} removed, {result.changed} changed"
        output.remark(f"Revision {result.from_revision} to {result.to_revision}: {figures}", None)
        if (rest := result.added + result.removed + result.changed - first - len(result.documents)) > 0:
            output.remark(f"{count(rest, 'document')} more: --skip {first + len(result.documents)}")

    with_daemon(work)


@app.command("list")
def list_contexts(json: options.Json = False) -> None:
    """List the contexts."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import ago, size

        result = await client.call("context/list")
        if json:
            output.model(result)
            return
        now = time.time()
        output.table(
            ("NAME", "KIND", "DOCUMENTS", "CHARACTERS", "SIZE", "UPDATED", ""),
            [
                (
                    context.name, context.kind, f"{context.documents:,}", f"{context.chars:,}", size(context.bytes),
                    ago(now - context.updated),
                    " ".join(_marks(context)),
                )
                for context in result.contexts
            ],
            right=(2, 3, 4),
        )  # fmt: skip

    with_daemon(work)


@app.command()
def info(
    name: options.ContextName,
    first: Annotated[int, typer.Option("--from", metavar="N", min=0, help="Number of the first document shown.")] = 0,
    limit: Annotated[int, typer.Option(metavar="N", min=0, max=10_000, help="Documents shown.")] = 20,
    json: options.Json = False,
) -> None:
    """Show one context and its documents."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import ago, count, one_line, shown, size
        from rlmd.wire.methods import ContextParams

        result = await client.call(
            "context/info", ContextParams(name=name, documents_from=first, documents_limit=limit)
        )
        if json:
            output.model(result)
            return
        context = result.context
        marks = _marks(context)
        output.print(f"{shown(context.name)}: {', '.join([context.kind, *marks])}, revision {context.revision}")
        figures = f"{count(context.documents, 'document')}, {count(context.chars, 'character')}, {size(context.bytes)}"
        output.print(f"{figures}, updated {ago(time.time() - context.updated)}")
        for source in context.sources:
            output.print(f"from {one_line(source)}")
        output.print()
        output.table(
            ("DOCUMENT", "CHARACTERS", "SHA-256"),
            [(document.name, f"{document.chars:,}", document.digest[:12]) for document in result.documents],
            right=(1,),
        )
        if (rest := context.documents - first - len(result.documents)) > 0:
            output.remark(f"{count(rest, 'document')} more: --from {first + len(result.documents)}")

    with_daemon(work)


@app.command()
def peek(
    name: options.ContextName,
    document: Annotated[
        str | None, typer.Argument(metavar="DOCUMENT", help="Needed when there are several.", show_default=False)
    ] = None,
    start: Annotated[int, typer.Option(metavar="N", min=0, help="The first character, from 0.")] = 0,
    chars: Annotated[int, typer.Option(metavar="N", min=1, max=65_536, help="How many.")] = 2000,
    json: options.Json = False,
) -> None:
    """Read a stretch of a document."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import shown
        from rlmd.wire.methods import PeekParams

        result = await client.call("context/peek", PeekParams(name=name, document=document, start=start, chars=chars))
        if json:
            output.model(result)
            return
        output.print(shown(result.text))
        span = f"{result.start:,} to {result.end:,} of {result.document_chars:,}"
        output.remark(f"{shown(result.document)}, line {result.line}, characters {span}")

    with_daemon(work)


@app.command()
def search(
    name: options.ContextName,
    query: Annotated[str, typer.Argument(metavar="WORDS", help="Words, or a regular expression with --regex.")],
    regex: Annotated[bool, typer.Option("--regex", "-e", help="Find matches of a regular expression (re2).")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="Passages at most.")] = 10,
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0.001, max=50, help="For a regex; then you get what was found by then.")
    ] = 30.0,
    json: options.Json = False,
) -> None:
    """Search a context. It gives the best passages for a question, or all matches of a pattern."""

    async def work(client: Client, output: Output) -> Exit | None:
        from rlmd.wire.methods import SearchParams

        mode: Literal["regex", "bm25"] = "regex" if regex else "bm25"
        params = SearchParams(name=name, query=query, mode=mode, limit=limit, seconds=seconds)
        if regex and not json:
            return await _matches(client, output, params)
        result = await client.call("context/search", params)
        if json:
            output.model(result)
            return None
        for hit in result.hits:
            _passage(output, hit)
        if not result.complete:
            output.remark("There is more: raise --limit.")
        return None if result.hits else Exit.UNANSWERED

    with_daemon(work)


async def _matches(client: Client, output: Output, params: SearchParams) -> Exit | None:
    """Prints matches as they are found: the first one alone, then pages that grow."""
    from rlmd.ctl.terminal import one_line

    began, found, cursor, page = time.monotonic(), 0, "", 1
    while True:
        left = max(0.001, params.seconds - (time.monotonic() - began)) if found else params.seconds
        asked = {"limit": min(page, params.limit - found), "cursor": cursor, "seconds": left}
        try:
            result = await client.call("context/search", params.model_copy(update=asked))
        except InvalidParams as error:
            if error.details.get("field") != "cursor":
                raise
            result = await client.call("context/search", params)  # a daemon that knows no pages
        for hit in result.hits:
            label = output.painted(one_line(hit.label or f"{hit.document}:{hit.line}"), "bold")
            output.print(f"{label}: {one_line(hit.text, 300)}")
        found += len(result.hits)
        if result.late or result.cursor is None or found >= params.limit:
            break
        cursor, page = result.cursor, page * 10
    if result.late:
        share = result.searched / max(1, result.chars)
        output.remark(f"The time was over after {share:.0%} of the text: raise --seconds, or narrow the pattern.")
    elif not result.complete:
        output.remark("There may be more: raise --limit.")
    return None if found else Exit.UNANSWERED


def _passage(output: Output, hit: SearchHit) -> None:
    from rlmd.ctl.terminal import one_line, shown

    label = output.painted(one_line(hit.label or f"{hit.document}:{hit.line}"), "bold")
    output.print(f"{label}  {output.painted(f'score {hit.score:.2f}', 'dim')}")
    output.print("    " + shown(hit.text).strip().replace("\n", "\n    ") + "\n")


@app.command()
def drop(
    name: Annotated[list[str], typer.Argument(metavar="NAME", autocompletion=options.complete_context)],
    json: options.Json = False,
) -> None:
    """Erase contexts with all that tells of them. That is index, runs that read them, sessions, cached replies."""

    async def work(client: Client, output: Output) -> None:
        from rlmd.ctl.terminal import count
        from rlmd.wire.methods import NameParams

        for one in name:
            done = await client.call("context/drop", NameParams(name=one))
            if json:
                output.json_line(done)
                continue
            with_it = [count(done.runs, "run")] * bool(done.runs) + [count(done.sessions, "session")] * bool(
                done.sessions
            )
            output.remark(f"{one} is erased" + (f", with {' and '.join(with_it)}" if with_it else ""), None)

    with_daemon(work)


def _marks(context: ContextInfo) -> list[str]:
    hidden = "ephemeral" if context.ephemeral else "private"
    return [hidden] * context.private + ["implicit"] * context.implicit
