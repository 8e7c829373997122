"""An evaluation on the screen: asks its items, keeps its rows in a file, and prints what they come to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from rlmd.client import Client
from rlmd.ctl.terminal import Output, count, duration
from rlmd.errors import InvalidParams, NotFound, RlmdError, SourceUnreadable
from rlmd.evaluation.asking import COLUMNS, Asker, Column, Row
from rlmd.evaluation.datasets import items_in
from rlmd.evaluation.item import Item, named_length
from rlmd.evaluation.quick import Verdict, models_at_hand, roles, verdict
from rlmd.evaluation.summary import Cell, Line, summary
from rlmd.evaluation.tasks import tasks
from rlmd.wire.methods import HostCalibrateParams, LimitParams


@dataclass(frozen=True, slots=True)
class Setting:
    """What is evaluated; empty tasks are all. ``data`` goes before made questions."""

    tasks: tuple[str, ...]
    lengths: tuple[int, ...]
    items: int
    columns: tuple[Column, ...]
    root: str | None
    sub: str | None
    limits: LimitParams
    seed: int
    source: Path | None
    data: Path | None
    keep: bool


@dataclass(frozen=True, slots=True)
class Form:
    """How it is told."""

    json: bool
    out: Path | None


async def ask_items(client: Client, output: Output, setting: Setting, form: Form) -> None:
    """Asks what was not asked yet, telling each row as it comes; then the summary."""
    asker = Asker(client, setting.seed, setting.root, setting.sub, setting.limits, setting.keep)
    with _Rows(form.out) as rows:
        async for row in asker.rows(_items(output, setting), setting.columns, {row.key for row in rows.known}):
            rows.add(row)
            if form.json:
                output.json_line(row)
            else:
                output.remark(_told(row))
    if not rows.known:
        raise NotFound("There is nothing to ask.", hint="See the tasks and lengths: rlmctl eval --help")
    lines = summary(rows.known)
    if not form.json:
        _print(output, lines)
        return
    for line in lines:
        output.json_line(line)


def _items(output: Output, setting: Setting) -> Iterator[Item]:
    if setting.data is not None:
        yield from items_in(setting.data, setting.items)
        return
    known = tasks(setting.source)
    for name in setting.tasks or tuple(known):
        task = known[name]
        for tokens in setting.lengths:
            if task.most_tokens is not None and tokens > task.most_tokens:
                most = named_length(task.most_tokens)
                output.remark(f"{name}: {named_length(tokens)} is left out; it goes to {most}.", "yellow")
                continue
            yield from task.items(tokens, setting.items, setting.seed)


class _Rows:
    """Rows of now and, in a file, of before. A last line that was torn is written anew."""

    def __init__(self, file: Path | None) -> None:
        self.known: list[Row] = []
        self._file = file
        self._open: TextIO | None = None

    def __enter__(self) -> _Rows:
        if self._file is not None:
            try:
                text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
                whole = text[: text.rfind("\n") + 1]
                self.known = [_row(self._file, line) for line in whole.splitlines() if '"row"' in line[:20]]
                self._open = self._file.open("r+" if text else "w", encoding="utf-8")
                self._open.truncate(len(whole.encode()))
                self._open.seek(0, 2)
            except OSError as error:
                raise SourceUnreadable(f"{self._file}: {error.strerror}.", hint="See its owner and mode.") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.close()

    def add(self, row: Row) -> None:
        self.known.append(row)
        if self._open is not None:
            self._open.write(row.model_dump_json() + "\n")
            self._open.flush()


def _row(file: Path, line: str) -> Row:
    try:
        return Row.model_validate_json(line)
    except ValidationError:
        raise InvalidParams(f"{file} holds other lines than rows.", hint="Name a new file with --out.") from None


def _told(row: Row) -> str:
    score = "does not fit" if row.score is None else f"{row.score:.0%}"
    cut = f", cut by {row.cut:,} characters" if row.cut else ""
    length = named_length(row.tokens)
    return f"{row.task} {length} {row.item} {row.column}: {score}{cut}, {duration(row.seconds)}. {row.why}".rstrip()


def _print(output: Output, lines: list[Line]) -> None:
    header = ["TASK", "LENGTH", "ITEMS", *(name for column in COLUMNS for name in _names(column, lines))]
    table = []
    for line in lines:
        items = max(cell.items for cell in line.columns.values())
        cells = [text for column in COLUMNS for text in _texts(column, line, lines)]
        table.append([line.task, named_length(line.tokens), str(items), *cells])
    output.table(header, table, right=range(2, len(header)))
    means = [cell for line in lines for cell in line.columns.values()]
    if any(cell.cut for cell in means):
        output.remark("* the text was cut at the root's window; – it does not fit", None)
    seconds = sum(cell.seconds * cell.items for cell in means)
    money = sum(cell.money * cell.items for cell in means)
    output.remark(f"{count(sum(cell.items for cell in means), 'run')}, {duration(seconds)}, ${money:.2f}", None)


def _names(column: Column, lines: list[Line]) -> list[str]:
    if not any(column in line.columns for line in lines):
        return []
    more = ["SUB-QUERIES"] if column == "rlm" else []
    return [column.upper(), "TIME", "COST", *more]


def _texts(column: Column, line: Line, lines: list[Line]) -> list[str]:
    names = _names(column, lines)
    cell = line.columns.get(column)
    if cell is None:
        return ["" for _ in names]
    more = [f"{cell.sub_queries:,.0f}"] if column == "rlm" else []
    return [_score(cell), duration(cell.seconds), f"${cell.money:.3f}", *more]


def _score(cell: Cell) -> str:
    if cell.score is None:
        return "–"
    return f"{100 * cell.score:.1f}{'*' if cell.cut else ''}"


# ── quick ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def try_models(client: Client, output: Output, wanted: tuple[str, ...], seed: int, form: Form) -> None:
    """A verdict on each model, as it comes; the daemon is told the useful windows."""
    models = await models_at_hand(client, wanted)
    if missing := [name for name in wanted if name not in models]:
        raise NotFound(f"There is no model {missing[0]!a}.", hint="rlmctl host list shows them; give HOST/MODEL.")
    if not models:
        raise NotFound("There is no model to try.", hint="rlmctl host add NAME URL")
    verdicts = []
    for name, model in models.items():
        output.remark(f"{name}: reading and leading …")
        found = await verdict(client, name, model, seed)
        verdicts.append(found)
        await _keep_window(client, output, found)
        if form.json:
            output.json_line(found)
    if not form.json:
        print_verdicts(output, verdicts)


def print_verdicts(output: Output, verdicts: list[Verdict]) -> None:
    """The table of verdicts, why some are of no use, and what the roles of the config may say."""
    output.table(
        ("MODEL", "ROOT", "SUB", "USEFUL WINDOW", "OF", "LED", "TIME"),
        [
            (
                one.model,
                "yes" if one.root else "no",
                "yes" if one.sub else "no",
                f"{one.useful_window:,}" if one.useful_window else "–",
                f"{one.window:,}",
                " ".join(f"{task}:{score:.0%}" for task, score in one.leading.items()),
                duration(one.seconds),
            )
            for one in verdicts
        ],
        right=(3, 4, 6),
    )
    for one in verdicts:
        if one.why:
            output.remark(f"{one.model} is no {'root' if one.sub else 'sub'}: {one.why}.", "yellow")
    found = roles(verdicts)
    if found["sub"]:
        output.remark(f"By this, [roles] of the configuration: {_listed('root', found)}, {_listed('sub', found)}", None)
    if not found["root"]:
        output.remark("None of these can be root: ask with --strategy map or quote, or try a larger model.", "yellow")


def _listed(role: str, found: dict[str, list[str]]) -> str:
    return f"{role} = {json.dumps(found[role])}"


async def _keep_window(client: Client, output: Output, found: Verdict) -> None:
    """The daemon remembers the useful window; a run that starts from now on uses it, unless the config says another."""
    if found.useful_window is None:
        return
    host, _, model = found.model.partition("/")
    try:
        kept = await client.call(
            "host/calibrate", HostCalibrateParams(name=host, model=model, useful_window=found.useful_window)
        )
    except RlmdError as error:  # the verdict stands
        output.remark(f"{found.model}: its useful window is not remembered. {error.message} {error.hint}", "yellow")
        return
    used = next((one.useful_window for one in kept.host.models if one.name == model), found.useful_window)
    if used != found.useful_window:
        output.remark(f"{found.model}: the config says that {used:,} tokens are useful, and that counts.", "yellow")
