"""Items asked through the daemon: each text is loaded as a context, asked in every column, and dropped with its runs.

A row is what one item in one column came to. The columns: ``base``, the whole text as one prompt, cut at the root's
window where it does not fit, which the row says; ``direct``, the same and nothing where it does not fit; ``rlm``.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rlmd.client import Client, upload
from rlmd.evaluation.item import Item
from rlmd.events import ErrorRecord, RunEnded
from rlmd.wire.methods import (
    CancelParams,
    LimitParams,
    LoadParams,
    NameParams,
    PathSource,
    RunIdParams,
    RunParams,
    RunResult,
)

Column = Literal["base", "direct", "rlm"]
COLUMNS: tuple[Column, ...] = ("base", "direct", "rlm")
#: Errors that say that a text does not fit the root.
_TOO_LONG = ("prompt_too_long", "prompt_truncated")
#: No tokenizer makes more characters of a token than this on real text.
_MOST_CHARS_PER_TOKEN = 8
#: A cut text's size: first so many characters for each token of the window, then less until it fits.
_CUT_CHARS_PER_TOKEN, _CUT_LESS, _CUT_TRIES = 3.5, 0.8, 8
_ANSWER_CHARS = 2000
#: The window that is taken where no host tells one, in tokens.
_USUAL_WINDOW = 8192


class Row(BaseModel):
    """One item in one column. ``score`` is null where there is none: the text does not fit. ``cut`` is the number of
    characters that were left out. Seconds, dollars, watt-hours and what these cost are the
    receipt's."""

    model_config = ConfigDict(frozen=True)

    type: Literal["row"] = "row"
    task: str
    item: str
    tokens: int
    seed: int
    column: Column
    root: str | None = None
    sub: str | None = None
    score: float | None = None
    outcome: str | None = None
    cut: int = 0
    chars: int = 0
    truth: str = ""
    answer: str = ""
    why: str = ""
    seconds: float = 0.0
    money: float = 0.0
    energy: float = 0.0
    energy_cost: float = 0.0
    turns: int = 0
    sub_queries: int = 0
    failed: int = 0
    root_tokens: int = 0
    sub_tokens: int = 0
    run_id: str | None = None

    @property
    def key(self) -> tuple[str, str, int, int, str, str | None, str | None]:
        """What makes a row the same as one of an earlier evaluation."""
        return (self.task, self.item, self.tokens, self.seed, self.column, self.root, self.sub)


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks items.

    Attributes:
        client: Connected.
        seed: Told in the rows.
        root, sub: ``host/model`` of the roles; None leaves the daemon's.
        limits: Of each run.
        keep: Leave contexts and runs where they are.
    """

    client: Client
    seed: int = 0
    root: str | None = None
    sub: str | None = None
    limits: LimitParams = field(default_factory=LimitParams)
    keep: bool = False

    async def rows(self, items: Iterable[Item], columns: tuple[Column, ...], known: set[object]) -> AsyncIterator[Row]:
        """The rows that are not among the keys ``known``, as they come; items of one text share its context."""
        window = await root_window(self.client, self.root)
        for _, group in groupby(items, key=lambda item: id(item.text)):
            wanted = [
                (item, open_columns)
                for item in group
                if (open_columns := [one for one in columns if self._row(item, one).key not in known])
            ]
            if not wanted:
                continue
            async with self._loaded(wanted[0][0].task, wanted[0][0].text) as context:
                for item, open_columns in wanted:
                    async for row in self._columns(item, open_columns, context, window):
                        yield row

    async def _columns(self, item: Item, columns: list[Column], context: str, window: int) -> AsyncIterator[Row]:
        if "base" in columns or "direct" in columns:
            direct = await self._directly(item, context, window)
            if "direct" in columns:
                yield direct
            if "base" in columns:
                fits = direct.score is not None
                yield direct.model_copy(update={"column": "base"}) if fits else await self._cut(item, window)
        if "rlm" in columns:
            yield await self.ask(item, "rlm", context)

    async def _directly(self, item: Item, context: str, window: int) -> Row:
        if item.chars > _MOST_CHARS_PER_TOKEN * window:
            why = f"the text does not fit the window of {window:,} tokens"
            return self._row(item, "direct").model_copy(update={"why": why})
        return await self.ask(item, "direct", context)

    async def _cut(self, item: Item, window: int) -> Row:
        """The beginning of the text alone, as much as the root takes."""
        size = int(window * _CUT_CHARS_PER_TOKEN)
        whole = joined(item.text)
        for _ in range(_CUT_TRIES):
            async with self._loaded(item.task, whole[:size]) as context:
                row = await self.ask(item, "base", context)
            row = row.model_copy(update={"cut": max(0, len(whole) - size)})
            if row.score is not None:
                return row
            size = int(size * _CUT_LESS)
        return row

    async def ask(self, item: Item, column: Column, context: str) -> Row:
        """One run to its end. A text that does not fit has no score; any other failure scores what it is worth."""
        params = RunParams(
            run_id=str(uuid.uuid4()),
            question=item.question,
            contexts=(context,),
            strategy="rlm" if column == "rlm" else "direct",
            root=(self.root,) if self.root else None,
            sub=(self.sub,) if self.sub else None,
            limits=self.limits,
            fresh=True,
            confirm="accept",  # whoever evaluates was told how long it takes
            on_disconnect="cancel",
        )
        error = await self._followed(params)
        result = await self.client.call("run/show", RunIdParams(run_id=params.run_id))
        row = self._row(item, column).model_copy(update=_told(result))
        if error is not None and error.kind in _TOO_LONG:
            return row
        return row.model_copy(update={"score": item.score(result.answer or "")})

    async def _followed(self, params: RunParams) -> ErrorRecord | None:
        """Waits for the run's end; the error that it ended with. A run that nobody waits for any more is cancelled."""
        error = None
        try:
            async with self.client.start(params) as run:
                async for event in run:
                    if isinstance(event, RunEnded):
                        error = event.error
        except asyncio.CancelledError:
            await self.client.call("run/cancel", CancelParams(run_id=params.run_id, why="the evaluation was stopped"))
            raise
        return error

    def _row(self, item: Item, column: Column) -> Row:
        return Row(
            task=item.task,
            item=item.name,
            tokens=item.tokens,
            seed=self.seed,
            column=column,
            root=self.root,
            sub=self.sub,
            chars=item.chars,
            truth=item.truth,
        )

    @contextlib.asynccontextmanager
    async def _loaded(self, task: str, text: str | Mapping[str, str]) -> AsyncIterator[str]:
        """The name of a context with the text, which is dropped with its runs afterwards."""
        name = f"eval-{task}-{uuid.uuid4().hex[:8]}"
        await _load(self.client, name, text)
        try:
            yield name
        finally:
            if not self.keep:
                await self.client.call("context/drop", NameParams(name=name))


