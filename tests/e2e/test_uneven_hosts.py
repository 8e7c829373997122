"""A scripted root over three uneven hosts: the answer is exact, slots are kept, asking again costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Callable

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama, Scripted
from tests.harness import Client, Folders, Host, Json, config_of, load_text, new_run, start_run

PARTS = 40
SLOTS = {"m40": 2, "rtx": 4, "p100": 2}
#: Seconds a sub-query, uneven as the cards are.
SECONDS = {"m40": 0.02, "rtx": 0.01, "p100": 0.03}

NUMBERS = [(number * 7919) % 1000 for number in range(PARTS)]
TEXT = "\n\n".join(f"Section {at}. The reading was {value}." + " Filler." * 40 for at, value in enumerate(NUMBERS))
ANSWER = f"{sum(NUMBERS)} over {PARTS} parts"

PROBE = "I look first.\n\n```repl\nprint(len(context))\nprint(context[:200])\n```"
BATCH = """```repl
parts = context.split("\\n\\n")
replies = llm_query_batched([f"Which reading is in this section?\\n{part}" for part in parts])
numbers = [int(reply) for reply in ok(replies)]
report = f"{sum(numbers)} over {len(numbers)} parts"
print(report)
```"""
FINISH = "FINAL_VAR(report)"


def read_number(prompt: str) -> str:
    found = re.search(r"The reading was (\d+)\.", prompt)
    return found[1] if found else "none"


@dataclasses.dataclass
class Hosts:
    fakes: dict[str, FakeOllama]

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, seconds: dict[str, float] | None = None) -> AsyncIterator[Hosts]:
        """Three hosts with the model ``sub``; the first also has the model ``root``."""
        async with contextlib.AsyncExitStack() as stack:
            fakes = {}
            for name, slots in SLOTS.items():
                fake = FakeOllama(["root", "sub"], slots=slots, latency=(seconds or SECONDS)[name])
                fake.answer = read_number
                fakes[name] = await stack.enter_async_context(fake)
            yield cls(fakes)

    def config(self) -> str:
        hosts = [Host(n, f.url, SLOTS[n], {"root": 8192, "sub": 8192}) for n, f in self.fakes.items()]
        return config_of(hosts, root=("m40/root",), sub=tuple(f"{name}/sub" for name in self.fakes))

    def script(self, *entries: str | Callable[..., str | Scripted]) -> None:
        self.fakes["m40"].script("root", list(entries))

    def sub_prompts(self) -> list[str]:
        return [prompt for fake in self.fakes.values() for prompt in fake.prompts("sub")]


async def ask(client: Client, hosts: Hosts, **more: object) -> tuple[Json, list[Json]]:
    hosts.script(PROBE, BATCH, FINISH)
    run = new_run("What is the sum of all readings?", "readings", strategy="rlm", **more)
    ended = await start_run(client, run)
    return ended, client.facts(run["run_id"])


async def test_probe_batch_finish(folders: Folders, start_daemon: StartDaemon) -> None:
    async with Hosts.running() as hosts:
        folders.write_config(hosts.config())
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "readings", TEXT)
            ended, facts = await ask(client, hosts)

            assert ended["outcome"] == "answered"
            assert ended["answer"]["text"] == ANSWER
            for name, fake in hosts.fakes.items():
                assert fake.max_held <= SLOTS[name], f"{name} held {fake.max_held} requests in {SLOTS[name]} slots"
                assert fake.prompts("sub"), f"{name} was given nothing"
            assert sum(fake.outcomes("answered") for fake in hosts.fakes.values()) == PARTS + 3

            kinds = [fact["type"] for fact in facts]
            assert kinds[0] == "run_started"
            assert kinds[-1] == "run_ended"
            assert kinds.count("subquery_replied") == PARTS
            batch = next(fact for fact in facts if fact["type"] == "batch_started")
            assert batch["total"] == PARTS
            slots = sorted(fact["slot"] for fact in facts if fact["type"] == "subquery_replied")
            assert slots == list(range(slots[0], slots[0] + PARTS))
            receipt = ended["receipt"]
            assert receipt["sub_queries"] == PARTS
            assert receipt["sub_queries_cached"] == 0
            assert receipt["turns"] == 3
            used = {use["host"]: use["calls"] for use in receipt["models"] if use["role"] == "sub"}
            assert sum(used.values()) == PARTS
            assert set(used) == set(SLOTS)

            # What was told live is what is kept.
            kept = await client.call("run/fetch", {"run_id": ended["run_id"], "from_seq": 1, "to_seq": len(facts)})
            assert kept["facts"] == facts
            async with daemon.connect() as late:
                await late.call("run/attach", {"run_id": ended["run_id"], "from_seq": 5})
                await late.ended_run(ended["run_id"])
                assert late.facts(ended["run_id"]) == facts[4:]

            # Asked again in a fresh session: no host sees a sub-query.
            before = len(hosts.sub_prompts())
            again, facts_again = await ask(client, hosts)
            assert again["answer"]["text"] == ANSWER
            assert len(hosts.sub_prompts()) == before
            sources = [f["completion"]["source"] for f in facts_again if f["type"] == "subquery_replied"]
            assert sources == ["cache"] * PARTS
            assert again["receipt"]["sub_queries_cached"] == PARTS

            # And when the user wants fresh answers, they are asked for.
            fresh, _ = await ask(client, hosts, fresh=True)
            assert fresh["answer"]["text"] == ANSWER
            assert len(hosts.sub_prompts()) == before + PARTS


async def test_the_cache_survives_the_daemon(folders: Folders, start_daemon: StartDaemon) -> None:
    async with Hosts.running() as hosts:
        folders.write_config(hosts.config())
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "readings", TEXT)
            await ask(client, hosts)
        await daemon.kill()
        before = len(hosts.sub_prompts())
        daemon = await start_daemon()
        async with daemon.connect() as client:
            again, _ = await ask(client, hosts)
        assert again["answer"]["text"] == ANSWER
        assert len(hosts.sub_prompts()) == before


async def test_a_host_that_dies_in_the_middle_costs_no_sub_query(folders: Folders, start_daemon: StartDaemon) -> None:
    async with Hosts.running() as hosts:
        rtx = hosts.fakes["rtx"]

        def dies_after_ten(prompt: str) -> str | Scripted:
            if len(rtx.prompts("sub")) > 10:
                return Scripted(read_number(prompt), fault="reset", after=1)
            return read_number(prompt)

        rtx.answer = dies_after_ten
        folders.write_config(hosts.config())
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "readings", TEXT)
            ended, facts = await ask(client, hosts)
            assert ended["answer"]["text"] == ANSWER
            assert [fact["type"] for fact in facts].count("subquery_failed") == 0
            listed = {host["name"]: host for host in (await client.call("host/list"))["hosts"]}
            assert listed["rtx"]["failed"] > 0
            assert listed["m40"]["failed"] == listed["p100"]["failed"] == 0


async def test_cut_and_partial_replies_are_no_answers(folders: Folders, start_daemon: StartDaemon) -> None:
    """A slow, honest host and two that answer 200 and cut every reply: only whole answers count, none is cached."""
    async with Hosts.running() as hosts:
        hosts.fakes["rtx"].answer = lambda _: Scripted("99999", fault="cut", after=3)
        hosts.fakes["p100"].answer = lambda _: Scripted("99999", finish="length")
        folders.write_config(hosts.config())
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "readings", TEXT)
            ended, facts = await ask(client, hosts)
            replies = [fact["reply"]["text"] for fact in facts if fact["type"] == "subquery_replied"]
            assert not [reply for reply in replies if reply.startswith("99")]
            assert "99999" not in json.dumps(ended["answer"])


async def test_equal_prompts_at_once_are_asked_once(folders: Folders, start_daemon: StartDaemon) -> None:
    same = '```repl\nreplies = llm_query_batched(["The reading was 7."] * 20)\nprint(replies)\n```'
    async with Hosts.running() as hosts:
        hosts.script(same, "FINAL(done)")
        folders.write_config(hosts.config())
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "readings", TEXT)
            run = new_run("Twenty times the same?", "readings", strategy="rlm")
            ended = await start_run(client, run)
            assert ended["outcome"] == "answered"
            assert len(hosts.sub_prompts()) == 1
            output = client.facts(run["run_id"], "cell_ended")[0]["output"]["text"]
            assert output.count("'7'") == 20


async def test_a_root_turn_waits_for_one_slot_at_most(folders: Folders, start_daemon: StartDaemon) -> None:
    """While the batch of another run holds every slot and queues for more: the first slot that comes free at the
    root's host is the turn's."""
    async with Hosts.running() as hosts:
        gates: dict[str, list[asyncio.Event]] = {name: [] for name in hosts.fakes}

        def held_at(name: str) -> Callable[[str], Scripted]:
            def answer(prompt: str) -> Scripted:
                gates[name].append(asyncio.Event())
                return Scripted(read_number(prompt), until=gates[name][-1])

            return answer

        for name, fake in hosts.fakes.items():
            fake.answer = held_at(name)
        hosts.script(PROBE, BATCH, "```repl\nsize = len(context)\n```\nFINAL_VAR(size)", FINISH)
        folders.write_config(hosts.config())
        daemon = await start_daemon()
        async with daemon.connect() as client, daemon.connect() as other:
            await load_text(client, "readings", TEXT)
            batch = asyncio.create_task(start_run(client, new_run("The sum?", "readings", strategy="rlm")))
            while {name: len(held) for name, held in gates.items()} != SLOTS:
                await asyncio.sleep(0.01)
            while (await other.call("host/list"))["queued"] < PARTS - sum(SLOTS.values()):
                await asyncio.sleep(0.01)
            question = asyncio.create_task(start_run(other, new_run("How many?", "readings", strategy="rlm")))
            async with daemon.connect() as third:
                while (await third.call("host/list"))["queued"] <= PARTS - sum(SLOTS.values()):
                    await asyncio.sleep(0.01)
            m40 = hosts.fakes["m40"]
            before = len(m40.seen)
            gates["m40"][0].set()
            try:
                await m40.until(lambda: len(m40.seen) > before)
                assert m40.seen[before].model == "root:latest"
            finally:
                for name, fake in hosts.fakes.items():
                    fake.answer = read_number
                    for gate in gates[name]:
                        gate.set()
            assert (await question)["answer"]["text"] == str(len(TEXT))
            assert (await batch)["answer"]["text"] == ANSWER
