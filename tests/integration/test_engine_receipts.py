"""Receipts are true: what one says was read, failed and asked is what the hosts saw, whatever hosts do.

Three hosts that each fail, cut, truncate or dawdle by a seed, one whose machine sleeps and does not wake, and sometimes
one that dies on the way. Every prompt is of its own text, so that what a host saw tells which piece it was.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlmd.config import LimitSettings, ModelSettings, ReplSettings, RoleSettings, Settings
from rlmd.engine import LimitRequest, RunRecord
from rlmd.engine.prompts import sub_facts
from rlmd.engine.receipt import union
from rlmd.events import Receipt
from rlmd.repl.cutting import chunks
from tests.fakes.ollama import FakeOllama
from tests.fakes.serving import Scripted, Seen
from tests.house import House, settings_for

NAMES = ("m40", "rtx", "p100")
TEXT = "".join(
    f"Entry {n}: lamp {n * 7919 % 100_003} was {'lit' if n % 3 else 'dark'} that night.\n" for n in range(2400)
)
SIZE = 2400
#: Tokens of the sub-model. A server whose tokenizer makes one of each byte cuts these prompts, and answers them.
WINDOW = 2048
#: Stands at the end of a prompt that is made longer to learn whether it was cut.
PROBE = " Padding. Padding."
#: Begins as no text here does, or it would be read as a bit more of the text.
ASK = "@ From this text alone: which lamps are lit?"

few_or_many = pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=[pytest.mark.full, pytest.mark.timeout(300)]) for n in range(3, 40))]
)


def cell(code: str) -> str:
    return f"```repl\n{code}\n```"


class Cutter(FakeOllama):
    """``cuts``: it has another tokenizer than was thought, and does as old servers do with what is too long."""

    cuts = False

    def cut(self) -> None:
        self.cuts, self.honours_truncate, self.bytes_per_token = True, False, 1.0


@dataclass
class Hosts:
    """The fakes, and which requests they began to answer whole: with those that were not hung up on, that is all that
    a run may have of them."""

    seed: int
    fakes: dict[str, Cutter] = field(default_factory=dict)
    begun: list[tuple[str, Seen]] = field(default_factory=list)

    @property
    def whole(self) -> list[tuple[str, Seen]]:
        return [(name, seen) for name, seen in self.begun if seen.outcome == "answered"]

    def mind(self, name: str, rate: float, dies_at: int | None) -> None:
        fake, rng = self.fakes[name], random.Random(f"{self.seed} {name}")

        def reply(seen: Seen) -> str | Scripted:
            if dies_at is not None and len(fake.seen) > dies_at:
                return Scripted("lit: 1, 2, 3", fault="reset", after=4)
            if fake.cuts and fake.tokens(seen) > WINDOW:
                return "lit: half of it"
            if rng.random() < rate:
                return rng.choice(
                    (
                        Scripted("out of memory", status=500),
                        Scripted("bad request", status=400),
                        Scripted("lit: 1, 2, 3", fault="cut", after=4),
                        Scripted("lit: 1, 2, 3", fault="reset", after=4),
                        Scripted("lit: 1, 2, 3", finish="length"),
                    )
                )
            self.begun.append((name, seen))
            return Scripted(f"lit: {len(seen.prompt)}", latency=rng.choice((0.0, 0.0, 0.01, 0.05)))

        fake.mind("sub", reply)

    async def settle(self) -> None:
        """Waits until each has noted how its last request went."""
        for fake in self.fakes.values():
            await fake.until(lambda fake=fake: fake.held == 0)

    def texts(self) -> set[str]:
        """The prompts that were answered whole."""
        return {seen.prompt for _, seen in self.whole}


@asynccontextmanager
async def hosts_of(seed: int, rate: float) -> AsyncIterator[Hosts]:
    rng, hosts = random.Random(seed), Hosts(seed)
    made = [Cutter(["root", "sub"], slots=slots) for slots in (2, 4, 2)]
    if rng.random() < 0.5:
        made[2].cut()
    async with made[0], made[1], made[2]:
        hosts.fakes = dict(zip(NAMES, made, strict=True))
        dying = rng.choice((None, "rtx"))
        for name in NAMES:
            hosts.mind(name, rate * rng.uniform(0.5, 1.5), rng.randrange(3, 9) if name == dying else None)
        yield hosts


def settings_of(hosts: Hosts, asleep: FakeOllama, **fields: object) -> Settings:
    """Of the three, and one whose machine sleeps for good."""
    roles = RoleSettings(root=("m40/root",), sub=tuple(f"{name}/sub" for name in (*NAMES, "night")))
    named = [*hosts.fakes.items(), ("night", asleep)]
    settings = settings_for(*named, roles=roles, repl=ReplSettings(spare_workers=0), **fields)
    settings_of_models = {"root": ModelSettings(window=8192), "sub": ModelSettings(window=WINDOW)}
    machines = {name: host.model_copy(update={"models": settings_of_models}) for name, host in settings.hosts.items()}
    machines["night"] = machines["night"].model_copy(update={"wake": ("/bin/false",), "boot_seconds": 1.0})
    return settings.model_copy(update={"hosts": machines})


@asynccontextmanager
async def house_of(folder: Path, seed: int, rate: float, **fields: object) -> AsyncIterator[tuple[House, Hosts]]:
    async with FakeOllama(["sub"]) as asleep, hosts_of(seed, rate) as hosts:
        settings = settings_of(hosts, asleep, **fields)
        await asleep.die()
        async with House(folder, settings) as house:
            await house.load("lines", TEXT)
            yield house, hosts


def check(receipt: Receipt, hosts: Hosts, pieces: dict[str, tuple[int, int]]) -> None:
    """``pieces`` are the prompts that were asked with text of the context, and where that text stands."""
    read = union(pieces[prompt] for prompt in pieces.keys() & hosts.texts())
    assert receipt.chars_read == sum(end - start for start, end in read)
    unread = gaps(read)
    assert (receipt.unread_stretches, len(receipt.unread)) == (len(unread), min(20, len(unread)))
    assert [(span.start, span.end) for span in receipt.unread] == unread[:20]
    assert receipt.pieces == len(pieces)
    assert receipt.pieces_failed == sum(prompt not in hosts.texts() for prompt in pieces)
    if receipt.pieces_failed:
        assert f"{receipt.pieces_failed} failed" in receipt.summary
    used = {use.host: use for use in receipt.models if use.role == "sub"}
    assert sum(use.calls for use in used.values()) == len(hosts.texts())
    answered = Counter(name for name, _ in hosts.whole)
    assert all(use.calls <= answered[host] for host, use in used.items())
    if len(hosts.whole) == len(hosts.texts()):  # no second attempt was answered too
        assert {host: use.calls for host, use in used.items()} == answered
        for host, use in used.items():
            tokens = sum(hosts.fakes[host].tokens(seen) for name, seen in hosts.whole if name == host)
            assert use.prompt_tokens == tokens


def gaps(read: list[tuple[int, int]]) -> list[tuple[int, int]]:
    edges = [0, *(at for stretch in read for at in stretch), len(TEXT)]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]


def placed(prompts: list[str], size: int) -> dict[str, tuple[int, int]]:
    return {prompt: (at * size, min(len(TEXT), (at + 1) * size)) for at, prompt in enumerate(prompts)}


@few_or_many
async def test_of_a_script(tmp_path: Path, seed: int) -> None:
    """A root that asks of every piece; what failed is what no host answered whole."""
    code = (
        f"pieces = [context[at : at + {SIZE}] for at in range(0, len(context), {SIZE})]\n"
        f"replies = llm_query_batched([piece + {ASK!r} for piece in pieces])\n"
        "result = f'{len(ok(replies))} of {len(pieces)}'"
    )
    async with house_of(tmp_path, seed, 0.5) as (house, hosts):
        hosts.fakes["m40"].script("root", [cell(code), "FINAL_VAR(result)"])
        record = await house.ask("Which are lit?", "lines", strategy="rlm")
        await hosts.settle()
        pieces = placed([TEXT[at : at + SIZE] + ASK for at in range(0, len(TEXT), SIZE)], SIZE)
        assert await house.answer(record) == f"{len(hosts.texts())} of {len(pieces)}"
        check(_receipt(record), hosts, pieces)


@few_or_many
async def test_of_a_script_that_comes_to_its_limit(tmp_path: Path, seed: int) -> None:
    """What was not sent for want of a purse is unread and failed as what the hosts refused."""
    code = (
        f"pieces = [context[at : at + {SIZE}] for at in range(0, len(context), {SIZE})]\n"
        f"replies = llm_query_batched([piece + {ASK!r} for piece in pieces])"
    )
    async with house_of(tmp_path, seed, 0.3) as (house, hosts):
        hosts.fakes["m40"].script("root", [cell(code), "FINAL(some)"])
        record = await house.ask("?", "lines", strategy="rlm", limits=LimitRequest(sub_queries=17))
        await hosts.settle()
        pieces = placed([TEXT[at : at + SIZE] + ASK for at in range(0, len(TEXT), SIZE)], SIZE)
        receipt = _receipt(record)
        check(receipt, hosts, pieces)
        assert len(hosts.texts()) <= 17 < receipt.pieces_failed + 17
        assert receipt.limit == "sub_queries"


@few_or_many
async def test_of_map(tmp_path: Path, seed: int) -> None:
    """The pieces are those of ``chunks``; what combines the findings holds no text of the context."""
    async with house_of(tmp_path, seed, 0.5) as (house, hosts):
        record = await house.ask("Which are lit?", "lines", strategy="map")
        await hosts.settle()
        size = sub_facts(house.pool.candidates("sub"), 2000).piece_chars
        asked = {prompt for fake in hosts.fakes.values() for prompt in fake.prompts("sub") if PROBE not in prompt}
        end, pieces = 0, dict[str, tuple[int, int]]()
        for piece in chunks(TEXT, size):
            start, end = end, end + len(piece)
            [prompt] = {one for one in asked if one.startswith(str(piece))} or {f"never sent: {start}"}
            pieces[prompt] = (start, end)
        receipt = _receipt(record)
        assert all("Above are findings" in prompt for prompt in asked - pieces.keys())
        check(receipt, hosts, pieces)
        whole = receipt.sub_queries == len(hosts.texts())
        assert (record.outcome == "answered") == whole, record


@few_or_many
async def test_of_a_text_read_at_once(tmp_path: Path, seed: int) -> None:
    """All of it, or, where no host answered, nothing."""
    rng = random.Random(seed)
    faults = [Scripted("no", status=400), Scripted("x", fault="cut", after=1)]
    right = Scripted("It is lit.")
    async with Cutter(["root"]) as one, Cutter(["root"]) as two:
        said = [rng.choice([*faults, right, right]) for _ in range(2)]
        for fake, reply in zip((one, two), said, strict=True):
            fake.script("root", [reply] * 9)
        if rng.random() < 0.5:
            one.cut()
        roles = RoleSettings(root=("one/root", "two/root"))
        settings = settings_for(("one", one), ("two", two), roles=roles, window=WINDOW)
        async with House(tmp_path, settings) as house:
            await house.load("short", TEXT[:2000])
            record = await house.ask("Which are lit?", "short", strategy="direct")
            assert record.receipt is not None
            await asyncio.gather(*(fake.until(lambda fake=fake: fake.held == 0) for fake in (one, two)))
            whole = [
                fake
                for fake, reply in zip((one, two), said, strict=True)
                if reply is right and not fake.cuts and fake.outcomes("answered")
            ]
            if whole:
                assert (record.outcome, record.receipt.chars_read, record.receipt.unread) == ("answered", 2000, ())
                [use] = record.receipt.models
                assert use.calls == 1
                [fake] = whole
                assert use.prompt_tokens == fake.tokens(fake.seen[-1])
            else:
                assert record.outcome in ("failed", "none"), record
                assert (record.receipt.chars_read, record.receipt.unread_stretches) == (0, 1)
                assert record.receipt.models == ()


async def test_of_a_search_alone(tmp_path: Path) -> None:
    """Without a model all was searched and nothing read by one; no host was asked."""
    async with house_of(tmp_path, 0, 0.5) as (house, hosts):
        record = await house.ask("Which lamp was dark?", "lines", strategy="quote")
        receipt = _receipt(record)
        assert (receipt.chars_searched, receipt.chars_read, receipt.models) == (len(TEXT), 0, ())
        assert "no model used" in receipt.summary
        assert all(fake.seen == [] for fake in hosts.fakes.values())


LOOK = "for p in search('lamp dark night', 3): print(p)"


@pytest.mark.parametrize("then", ["answers", "fails", "ends at once"])
async def test_what_is_printed_is_read_when_the_root_has_seen_it(tmp_path: Path, then: str) -> None:
    """Passages that a cell prints are read by the root's next turn; if none comes, nobody read them."""
    async with house_of(tmp_path, 0, 0.0) as (house, hosts):
        final = "\nFINAL_VAR(n)" if then == "ends at once" else ""
        refused = [Scripted("no such thing", status=400)] * 9
        after = {"answers": ["FINAL(dark)"], "fails": refused, "ends at once": []}[then]
        hosts.fakes["m40"].script("root", [cell("n = 1"), cell(LOOK) + final, *after])
        receipt = _receipt(await house.ask("Which?", "lines", strategy="rlm"))
        shown = [line for line in TEXT.splitlines() if line in str(hosts.fakes["m40"].seen[-1].messages)]
        if then == "answers":
            assert sum(map(len, shown)) <= receipt.chars_read <= sum(len(line) + 1 for line in shown)
            assert receipt.chars_read > 0
        else:
            assert receipt.chars_read == 0
        assert receipt.chars_searched == len(TEXT)


