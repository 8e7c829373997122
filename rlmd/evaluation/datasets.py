"""The published data sets, read from their own files: JSON or JSON lines as their authors give them out.

Told apart by their fields: RULER's ``outputs``, OOLONG's ``context_window_text``, LongBench-v2's ``choice_A``,
BrowseComp-Plus's ``gold_docs``. A Parquet file is not read; what is encrypted is decrypted by its own tool first.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rlmd.errors import InvalidParams, SourceMissing
from rlmd.evaluation.aggregation import BOTH, ONE_AND_OTHER
from rlmd.evaluation.code import LETTERS, choice_question, choice_score
from rlmd.evaluation.hops import FORM
from rlmd.evaluation.item import CHARS_PER_TOKEN, Item
from rlmd.evaluation.lines import rows_of
from rlmd.evaluation.oolong import pairs_item
from rlmd.evaluation.scoring import AnswerKind, all_found, exact_answer, oolong_score

_CODE_DOMAIN = "Code Repository Understanding"
_KINDS: tuple[tuple[str, AnswerKind], ...] = (
    ("NUMERIC", "number"),
    ("COMPARISON", "comparison"),
    ("DATE", "date"),
    ("USER", "user"),
)


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class Ruler(_Record):
    """RULER, ``niah_single``: ``prepare.py`` writes it."""

    index: str = ""
    input: str
    outputs: tuple[str, ...]


class Oolong(_Record):
    """OOLONG, synth."""

    id: str = ""
    dataset: str = ""
    context_len: int | None = None
    context_window_text: str
    context_window_text_with_labels: str | None = None
    question: str
    answer: str
    answer_type: str = ""


class LongBench(_Record):
    """LongBench-v2, ``data.json``."""

    id: str = ""
    sub_domain: str = ""
    domain: str = ""
    question: str
    choice_A: str  # noqa: N815  the data set's own names
    choice_B: str  # noqa: N815
    choice_C: str  # noqa: N815
    choice_D: str  # noqa: N815
    answer: str
    context: str


class Document(_Record):
    docid: str
    text: str


class BrowseComp(_Record):
    """BrowseComp-Plus, decrypted."""

    query_id: str = ""
    query: str
    answer: str
    gold_docs: tuple[Document, ...]
    evidence_docs: tuple[Document, ...] = ()
    negative_docs: tuple[Document, ...] = ()


def items_in(folder: Path, count: int) -> Iterator[Item]:
    """At most ``count`` items of each file below ``folder``, in the files' order.

    Raises:
        SourceMissing: There is no file of JSON.
        InvalidParams: A file is not one of the data sets.
    """
    files = [file for file in sorted(folder.rglob("*.json*")) if file.suffix in (".json", ".jsonl")]
    if not files:
        raise SourceMissing(
            f"There is no .json or .jsonl file in {str(folder)!a}.",
            hint="Put the data sets' own files there; one in Parquet is to be saved as JSON lines first.",
        )
    for file in files:
        yield from islice(_items_of(file), count)


def _items_of(file: Path) -> Iterator[Item]:
    pairs_of_texts: set[str] = set()
    for number, record in enumerate(_records(file)):
        name = f"{file.stem}-{number}"
        for marker, model, read in READERS:
            if marker in record:
                yield from _read(file, number, record, model, partial(read, name=name, seen=pairs_of_texts))
                break
        else:
            raise InvalidParams(
                f"{file}: entry {number + 1} is of none of the data sets that are known.",
                hint="RULER, OOLONG, LongBench-v2 or BrowseComp-Plus, each with its own fields.",
            )


def _read(
    file: Path, number: int, record: dict[str, object], model: type[_Record], read: Callable[..., Iterable[Item]]
) -> Iterator[Item]:
    try:
        parsed = model.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        hint = "Encrypted files are decrypted first, by the data set's own script."
        raise InvalidParams(f"{file}: entry {number + 1}: {where}: {first['msg']}.", hint=hint) from None
    yield from read(parsed)


def _records(file: Path) -> Iterator[dict[str, object]]:
    text = file.read_text(encoding="utf-8")
    try:
        found = (
            json.loads(text) if text.lstrip().startswith("[") else map(json.loads, filter(str.strip, text.splitlines()))
        )
        for record in found:
            if not isinstance(record, dict):
                raise InvalidParams(f"{file}: an entry is no JSON object.", hint="One object an entry.")
            yield record
    except ValueError as error:
        raise InvalidParams(f"{file}: no JSON: {error}.", hint="A list of objects, or one object a line.") from None


def _tokens(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)


def _ruler(record: Ruler, *, name: str, seen: set[str]) -> Iterator[Item]:
    """The prompt holds text and question; the question is its last line."""
    text, _, question = record.input.rstrip().rpartition("\n")
    yield Item(
        task="niah",
        name=name,
        tokens=_tokens(text),
        question=question,
        text=text,
        truth=", ".join(record.outputs),
        score=partial(all_found, wanted=record.outputs),
    )


def _oolong(record: Oolong, *, name: str, seen: set[str]) -> Iterator[Item]:
    """The question as it is; and once a text, where its lines' labels are told, the twenty pairs."""
    truth = _first(record.answer)
    kind: AnswerKind = next((kind for word, kind in _KINDS if word in record.answer_type.upper()), "label")
    tokens = record.context_len or _tokens(record.context_window_text)
    text = record.context_window_text
    yield Item(
        task="oolong",
        name=name,
        tokens=tokens,
        question=record.question,
        text=text,
        truth=truth,
        score=partial(oolong_score, truth=truth, kind=kind),
    )
    labelled = record.context_window_text_with_labels
    if labelled and labelled not in seen and (rows := rows_of(labelled, lambda _: None)):
        seen.add(labelled)
        for task in (*BOTH, *ONE_AND_OTHER):
            yield pairs_item(task, text, rows, tokens)


def _first(answer: str) -> str:
    """OOLONG writes the truth as a list of one, as Python would show it."""
    try:
        found = ast.literal_eval(answer)
    except (SyntaxError, ValueError):
        return answer
    return str(found[0]) if isinstance(found, list | tuple) and found else str(found)


def _longbench(record: LongBench, *, name: str, seen: set[str]) -> Iterator[Item]:
    """Those about code."""
    if record.domain and record.domain != _CODE_DOMAIN:
        return
    choices = tuple(str(getattr(record, f"choice_{letter}")) for letter in LETTERS)
    yield Item(
        task="code",
        name=name,
        tokens=_tokens(record.context),
        question=choice_question(record.question, choices),
        text=record.context,
        truth=record.answer,
        score=partial(choice_score, letter=record.answer),
    )


def _browsecomp(record: BrowseComp, *, name: str, seen: set[str]) -> Iterator[Item]:
    """The paper has a model judge the answers; here they are to be exact."""
    documents = {
        f"{one.docid}.txt": one.text for one in (*record.gold_docs, *record.evidence_docs, *record.negative_docs)
    }
    yield Item(
        task="hops",
        name=name,
        tokens=-(-sum(map(len, documents.values())) // CHARS_PER_TOKEN),
        question=FORM.format(question=record.query),
        text=documents,
        truth=record.answer,
        score=partial(exact_answer, truth=record.answer),
    )


READERS: tuple[tuple[str, type[_Record], Callable[..., Iterable[Item]]], ...] = (
    ("outputs", Ruler, _ruler),
    ("context_window_text", Oolong, _oolong),
    ("choice_A", LongBench, _longbench),
    ("gold_docs", BrowseComp, _browsecomp),
)
