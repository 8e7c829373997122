"""What the root is told: prompts as data with a version, and the numbers that make them true.

``PROMPTS`` is the whole wording; ``SubFacts`` and ``Opening`` are what is filled in. Nothing here decides anything.
The system prompt stays under 1,200 tokens at 3.5 characters a token: on the usual host a root has 8K in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import Template
from typing import Protocol

from rlmd.engine.tokens import CHARS_PER_TOKEN
from rlmd.events import Pin, digest_of

#: Tokens of a sub-query's prompt beside the piece: the question and how to answer it.
_INSTRUCTION_TOKENS = 256
#: Share of the slots that must be able to take a piece.
_MOST_SLOTS = 0.75
#: Passages that the worked example prints: so many as are not cut, each of up to so many characters.
_MOST_HITS, _HIT_CHARS = 8, 1800


class Sized(Protocol):
    """What prompts need to know of a candidate; tokens, and requests at a time."""

    @property
    def window(self) -> int: ...
    @property
    def useful_window(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def slots(self) -> int: ...


@dataclass(frozen=True, slots=True)
class SubFacts:
    """What is true of the models that a cell can ask."""

    piece_chars: int
    slots: int
    sub_queries: int


def sub_facts(candidates: Sequence[Sized], sub_queries: int) -> SubFacts:
    """The largest piece that at least three quarters of the slots can take well, and how many run at once."""
    slots = sum(candidate.slots for candidate in candidates)
    tokens, reached = 0, 0
    for candidate in sorted(candidates, key=piece_tokens, reverse=True):
        reached += candidate.slots
        tokens = piece_tokens(candidate)
        if reached >= _MOST_SLOTS * slots:
            break
    return SubFacts(
        piece_chars=max(500, int(tokens * CHARS_PER_TOKEN) // 100 * 100), slots=slots, sub_queries=sub_queries
    )


def piece_tokens(candidate: Sized) -> int:
    """Tokens of text that fit a sub-query to this candidate: within its useful window, and beside its own reply."""
    return min(candidate.useful_window, candidate.window - candidate.max_tokens) - _INSTRUCTION_TOKENS


@dataclass(frozen=True, slots=True)
class Prompts:
    version: str
    system: str
    no_subs: str
    opening: str
    nudge: str
    not_kept: str
    cut: str
    last_turn: str
    conclude: str
    direct: str
    repeating: str
    offer_map: str
    mistyped: str
    made_typed: str


PROMPTS = Prompts(
    version="3",
    system="""\
You answer a question about a text that is too long to read at once. The text is a variable in a Python REPL. Write \
code, read its output, go on until you know the answer.

REPL (defined already; do not redefine):
- context: the text (a str), or the list of documents; documents: always the list; contexts: dict by name.
  A document is a str with .name.
- search(query, k=10): passages that match the words of the query, best first; each is a str with .name (of \
its document), .line, .start, .end, .score.
- grep(pattern, docs=None): lines that match a regular expression, as such str.
- chunks(text_or_documents, size): pieces of at most size characters, cut at natural borders.
${subs}\
- SHOW_VARS(): your variables.
Variables stay from block to block. The REPL is sealed: no network, no files, no processes. A block may compute for \
$cell_seconds s.

How to work:
1. Look first: what the text is, how it is built; search() for words of the question and for other words of the same \
meaning. print() what you want to see; output above $output_chars characters is cut in the middle.
2. If passages answer the question, read them in full and answer.
${whole}\
Do not guess what you have not read.

Format: one block a reply, then stop and wait for its output:
```repl
for p in search("words of the question", $hits):
    print(p.name, p.line, p)
```

To finish, when you have read what the answer rests on, write on a line of its own, outside of a block,
FINAL(the answer)
or, when a variable holds it,
FINAL_VAR(name)
or, in a block, answer["content"] = text; answer["ready"] = True.
Support each claim with the exact words of the text in double quotes; quotes are checked against the text and become \
citations.
""",
    no_subs="3. There is no other model to ask: use code to count, filter and compare.\n",
    opening="""\
Question: $question

$contexts
${session}${typed}\
$turn Look at the text before you answer.""",
    nudge="Your reply holds neither a ```repl block nor a final. Write one block, or finish with FINAL(answer).",
    not_kept="(a reply that did not count)",
    cut="Your reply did not count. $why$unrun Write less at once: at most $tokens tokens.",
    last_turn="This is the last turn that can run a block: finish now with FINAL(the answer) or FINAL_VAR(name).",
    conclude="""\
$why You can run no more code. Answer the question now from what you have read above, in plain text, quoting the exact \
words it rests on in double quotes; say what stays open. If you have read nothing that answers it, say that.

Question: $question""",
    direct="""\
$text