@few_or_many
async def test_of_children(tmp_path: Path, seed: int) -> None:
    """What reached a model in a child counts in its parent, and no more; the tree's sub-queries are those seen."""
    part = 20 * SIZE  # too many pieces to be mapped
    code = (
        f"parts = [context[at : at + {part}] for at in range(0, {2 * part}, {part})]\n"
        "replies = rlm_query_batched('Which of these?', parts)\nresult = len(ok(replies))"
    )
    below = (
        f"pieces = [context[at : at + {SIZE}] for at in range(0, len(context), {SIZE})]\n"
        f"said = llm_query_batched([piece + {ASK!r} for piece in pieces])\nn = len(ok(said))"
    )
    limits = LimitSettings(turns=100, depth=1)
    async with house_of(tmp_path, seed, 0.5, limits=limits) as (house, hosts):

        def root(seen: Seen) -> str:
            first = sum(message["role"] == "assistant" for message in seen.messages) == 0
            if "Question: Which of these?" in str(seen.messages[1]["content"]):
                return cell(below) if first else "FINAL_VAR(n)"
            return cell(code) if first else "FINAL_VAR(result)"

        hosts.fakes["m40"].mind("root", root)
        record = await house.ask("Which are lit?", "lines", strategy="rlm")
        await hosts.settle()
        assert record.outcome == "answered", record
        pieces = placed([TEXT[at : at + SIZE] + ASK for at in range(0, 2 * part, SIZE)], SIZE)
        receipt = _receipt(record)
        read = union(pieces[prompt] for prompt in pieces.keys() & hosts.texts())
        assert receipt.chars_read == sum(end - start for start, end in read)
        assert [(span.start, span.end) for span in receipt.unread] == gaps(read)[:20]
        assert (receipt.children, receipt.sub_queries) == (2, 40)
        assert sum(use.calls for use in receipt.models if use.role == "sub") == len(hosts.texts())


def _receipt(record: RunRecord) -> Receipt:
    assert record.receipt is not None, record
    assert record.receipt.chars_total == len(TEXT)
    return record.receipt