async def _load(client: Client, name: str, text: str | Mapping[str, str]) -> None:
    if isinstance(text, str):
        await upload(client, io.BytesIO(text.encode()), name=name, raw=True)
        return
    with tempfile.TemporaryDirectory(prefix="rlmctl-eval-") as folder:
        for file, content in text.items():
            path = Path(folder) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        source = PathSource(paths=(folder,), everything=True, convert=False)
        await client.call("context/load", LoadParams(name=name, source=source))


def joined(text: str | Mapping[str, str]) -> str:
    """Documents as one text, each below its name."""
    return text if isinstance(text, str) else "\n\n".join(f"=== {name} ===\n{one}" for name, one in text.items())


async def root_window(client: Client, root: str | None) -> int:
    """Tokens of the window of the named root, else of the largest that may be one."""
    hosts = (await client.call("host/list")).hosts
    windows = {f"{host.name}/{model.name}": model.window for host in hosts for model in host.models}
    if root in windows:
        return windows[root]
    return max((model.window for host in hosts if "root" in host.roles for model in host.models), default=_USUAL_WINDOW)


def _told(result: RunResult) -> dict[str, object]:
    """What a finished run tells of itself."""
    run, receipt = result.run, result.receipt
    told: dict[str, object] = {
        "outcome": run.outcome or run.state,
        "answer": (result.answer or "")[:_ANSWER_CHARS],
        "why": run.why or "",
        "turns": run.turns,
        "sub_queries": run.sub_queries,
        "run_id": run.run_id,
    }
    if receipt is None:
        return told
    tokens = {
        role: sum(one.prompt_tokens + one.completion_tokens for one in receipt.models if one.role == role)
        for role in ("root", "sub")
    }
    return told | {
        "seconds": receipt.wall_seconds,
        "money": receipt.money,
        "energy": receipt.energy,
        "energy_cost": receipt.energy_cost,
        "failed": receipt.pieces_failed,
        "root_tokens": tokens["root"],
        "sub_tokens": tokens["sub"],
    }
