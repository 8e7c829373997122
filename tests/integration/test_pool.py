"""The pool over fake Ollama hosts: whole completions, candidates, cache, flights, cancellation, failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rlmd.config import BudgetSettings, HostSettings, ModelSettings, RoleSettings, Settings, Trust
from rlmd.errors import (
    CompletionCut,
    Conflict,
    Draining,
    HostFailed,
    NoHost,
    NotFound,
    PromptTooLong,
    PromptTruncated,
    RlmdError,
)
from rlmd.pool import CompletionRequest, Deadlines, Pool, settings_for
from rlmd.pool.calibration import Calibration
from rlmd.pool.disk_cache import DiskCache
from rlmd.pool.meter import Learned, read_learned, write_learned
from rlmd.pool.turns import Turns
from rlmd.providers.base import Message, Sampling
from rlmd.providers.detect import detect
from rlmd.providers.openai import OpenAI
from tests.fakes.httpd import Reply, Request
from tests.fakes.ollama import FakeModel, FakeOllama, Scripted, echo
from tests.fakes.openai import FakeOpenAI


def host(fake: FakeOllama, **changes: Any) -> HostSettings:
    return HostSettings(url=fake.url, provider="ollama", **{"slots": fake.slots, **changes})


def ask(prompt: str, **changes: Any) -> CompletionRequest:
    changes = {"role": "sub", "run_id": "run", "sampling": Sampling(), **changes}
    return CompletionRequest(messages=(Message("user", prompt),), **changes)


@asynccontextmanager
async def pool_of(hosts: dict[str, HostSettings], folder: Path | None = None, **more: Any) -> AsyncIterator[Pool]:
    roles, budget = more.pop("roles", RoleSettings()), more.pop("budget", BudgetSettings())
    more = {"default_url": None, "environment": {}, **more}
    pool = Pool(Settings(hosts=hosts, roles=roles, budget=budget), cache_folder=folder, **more)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def test_a_prompt_comes_back_whole_with_its_record_and_deltas() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        fake.answer = lambda _: Scripted("one two three four", chunk=4)
        heard: list[tuple[int, str]] = []
        got = await pool.complete(ask("hello"), lambda offset, text: heard.append((offset, text)))
        assert got.completion.text == "one two three four"
        assert "".join(text for _, text in heard) == got.completion.text
        assert [offset for offset, _ in heard] == [0, 4, 8, 12, 16]
        assert (got.record.host, got.record.model, got.record.source) == ("gpu", "sub:latest", "model")
        assert got.record.attempts == 1
        body = fake.seen[0].body
        assert body["truncate"] is False
        assert body["stream"] is True
        assert body["options"]["num_ctx"] == 8192
        assert body["options"]["num_predict"] == 1024


async def test_equal_requests_in_flight_are_sent_once_and_later_ones_come_from_disk(tmp_path: Path) -> None:
    async with FakeOllama(["sub"], slots=2) as fake:
        async with pool_of({"gpu": host(fake)}, tmp_path / "cache") as pool:
            got = await asyncio.gather(*(pool.complete(ask("same")) for _ in range(5)))
            assert sorted(one.record.source for one in got) == ["flight"] * 4 + ["model"]
            assert (await pool.complete(ask("same"))).record.source == "cache"
            assert (await pool.complete(ask("same", fresh=True))).record.source == "model"
            assert (await pool.complete(ask("same", private=True))).record.source == "model"
            assert len(fake.seen) == 3
        async with pool_of({"gpu": host(fake)}, tmp_path / "cache") as pool:
            heard: list[tuple[int, str]] = []
            again = await pool.complete(ask("same"), lambda offset, text: heard.append((offset, text)))
            assert again.record.source == "cache"
            assert heard == [(0, echo("same"))]
            assert len(fake.seen) == 3


async def test_slots_are_never_exceeded_and_every_prompt_is_answered() -> None:
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(FakeOllama(["sub"], slots=n, latency=0.01)) for n in (2, 4, 2)]
        hosts = {f"h{number}": host(fake) for number, fake in enumerate(fakes)}
        pool = await stack.enter_async_context(pool_of(hosts))
        got = await asyncio.gather(*(pool.complete(ask(f"prompt {number}", batch=True)) for number in range(60)))
        assert [one.completion.text for one in got] == [echo(f"prompt {number}") for number in range(60)]
        assert [fake.max_held for fake in fakes] == [2, 4, 2]
        assert sum(len(fake.seen) for fake in fakes) == 60


async def test_cancelling_the_last_waiter_hangs_up_upstream_and_frees_the_slot() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        fake.answer = lambda prompt: Scripted("x", fault="hang") if prompt == "hang" else "done"
        one, two = (asyncio.create_task(pool.complete(ask("hang"))) for _ in range(2))
        await fake.until(lambda: fake.serving == 1)
        one.cancel()
        await asyncio.wait([one])
        assert fake.aborted == 0
        two.cancel()
        await fake.until(lambda: fake.aborted == 1)
        assert (await pool.complete(ask("next"))).completion.text == "done"
        assert pool.hosts()[0].slots_used == 0


@pytest.mark.parametrize("fault", ["cut", "reset", "error_line", "garbage"])
async def test_a_broken_stream_is_tried_elsewhere_and_begins_anew(fault: Any) -> None:
    async with FakeOllama(["sub"]) as bad, FakeOllama(["sub"]) as good:
        bad.answer = lambda _: Scripted("wrong answer", fault=fault, after=5)
        good.answer = lambda _: "right answer"
        roles = RoleSettings(root=("bad/sub", "good/sub"))
        async with pool_of({"bad": host(bad), "good": host(good)}, roles=roles) as pool:
            heard: list[tuple[int, str]] = []
            got = await pool.complete(ask("q", role="root"), lambda offset, text: heard.append((offset, text)))
            assert got.completion.text == "right answer"
            assert (got.record.host, got.record.attempts) == ("good", 2)
            assert heard == [(0, "wrong"), (0, "right answer")]


async def test_the_text_of_a_second_attempt_comes_as_it_is_written() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        fake.script("sub", [Scripted("wrong answer", fault="cut", after=5), Scripted("right answer", chunk=6)])
        heard: list[tuple[int, str]] = []
        await pool.complete(ask("q"), lambda offset, text: heard.append((offset, text)))
        assert heard == [(0, "wrong"), (0, "right "), (6, "answer")]


async def test_a_slow_stream_lives_as_long_as_tokens_come() -> None:
    patience = Deadlines(first_token=1.0, between_tokens=60.0)
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}, deadlines=patience) as pool:
        fake.script("sub", [Scripted("a b c d e f", chunk=2, pause=0.25)])
        got = await pool.complete(ask("slow"))
        assert (got.completion.text, got.record.attempts) == ("a b c d e f", 1)


async def test_silence_after_some_tokens_is_an_end() -> None:
    patience = Deadlines(first_token=60.0, between_tokens=0.1)
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}, deadlines=patience) as pool:
        fake.script("sub", [Scripted("a b c", fault="hang", after=2), "whole"])
        got = await pool.complete(ask("silent"))
        assert (got.completion.text, got.record.attempts) == ("whole", 2)
        assert "sent no token for 0.1 s" in str(pool.hosts()[0].last_error)


async def test_a_host_that_dies_in_the_middle_of_a_batch_costs_nothing() -> None:
    async with (
        FakeOllama(["sub"], slots=2, latency=0.02) as a,
        FakeOllama(["sub"], slots=2, latency=0.02) as b,
        pool_of({"a": host(a), "b": host(b)}) as pool,
    ):
        asked = [asyncio.create_task(pool.complete(ask(f"p{number}", batch=True))) for number in range(40)]
        await b.until(lambda: len(b.seen) >= 4)
        await b.die()
        got = await asyncio.gather(*asked)
        assert [one.completion.text for one in got] == [echo(f"p{number}") for number in range(40)]
        states = {status.name: status.state for status in pool.hosts()}
        assert states == {"a": "ok", "b": "down"}


async def test_a_host_that_comes_back_is_used_again() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        await pool.complete(ask("one"))
        await fake.die()
        waiting = asyncio.create_task(pool.complete(ask("two")))
        await _until(lambda: pool.hosts()[0].state == "down")
        await fake.revive()
        assert (await waiting).completion.text == echo("two")
        assert pool.hosts()[0].state == "ok"


async def test_nobody_home_is_an_error_that_names_the_hosts() -> None:
    fake = FakeOllama(["sub"])
    await fake.http.start()
    await fake.http.stop()
    async with pool_of({"gpu": host(fake, models={"sub": ModelSettings()})}) as pool:
        with pytest.raises(NoHost, match=r"gpu: .*refused the connection"):
            await pool.complete(ask("anyone?", patience=0.1))


async def test_model_chooses_among_the_candidates_only() -> None:
    async with FakeOllama(["small", "large"]) as fake:
        roles = RoleSettings(sub=("gpu/small:latest", "gpu/large:latest"), root=("gpu/large:latest",))
        async with pool_of({"gpu": host(fake)}, roles=roles) as pool:
            for name in ("large", "gpu/large", "large:latest"):
                assert (await pool.complete(ask("q", model=name))).record.model == "large:latest"
            assert (await pool.complete(ask("q", model="gpu"))).record.host == "gpu"
            with pytest.raises(NotFound, match=r"'small' is no candidate for root; .*: gpu/large:latest"):
                await pool.complete(ask("q", role="root", model="small"))


async def test_a_prompt_beyond_every_window_is_refused_before_it_is_sent() -> None:
    small = {"sub": ModelSettings(window=1000)}
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake, models=small)}) as pool:
        with pytest.raises(PromptTooLong, match=r"about 2\d\d\d tokens; .* 1000 tokens") as caught:
            await pool.complete(ask("word " * 2000))
        assert caught.value.details["window"] == 1000
        assert not fake.seen


@pytest.mark.parametrize("said", [None, "mine"])
async def test_private_text_goes_to_trusted_hosts_only(said: Trust | None) -> None:
    models = [FakeModel("mine"), FakeModel("afar-cloud", remote_host="https://ollama.com")]
    async with FakeOllama(models) as near, FakeOllama(["sub"]) as cloud:
        hosts = {"near": host(near, trust=said), "cloud": host(cloud, trust="cloud")}
        async with pool_of(hosts) as pool:
            assert {candidate.trust for candidate in pool.candidates("sub")} == {"mine", "cloud"}
            assert [candidate.name for candidate in pool.candidates("sub", private=True)] == ["near/mine:latest"]
            await asyncio.gather(*(pool.complete(ask(f"secret {n}", private=True)) for n in range(8)))
            assert not cloud.seen
            assert set(near.prompts("afar-cloud")) == set()
            with pytest.raises(NoHost, match="private"):
                await pool.complete(ask("secret", private=True, candidates=("cloud",)))


async def test_silence_is_ended_by_the_deadline_and_a_length_cut_is_not_cached(tmp_path: Path) -> None:
    async with FakeOllama(["sub"]) as fake:
        silent = Deadlines(first_token=1.0, between_tokens=1.0)
        async with pool_of({"gpu": host(fake)}, tmp_path / "cache", deadlines=silent) as pool:
            fake.script("sub", [Scripted("x", fault="hang"), "heard"])
            got = await pool.complete(ask("speak"))
            assert (got.completion.text, got.record.attempts) == ("heard", 2)
            text = "word " * 1024
            fake.script("sub", [Scripted(text, finish="length"), Scripted(text, finish="length")])
            sampling = Sampling(max_tokens=1024)
            assert (await pool.complete(ask("long", sampling=sampling))).completion.finish == "length"
            assert (await pool.complete(ask("long", sampling=sampling))).record.source == "model"


FAULTS = ("cut", "reset", "error_line", "garbage")


@pytest.mark.parametrize("server", ["ollama", "llama.cpp", "vllm", "deepseek"])
async def test_nothing_that_was_broken_off_is_kept(server: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        fake: FakeOllama | FakeOpenAI
        fake = FakeOllama(["sub"], slots=4) if server == "ollama" else FakeOpenAI(dialect=server, slots=4)
        await stack.enter_async_context(fake)
        kind: Any = "ollama" if server == "ollama" else "openai"
        settings = HostSettings(url=fake.url, provider=kind, slots=4, models={"sub": ModelSettings()})
        pool = await stack.enter_async_context(pool_of({"gpu": settings}, tmp_path / "cache"))
        for fault in FAULTS:
            # the first attempt breaks off, as does what follows it; then an answer comes, and it alone is kept
            fake.script("sub", [Scripted("half of it", fault=fault, after=5), Scripted("whole")])  # type: ignore[arg-type]
            got = await pool.complete(ask(fault))
            assert (got.completion.text, got.record.attempts) == ("whole", 2)
            again = await pool.complete(ask(fault))
            assert (again.completion.text, again.record.source) == ("whole", "cache")


@pytest.mark.parametrize("reply", [Scripted("<think>never closed"), Scripted("", thinking="on and on")])
async def test_a_reply_that_ends_while_the_model_thinks_is_no_answer(reply: Scripted, tmp_path: Path) -> None:
    """Another model is asked; the same one is not, as it would do so again."""
    async with FakeOllama(["thinks"]) as one, FakeOllama(["answers"]) as two:
        one.answer = lambda _: reply
        async with pool_of({"one": host(one)}, tmp_path) as pool:
            with pytest.raises(CompletionCut, match="still thought"):
                await pool.complete(ask("q"))
            assert len(one.seen) == 1
            assert pool.statistics().cache_entries == 0
        async with pool_of({"one": host(one), "two": host(two)}, tmp_path) as pool:
            got = await asyncio.gather(*(pool.complete(ask(f"q{number}")) for number in range(6)))
            assert {done.record.host for done in got} == {"two"}
            assert {status.name: status.state for status in pool.hosts()}["one"] in ("ok", "busy")


async def test_a_prompt_cut_to_half_of_the_window_is_never_kept(tmp_path: Path) -> None:
    async with FakeOllama(["sub"], honours_truncate=False, bytes_per_token=1.0) as fake:
        models = {"sub": ModelSettings(window=2048)}
        settings = HostSettings(url=fake.url, provider="ollama", models=models)
        async with pool_of({"gpu": settings}, tmp_path / "cache") as pool:
            with pytest.raises(PromptTruncated):
                await pool.complete(ask("7" * 3700, sampling=Sampling(max_tokens=16)))
            fake.bytes_per_token = 4.0  # and now it fits
            asked = len(fake.seen)
            assert (await pool.complete(ask("7" * 3700, sampling=Sampling(max_tokens=16)))).record.source == "model"
            assert len(fake.seen) > asked


async def test_cut_everywhere_is_an_error_never_an_answer(tmp_path: Path) -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}, tmp_path / "cache") as pool:
        fake.answer = lambda _: Scripted("half an answer", fault="cut", after=4)
        with pytest.raises(CompletionCut):
            await pool.complete(ask("q"))
        assert len(fake.seen) == 4
        assert pool.statistics().cache_entries == 0


async def test_default_host_is_found_with_a_usable_chat_model_only() -> None:
    embedder = FakeModel("embedder", capabilities=("embedding",))
    async with FakeOllama([embedder]) as fake, pool_of({}, default_url=fake.url) as pool:
        assert pool.candidates("root") == ()
        with pytest.raises(NoHost, match="No host is configured"):
            await pool.complete(ask("q"))
    async with FakeOllama([embedder, "chat"]) as fake, pool_of({}, default_url=fake.url) as pool:
        assert [candidate.name for candidate in pool.candidates("root")] == ["local/chat:latest"]
        assert (await pool.complete(ask("q"))).record.host == "local"


async def test_where_nothing_listens_no_provider_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would load all that speaks HTTP, which a machine without models never needs."""
    made: list[str] = []

    async def counted(kind: str, url: str, **_: Any) -> Any:
        made.append(url)
        raise HostFailed("not asked in this test")

    monkeypatch.setattr("rlmd.pool.host.make_provider", counted)
    async with pool_of({}, default_url="http://127.0.0.1:9"):
        assert made == []
    async with FakeOllama(["chat"]) as fake, pool_of({}, default_url=fake.url):
        assert made == [fake.url]


