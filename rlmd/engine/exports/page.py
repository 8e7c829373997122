"""A run with its children as one page that needs nothing else: no network, no script. What is told in it is text of
others, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rlmd.engine.exports.markup import Markup, code, element, joined, text
from rlmd.engine.exports.story import CellStory, ChildStory, Story, SubQueryStory, TurnStory
from rlmd.events import Citation, CompletionRecord, Receipt

#: Forbids whatever the page does not bring along, should a browser find something to load all the same.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --bad: #c0392b; --good: #2e7d32; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; white-space: pre-wrap; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin-top: 2rem; }
pre { background: var(--soft); padding: .6rem .8rem; border-radius: .3rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; unicode-bidi: isolate; font: 13px/1.45 ui-monospace, monospace; margin: .4rem 0; }
pre.answer { font: inherit; border-left: .25rem solid var(--good); }
.meta, summary { color: GrayText; font-size: .88rem; } summary { cursor: pointer; overflow-wrap: anywhere; }
details { margin: .3rem 0; padding-left: .6rem; border-left: 2px solid var(--line); }
.bad { color: var(--bad); } .k { color: #7b3fbf; font-weight: 600; } .s { color: #2e7d32; } .n { color: #b35c00; }
.c { color: GrayText; font-style: italic; } blockquote { margin: .2rem 0 .6rem; padding-left: .8rem;
  border-left: 3px solid var(--line); white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
table { border-collapse: collapse; } td, th { padding: .1rem .8rem .1rem 0; text-align: left; vertical-align: top; }
@media (prefers-color-scheme: dark) { .k { color: #c792ea; } .s { color: #8bc98b; } .n { color: #f0a45d; } }
"""


