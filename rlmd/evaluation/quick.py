"""Which of the models at hand can be root, which as sub, and how much text each of them reads well: in minutes.

Reading: four facts at even depths among lines that look alike, at lengths that double up to the window. The useful
window is the longest up to which nothing was missed by much. Leading: three small questions of other kinds, each to
be found by code. A model that gets two of them can be root.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

from pydantic import BaseModel, ConfigDict

from rlmd.client import Client
from rlmd.evaluation import code, hops, needles
from rlmd.evaluation.asking import Asker, Row
from rlmd.evaluation.item import CHARS_PER_TOKEN, Item
from rlmd.evaluation.lines import made_lines
from rlmd.evaluation.scoring import all_found
from rlmd.wire.methods import HostModel, LimitParams

#: Shortest length at which reading is tried, in tokens; each next one is twice as long.
_SHORTEST = 512
#: Share of a window that a text may take: question and reply need the rest.
_MOST_SHARE = 0.85
_TEXTS = 2
_FACTS = 4
#: Share of the facts that must be found at a length, and at the shortest for a model to be of use as sub.
GOOD = 0.75
#: Length of the texts to lead through: far more than a usual window.
_LED_TOKENS = 32_768
#: Of the three questions; and how many of their points make a root.
_LIMITS = LimitParams(turns=12, sub_queries=60, seconds=600)
ROOT_POINTS = 2.0
#: Tokens of these texts a character: numbers and signs take more than prose.
_TOKENS_PER_CHAR = 0.42


class Verdict(BaseModel):
    """``reading`` is the share found at each length in tokens, ``leading`` the score of each question.
    ``useful_window`` in tokens; None when even the shortest text was not read. ``why`` it is no sub, or no root."""

    model_config = ConfigDict(frozen=True)

    type: str = "verdict"
    model: str
    window: int
    root: bool
    sub: bool
    useful_window: int | None
    reading: dict[int, float]
    leading: dict[str, float]
    seconds: float
    why: str = ""


async def models_at_hand(client: Client, wanted: tuple[str, ...]) -> dict[str, HostModel]:
    """The models of all hosts by ``host/model``, or of them the wanted ones."""
    hosts = (await client.call("host/list")).hosts
    found = {f"{host.name}/{model.name}": model for host in hosts for model in host.models}
    return {name: model for name, model in found.items() if not wanted or name in wanted}


async def verdict(client: Client, name: str, model: HostModel, seed: int) -> Verdict:
    """Tries one model in both roles. Raises what the daemon raises; a model that answers nothing is a verdict."""
    asker = Asker(client, seed, root=name, sub=name, limits=_LIMITS)
    reading: dict[int, float] = {}
    seconds, useful = 0.0, None
    unread = unled = ""
    for tokens in _lengths(model.window):
        rows = [row async for row in asker.rows(reading_items(tokens, seed), ("direct",), set())]
        seconds += sum(row.seconds for row in rows)
        scores = [row.score for row in rows if row.score is not None]
        if not scores:  # it does not fit after all: no matter how well it would have been read
            break
        reading[tokens] = sum(scores) / len(scores)
        if reading[tokens] < GOOD:
            unread = f"of the numbers hidden in {tokens:,} tokens it told {reading[tokens]:.0%}{_ended(rows)}"
            break
        useful = tokens
    leading: dict[str, float] = {}
    if useful is not None:
        async for row in _led(asker, seed):
            leading[row.task] = row.score or 0.0
            seconds += row.seconds
            if not row.score:
                unled = unled or _ended([row])
    right = sum(leading.values())
    return Verdict(
        model=name,
        window=model.window,
        root=right >= ROOT_POINTS,
        sub=useful is not None,
        useful_window=useful,
        reading=reading,
        leading=leading,
        seconds=seconds,
        why=unread if useful is None else "" if right >= ROOT_POINTS else f"led {right:g} of 3 questions right{unled}",
    )


def _ended(rows: list[Row]) -> str:
    """How the first of them ended that the model itself did not finish; of wrong answers there is nothing to tell."""
    why = next((row.why for row in rows if not row.why.startswith(("finished by", "answered directly"))), "")
    return f" ({why.rstrip('.')})" if why else ""


def roles(verdicts: Sequence[Verdict]) -> dict[str, list[str]]:
    """Who is of use for which role, the best first: roots by what they led, then by their time; subs by how much text
    they read well."""
    roots = sorted((one for one in verdicts if one.root), key=lambda one: (-sum(one.leading.values()), one.seconds))
    subs = sorted((one for one in verdicts if one.sub), key=lambda one: -(one.useful_window or 0))
    return {"root": [one.model for one in roots], "sub": [one.model for one in subs]}


def _lengths(window: int) -> Iterator[int]:
    """Doubling, and at last what the window holds."""
    most = int(_MOST_SHARE * window)
    tokens = _SHORTEST
    while tokens < most:
        yield tokens
        tokens *= 2
    yield most


def reading_items(tokens: int, seed: int) -> Iterator[Item]:
    """Texts of so many tokens as these lines have them, each with four numbers to be found and told."""
    for number in range(_TEXTS):
        rng = random.Random(f"quick {seed} {tokens} {number}")  # noqa: S311  a seeded task, no secret
        facts = {f"{one}-{two}": str(rng.randrange(1_000_000, 10_000_000)) for one, two in needles.keys(_FACTS, rng)}
        chars = max(200, int(tokens / _TOKENS_PER_CHAR) - _FACTS * 80)
        lines = made_lines(chars // CHARS_PER_TOKEN, rng).text.splitlines(keepends=True)[1:]
        for index, (key, value) in enumerate(facts.items()):
            lines.insert((index + 1) * len(lines) // (_FACTS + 1), needles.NEEDLE.format(key=key, value=value))
        yield Item(
            task="reading",
            name=str(number),
            tokens=tokens,
            question=f"What are the special magic numbers for {', '.join(facts)} mentioned in the text? Tell them all.",
            text="".join(lines),
            truth=", ".join(facts.values()),
            score=partial(all_found, wanted=tuple(facts.values())),
            basis=facts,
        )


async def _led(asker: Asker, seed: int) -> AsyncIterator[Row]:
    """A number in noise, a question of source, a chain of facts."""
    for task in (needles.TASK, code.task_over(None), hops.TASK):
        items = list(task.items(_LED_TOKENS, 1, seed))
        async for row in asker.rows(items, ("rlm",), set()):
            yield row