async def test_an_address_without_a_scheme_is_local_too() -> None:
    async with FakeOllama(["sub"]) as fake:
        bare = fake.url.removeprefix("http://")
        settings = settings_for(bare, await detect(bare), slots=3)
        assert (settings.url, settings.slots, settings.models["sub:latest"].window) == (fake.url, 3, 8192)
        async with pool_of({"gpu": HostSettings(url=bare, provider="ollama")}) as pool:
            assert [candidate.trust for candidate in pool.candidates("root")] == ["mine"]


async def test_hosts_come_and_go() -> None:
    async with FakeOllama(["sub"]) as one, FakeOllama(["sub"]) as two, pool_of({"one": host(one)}) as pool:
        status = await pool.add_host("two", host(two))
        assert (status.state, [model.name for model in status.models]) == ("ok", ["sub:latest"])
        one.answer = lambda _: Scripted("x", fault="hang")
        asked = asyncio.create_task(pool.complete(ask("q", candidates=("one", "two"), role="root")))
        await one.until(lambda: one.serving == 1)
        await pool.remove_host("one")
        assert (await asked).record.host == "two"
        with pytest.raises(NotFound):
            await pool.remove_host("one")


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


async def test_the_default_host_offers_no_model_that_runs_elsewhere_and_is_let_go_when_it_dies() -> None:
    models = [FakeModel("afar", remote_host="https://ollama.com"), FakeModel("near")]
    async with FakeOllama(models) as fake, pool_of({}, default_url=fake.url) as pool:
        assert [candidate.name for candidate in pool.candidates("sub")] == ["local/near:latest"]
        await fake.die()
        asked = asyncio.create_task(pool.complete(ask("q")))
        await _until(lambda: pool.hosts()[0].state == "down")
        await pool.find_default_host()
        assert pool.candidates("sub") == ()
        with pytest.raises(NoHost):
            await asked