def page(story: Story) -> str:
    """The whole document."""
    record = story.record
    body = [element("h1", story.question), *_told(story)]
    head = joined(
        (
            Markup('<meta charset="utf-8">'),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{text(_POLICY)}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup('<meta name="referrer" content="no-referrer">'),
            element("title", f"rlmd run {record.run_id[:8]}"),
            Markup(f"<style>{_STYLE}</style>"),
        )
    )
    document = element("html", element("head", head), element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _told(story: Story) -> Iterable[Markup]:
    """All of a run but its question."""
    record = story.record
    yield _meta(story)
    yield from _answer(story)
    yield from _citations(record.citations)
    if record.receipt is not None:
        yield from _receipt(record.receipt)
    for remark in story.remarks:
        yield element("p", remark, class_="meta")
    for turn in story.turns:
        yield from _turn(turn)


def _meta(story: Story) -> Markup:
    record = story.record
    parts = [
        f"run {record.run_id}",
        _when(record.created),
        f"strategy {record.strategy}",
        f"{record.state}" + (f", {record.outcome}" if record.outcome else ""),
        *(["private"] if record.private else []),
        *(f"{pin.context} (revision {pin.revision}, {pin.chars:,} characters)" for pin in record.contexts),
    ]
    return element("p", " · ".join(parts), class_="meta")


def _answer(story: Story) -> Iterable[Markup]:
    if story.answer:
        yield element("h2", "Answer")
        yield element("pre", story.answer, class_="answer")
    record = story.record
    if record.outcome not in ("answered", None) and record.why:
        yield element("p", record.why, class_="bad")
    if record.error is not None:
        yield element("p", f"{record.error.message} {record.error.hint}".strip(), class_="bad")


def _citations(citations: tuple[Citation, ...]) -> Iterable[Markup]:
    if citations:
        yield element("h2", "Quotes")
    for one in citations:
        place = one.locator.label if one.locator is not None else one.document or "not found in the text"
        label = f"[{one.number}] {place}" + ("" if one.verified else " (not verified)")
        yield element("p", label, class_="meta" if one.verified else "meta bad")
        yield element("blockquote", one.quote)


def _receipt(receipt: Receipt) -> Iterable[Markup]:
    yield element("h2", "Receipt")
    yield element("p", receipt.summary)
    if receipt.models:
        heads = ("role", "host", "model", "calls", "prompt tokens", "completion tokens")
        rows = [
            (one.role, one.host, one.model, f"{one.calls:,}", f"{one.prompt_tokens:,}", f"{one.completion_tokens:,}")
            for one in receipt.models
        ]
        yield element(
            "table",
            element("tr", *(element("th", head) for head in heads)),
            *(element("tr", *(element("td", cell) for cell in row)) for row in rows),
        )


def _turn(turn: TurnStory) -> Iterable[Markup]:
    title = f"Turn {turn.number}" if turn.number else "Program"
    if any(cell.program for cell in turn.cells) or turn.number:
        yield element("h2", title)
    if turn.completion is not None:
        yield element("p", _completion(turn.completion), class_="meta")
    if turn.failed:
        yield element("p", turn.failed, class_="bad")
    if turn.thinking:
        yield _folded(f"thinking, {len(turn.thinking):,} characters", element("pre", turn.thinking))
    if turn.reply:
        reply = element("pre", turn.reply)
        yield _folded(f"reply, {len(turn.reply):,} characters", reply) if turn.cells else reply
    for cell in turn.cells:
        yield from _cell(cell)
    for remark in turn.remarks:
        yield element("p", remark, class_="meta")


def _cell(cell: CellStory) -> Iterable[Markup]:
    shown = element("pre", code(cell.code))
    yield _folded(f"the program {cell.program}", shown) if cell.program else shown
    for search in cell.searches:
        places = ", ".join(f"{hit.document} {hit.start:,}-{hit.end:,}" for hit in search.hits[:20])
        yield _folded(f"search: {len(search.hits)} passages", element("p", places, class_="meta"))
    if cell.asked:
        yield _sub_queries(cell)
    for child in cell.children:
        yield _child(child)
    if cell.output.strip():
        yield element("pre", cell.output)
    told = [f"cell {cell.number}, {cell.seconds:.2f} s"]
    if cell.cut:
        told.append(f"{cell.cut:,} characters of the output were not kept")
    yield element("p", " · ".join(told), class_="meta")
    if cell.error:
        yield element("p", cell.error, class_="bad")


def _sub_queries(cell: CellStory) -> Markup:
    failed = sum(one.failed for one in cell.sub_queries)
    more = cell.asked - len(cell.sub_queries)
    title = f"{cell.asked:,} sub-queries" + (f", {failed:,} failed" if failed else "")
    shown = [_sub_query(one) for one in cell.sub_queries]
    if more:
        shown.append(element("p", f"{more:,} more are not shown.", class_="meta"))
    return _folded(title, *shown)


def _child(child: ChildStory) -> Markup:
    """A run that the cell asked, with all that happened in it, folded."""
    asked, answered = " ".join(child.question.split())[:100] or "(empty)", " ".join(child.answer.split())[:80]
    ended = "" if child.outcome == "answered" else f", {child.outcome or 'not ended'}"
    given = "" if child.given_chars is None else f", given {child.given_chars:,} characters"
    title = f"child run{ended}{given}: {asked} → {answered}"
    question = element("pre", child.question)
    if child.story is not None:
        return _folded(title, question, *_told(child.story))
    said = [element("pre", child.answer)] if child.answer else []
    return _folded(title, question, *said, element("p", f"run {child.run_id}, not shown further", class_="meta"))


def _sub_query(one: SubQueryStory) -> Markup:
    more = f"\n… {one.prompt_chars - len(one.prompt):,} more characters" if one.prompt_chars > len(one.prompt) else ""
    title = " ".join(one.prompt.split())[:100] or "(empty)"
    about = _completion(one.completion) if one.completion is not None else "failed"
    return _folded(
        f"{title} → {' '.join(one.reply.split())[:80]}",
        element("p", about, class_="meta bad" if one.failed else "meta"),
        element("pre", one.prompt + more),
        element("pre", one.reply),
    )


def _folded(title: str, *content: Markup) -> Markup:
    return element("details", element("summary", title), *content)


def _completion(one: CompletionRecord) -> str:
    source = "" if one.source == "model" else f" (from the {'cache' if one.source == 'cache' else 'same question'})"
    return (
        f"{one.model} on {one.host}{source} · {one.prompt_tokens:,} + {one.completion_tokens:,} tokens · "
        f"{one.seconds:.1f} s"
    )


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
