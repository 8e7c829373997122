"""A long text is asked about, a line goes into its middle, and the same is asked again: only what changed is paid.

The sub-model quotes the lines that tell of a signature and says something of every piece, so that what is combined
changes wherever a piece does. Whatever the receipt tells is held against what the host saw.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.fakes.serving import Seen
from tests.harness import Client, Folders, Host, Json, config_of, load_path, new_run, start_run, whole_text

QUESTION = "Which keepers signed for oil, and for how much?"
SIGNED = re.compile(r"The keeper of lamp \d+ signed for \d+ litres of oil\.")
NEW = "The keeper of lamp 99999 signed for 12345 litres of oil."
#: Signatures in all: an answer has room for 40 citations.
SIGNATURES = 36
SHARE = 0.95
WORDS = ("lamp", "wick", "oil", "harbour", "storm", "watch", "glass", "keeper", "boat", "tide", "fog", "bell", "rope")

SCRIPT = """```repl
pieces = chunks(documents, {size})
ask = "\\n\\nFrom this text alone: which keepers signed for oil? Quote the words. If none, reply NOTHING."
replies = ok(llm_query_batched([piece + ask for piece in pieces]))
quotes = [line for reply in replies for line in str(reply).splitlines() if line.startswith('"')]
result = "\\n".join(quotes)
print(len(pieces), len(quotes))
```"""


def sub(seen: Seen) -> str:
    """Quotes each signature that the prompt holds, and adds a remark that no other prompt gets."""
    found = dict.fromkeys(SIGNED.findall(seen.prompt))
    if "Above are findings" in seen.prompt:
        return quotes(found) or "These findings name nobody."
    digest = hashlib.sha256(seen.prompt.encode()).hexdigest()
    return f"{quotes(found)}\nThe rest speaks of {digest}." + " It does so at length." * 12


def quotes(lines: Iterable[str]) -> str:
    return "\n".join(f'"{line}"' for line in lines)


@dataclasses.dataclass
class Text:
    """A text, or documents by name, with signatures at even distances."""

    documents: dict[str, str]

    @classmethod
    def lines(cls, chars: int) -> Text:
        rng = random.Random(chars)
        made: list[str] = []
        length = 0
        while length < chars:
            day = f"{rng.randrange(28) + 1:02}.{rng.randrange(12) + 1:02}. "
            made.append(day + " ".join(rng.choices(WORDS, k=rng.randrange(4, 24))) + ".")
            length += len(made[-1]) + 1
        return cls({"log.txt": _signed(made, rng)})

    @classmethod
    def prose(cls, chars: int) -> Text:
        rng = random.Random(chars)
        made: list[str] = []
        length = 0
        while length < chars:
            sentences = (" ".join(rng.choices(WORDS, k=rng.randrange(5, 30))).capitalize() for _ in range(9))
            made.append(". ".join(sentences) + ".\n")
            length += len(made[-1]) + 1
        return cls({"book.txt": _signed(made, rng)})

    @classmethod
    def notes(cls, chars: int) -> Text:
        """Many small files: several share a prompt."""
        whole = cls.lines(chars).documents["log.txt"].splitlines(keepends=True)
        rng = random.Random(chars)
        documents: dict[str, str] = {}
        while whole:
            count = rng.randrange(3, 40)
            documents[f"note-{len(documents):05}.txt"] = "".join(whole[:count])
            del whole[:count]
        return cls(documents)

    def write(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name, text in self.documents.items():
            file = folder / name
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                file.write_text(text, encoding="utf-8")

    def with_a_line(self) -> Text:
        """One more signature in the middle."""
        name = list(self.documents)[len(self.documents) // 2]
        lines = self.documents[name].splitlines(keepends=True)
        lines.insert(len(lines) // 2, NEW + "\n")
        return Text(self.documents | {name: "".join(lines)})


def _signed(lines: list[str], rng: random.Random) -> str:
    for number in range(SIGNATURES - 1, -1, -1):
        line = f"The keeper of lamp {number} signed for {rng.randrange(10, 999)} litres of oil."
        lines.insert((2 * number + 1) * len(lines) // (2 * SIGNATURES), line)
    return "\n".join(lines) + "\n"


@dataclasses.dataclass
class Asked:
    ended: Json
    answer: str
    #: Sub-queries that the host saw.
    paid: int

    @property
    def receipt(self) -> Json:
        receipt: Json = self.ended["receipt"]
        return receipt

    @property
    def cached(self) -> float:
        return 1 - self.paid / int(self.receipt["sub_queries"])


async def ask(client: Client, fake: FakeOllama, context: str, strategy: str) -> Asked:
    """The question in a fresh session; limits that no text here reaches."""

    def root(seen: Seen) -> str:
        system = str(seen.messages[0]["content"])
        size = re.search(r"at most ([\d,]+) characters of text", system)
        assert size is not None
        turns = SCRIPT.format(size=size[1].replace(",", "")), "FINAL_VAR(result)"
        return turns[sum(message["role"] == "assistant" for message in seen.messages)]

    fake.mind("root", root)
    before = len(fake.prompts("sub"))
    run = new_run(QUESTION, context, strategy=strategy, confirm="accept", limits={"sub_queries": 20_000})
    ended = await start_run(client, run, timeout=900)
    assert ended["outcome"] == "answered", ended
    return Asked(ended, await whole_text(client, run["run_id"], ended["answer"]), len(fake.prompts("sub")) - before)


def check(asked: Asked, text: Text, revision: int) -> None:
    """All signatures are answered, each cited at its place; the receipt is what the host saw."""
    wanted = [line for one in text.documents.values() for line in SIGNED.findall(one)]
    assert sorted(SIGNED.findall(asked.answer)) == sorted(wanted)
    citations = asked.ended["citations"]
    assert sorted(one["quote"] for one in citations) == sorted(wanted)
    for one in citations:
        document = text.documents[_name(one["document"], text)]
        assert one["verified"]
        assert one["revision"] == revision
        assert document[one["start"] : one["end"]] == one["quote"]
        assert one["locator"]["line"] == document.count("\n", 0, one["start"]) + 1
    receipt = asked.receipt
    assert receipt["sub_queries"] - receipt["sub_queries_cached"] == asked.paid
    assert sum(use["calls"] for use in receipt["models"] if use["role"] == "sub") == asked.paid
    assert receipt["chars_read"] == receipt["chars_total"] == sum(map(len, text.documents.values()))
    assert (receipt["pieces_failed"], receipt["unread"]) == (0, [])


def _name(document: str, text: Text) -> str:
    """A document of one file is named by its path, of a folder by its name there."""
    return document if document in text.documents else Path(document).name


BIG = [pytest.mark.full, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("strategy", ["map", "rlm"])
@pytest.mark.parametrize(
    ("kind", "chars"),
    [
        ("lines", 1_000_000),
        ("notes", 1_000_000),
        pytest.param("lines", 10_000_000, marks=BIG),
        pytest.param("prose", 10_000_000, marks=BIG),
        pytest.param("notes", 10_000_000, marks=BIG),
    ],
)
async def test_a_line_in_the_middle_costs_its_piece_alone(
    folders: Folders, start_daemon: StartDaemon, kind: str, chars: int, strategy: str
) -> None:
    """By ``map``, and by a root that asks of ``chunks()``: 95 % and more of the sub-queries come from the cache."""
    text: Text = getattr(Text, kind)(chars)
    edited = text.with_a_line()
    async with FakeOllama(["root", "sub"], slots=8) as fake:
        fake.mind("sub", sub)
        folders.write_config(
            config_of([Host("box", fake.url, 8, {"root": 8192, "sub": 8192})], ("box/root",), ("box/sub",))
        )
        daemon = await start_daemon()
        folder = folders.home / "watch"
        async with daemon.connect() as client:
            for version, revision in ((text, 1), (edited, 2)):
                version.write(folder)
                sources = [folder] if kind == "notes" else [next(iter(folder.iterdir()))]
                await load_path(client, "watch", *sources)
                asked = await ask(client, fake, "watch", strategy)
                check(asked, version, revision)
                print(
                    f"{kind} {chars:,} {strategy}: {asked.receipt['sub_queries']:,} asked, {asked.paid:,} paid,"
                    f" {asked.receipt['wall_seconds']:.1f} s"
                )
            assert asked.paid > 0
            assert asked.cached >= SHARE, f"{asked.paid} of {asked.receipt['sub_queries']} sub-queries were paid again"