async def test_a_host_that_cannot_be_used_as_configured_does_not_take_the_others_along() -> None:
    async with FakeOllama(["sub"]) as fake:
        hosts = {"keyless": host(fake, api_key_env="NO_SUCH_KEY"), "odd": host(fake), "good": host(fake)}
        hosts["odd"] = HostSettings(url="not a url", provider="openai")
        async with pool_of(hosts) as pool:
            states = {status.name: (status.state, status.last_error) for status in pool.hosts()}
            assert states["good"] == ("ok", None)
            assert states["keyless"] == ("down", "Host keyless: the environment variable NO_SUCH_KEY is not set.")
            assert states["odd"][0] == "down"
            assert (await pool.complete(ask("q"))).record.host == "good"


async def test_neither_prompt_nor_key_reaches_a_log_or_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    prompt, key = "the patient Ada Lovelace has a secret illness", "sk-very-secret-key"
    async with FakeOllama(["sub"]) as fake:
        settings = host(fake, api_key_env="KEY")
        async with pool_of({"gpu": settings}, environment={"KEY": key}) as pool:
            assert key not in repr(vars(pool)) + repr(pool.hosts())
            for status in (400, 401, 429, 500):
                echo_all = Scripted(
                    f"cannot parse {prompt} with Bearer {key}", status=status, headers=(("Retry-After", "0"),)
                )
                fake.answer = lambda _, reply=echo_all: reply
                with pytest.raises(RlmdError) as caught:
                    await pool.complete(ask(prompt, fresh=True))
                said = str(vars(caught.value)) + str(pool.hosts()) + capsys.readouterr().out
                assert "Ada" not in said
                assert key not in said
                await pool.remove_host("gpu")
                await pool.add_host("gpu", settings)
            assert all(seen.prompt == prompt for seen in fake.seen)


