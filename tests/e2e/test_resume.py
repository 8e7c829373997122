"""A daemon that is killed again and again in the middle of a run: the run comes to its answer all the same.

The fake host counts: what the journal held when the daemon was killed is not asked again, neither of the root nor of
the sub-model. The cache is cleared at each kill, so that it cannot stand in for the journal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import shutil
from pathlib import Path

import pytest

from rlmd.daemon import DRAIN_SECONDS, GOODBYE_SECONDS
from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama, Scripted
from tests.harness import Client, Folders, Host, Json, config_of, load_text, new_run

FEW, MANY = 5, 40

TURNS = (
    "```repl\nwords = sorted(set(context.split()))\nprint(len(words))\n```",
    "```repl\nreplies = llm_query_batched([f'piece {n}' for n in range(12)])\nprint(replies)\n```",
    "```repl\nimport random\npicked = random.sample(replies, 3)\nprint(picked)\nprint('x' * 9000)\n```",
    "```repl\nmore = [llm_query('more of ' + one) for one in picked]\nprint(len(set(more)))\n```",
    "```repl\nanswer['content'] = ' / '.join(sorted(more))\n```\nFINAL_VAR(answer)",
)


def told(prompt: str) -> str | Scripted:
    """Of a prompt alone, and slowly, so that a kill finds much in flight."""
    if found := re.findall(r"Turn (\d+) of", prompt):
        return Scripted(TURNS[int(found[-1]) - 1], latency=0.01)
    return Scripted(f"reply {hashlib.sha256(prompt.encode()).hexdigest()[:8]}", latency=0.01)


def journal(folders: Folders, run_id: str) -> list[Json]:
    path = folders.state / "rlmd" / "runs" / run_id / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def known(facts: list[Json]) -> set[str]:
    """What the journal has a reply to: turns by number, prompts by digest."""
    turns = {f"turn {fact['turn']}" for fact in facts if fact["type"] == "root_replied"}
    return turns | {fact["prompt_digest"] for fact in facts if fact["type"] == "subquery_replied"}


def asked(prompt: str) -> str:
    found = re.findall(r"Turn (\d+) of", prompt)
    return f"turn {found[-1]}" if found else hashlib.sha256(prompt.encode()).hexdigest()


@pytest.mark.parametrize(
    "times", [FEW, pytest.param(MANY, marks=[pytest.mark.full, pytest.mark.timeout(1800)])], ids=["few", "many"]
)
async def test_killed_again_and_again(folders: Folders, start_daemon: StartDaemon, times: int) -> None:
    chance = random.Random(times)
    async with FakeOllama(["root", "sub"], slots=3) as fake:
        fake.answer = told
        host = Host("one", fake.url, slots=3, models={"root": 8192, "sub": 8192})
        folders.write_config(config_of([host], root=("one/root",), sub=("one/sub",)))
        answers, kills = set(), 0
        while kills < times:
            run = new_run("What is it?", "note", strategy="rlm")
            last, before = 0, 0
            replied: set[str] = set()
            ended: Json | None = None
            while ended is None:
                daemon = await start_daemon()
                async with daemon.connect() as client:
                    if last == 0:
                        await load_text(client, "note", "some text of many words\n" * 500)
                        await client.call("run/start", run)
                    else:
                        await client.call("run/attach", {"run_id": run["run_id"], "from_seq": last + 1})
                    wanted = last + 1 + chance.randrange(14)
                    ended = await _until(client, run["run_id"], wanted)
                    last = max((fact["seq"] for fact in client.facts(run["run_id"])), default=last)
                    await daemon.kill()
                kills += 1
                await fake.until(lambda: fake.held == 0)
                fresh = [asked(prompt) for prompt in fake.prompts()[before:]]
                assert not replied & set(fresh), "what the journal held was asked again"
                before = len(fake.seen)
                facts = journal(folders, run["run_id"])
                assert [fact["seq"] for fact in facts] == list(range(1, len(facts) + 1))
                replied = known(facts)
                shutil.rmtree(folders.cache / "rlmd" / "completions", ignore_errors=True)
            assert ended["outcome"] == "answered"
            answers.add(re.sub(r"\b[0-9a-f]{8}\b", "…", ended["answer"]["text"]))
            notes = [fact["text"] for fact in journal(folders, run["run_id"]) if fact["type"] == "note"]
            assert notes == []
        assert answers == {"reply … / reply … / reply …"}


async def _until(client: Client, run_id: str, seq: int) -> Json | None:
    """Waits for a fact; the last fact of the run, if that was it."""
    with contextlib.suppress(AssertionError):
        await client.until(lambda: any(fact["seq"] >= seq or _last(fact) for fact in client.facts(run_id)))
    return next((fact for fact in client.facts(run_id) if _last(fact)), None)


def _last(fact: Json) -> bool:
    return bool(fact["type"] == "run_ended")


def test_the_unit_file_leaves_room_for_a_drain() -> None:
    """A stop under systemd ends by itself, all runs interrupted, before systemd loses patience; workers are not killed
    before the daemon has stopped their cells."""
    unit = (Path(__file__).parents[2] / "systemd" / "rlmd.service").read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert found is not None
    assert int(found[1]) > DRAIN_SECONDS + GOODBYE_SECONDS + 1 + 4 * 5
    assert "KillMode=mixed" in unit
