"""What a request says of itself reaches the scheduler and the caches: who waits, prefix, role, ephemeral, its run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rlmd.config import RoleSettings
from rlmd.errors import NoHost, PromptTooLong
from rlmd.pool import CompletionRequest, Pool
from tests.fakes.ollama import FakeModel, FakeOllama, Scripted, echo
from tests.integration.test_pool import ask, host, pool_of

PATIENCE = 30.0


async def order_at(fake: FakeOllama, pool: Pool, requests: list[CompletionRequest]) -> list[str]:
    """The prompts in the order in which a host of one slot gets them, all of them waiting for it at first."""
    free = asyncio.Event()
    fake.answer = lambda prompt: Scripted("x", until=free) if prompt == requests[0].messages[0].content else "y"
    asked = [asyncio.create_task(pool.complete(requests[0]))]
    await fake.until(lambda: fake.serving == 1)
    asked += [asyncio.create_task(pool.complete(request)) for request in requests[1:]]
    async with asyncio.timeout(PATIENCE):
        while pool.statistics().queue.queued < len(requests) - 1:
            await asyncio.sleep(0.005)
    free.set()
    await asyncio.gather(*asked)
    return [seen.prompt.split()[0] for seen in fake.seen]


async def test_what_somebody_waits_for_goes_before_a_batch() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        batch = [ask(f"batch{n} {'x' * 4000}", batch=True) for n in range(3)]
        first = await order_at(fake, pool, [*batch, ask("waited-for")])
        assert first[1] == "waited-for"


async def test_what_begins_alike_stays_together() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        alike = [ask(f"alike{n}", batch=True, prefix_group="alike") for n in range(3)]
        other = ask(f"other {'x' * 400}", batch=True, prefix_group="other")
        assert await order_at(fake, pool, [alike[0], other, *alike[1:]]) == ["alike0", "alike1", "alike2", "other"]


async def test_a_root_waits_for_its_first_candidate_and_a_sub_query_for_none() -> None:
    async with FakeOllama(["m"]) as strong, FakeOllama(["m"]) as weak:
        held = asyncio.Event()
        strong.answer = lambda prompt: Scripted("x", until=held) if prompt == "first" else echo(prompt)
        names = ("strong/m", "weak/m")
        roles = RoleSettings(root=names, sub=names)
        async with pool_of({"strong": host(strong), "weak": host(weak)}, roles=roles) as pool:
            first = asyncio.create_task(pool.complete(ask("first", role="root")))
            await strong.until(lambda: strong.serving == 1)
            second = asyncio.create_task(pool.complete(ask("second", role="root")))
            assert (await pool.complete(ask("a sub-query"))).record.host == "weak"
            assert not weak.prompts("m")[1:]
            held.set()
            assert [(await task).record.host for task in (first, second)] == ["strong", "strong"]


async def test_what_was_joined_and_what_was_found_is_counted(tmp_path: Path) -> None:
    async with FakeOllama(["sub"], latency=0.02) as fake, pool_of({"gpu": host(fake)}, tmp_path / "cache") as pool:
        await asyncio.gather(*(pool.complete(ask("q")) for _ in range(3)))
        await pool.complete(ask("q"))
        now = pool.statistics()
        assert (now.completed, now.joined, now.cache_hits) == (1, 2, 1)


async def test_what_is_ephemeral_is_found_again_in_memory_alone_until_its_text_is_forgotten(tmp_path: Path) -> None:
    async with FakeOllama(["sub"]) as fake:
        fake.answer = lambda _: "a reply with a canary"
        request = ask("q", ephemeral=True, private=True, contexts=("note",))
        async with pool_of({"gpu": host(fake)}, tmp_path / "cache") as pool:
            await pool.complete(request)
            assert (await pool.complete(request)).record.source == "cache"
            await pool.forget("note")
            await pool.complete(request)
            assert len(fake.seen) == 2
            assert pool.statistics().cache_entries == 0
        files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
        assert files
        assert not [file for file in files if b"canary" in file.read_bytes()]


async def test_a_flag_of_a_run_that_joined_ends_what_it_joined() -> None:
    """The host that was asked for another run is not trusted with the text of this one."""
    async with FakeOllama(["sub"]) as cloud, pool_of({"cloud": host(cloud, trust="cloud")}) as pool:
        cloud.answer = lambda _: Scripted("partial words", fault="hang", after=4)
        first = asyncio.create_task(pool.complete(ask("q", run_id="open")))
        await cloud.until(lambda: cloud.serving == 1)
        joined = asyncio.create_task(pool.complete(ask("q", run_id="secret")))
        async with asyncio.timeout(PATIENCE):
            while not pool.statistics().joined:
                await asyncio.sleep(0.005)
        pool.make_private({"secret"})
        await cloud.until(lambda: cloud.aborted == 1)
        with pytest.raises(NoHost):
            await joined
        await asyncio.wait([first])


async def test_how_many_tokens_a_models_text_makes_is_learned() -> None:
    """A prompt that would not fit is refused before it is sent, once its model turned out to need more tokens."""
    models = [FakeModel("sub", window=8192)]
    async with (
        FakeOllama(models, bytes_per_token=1.0, default_num_ctx=8192) as fake,
        pool_of({"gpu": host(fake)}) as pool,
    ):
        for number in range(15):
            await pool.complete(ask(f"{number} ".ljust(2000, "x")))
        before = len(fake.seen)
        with pytest.raises(PromptTooLong):
            await pool.complete(ask("x" * 16_000))
        assert len(fake.seen) == before