async def test_stopping_tells_those_who_wait() -> None:
    async with FakeOllama(["sub"]) as fake:
        fake.answer = lambda _: Scripted("x", fault="hang")
        async with pool_of({"gpu": host(fake)}) as pool:
            asked = [asyncio.create_task(pool.complete(ask(str(number)))) for number in range(3)]
            await fake.until(lambda: fake.serving == 1)
        for task in asked:
            with pytest.raises(Draining):
                await task
        with pytest.raises(Draining):
            await pool.complete(ask("late"))
        await fake.until(lambda: fake.aborted == 1)


async def test_a_smaller_window_than_thought_is_learned_from_the_server() -> None:
    async with FakeOpenAI(["m"], dialect="vllm", window=1024) as fake:
        settings = HostSettings(url=fake.url, provider="openai", models={"m": ModelSettings(window=8192)})
        async with pool_of({"gpu": settings}) as pool:
            with pytest.raises(PromptTooLong, match="takes 1024 tokens"):
                await pool.complete(ask("word " * 2000))
            with pytest.raises(PromptTooLong, match="largest window among the candidates is 1024"):
                await pool.complete(ask("word " * 2000))
            assert len(fake.seen) == 1


async def test_a_proxy_on_this_machine_is_not_taken_for_a_host_of_mine() -> None:
    async with FakeOpenAI(dialect="openai") as proxy, FakeOpenAI(dialect="llama.cpp") as llama:
        hosts = {name: HostSettings(url=fake.url, provider="openai") for name, fake in (("p", proxy), ("l", llama))}
        async with pool_of(hosts) as pool:
            assert {candidate.host: candidate.trust for candidate in pool.candidates("sub")} == {
                "p": "cloud",
                "l": "mine",
            }


