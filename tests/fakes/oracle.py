"""Models that know the truth of an evaluation's items: they show what the machinery between question and score does.

The root follows the paper's strategies, in code that it writes: a regular expression for a needle; label all lines by
sub-queries in batches and aggregate in code for OOLONG and its pairs; find a definition and ask about it for source;
find and ask, hop by hop, for chains. It writes the aggregation in its own words, so that it also checks the truth.
The sub-model answers from the truth what its prompt has the evidence for, and is wrong at a rate of ``error``, each
time it is asked the same; ``expected`` is the score that follows. As process::

    python -m tests.fakes.oracle --slots 8 --window 65536 --task oolong --length 131072 --items 14 --seed 0

is an Ollama with models ``root`` and ``sub``, for the items that ``rlmctl eval`` makes by the same numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rlmd.evaluation.aggregation import LABELS, Query, Row
from rlmd.evaluation.asking import joined
from rlmd.evaluation.code import LETTERS, Choice
from rlmd.evaluation.hops import LAST, RELATIONS, Hop
from rlmd.evaluation.item import Item
from rlmd.evaluation.lines import label_of, rows_of
from rlmd.evaluation.oolong import said
from rlmd.evaluation.tasks import tasks
from tests.fakes.ollama import FakeOllama
from tests.fakes.serving import Scripted, Seen

#: A label in one letter, so that a reply is short.
CODES = dict(zip(LABELS, "NEHLAD", strict=True))
LABEL_ALL = "From the text above alone: say of each line of which of the 6 kinds it is, by one letter a line, in order."
ASK_NAME = "From the text above alone: what is {asked}? Reply with the name alone."
UNKNOWN = "The text does not tell."

#: The aggregation in the root's own words: an expression of ``rows`` (day, user, label), already narrowed.
AGGREGATE = {
    "most": "Counter(l for d, u, l in rows).most_common(1)[0][0]",
    "least": "min(LABELS, key=lambda label: sum(l == label for d, u, l in rows))",
    "compare": "(lambda a, b: 'same frequency as' if a == b else 'more common than' if a > b else 'less common than')"
    "(sum(l == {labels}[0] for d, u, l in rows), sum(l == {labels}[1] for d, u, l in rows))",
    "count": "len([l for d, u, l in rows if l == {labels}[0]])",
    "user": "Counter(u for d, u, l in rows if l == {labels}[0]).most_common(1)[0][0]",
    "months_more": "len([m for m in {{d[:7] for d, u, l in rows}} if {more}])",
    "first_month": "min([m for m in {{d[:7] for d, u, l in rows}} if {more}], default='none')",
    "top_date": "Counter(d for d, u, l in rows).most_common(1)[0][0]",
    "dates_exactly": "list(Counter(d for d, u, l in rows).values()).count({number})",
}
MORE = (
    "sum(d[:7] == m and l == {labels}[0] for d, u, l in rows)"
    " > sum(d[:7] == m and l == {labels}[1] for d, u, l in rows)"
)
NARROW = (
    "[r for r in every if ({users} == () or r[1] in {users})"
    " and {since!r} <= r[0] and ({until!r} == '' or r[0] < {until!r})]"
)

#: Labels every line, in prompts of at most ``size`` characters; a piece that fails is asked again in halves.
LABEL_CELL = """\
from collections import Counter, defaultdict
from datetime import datetime
LABELS = {labels}
KINDS = dict(zip("NEHLAD", LABELS))
lines = [line for line in context.splitlines() if line.startswith("Date: ")]
def packed(lines, size):
    packs = [[]]
    room = size
    for line in lines:
        if packs[-1] and len(line) + 1 > room:
            packs.append([])
            room = size
        packs[-1].append(line)
        room -= len(line) + 1
    return packs
