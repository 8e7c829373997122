"""``rlmctl batch``: many questions, in order, resumable."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from rlmd.ctl import options
from rlmd.ctl.exits import Exit
from rlmd.ctl.running import with_daemon

if TYPE_CHECKING:
    from rlmd.client import Client
    from rlmd.ctl.batch import Question
    from rlmd.ctl.terminal import Output
    from rlmd.wire.methods import RunParams

_EXAMPLES = """\b
A line of FILE is {"question": "…"}, and may have "id", "contexts", "strategy", "schema" and "limits".
\b
examples:
  rlmctl batch questions.jsonl -c linux -o answers.jsonl
  rlmctl batch questions.jsonl -c linux -o answers.jsonl     again: goes on where it was cut short
  rlmctl batch questions.jsonl -c mail | jq -r .answer
"""


def register(app: typer.Typer) -> None:
    app.command("batch", epilog=_EXAMPLES)(batch)


def batch(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Questions, one JSON object a line.")],
    context: options.Contexts = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where results go; a batch that was cut short goes on."),
    ] = None,
    strategy: Annotated[
        Literal["auto", "direct", "rlm", "map", "quote"], typer.Option(help="Where a line names none.")
    ] = "auto",
    limit: options.Limit = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Questions asked at a time.")] = 8,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask every sub-query anew, not from the cache.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask also what takes long; without it such a question has no answer.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask many questions. Results come as lines of JSON, in the order of the questions."""
    limits = options.parse_limits(limit)
    defaults = json.dumps([context or [], strategy, limits.model_dump(), fresh])

    async def work(client: Client, out: Output) -> Exit:
        from rlmd.ctl.batch import answers, begin, digest_of, read_questions
        from rlmd.wire.methods import RunParams

        data = _read(file)
        questions = read_questions(data)
        begun = begin(output, digest_of(data, defaults))
        lacking = next((at for at, one in enumerate(questions, 1) if not (one.contexts or context)), None)
        if lacking is not None:
            raise options.usage_error(f"question {lacking} names no contexts: give -c NAME for those that do not.")

        def params(question: Question) -> RunParams:
            return RunParams(
                run_id="00000000-0000-0000-0000-000000000000",
                question=question.question,
                contexts=question.contexts or tuple(context or ()),
                strategy=question.strategy or strategy,
                limits=question.limits or limits,
                schema=question.answer_schema,
                fresh=fresh,
                confirm="accept" if yes else "refuse",
            )

        failed = 0
        with _appending(output) if output is not None else contextlib.nullcontext(out.out) as results:
            async for line in answers(client, begun, questions, params, parallel):
                results.write(json.dumps(line) + "\n")
                results.flush()
                failed += line["outcome"] != "answered"
                out.remark(f"{line['index'] + 1}/{len(questions)} {line['outcome']}")
        return Exit.UNANSWERED if failed else Exit.DONE

    with_daemon(work, quiet=quiet)


def _read(file: Path) -> bytes:
    from rlmd.errors import SourceMissing, SourceUnreadable

    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise SourceMissing(f"There is no file {str(file)!a}.") from None
    except OSError as error:
        raise SourceUnreadable(f"{str(file)!a} cannot be read: {error.strerror}.") from None


def _appending(file: Path) -> TextIO:
    """For the user alone: a private text may be quoted in answers."""
    from rlmd.errors import InvalidParams

    try:
        return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "w")
    except OSError as error:
        raise InvalidParams(f"{file} cannot be written: {error.strerror}.") from None