async def test_a_flag_raised_in_the_middle_ends_what_runs_and_what_waits_at_untrusted_hosts(tmp_path: Path) -> None:
    """A free cloud model, an Ollama that passes on, a proxy on this machine: none gets one from then on."""
    passed_on = [FakeModel("afar-cloud", remote_host="https://ollama.com")]
    async with (
        FakeOllama(["sub"], slots=2) as cloud,
        FakeOllama(passed_on) as remote,
        FakeOpenAI(["sub"]) as proxy,
        FakeOllama(["sub"], latency=0.01) as mine,
    ):
        untrusted = (cloud, remote, proxy)
        for fake in untrusted:
            fake.answer = lambda p: Scripted("partial words", fault="hang", after=4) if "canary" in p else echo(p)
        hosts = {
            "cloud": host(cloud, trust="cloud"),
            "remote": host(remote),
            "proxy": HostSettings(url=proxy.url, provider="openai"),
        }
        budget = BudgetSettings(overflow_after=0)
        async with pool_of(hosts, tmp_path / "cache", budget=budget) as pool:
            asked = [asyncio.create_task(pool.complete(ask(f"canary {n}", run_id="secret"))) for n in range(12)]
            other = asyncio.create_task(pool.complete(ask("open question", run_id="public")))
            await cloud.until(lambda: cloud.held == 2)
            await remote.until(lambda: remote.held == 1)
            await proxy.until(lambda: proxy.held == 1)
            seen = [len(fake.seen) for fake in untrusted]
            pool.make_private({"secret"})
            await pool.add_host("mine", host(mine))
            for fake in untrusted:
                await fake.until(lambda fake=fake: fake.aborted >= 1)
            assert (await other).completion.text == echo("open question")
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(one) for one in ended} == {NoHost}, "the new host was no candidate when they were asked"
            for fake, before in zip(untrusted, seen, strict=True):
                assert not [one for one in fake.seen[before:] if "canary" in one.prompt]
            assert not [
                one for fake in untrusted for one in fake.seen if one.outcome == "answered" and "canary" in one.prompt
            ]


async def test_a_flag_raised_in_the_middle_moves_work_to_trusted_hosts_and_caches_nothing_openly(
    tmp_path: Path,
) -> None:
    async with FakeOllama(["sub"], slots=2) as cloud, FakeOllama(["sub"]) as mine:
        cloud.answer = lambda _: Scripted("partial", fault="hang", after=3)
        hosts = {"cloud": host(cloud, trust="cloud"), "mine": host(mine)}
        async with pool_of(hosts, tmp_path / "cache", budget=BudgetSettings(overflow_after=0)) as pool:
            asked = [asyncio.create_task(pool.complete(ask(f"canary {n}", run_id="secret"))) for n in range(6)]
            await cloud.until(lambda: cloud.held == 2)
            pool.make_private({"secret"})
            got = await asyncio.gather(*asked)
            assert {one.record.host for one in got} == {"mine"}
            assert cloud.aborted == 2
            cloud.answer = echo
            again = [await pool.complete(ask(f"canary {n}", run_id="public")) for n in range(6)]
            assert {one.record.source for one in again} == {"model"}, "nothing was kept under a key of public text"


