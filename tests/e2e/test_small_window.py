"""A root with 8K tokens of window, the usual case on old cards: twelve talkative turns over 10 MB never overflow it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama, Seen
from tests.harness import Folders, Host, config_of, load_path, new_run, start_run

WINDOW = 8192
TURNS = 12
LATIN = "the quick brown fox jumps over the lazy dog and reads a long report about it"
CYRILLIC = "съешь же ещё этих мягких французских булок да выпей чаю в тихом саду"
NUMBERS = " ".join(f"{number:#x}" for number in range(4096, 4160))


def write_text(path: Path, words: str, size: int = 10 << 20) -> None:
    chance = random.Random(8)
    known = words.split()
    line = " ".join(chance.choice(known) for _ in range(2000)) + "\n"
    lines: list[str] = []
    total = 0
    while total < size:
        lines.append(f"line {len(lines)}: " + line)
        total += len(lines[-1].encode())
    path.write_text("".join(lines), encoding="utf-8")


def talkative(turn: int) -> str:
    """A reply that prints far more than fits, in several ways, and says much about it."""
    prints = ("print(context[:100_000])", "context[5000:60_000]", "for n in range(3000): print(n, context[n:n+40])")
    thoughts = f"Turn {turn}. " + "I consider what to do next. " * 40
    return f"{thoughts}\n\n```repl\nturn_{turn} = len(context) + {turn}\n{prints[turn % 3]}\n```"


@pytest.mark.parametrize(
    ("words", "bytes_per_token"),
    [(LATIN, 4.0), (LATIN, 3.0), (CYRILLIC, 4.0), (NUMBERS, 2.0)],
    ids=["prose", "dense prose", "cyrillic", "numbers"],
)
async def test_twelve_turns(folders: Folders, start_daemon: StartDaemon, words: str, bytes_per_token: float) -> None:
    """``bytes_per_token`` is what the server's tokenizer makes of the text, which the daemon is not told."""
    write_text(folders.home / "report.txt", words)
    async with FakeOllama(["root"], bytes_per_token=bytes_per_token) as fake:
        scripted = [talkative(turn) for turn in range(TURNS - 1)]
        finish = "```repl\nreport = str(turn_0 + turn_5 + turn_10 - 3 * len(context))\n```\nFINAL_VAR(report)"
        fake.script("root", [*scripted, finish])
        folders.write_config(config_of([Host("card", fake.url, 1, {"root": WINDOW})], root=("card/root",)))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            loaded = await load_path(client, "report", folders.home / "report.txt")
            assert loaded["bytes"] >= 10 << 20
            run = new_run("What does the report say?", "report", strategy="rlm")
            ended = await start_run(client, run)
            assert ended["outcome"] == "answered", ended
            assert ended["answer"]["text"] == "15"
            assert ended["receipt"]["turns"] == TURNS

        def most(seen: Seen) -> int:
            return fake.tokens(seen) + int(seen.options["num_predict"])

        sizes = [fake.tokens(seen) for seen in fake.seen]
        print("prompt tokens by turn:", sizes)
        assert all(seen.options["num_ctx"] == WINDOW for seen in fake.seen)
        assert max(sizes) <= WINDOW
        assert max(most(seen) for seen in fake.seen) <= WINDOW, "the reply must find room in the window too"
        assert [seen.outcome for seen in fake.seen].count("answered") == TURNS
        assert fake.loads == [("root:latest", WINDOW)]
