"""Many questions from a file, several at a time, answered in their order; one that was cut short goes on.

A question's run id follows from the batch's id and the question's place, so the daemon, whose journal is the truth,
knows what it was asked before: asking again gives what there is, and asks no model twice. The batch's id is in each
line of the output, by which a second start finds where to go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from rlmd.client import Client
from rlmd.errors import Conflict, Draining, InvalidParams, NotConnected, RlmdError, SourceUnreadable
from rlmd.validation import problems_of
from rlmd.wire.methods import LimitParams, RunParams, RunResult

#: How often one question is asked again because the daemon went away under it.
_ATTEMPTS = 20
_AGAIN = "What was answered stays answered: start the same batch again to go on."


class Question(BaseModel):
    """A line of the file. ``id`` comes back in the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field(min_length=1, max_length=1_000_000)
    id: str | int | None = None
    contexts: tuple[str, ...] | None = None
    strategy: Literal["auto", "direct", "rlm", "map", "quote"] | None = None
    answer_schema: dict[str, object] | StrictBool | None = Field(None, alias="schema")
    limits: LimitParams | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """``first``: the question to go on with; those before it stand in the output already."""

    id: str
    digest: str
    first: int


def read_questions(data: bytes) -> list[Question]:
    """The questions, one a line; empty lines are passed over. Raises ``InvalidParams`` that names the line."""
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(Question.model_validate_json(line))
        except ValidationError as error:
            first = problems_of(error, Question)[0]
            raise InvalidParams(
                f"Line {number}: {first.sentence}.",
                hint=first.hint or 'A line is {"question": "…"}, and may have more.',
            ) from None
    if not found:
        raise InvalidParams("There is no question in the file.", hint='A line is {"question": "…"}.')
    return found


def digest_of(data: bytes, defaults: str) -> str:
    """Of the questions and what is asked of all of them: tells a batch that goes on from another."""
    return hashlib.sha256(data + b"\0" + defaults.encode()).hexdigest()


def begin(output: Path | None, digest: str) -> Batch:
    """A new batch, or the one that the output has the beginning of. A line that a crash tore is cut.

    Raises:
        Conflict: The output is of other questions.
        SourceUnreadable: It cannot be read.
    """
    if output is None or not output.exists():
        return Batch(str(uuid.uuid4()), digest, 0)
    try:
        data = output.read_bytes()
    except OSError as error:
        raise SourceUnreadable(f"{output} cannot be read: {error.strerror}.") from None
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.splitlines()
    if not lines:
        _cut(output, data, whole)
        return Batch(str(uuid.uuid4()), digest, 0)
    try:
        last = json.loads(lines[-1])
        found = Batch(str(last["batch"]), str(last["digest"]), int(last["index"]) + 1)
    except (ValueError, KeyError, TypeError):
        raise Conflict(f"{output} is there, and is no output of a batch.", hint="Name another file.") from None
    if found.digest != digest or found.first != len(lines):
        raise Conflict(
            f"{output} has answers to other questions, or of other options.",
            hint="Name another file, or give the same questions and options to go on.",
        )
    _cut(output, data, whole)
    return found


def _cut(output: Path, data: bytes, whole: bytes) -> None:
    if len(whole) < len(data):
        os.truncate(output, len(whole))


async def answers(
    client: Client, batch: Batch, questions: Sequence[Question], params: Callable[[Question], RunParams], parallel: int
) -> AsyncIterator[dict[str, Any]]:
    """The results, in the order of the questions; at most ``parallel`` are asked at a time.

    Args:
        params: Makes a question's parameters; the run id is set here.
    """
    free = asyncio.Semaphore(parallel)

    async def answer(index: int) -> dict[str, Any]:
        async with free:
            run_id = str(uuid.uuid5(uuid.UUID(batch.id), str(index)))
            asked = params(questions[index]).model_copy(update={"run_id": run_id, "attach": False})
            return _line(batch, index, questions[index], await _asked(client, asked))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(index)) for index in range(batch.first, len(questions))]
        for task in tasks:
            yield await task


async def _asked(client: Client, params: RunParams) -> RunResult | RlmdError:
    """The run's result, once it has ended, over as many daemons as that takes; or why it could not begin."""
    stopped_at = 0
    for _ in range(_ATTEMPTS):
        try:
            result = await client.call("run/ask", params)
        except NotConnected:
            continue
        except Draining:
            await _wait_back(client)
            continue
        except RlmdError as error:
            return error
        if result.run.state != "interrupted" or result.run.last_seq == stopped_at:
            return result
        stopped_at = result.run.last_seq  # the daemon stops, and the next one takes the run up
        await _wait_back(client)
    raise NotConnected("The daemon went away again and again.", hint=_AGAIN)


async def _wait_back(client: Client) -> None:
    """Until a daemon that was stopped is there again. None is started: somebody stopped it. Raises ``NotConnected``."""
    if not await client.is_back():
        raise NotConnected("The daemon was stopped.", hint=_AGAIN)


def _line(batch: Batch, index: int, question: Question, result: RunResult | RlmdError) -> dict[str, Any]:
    line: dict[str, Any] = {"batch": batch.id, "digest": batch.digest, "index": index}
    if question.id is not None:
        line["id"] = question.id
    line["question"] = question.question
    if isinstance(result, RlmdError):
        error = {"kind": result.kind, "message": result.message, "hint": result.hint}
        return {**line, "outcome": "failed", "answer": None, "error": error}
    told = result.model_dump(mode="json")
    return {
        **line,
        "run_id": result.run.run_id,
        "outcome": result.run.outcome,
        "why": result.run.why,
        "answer": told["answer"],
        "citations": told["citations"],
        "receipt": told["receipt"],
    }
