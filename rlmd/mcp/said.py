"""What the tools say: results as text for a model to read, of bounded length, with what was left out told.

Knows no daemon and no MCP.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from rlmd.client import Event
from rlmd.ctl.progress import Progress
from rlmd.ctl.sources import describe
from rlmd.ctl.terminal import count, size
from rlmd.errors import RlmdError
from rlmd.events import Citation
from rlmd.wire.methods import (
    ContextInfo,
    ContextInfoResult,
    ExecuteResult,
    LoadResult,
    PeekResult,
    RunResult,
    SearchResult,
)

#: Characters of one result: some 8,000 tokens, where Claude Code warns from 10,000 on and cuts at 25,000.
ROOM = 32_000
#: Characters of one passage, and of one quote.
_PASSAGE, _QUOTE = 3000, 400

#: The daemon's hints speak of its methods; who reads them here has tools.
_TOOL_OF = {
    "context/list": "list_contexts",
    "context/info": "context_info",
    "context/peek": "peek_context",
    "context/search": "search_context",
    "context/load": "load_context",
    "run/list": "rlm_ask",
    "run/show": "rlm_result",
}
_METHOD = re.compile("|".join(map(re.escape, _TOOL_OF)))


def bounded(text: str, room: int = ROOM) -> str:
    """The text, or its head and tail with what was left out between them."""
    if len(text) <= room:
        return text
    head, tail = room * 2 // 3, room // 3
    return f"{text[:head]}\n… {len(text) - head - tail:,} characters left out …\n{text[-tail:]}"


def error(error: RlmdError) -> str:
    hint = _METHOD.sub(lambda found: _TOOL_OF[found[0]], error.hint)
    return bounded(f"{error.message} {hint}".strip())


def amount(found: LoadResult) -> str:
    return f"{count(found.documents, 'document')}, {size(found.bytes)}"


def loaded(result: LoadResult, *, dry_run: bool) -> str:
    lines = list(describe(result))
    return bounded("\n".join(["Nothing was loaded; this is what would be:", *lines] if dry_run else lines))


def context_line(context: ContextInfo) -> str:
    kind = f"{count(context.documents, 'document')}, " if context.kind == "collection" else ""
    return f"{context.name}: {kind}{count(context.chars, 'character')}, revision {context.revision}"


def context_details(info: ContextInfoResult, first: int) -> str:
    lines = [context_line(info.context)]
    lines += [f"from {source}" for source in info.context.sources[:20]]
    lines += [f"  {one.name}: {count(one.chars, 'character')}" for one in info.documents]
    if (rest := info.context.documents - first - len(info.documents)) > 0:
        lines.append(f"  … {rest:,} more: documents_from={first + len(info.documents)}")
    return bounded("\n".join(lines))


def stretch(peeked: PeekResult, *, wanted: int) -> str:
    """The text alone when it is what was wanted; else with where it ends."""
    total = peeked.document_chars
    if peeked.end < min(wanted, total):
        return f"{peeked.text}\n… cut at {peeked.end} of {total:,} characters; go on with start={peeked.end}"
    return peeked.text or f"There is nothing from {peeked.start} on: the document has {total:,} characters."


def hits(found: SearchResult) -> str:
    if not found.hits:
        return "Nothing was found."
    each = min(_PASSAGE, ROOM // len(found.hits))
    parts = [f"{hit.label} [{hit.document}, {hit.start}-{hit.end}]\n{bounded(hit.text, each)}" for hit in found.hits]
    if not found.complete:
        parts.append("There is more than was searched or is shown.")
    return bounded("\n\n".join(parts))


def cell(result: ExecuteResult) -> str:
    parts = [result.output.rstrip("\n")]
    if result.output_cut:
        parts.append(f"({result.output_cut:,} characters of output were left out)")
    if result.final is not None:
        parts.append(f"final: {result.final}")
    if result.error and result.error not in result.output:
        parts.append(result.error)
    return bounded("\n".join(filter(None, parts))) or "The code ran and printed nothing."


class Story:
    """What a run has come to, told in a line when that changed."""

    def __init__(self) -> None:
        self._progress = Progress()
        self._began = time.monotonic()
        self.last = ""

    def step(self, event: Event) -> str | None:
        """The line to tell now, if there is a new one."""
        self._progress = self._progress.apply(event)
        line = f"{self._progress.headline(time.monotonic() - self._began)} · {self._progress.detail(100)}"
        if line == self.last:
            return None
        self.last = line
        return line


def going(run_id: str, last: str) -> str:
    return f'Not answered yet ({last or "it has just begun"}). It goes on; ask again with rlm_result(id="{run_id}").'


def answer(result: RunResult) -> str:
    parts = [bounded(result.answer or "", ROOM * 3 // 4)]
    parts += _citations(result.citations)
    if result.run.outcome != "answered":
        parts.append(f"({result.run.outcome or result.run.state}: {result.run.why})")
    if result.receipt is not None:
        parts.append(f"({result.receipt.summary})")
    return bounded("\n".join(filter(None, parts)))


def _citations(citations: Iterable[Citation]) -> list[str]:
    return [
        f'[{one.number}] {one.locator.label if one.locator else one.document}: "{bounded(one.quote, _QUOTE)}"'
        if one.verified
        else f'[{one.number}] not found in the text: "{bounded(one.quote, _QUOTE)}"'
        for one in citations
    ]
