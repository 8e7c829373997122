"""``rlmctl eval``: how well the models at hand answer questions of known truth, and which of them can be root."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlmd.ctl import options
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.terminal import Output

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
_LEAST, _MOST = 1 << 10, 64 << 20

_EXAMPLES = """\b
tasks:
  niah    S-NIAH: a number hidden in noise
  oolong  OOLONG (trec_coarse-like): counts, comparisons, users, time over labelled lines
  pairs   OOLONG-Pairs: all pairs of users that one of 20 predicates holds for (F1), up to 131K
  code    CodeQA-like: multiple choice over a tree of source
  hops    BrowseComp-like: a chain of facts over many documents
\b
columns:
  base    the whole text as one prompt, cut at the root's window where it does not fit (marked *)
  direct  the same; nothing where it does not fit
  rlm     turns of a root that writes code
\b
examples:
  rlmctl eval --quick                                which of my models can be root, and as sub
  rlmctl eval oolong pairs --length 32K --items 5
  rlmctl eval --length 8K --length 1M --root m40/qwen2.5-coder:32b --out m40.jsonl
  rlmctl eval code --source ~/src/cpython/Lib --length 1M
  rlmctl eval --data ~/datasets/oolong               the published files

Everything is made from the seed, without a download. A length is counted in tokens of four characters.
With --out, rows that the file has already are not asked again: an evaluation that was stopped goes on.
"""


def register(app: typer.Typer) -> None:
    app.command("eval", epilog=_EXAMPLES)(evaluate)


def evaluate(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help="By default all.", show_default=False)
    ] = None,
    length: Annotated[
        list[str] | None,
        typer.Option("--length", "-l", metavar="TOKENS", help="8192, 8K, 1M; can be repeated. By default 8K and 32K."),
    ] = None,
    items: Annotated[int, typer.Option("--items", "-n", min=1, help="Questions of each task and length.")] = 3,
    column: Annotated[
        list[str] | None, typer.Option("--column", help="Only this one; can be repeated. By default all.")
    ] = None,
    root: Annotated[
        str | None, typer.Option("--root", metavar="HOST/MODEL", help="Who leads; by default as configured.")
    ] = None,
    sub: Annotated[
        str | None, typer.Option("--sub", metavar="HOST/MODEL", help="Who answers sub-queries; likewise.")
    ] = None,
    limit: options.Limit = None,
    seed: Annotated[int, typer.Option(help="Other seeds make other questions.")] = 0,
    source: Annotated[
        Path | None, typer.Option("--source", metavar="DIR", help="For code: a tree of Python source to ask about.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="The published data sets' own files (.json, .jsonl).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Keep rows there, and go on where it ends.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes: which models can be root, which sub, and their useful windows.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="HOST/MODEL", help="For --quick: only this one; can be repeated."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the contexts and runs, to look at.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Rows, then the summary, as lines of JSON.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask the models questions of known truth, and score the answers."""
    from rlmd.ctl.evaluating import Form, Setting, ask_items, try_models
    from rlmd.evaluation.asking import COLUMNS
    from rlmd.evaluation.tasks import NAMES

    for given, known in ((tasks, NAMES), (column, COLUMNS)):
        if unknown := [one for one in given or () if one not in known]:
            raise options.usage_error(f"{unknown[0]!a} is none of {', '.join(known)}.")

    if model and not quick:
        raise options.usage_error("--model goes with --quick.")
    if quick and (tasks or data or out):
        raise options.usage_error("--quick has its own questions: give no tasks, --data or --out with it.")
    if data and (tasks or length or source):
        raise options.usage_error("--data brings its own tasks, texts and lengths.")
    form = Form(json=json, out=out)
    setting = Setting(
        tasks=tuple(tasks or ()),
        lengths=tuple(map(_tokens, length or ("8K", "32K"))),
        items=items,
        columns=tuple(one for one in COLUMNS if not column or one in column),
        root=root,
        sub=sub,
        limits=options.parse_limits(limit),
        seed=seed,
        source=source,
        data=data,
        keep=keep,
    )

    async def work(client: Client, output: Output) -> None:
        if quick:
            await try_models(client, output, tuple(model or ()), seed, form)
        else:
            await ask_items(client, output, setting, form)

    with_daemon(work, quiet=quiet)


def _tokens(given: str) -> int:
    """``8192``, ``8K``, ``1M``; K and M are powers of two."""
    number, unit = (given[:-1], given[-1].upper()) if given[-1:].isalpha() else (given, "")
    if unit not in _UNITS or not number.isdecimal() or not _LEAST <= int(number) * _UNITS[unit] <= _MOST:
        raise options.usage_error(f"--length {given}: give tokens such as 8192, 8K or 10M, from 1K to 64M.")
    return int(number) * _UNITS[unit]