todo, kinds = packed(lines, {size}), {{}}
while todo:
    replies = llm_query_batched(["\\n".join(pack) + "\\n\\n" + {ask!r} for pack in todo])
    again = []
    for pack, reply in zip(todo, replies):
        letters = str(reply).split() if reply else []
        if len(letters) == len(pack):
            kinds.update(zip(pack, letters))
        elif len(pack) == 1:
            raise ValueError(f"no label: {{reply!r}}")
        else:
            again += [pack[:len(pack) // 2], pack[len(pack) // 2:]]
    todo = again
every = []
for line in lines:
    date, user, _ = line.split(" || ", 2)
    every.append((datetime.strptime(date[6:], "%b %d, %Y").date().isoformat(), int(user[6:]), KINDS[kinds[line]]))
print(len(every), Counter(row[2] for row in every))
"""

#: Pairs in the root's own words: numbers of lines by user and label, and their days.
PAIRS_CELL = """\
from itertools import combinations
n, days = defaultdict(Counter), defaultdict(list)
for d, u, l in every:
    n[u][l] += 1
    days[u, l].append(d)
num, ent, hum, loc, abbr, desc = LABELS
one = {{u: {one} for u in n}}
other = {{u: {other} for u in n}}
pairs = [(a, b) for a, b in combinations(sorted(n), 2) if (one[a] and other[b]) or (one[b] and other[a])]
result = "\\n".join(f"({{a}}, {{b}})" for a, b in pairs)
print(len(pairs), result[:200])
"""
PREDICATES: dict[int, tuple[str, str]] = {
    1: ("n[u][num] or n[u][loc]", ""),
    2: ("n[u][ent] or n[u][hum]", ""),
    3: ("n[u][desc] or n[u][abbr]", ""),
    4: ("(n[u][hum] or n[u][loc]) and all(d > '2023-01-06' for d in days[u, hum])", ""),
    5: ("(n[u][ent] or n[u][num]) and all(d < '2023-03-15' for d in days[u, ent])", ""),
    6: ("n[u][loc] or n[u][abbr]", ""),
    7: ("(n[u][desc] or n[u][num]) and all(d > '2023-02-01' for d in days[u, num])", ""),
    8: ("n[u][hum] or n[u][desc]", ""),
    9: ("(n[u][ent] or n[u][loc]) and all(d > '2023-04-10' for d in days[u, loc])", ""),
    10: ("(n[u][num] or n[u][abbr]) and all(d < '2023-05-20' for d in days[u, abbr])", ""),
    11: ("n[u][ent] >= 1 and n[u][abbr] >= 1", "n[u][ent] == 1"),
    12: ("n[u][num] >= 2", "n[u][loc] >= 1 and n[u][hum] >= 1"),
    13: ("n[u][desc] == 1", "n[u][abbr] >= 1 and n[u][ent] >= 1"),
    14: ("n[u][hum] >= 1 and n[u][num] >= 1", "n[u][loc] == 2"),
    15: ("n[u][ent] >= 1 and n[u][loc] >= 1 and n[u][abbr] >= 1", "n[u][num] == 1"),
    16: ("n[u][desc] >= 1 and n[u][hum] >= 1", "n[u][ent] >= 2 and n[u][abbr] == 1"),
    17: ("n[u][num] == 1", "n[u][loc] >= 1 and n[u][desc] >= 1"),
    18: ("n[u][abbr] >= 1 and n[u][hum] == 1", "n[u][ent] >= 1 and n[u][num] >= 1"),
    19: ("n[u][loc] >= 2 and n[u][ent] >= 1", "n[u][desc] == 1 and n[u][abbr] == 1"),
    20: ("n[u][num] >= 1 and n[u][hum] >= 1", "n[u][loc] >= 1 and n[u][ent] >= 1 and n[u][abbr] >= 1"),
}

NEEDLE_CELL = """\
import re
found = re.findall(r"magic numbers for {key} is: (\\d+)", context)
result = ", ".join(found)
print(result)
"""
CODE_CELL = """\
found = grep(r"^(?:async )?(?:def|class) {name}\\b")
text = "\\n\\n".join(
    f"File {{hit.name}}:\\n" + str(next(d for d in documents if d.name == hit.name))[hit.start : hit.start + {size}]
    for hit in found[:1]
)
result = llm_query(text + "\\n\\n" + {question!r})
print(result)
"""
HOPS_CELL = """\
import re
who = {first!r}
for asked in {asked!r}:
    found = "\\n".join(grep(re.escape(who) + r"\\b"))
    who = str(llm_query(found[:{size}] + "\\n\\n" + asked.format(one=who))).strip()
    print(who)
result = "Exact Answer: " + who
"""


class Oracle:
    """Args:
    items: Those that it may be asked.
    error: Rate at which the sub-model is wrong, from 0 to 1.
    seed: Of the errors.
    window: Tokens that the sub-model really takes, of four characters each; beyond, it answers what is left of a
        prompt when its beginning is cut, as Ollama cuts it. None takes everything.
    """

    def __init__(
        self, items: Iterable[Item] = (), *, error: float = 0.0, seed: int = 0, window: int | None = None
    ) -> None:
        self.items: dict[str, list[Item]] = {}
        for item in items:
            self.add(item)
        self.error = error
        self.seed = seed
        self.window = window
        #: Sub-queries whose prompt was longer than the window.
        self.overlong = 0

    def add(self, item: Item) -> None:
        self.items.setdefault(item.question, []).append(item)

    def speak_in(self, fake: FakeOllama, root: str = "root", sub: str = "sub") -> None:
        """Takes the two models of a server over."""
        fake.mind(root, self.root)
        fake.mind(sub, self.sub)

    # ── what is known ───────────────────────────────────────────────────────────────────────────────────────

    def _asked(self, text: str) -> Item:
        """The item whose question a prompt holds; of several with one question the first: its strategy is the same."""
        best = max((question for question in self.items if question in text), key=len, default=None)
        assert best is not None, f"no item is asked here: {text[:300]}"
        return self.items[best][0]

    def wrong(self, about: str) -> bool:
        """Whether the sub-model is wrong about this; always the same."""
        return self._chance("wrong", about) < self.error

    def _chance(self, what: str, about: str) -> float:
        digest = hashlib.sha256(f"{self.seed} {what} {about}".encode("utf-8", "replace")).digest()
        return float(int.from_bytes(digest[:6], "big")) / float(1 << 48)

    def label(self, line: str) -> str:
        """What the sub-model says of a line ``Date: … || User: … || Instance: …``."""
        question = line.rsplit("Instance: ", 1)[-1].strip()
        truth = label_of(question)
        assert truth is not None, f"no label is known for {question}"
        if not self.wrong(line.strip()):
            return truth
        others = [label for label in LABELS if label != truth]
        return others[int(self._chance("which", line) * len(others))]

    # ── sub ─────────────────────────────────────────────────────────────────────────────────────────────────

    def sub(self, seen: Seen) -> str | Scripted:
        prompt = seen.prompt
        if self.window is not None and len(prompt) > 4 * self.window:
            self.overlong += 1
            prompt = prompt[-2 * self.window :]
        return _within(self._sub(prompt), seen)

    def _sub(self, prompt: str) -> str:
        text, _, ask = prompt.rpartition("\n\n")
        if LABEL_ALL in prompt:
            return "\n".join(CODES[self.label(line)] for line in text.splitlines() if " || Instance: " in line)
        if "Reply with the name alone" in ask:
            return self._name(text, ask)
        item = self._asked(prompt)
        assert isinstance(item.basis, Choice), f"not asked of a sub-model: {item.question}"
        return self._choice(item, prompt)

    def _name(self, text: str, ask: str) -> str:
        """The name that a chain's sentence in the prompt gives."""
        for form, asked in (*RELATIONS, LAST):
            pattern = re.escape(asked.rstrip("?")).replace(r"\{one\}", "(.+?)")
            if found := re.search(f"what is {pattern}\\?", ask, re.IGNORECASE):
                sentence = re.escape(form.format(one=found[1], other="\0")).replace("\0", "(.+?)")
                given = re.search(f"^{sentence}$", text, re.MULTILINE)
                if given is None:
                    return UNKNOWN
                return f"{given[1]} the Other" if self.wrong(given[0]) else given[1]
        return UNKNOWN

    def _choice(self, item: Item, prompt: str) -> str:
        choice, letter = item.basis, item.truth
        assert isinstance(choice, Choice)
        seen = re.search(rf"^(?:async )?(?:def|class) {choice.evidence}\b", prompt, re.MULTILINE) is not None
        if not seen or (choice.right == choice.file and f"File {choice.file}:" not in prompt):
            return UNKNOWN
        if self.wrong(item.question):
            letter = LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)]
        return f"The correct answer is ({letter})"

    # ── root ────────────────────────────────────────────────────────────────────────────────────────────────

    def root(self, seen: Seen) -> str | Scripted:
        system = str(seen.messages[0]["content"]) if seen.messages[0]["role"] == "system" else ""
        if not system:
            return _within(self._directly(seen.prompt), seen)
        item = self._asked(str(seen.messages[1]["content"]))
        turn = sum(message["role"] == "assistant" for message in seen.messages)
        found = re.search(r"at most (\d+) characters of text", system)
        cells = self._cells(item, int(found[1]) if found else 2000)
        return _within(f"```repl\n{cells[turn]}```" if turn < len(cells) else "FINAL_VAR(result)", seen)

    def _cells(self, item: Item, size: int) -> Sequence[str]:
        """What the root runs, cell by cell; the last one leaves ``result``."""
        look = "print(type(context), len(context)); print(str(context)[:500])\n"
        basis: Any = item.basis
        labels = LABEL_CELL.format(labels=LABELS, size=size, ask=LABEL_ALL)
        match item.task:
            case "niah":
                return look, NEEDLE_CELL.format(key=basis[0])
            case "oolong":
                return look, labels, f"rows = {narrow(basis)}\nresult = {self._form(basis)}\nprint(result)\n"
            case "pairs":
                one, other = PREDICATES[basis]
                return look, labels, PAIRS_CELL.format(one=one, other=other or one)
            case "code":
                return look, CODE_CELL.format(name=basis.evidence, size=size // 2, question=item.question)
            case "hops":
                asked = [_name_asked(hop) for hop in basis]
                return look, HOPS_CELL.format(first=basis[0].about, asked=asked, size=size // 2)
        raise AssertionError(f"no strategy for {item.task}")

    @staticmethod
    def _form(query: Query) -> str:
        """The answer in the form that was asked for, as an expression."""
        if query.what == "top_date":
            return f'"Date: " + (lambda d: f"{{d[5:7]}}/{{d[8:]}}/{{d[:4]}}")({aggregate(query)})'
        return said(query, "\0").replace("\0", "{}").__repr__() + f".format({aggregate(query)})"

    # ── direct ──────────────────────────────────────────────────────────────────────────────────────────────

    def _directly(self, prompt: str) -> str:
        """What a model that reads the whole prompt without a fault says of it."""
        item = self._asked(prompt)
        basis: Any = item.basis
        match item.task:
            case "niah":
                return item.truth if item.truth in prompt else UNKNOWN
            case "oolong":
                return self.answer(basis, rows_of(prompt, label_of))
            case "pairs":
                return self.pairs(basis, rows_of(prompt, label_of))
            case "code":
                shown = re.search(rf"^(?:async )?(?:def|class) {basis.evidence}\b", prompt, re.MULTILINE)
                return f"The correct answer is ({item.truth})" if shown else UNKNOWN
            case "hops":
                whole = all(hop.sentence in prompt for hop in basis)
                return f"Exact Answer: {item.truth}" if whole else UNKNOWN
            case "reading":
                return ", ".join(value for value in basis.values() if value in prompt)
        raise AssertionError(f"no answer for {item.task}")

    # ── what follows ────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, text: str) -> list[Row]:
        """The lines as the sub-model labels them."""
        lines = [line for line in text.splitlines() if line.startswith("Date: ")]
        rows = rows_of(text, label_of)
        return [(day, user, self.label(line)) for (day, user, _), line in zip(rows, lines, strict=True)]

    def answer(self, query: Query, rows: list[Row]) -> str:
        """The root's answer over rows, by its own expressions."""
        names: dict[str, Any] = {"Counter": Counter, "LABELS": LABELS, "every": rows}
        names["rows"] = eval(narrow(query), names)
        return str(eval(self._form(query), names))

    def pairs(self, task: int, rows: list[Row]) -> str:
        one, other = PREDICATES[task]
        names: dict[str, Any] = {"Counter": Counter, "defaultdict": defaultdict, "LABELS": LABELS, "every": rows}
        names["print"] = lambda *_: None
        exec(PAIRS_CELL.format(one=one, other=other or one), names)
        return str(names["result"])

    def expected(self, item: Item) -> float:
        """The score of the strategy ``rlm`` that follows from the error rate and its seed alone, without any daemon."""
        basis: Any = item.basis
        match item.task:
            case "oolong":
                return item.score(self.answer(basis, self.rows(joined(item.text))))
            case "pairs":
                return item.score(self.pairs(basis, self.rows(joined(item.text))))
            case "code":
                return float(not self.wrong(item.question))
            case "hops":
                return float(not any(self.wrong(hop.sentence) for hop in basis))
        return 1.0


def aggregate(query: Query) -> str:
    """The expression that answers a query over ``rows``."""
    labels = repr(query.labels)
    more = MORE.format(labels=labels)
    return AGGREGATE[query.what].format(labels=labels, number=query.number, more=more)


def narrow(query: Query) -> str:
    return NARROW.format(users=query.users, since=query.since, until=query.until)


def _name_asked(hop: Hop) -> str:
    """What the root asks of a hop; the name goes in where ``{one}`` stands."""
    asked = hop.asked.replace(hop.about, "{one}")
    return ASK_NAME.format(asked=asked.rstrip("?"))


def _within(text: str, seen: Seen) -> str | Scripted:
    """A reply is cut where the request says."""
    most = 4 * int(seen.options.get("num_predict") or 1_000_000)
    return text if len(text) <= most else Scripted(text[:most], finish="length")


Mind = Callable[[Seen], "str | Scripted"]


async def _main(options: argparse.Namespace) -> None:
    oracle = Oracle(error=options.error, seed=options.seed)
    for name in options.task:
        for tokens in options.length:
            for item in tasks()[name].items(tokens, options.items, options.seed):
                oracle.add(item)
    fake = FakeOllama(["root", "sub"], slots=options.slots, port=options.port)
    oracle.speak_in(fake)
    await fake.serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An Ollama whose models know the truth of rlmctl eval's items")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--task", action="append", required=True)
    parser.add_argument("--length", action="append", type=int, required=True, help="tokens")
    parser.add_argument("--items", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--error", type=float, default=0.0)
    asyncio.run(_main(parser.parse_args()))