@pytest.mark.parametrize("gap", [(DiskCache, "get"), (Turns, "take")], ids=["cache", "turn"])
async def test_a_flag_raised_before_anything_was_sent_holds_for_what_is_sent(
    gap: tuple[type, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the cache is looked through, and while others have their turn, a request is known to no queue yet."""
    reached, marked = asyncio.Event(), asyncio.Event()
    inner = getattr(*gap)

    async def held(*given: Any) -> Any:
        reached.set()
        await marked.wait()
        return await inner(*given)

    async with FakeOllama(["sub"], slots=2) as cloud, FakeOllama(["sub"]) as mine:
        hosts = {"cloud": host(cloud, trust="cloud"), "mine": host(mine)}
        async with pool_of(hosts, tmp_path / "cache", budget=BudgetSettings(overflow_after=0)) as pool:
            monkeypatch.setattr(*gap, held)
            asked = [asyncio.create_task(pool.complete(ask(f"canary {n}", run_id="secret"))) for n in range(6)]
            await reached.wait()
            pool.make_private({"secret"})
            marked.set()
            assert {one.record.host for one in await asyncio.gather(*asked)} == {"mine"}
            assert not cloud.seen


async def test_keys_come_from_a_command_and_its_words_are_never_shown() -> None:
    async with FakeOpenAI(api_key="from-the-store") as fake:
        settings = HostSettings(url=fake.url, provider="openai", api_key_command=("/bin/echo", "from-the-store"))
        async with pool_of({"gpu": settings}) as pool:
            assert (await pool.complete(ask("q"))).record.host == "gpu"
        failing = ("/bin/sh", "-c", "echo sk-secret; echo sk-secret >&2; exit 3")
        async with pool_of({"gpu": HostSettings(url=fake.url, provider="openai", api_key_command=failing)}) as pool:
            (status,) = pool.hosts()
            assert (status.state, status.last_error) == (
                "down",
                "Host gpu: /bin/sh gave no key: it ended with status 3.",
            )


async def test_a_key_that_came_later_is_asked_for_again_when_the_host_is_resumed(tmp_path: Path) -> None:
    file = tmp_path / "key"
    async with FakeOpenAI(api_key="from-the-store") as fake:
        command = ("/bin/cat", str(file))
        models = {"sub": ModelSettings()}
        settings = HostSettings(url=fake.url, provider="openai", api_key_command=command, models=models)
        async with pool_of({"gpu": settings}) as pool:
            while pool.hosts()[0].state != "down":
                await asyncio.sleep(0.01)
            file.write_text("from-the-store\n")
            pool.pause_host("gpu", paused=False)
            assert (await pool.complete(ask("q"))).record.host == "gpu"


async def test_a_paused_host_gets_nothing_until_it_is_resumed() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        assert pool.pause_host("gpu", paused=True).state == "paused"
        asked = asyncio.create_task(pool.complete(ask("q")))
        await _until(lambda: pool.statistics().queue.queued == 1)
        assert not fake.seen
        pool.pause_host("gpu", paused=False)
        assert (await asked).record.host == "gpu"
        with pytest.raises(NotFound):
            pool.pause_host("nobody", paused=True)


async def test_who_waits_for_a_change_of_the_hosts_is_told_at_once() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        waiting = asyncio.create_task(pool.hosts_changed(3600))
        await asyncio.sleep(0)
        pool.pause_host("gpu", paused=True)
        await asyncio.wait_for(waiting, 30)


async def test_a_host_is_measured_while_it_does_nothing_else_and_its_slots_are_used(tmp_path: Path) -> None:
    learned = tmp_path / "speeds.json"
    async with FakeOllama([FakeModel("sub")], slots=4, latency=0.01) as fake:
        settings = HostSettings(url=fake.url, provider="ollama")
        async with pool_of({"gpu": settings}, learned_file=learned) as pool:
            assert pool.hosts()[0].slots == 1, "nobody has said or measured more"
            before = asyncio.create_task(pool.complete(ask("before")))
            await fake.until(lambda: fake.serving == 1)
            measuring = asyncio.create_task(pool.calibrate_host("gpu"))
            await _until(lambda: pool.hosts()[0].state == "paused")
            meanwhile = asyncio.create_task(pool.complete(ask("meanwhile")))
            status, (found,) = await measuring
            assert before.done()
            assert not meanwhile.done(), "it had to wait"
            await meanwhile
            assert status.slots == found.slots
            assert status.state != "paused"
            assert found.window == 8192
            assert min(found.prompt_speed, found.output_speed, found.total_speed) > 0
            with pytest.raises(NotFound, match="no model"):
                await pool.calibrate_host("gpu", "another")
        async with pool_of({"gpu": settings}, learned_file=learned) as pool:
            assert pool.hosts()[0].slots == found.slots, "remembered"
        async with pool_of({"gpu": host(fake, slots=3)}, learned_file=learned) as pool:
            assert pool.hosts()[0].slots == 3, "what the settings say counts"


async def test_a_machine_that_sleeps_is_woken_by_work_and_sent_to_sleep_when_it_has_none(tmp_path: Path) -> None:
    woken, sent = tmp_path / "woken", tmp_path / "sent to sleep"
    async with FakeOllama(["sub"]) as fake:
        settings = host(
            fake,
            models={"sub": ModelSettings()},
            wake=("/bin/touch", str(woken)),
            suspend=("/bin/touch", str(sent)),
            idle_seconds=0.2,
        )
        await fake.die()
        async with pool_of({"gpu": settings}) as pool:
            await _until(lambda: pool.hosts()[0].state == "asleep")
            assert not woken.exists(), "nobody needs it"
            asked = asyncio.create_task(pool.complete(ask("first")))
            await _until(woken.exists)
            assert pool.hosts()[0].state == "waking"
            assert not asked.done()
            await fake.revive()
            assert (await asked).record.host == "gpu"
            await _until(sent.exists)
            assert pool.hosts()[0].state == "asleep"
            woken.unlink()
            assert (await pool.complete(ask("second"))).record.host == "gpu"
            assert woken.exists()


async def test_a_machine_that_fell_asleep_by_itself_is_woken(tmp_path: Path) -> None:
    """It was up when it was last asked, minutes ago: the request that meets nobody finds out."""
    woken = tmp_path / "woken"
    async with FakeOllama(["sub"]) as fake:
        fake.loaded["sub:latest"] = 8192  # known to be in memory: no reason to ask the host again after a reply
        settings = host(fake, models={"sub": ModelSettings()}, wake=("/bin/touch", str(woken)))
        async with pool_of({"gpu": settings}) as pool:
            await pool.complete(ask("first"))
            await fake.die()
            asked = asyncio.create_task(pool.complete(ask("second")))
            await _until(woken.exists)
            await fake.revive()
            assert (await asked).record.host == "gpu"


async def test_a_host_that_does_not_answer_is_asked_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """And again soon while something waits for it."""
    pauses: list[float] = []

    async def paused(_: object, seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0.02)

    monkeypatch.setattr("rlmd.pool.hosts.nudge_or", paused)
    monkeypatch.setattr("rlmd.pool.patience.GRACE", 0.01)
    async with FakeOllama(["sub"]) as fake:
        await fake.die()
        async with pool_of({"gpu": host(fake, models={"sub": ModelSettings()})}) as pool:
            await _until(lambda: len(pauses) >= 7)
            assert pauses[:7] == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
            asked = asyncio.create_task(pool.complete(ask("q")))
            await _until(lambda: pauses[-1] == 3.0)
            asked.cancel()
            await asyncio.wait([asked])
            await _until(lambda: pauses[-1] == 15.0)


async def test_many_that_are_asked_at_one_moment_do_not_hold_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn between them."""
    monkeypatch.setattr("rlmd.pool.dispatcher._TURN_SECONDS", 0.0)
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        fake.hanging = True
        turns = 0
        asked = [asyncio.create_task(pool.complete(ask(f"{n}"))) for n in range(200)]
        async with asyncio.timeout(60):
            while (queue := pool.statistics().queue).queued + queue.in_flight < 200:
                await asyncio.sleep(0)
                turns += 1
        assert turns > 150
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)


async def test_a_host_that_listens_again_is_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever pause its breaker had come to."""
    monkeypatch.setattr("rlmd.pool.slots.OPEN_SECONDS", 3600.0)
    monkeypatch.setattr("rlmd.pool.slots.MAX_OPEN_SECONDS", 3600.0)
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        await pool.complete(ask("first"))
        await fake.die()
        asked = asyncio.create_task(pool.complete(ask("second")))
        await _until(lambda: (pool.hosts()[0].retry_in or 0) > 60)
        await fake.revive()
        assert (await asked).record.host == "gpu"


async def test_a_host_that_is_added_takes_the_place_of_the_one_that_was_found() -> None:
    async with (
        FakeOllama(["sub"]) as found,
        FakeOllama(["sub"]) as fake,
        pool_of({}, default_url=found.url) as pool,
    ):
        assert [one.name for one in pool.hosts()] == ["local"]
        await pool.add_host("gpu", host(fake))
        assert [one.name for one in pool.hosts()] == ["gpu"]


async def test_a_paused_host_stays_paused_when_its_settings_change() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"gpu": host(fake)}) as pool:
        pool.pause_host("gpu", paused=True)
        await pool.use(Settings(hosts={"gpu": host(fake, slots=3)}))
        await _until(lambda: pool.hosts()[0].slots == 3)
        assert pool.hosts()[0].state == "paused"


async def test_what_was_learned_of_hosts_is_kept_and_goes_before_what_was_measured(tmp_path: Path) -> None:
    """Also of a host that is not configured today."""
    file = tmp_path / "speeds.json"
    measured = Calibration("sub", 100.0, 10.0, 10.0, 1, 0.1)
    away = Learned({"other": 0.5}, digests={"other": "d"})
    write_learned(file, {"gpu": Learned({"sub": 0.25}, calibrated={"sub": measured}), "away": away})
    async with FakeOllama(["sub"]) as fake:
        settings = {"gpu": host(fake, models={"sub": ModelSettings()})}
        async with pool_of(settings, learned_file=file) as pool:
            assert pool._scheduler.hosts()["gpu"].pace == {"sub": 0.25}
    learned = read_learned(file)
    assert learned["away"] == away
    assert learned["gpu"].pace == {"sub": 0.25}
    assert learned["gpu"].calibrated == {"sub": measured}


async def test_a_machine_that_would_not_go_to_sleep_is_used_on(tmp_path: Path) -> None:
    """It answers still: the command failed."""
    async with FakeOllama(["sub"]) as fake:
        models = {"sub": ModelSettings()}
        settings = host(fake, models=models, wake=("/bin/true",), suspend=("/bin/false",), idle_seconds=0.2)
        async with pool_of({"gpu": settings}) as pool:
            told = "/bin/false did not send it to sleep"
            await _until(lambda: told in (pool.hosts()[0].last_error or "") and pool.hosts()[0].state == "ok")
            assert (await pool.complete(ask("q"))).record.host == "gpu"


async def test_a_machine_that_is_measured_or_that_work_waits_for_is_not_sent_to_sleep(tmp_path: Path) -> None:
    sent = tmp_path / "sent to sleep"
    async with FakeOllama(["sub"]) as fake:
        models = {"sub": ModelSettings()}
        suspend = ("/bin/touch", str(sent))
        settings = host(fake, models=models, wake=("/bin/true",), suspend=suspend, idle_seconds=0.05)
        async with pool_of({"gpu": settings}) as pool:
            gpu = pool._hosts.named("gpu")
            assert gpu is not None
            gpu.measured = True
            sent.unlink(missing_ok=True)
            await asyncio.sleep(0.3)
            assert not sent.exists()
            pool.pause_host("gpu", paused=True)
            asked = asyncio.create_task(pool.complete(ask("q", patience=3600.0)))
            await _until(lambda: pool.hosts()[0].queued == 1)
            gpu.measured = False
            await asyncio.sleep(0.3)
            assert not sent.exists()
            asked.cancel()
            await asyncio.wait([asked])
            await _until(sent.exists)


async def test_the_command_that_wakes_is_run_again_until_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first packet may come before the machine has gone to sleep."""
    monkeypatch.setattr("rlmd.pool.sleeping.PROBE_WAKING", 0.01)
    script, book = tmp_path / "wake", tmp_path / "book"
    script.write_text(f'#!/bin/sh\necho woken >>"{book}"\n')
    script.chmod(0o700)
    async with FakeOllama(["sub"]) as fake:
        await fake.die()
        async with pool_of({"gpu": host(fake, models={"sub": ModelSettings()}, wake=(str(script),))}) as pool:
            asked = asyncio.create_task(pool.complete(ask("q")))
            await _until(lambda: book.exists() and len(book.read_text().split()) >= 3)
            await fake.revive()
            assert (await asked).record.host == "gpu"


async def test_a_machine_is_woken_by_hand(tmp_path: Path) -> None:
    async with FakeOllama(["m"]) as server:
        await server.die()
        woken = tmp_path / "woken"
        settings = host(server, wake=("/bin/touch", str(woken)))
        async with pool_of({"gpu": settings, "plain": host(server)}) as pool:
            await _until(lambda: pool.hosts()[0].state == "asleep")
            assert pool.wake_host("gpu").state == "waking"
            assert pool.wake_host("gpu").state == "waking", "twice does no harm"
            await _until(woken.exists)
            await server.revive()
            await _until(lambda: pool.hosts()[0].state == "ok")
            with pytest.raises(Conflict, match="Nothing is known that wakes host plain"):
                pool.wake_host("plain")


async def test_a_command_that_does_not_wake_its_machine_is_told(tmp_path: Path) -> None:
    async with FakeOllama(["sub"]) as fake:
        models = {"sub": ModelSettings()}
        await fake.die()
        async with pool_of({"gpu": host(fake, models=models, wake=("/bin/false",))}) as pool:
            asked = asyncio.create_task(pool.complete(ask("q")))
            await _until(lambda: "/bin/false did not wake it" in (pool.hosts()[0].last_error or ""))
            asked.cancel()
            await asyncio.wait([asked])


@pytest.mark.parametrize("dialect", ["llama.cpp", "vllm", "litellm"])
async def test_what_others_ask_of_a_server_is_seen_and_leaves_it_fewer_slots(
    dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlmd.pool.foreign.LOOK_SECONDS", 0.05)
    async with FakeOpenAI(dialect=dialect, slots=4) as fake:
        fake.answer = lambda prompt: Scripted("x", fault="hang" if "long" in prompt else None)
        others = OpenAI(fake.url)
        asking = [
            asyncio.create_task(
                others.complete("sub", 8192, (Message("user", f"long {n}"),), Sampling(), lambda _: None)
            )
            for n in range(3)
        ]
        await fake.until(lambda: fake.held == 3)
        settings = HostSettings(url=fake.url, provider="openai", slots=4)
        async with pool_of({"gpu": settings}) as pool:
            await _until(lambda: pool.hosts()[0].foreign == 3)
            ours = [asyncio.create_task(pool.complete(ask(f"long too {n}"))) for n in range(3)]
            await fake.until(lambda: fake.held == 4)
            assert pool.hosts()[0].slots_used == 1
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
            await fake.until(lambda: fake.held == 3)
            assert pool.hosts()[0].slots_used == 3
            await _until(lambda: pool.hosts()[0].foreign == 0)  # what is held now is ours
            for task in ours:
                task.cancel()
            await asyncio.wait(ours)
        await others.close()


@pytest.mark.parametrize("most", [1, 2])
async def test_models_that_fit_one_memory_are_used_at_once_and_others_by_turns(most: int) -> None:
    """What the server holds is known as soon as a second model has answered, not at the next look at the hosts."""
    async with FakeOllama(["a", "b"], slots=2, most_loaded=most) as fake:
        roles = RoleSettings(root=("gpu/a",), sub=("gpu/a", "gpu/b"))
        settings = host(fake, models={"a": ModelSettings(), "b": ModelSettings()})
        async with pool_of({"gpu": settings}, roles=roles) as pool:
            for model in ("a", "b"):
                await pool.complete(ask(f"first of {model}", model=model, batch=True))
            await _until(lambda: len(pool.hosts()[0].resident) == most)
            fake.answer = lambda prompt: Scripted("x", latency=60)
            asked = [
                asyncio.create_task(pool.complete(ask(f"{model} {n}", model=model, batch=True)))
                for n, model in enumerate("ba")
            ]
            await _until(lambda: fake.serving == most)
            await asyncio.sleep(0.1)
            assert {seen.model for seen in fake.seen[2:]} == ({"a:latest", "b:latest"} if most == 2 else {"b:latest"})
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)


async def test_hosts_that_cost_money_are_not_measured() -> None:
    async with FakeOllama(["sub"]) as fake, pool_of({"cloud": host(fake, trust="cloud")}) as pool:
        with pytest.raises(Conflict, match="not yours"):
            await pool.calibrate_host("cloud")
        assert not fake.seen


async def test_speeds_are_remembered_and_the_cache_can_be_cleared(tmp_path: Path) -> None:
    async with FakeOllama(["sub"], latency=0.005) as fake:
        hosts, learned = {"gpu": host(fake)}, tmp_path / "speeds.json"
        async with pool_of(hosts, tmp_path / "cache", learned_file=learned) as pool:
            await asyncio.gather(*(pool.complete(ask(f"p{n}")) for n in range(4)))
            (status,) = pool.hosts()
            assert status.meter.first_token
            assert (await pool.complete(ask("p1"))).record.source == "cache"
            await pool.clear_cache()
            assert (await pool.complete(ask("p1"))).record.source == "model"
        async with pool_of(hosts, learned_file=learned) as pool:
            assert pool.hosts()[0].meter.first_token == pytest.approx(status.meter.first_token, rel=0.9)
            assert pool._scheduler.hosts()["gpu"].pace
        learned.write_text("no json")
        async with pool_of(hosts, learned_file=learned) as pool:
            assert (await pool.complete(ask("p1"))).record.source == "model"


async def test_what_is_asked_before_a_host_has_said_what_it_is_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow server, or a machine under load: replies are kept under the weights' digest all the same."""
    monkeypatch.setattr("rlmd.pool.hosts.START_SECONDS", 0.0)
    told = asyncio.Event()

    class Slow(FakeOllama):
        async def _route(self, request: Request, reply: Reply) -> None:
            if request.path == "/api/tags":
                await told.wait()
            await super()._route(request, reply)

    async with Slow(["sub"]) as fake, pool_of({"gpu": host(fake, models={"sub": ModelSettings()})}, tmp_path) as pool:
        asked = asyncio.create_task(pool.complete(ask("early")))
        await _until(lambda: pool.statistics().queue.queued == 1)
        assert not fake.seen, "nothing is sent to a host that has not said what it is"
        told.set()
        assert (await asked).record.source == "model"
        assert (await pool.complete(ask("early"))).record.source == "cache"


async def test_what_a_host_that_sleeps_has_answered_is_found(tmp_path: Path) -> None:
    """After a restart too, when its server cannot tell of which weights its models are."""
    hosts_of = {"models": {"sub": ModelSettings()}, "wake": ("/bin/false",)}
    learned = tmp_path / "speeds.json"
    async with FakeOllama(["sub"]) as fake:
        settings = {"gpu": host(fake, **hosts_of)}
        async with pool_of(settings, tmp_path / "cache", learned_file=learned) as pool:
            await pool.complete(ask("question"))
        await fake.die()
        async with pool_of(settings, tmp_path / "cache", learned_file=learned) as pool:
            assert (await pool.complete(ask("question"))).record.source == "cache"
        assert len(fake.seen) == 1