Answer the question from the text above alone. Support each claim with the exact words of the text in double quotes; \
quotes are checked against the text and become citations. If the text does not answer it, say so.

Question: $question""",
    repeating="You have seen this output before. If it answers the question, finish now with FINAL(the answer); if \
not, look for something else.",
    offer_map="""\
If writing code does not work, reply with the one word
MAP
and the question is asked of each of the $pieces pieces of the text$takes, and what they say is combined into the \
answer.""",
    mistyped="$why\n\nAnswer the question again.",
    made_typed="""\
$text

Question: $question

The text above answers the question. $typed""",
)

_SUBS = """\
- llm_query(prompt): asks a language model; it sees this prompt alone. llm_query_batched(prompts): many at once, \
replies in order; a failed one is falsy, ok(replies) keeps the others. With schema=list[str], another type or a JSON \
schema, replies are such data.
"""
_RUNS = """\
- rlm_query(question, context=None): a run like this one, for a question about a long text (or pieces of one, or all) \
that must itself be explored; rlm_query_batched(questions, contexts): many at once.
"""
_WHOLE = """\
3. If the question needs the whole text: pieces = chunks(context, $piece_chars); replies = llm_query_batched([piece + \
"\\n\\nFrom this text alone: <what to find>. Quote the words." for piece in pieces]); then combine the replies in code \
or with one more llm_query. A prompt holds at most $piece_chars characters of text; $slots run at the same time; you \
have $sub_queries in all, so put much text in one prompt, never one line. Text first, question last.
"""


def system_prompt(
    facts: SubFacts | None,
    *,
    output_chars: int,
    cell_seconds: float,
    depth: int = 0,
    notes: Sequence[str] = (),
    prompts: Prompts = PROMPTS,
) -> str:
    """The system prompt of the ``rlm`` strategy; without ``facts`` there is no model to ask, without ``depth`` no child
    run. ``notes`` end it."""
    if facts is None or facts.sub_queries == 0:
        subs, whole = "", prompts.no_subs
    else:
        numbers = {
            "piece_chars": str(facts.piece_chars),
            "slots": str(facts.slots),
            "sub_queries": f"{facts.sub_queries:,}",
        }
        subs, whole = _SUBS + (_RUNS if depth > 0 else ""), Template(_WHOLE).substitute(numbers)
    text = Template(prompts.system).substitute(
        subs=subs,
        whole=whole,
        output_chars=f"{output_chars:,}",
        cell_seconds=f"{cell_seconds:g}",
        hits=max(1, min(_MOST_HITS, output_chars // _HIT_CHARS)),
    )
    return text + "".join(f"{note.strip()}\n" for note in notes if note.strip())


def own_prompts(system: str | None, note: str) -> Prompts:
    """The prompts with the words of the config; their version tells that and which."""
    if system is None and not note:
        return PROMPTS
    version = f"{PROMPTS.version}+{digest_of(f'{system} {note}')[:8]}"
    return replace(PROMPTS, version=version, system=system or PROMPTS.system)


def opening(
    question: str, pins: Sequence[Pin], turn: str, session: str = "", typed: str = "", prompts: Prompts = PROMPTS
) -> str:
    """The first message of the user: the question, what there is to read, and of what type the answer is to be."""
    contexts = "\n".join(_context_line(pin, alone=len(pins) == 1) for pin in pins)
    return Template(prompts.opening).substitute(
        question=question,
        contexts=contexts,
        turn=turn,
        session=session + "\n" if session else "",
        typed=typed + "\n" if typed else "",
    )


def _context_line(pin: Pin, *, alone: bool) -> str:
    where = "context" if alone else f"contexts[{pin.context!r}]"
    if pin.kind == "text":
        return f"{where}: {pin.context!r}, one text of {pin.chars:,} characters."
    return f"{where}: {pin.context!r}, a list of {pin.documents:,} documents, {pin.chars:,} characters in all."


def turn_line(
    turn: int,
    turns: int,
    sub_queries_left: int | None = None,
    *,
    last_word: bool = True,
    prompts: Prompts = PROMPTS,
) -> str:
    """Where the run stands, at the end of each message to the root. With ``last_word`` the last turn, if there are
    several, is for an answer at the limit, and the one before it is the last that runs a block."""
    if turn >= max(1, turns - last_word):
        return f"Turn {turn} of {turns}. {prompts.last_turn}"
    left = "" if sub_queries_left is None else f", {sub_queries_left:,} sub-queries left"
    return f"Turn {turn} of {turns}{left}."


def direct_prompt(text: str, question: str, prompts: Prompts = PROMPTS) -> str:
    """Context first, question last: equal contexts share a prefix in the host's cache."""
    return Template(prompts.direct).substitute(text=text, question=question)
