"""Our providers against servers that no one here wrote: llama-server, llama-cpp-python's, LiteLLM's proxy, and Hugging
Face's ``transformers serve``.

In CI they answer from recordings; the full tier starts the servers themselves (``tests/peers``), and with ``--record``
makes the recordings anew. What depends on a live connection, such as hanging up, is tested in the full tier alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from rlmd.config import HostSettings, ModelSettings, Settings
from rlmd.errors import (
    CompletionCut,
    HostFailed,
    HostOverloaded,
    HostRefused,
    ModelMissing,
    PromptTooLong,
)
from rlmd.pool import CompletionRequest, Pool
from rlmd.providers.anthropic import Anthropic
from rlmd.providers.base import Completion, Message, Provider, Sampling
from rlmd.providers.detect import detect
from rlmd.providers.openai import OpenAI
from tests.fakes.openai import FakeOpenAI
from tests.fakes.serving import Scripted
from tests.peers import built
from tests.peers.recording import recorded, repeated
from tests.peers.serving import KEY, litellm_proxy, llama_cpp_python, llama_server, transformers_serve

RECORDINGS = Path(__file__).parent.parent / "recordings"
WINDOW = 2048
#: Starting and building servers takes minutes the first time.
FULL = [pytest.mark.full, pytest.mark.timeout(3600)]
LIVE = [pytest.param("recorded", id="recorded"), pytest.param("live", marks=FULL, id="live")]


@contextlib.asynccontextmanager
async def started(peer: str) -> AsyncIterator[str]:
    async with contextlib.AsyncExitStack() as stack:
        match peer:
            case "llama-server":
                yield await stack.enter_async_context(llama_server())
            case "llama-cpp-python":
                yield await stack.enter_async_context(llama_cpp_python())
            case "litellm":
                upstream = await stack.enter_async_context(llama_server())
                yield await stack.enter_async_context(litellm_proxy(upstream))
            case "transformers":
                yield await stack.enter_async_context(transformers_serve())


@contextlib.asynccontextmanager
async def peer_at(peer: str, how: str, record: bool, test: str) -> AsyncIterator[str]:
    """The URL of a peer, or of the recording of one."""
    file = RECORDINGS / f"{peer}-{test}.json"
    if how == "recorded":
        async with repeated(file) as url:
            yield url
        return
    async with started(peer) as live:
        if not record:
            yield live
            return
        async with recorded(live, file) as url:
            yield url


@contextlib.asynccontextmanager
async def speaking(kind: type[OpenAI] | type[Anthropic], url: str, key: str | None = None) -> AsyncIterator[Provider]:
    provider = kind(url, api_key=SecretStr(key) if key else None)
    try:
        yield provider
    finally:
        await provider.close()


async def complete(provider: Provider, prompt: str, model: str = "tiny", **sampling: Any) -> Completion:
    heard: list[str] = []
    message = (Message("user", prompt),)
    done = await provider.complete(model, WINDOW, message, Sampling(**sampling), heard.append)
    assert "".join(heard) == done.text
    return done


@pytest.fixture
def record(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--record"))


# ── what an answer is ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", LIVE)
async def test_llama_server(how: str, record: bool) -> None:
    async with peer_at("llama-server", how, record, "openai") as url, speaking(OpenAI, url) as provider:
        facts = await detect(url)
        assert (facts.provider, facts.software, facts.slots) == ("openai", "llama.cpp", 2)
        assert [model.window for model in facts.models] == [WINDOW], "of one slot"
        done = await complete(provider, "the people of water", max_tokens=12)
        assert (done.finish, done.usage.completion_tokens, done.usage.estimated) == ("length", 12, False)
        assert done.text
        again = await complete(provider, "the people of water", max_tokens=12)
        assert (again.text, again.usage.prompt_tokens) == (done.text, done.usage.prompt_tokens)
        assert again.usage.cached_tokens > 0
        with pytest.raises(PromptTooLong) as long:
            await complete(provider, "y" * 3000)
        assert (long.value.details["window"], long.value.details["tokens"] > 3000) == (WINDOW, True)
        with pytest.raises(CompletionCut, match="ran out of its window") as cut:
            await complete(provider, "y" * 1900, max_tokens=1000)
        assert cut.value.details["window"] == WINDOW


@pytest.mark.parametrize("how", LIVE)
async def test_llama_server_as_anthropic(how: str, record: bool) -> None:
    async with peer_at("llama-server", how, record, "anthropic") as url, speaking(Anthropic, url) as provider:
        done = await complete(provider, "the people of water", max_tokens=12)
        assert done.text
        assert done.finish == "length"
        # it leaves out message_start, and with it the prompt's tokens, when the first token is half a character
        assert done.usage.estimated or done.usage.completion_tokens == 12
        with pytest.raises(PromptTooLong):
            await complete(provider, "y" * 3000)


@pytest.mark.parametrize("how", LIVE)
async def test_llama_cpp_python(how: str, record: bool) -> None:
    async with peer_at("llama-cpp-python", how, record, "openai") as url, speaking(OpenAI, url) as provider:
        facts = await detect(url)
        assert (facts.provider, facts.software) == ("openai", None), "it does not say what it is"
        done = await complete(provider, "the people of water", max_tokens=12)
        assert (done.finish, done.usage.estimated) == ("length", True), "it never tells usage in a stream"
        assert done.text
        with pytest.raises(CompletionCut):  # a 200 and a stream of nothing
            await complete(provider, "y" * 3000)


@pytest.mark.parametrize("how", LIVE)
async def test_litellm_proxy(how: str, record: bool) -> None:
    async with peer_at("litellm", how, record, "openai") as url, speaking(OpenAI, url, KEY) as provider:
        facts = await provider.probe()
        assert facts.software is None, "a proxy may send it anywhere"
        assert "local" in {model.name for model in facts.models}
        done = await complete(provider, "the people of water", "local", max_tokens=12)
        assert (done.finish, done.usage.completion_tokens, done.usage.estimated) == ("length", 12, False)
        mocked = await complete(provider, "hello", "mock")
        assert (mocked.text, mocked.finish) == ("a mocked reply", "stop")
        with pytest.raises(PromptTooLong) as long:
            await complete(provider, "y" * 3000, "local")
        assert (long.value.details["window"], long.value.details["tokens"] > 3000) == (WINDOW, True)
        for model, kind in {
            "busy": HostOverloaded,
            "broken": HostFailed,
            "small": PromptTooLong,
            "gone": ModelMissing,
        }.items():
            with pytest.raises(kind):
                await complete(provider, "hello", model)
    async with peer_at("litellm", how, record, "key") as url, speaking(OpenAI, url, "sk-wrong") as provider:
        with pytest.raises((HostRefused, HostFailed)) as refused:
            await complete(provider, "hello", "mock")
        assert "sk-wrong" not in str(refused.value)


@pytest.mark.parametrize("how", LIVE)
async def test_transformers_serve(how: str, record: bool) -> None:
    """It tells usage unasked, ends its streams without [DONE], and refuses no prompt that is too long for its model:
    the window is for the pool to keep to."""
    model = str(built.folder() / "random-transformer") if how == "live" else "/peers/random-transformer"
    async with peer_at("transformers", how, record, "openai") as url, speaking(OpenAI, url) as provider:
        facts = await detect(url)
        assert (facts.provider, facts.software) == ("openai", None), "it does not say what it is"
        done = await complete(provider, "the people of water", model, max_tokens=12)
        assert (done.finish, done.usage.completion_tokens, done.usage.estimated) == ("length", 12, False)
        assert done.text
        beyond = await complete(provider, "y" * 3000, model, max_tokens=4)
        assert beyond.usage.prompt_tokens > WINDOW
        with pytest.raises((HostRefused, ModelMissing)):
            await complete(provider, "hello", "nobody/none")


# ── what only a live server shows ───────────────────────────────────────────────────────────────────────────────


async def processing(url: str) -> int:
    """Slots of llama-server that are at work."""
    async with aiohttp.ClientSession() as session, session.get(url + "/slots") as answer:
        return sum(slot["is_processing"] for slot in await answer.json())


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_cancelling_frees_the_slot_of_llama_server(capfd: pytest.CaptureFixture[str]) -> None:
    took, ours = [], []
    async with llama_server(large=True) as url, speaking(OpenAI, url) as provider:
        await provider.probe()
        for _ in range(5):
            begun = asyncio.Event()
            message = (Message("user", "the people of water"),)
            sampling = Sampling(max_tokens=1800)
            task = asyncio.create_task(provider.complete("x", WINDOW, message, sampling, lambda _, b=begun: b.set()))
            await begun.wait()
            assert await processing(url) == await provider.busy() == 1
            began = time.perf_counter()
            task.cancel()
            await asyncio.wait([task])
            ours.append(time.perf_counter() - began)
            while await processing(url):
                pass
            took.append(time.perf_counter() - began)
    with capfd.disabled():
        print(
            f"\na cancelled request's slot is free after {1e3 * sorted(took)[2]:.0f} ms, at most {1e3 * max(took):.0f}"
            f"; the connection is closed after {1e3 * sorted(ours)[2]:.1f} ms, at most {1e3 * max(ours):.1f}"
        )


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_one_request_after_the_other_meets_no_stale_connection() -> None:
    async with llama_server() as url, speaking(OpenAI, url) as provider:
        for number in range(60):
            assert (await complete(provider, f"number {number}", max_tokens=2)).usage.completion_tokens == 2


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_a_stream_that_the_next_request_cuts_is_no_answer() -> None:
    async with llama_cpp_python(large=True) as url, speaking(OpenAI, url) as provider:
        begun = asyncio.Event()
        message = (Message("user", "the people of water"),)
        first = asyncio.create_task(
            provider.complete("x", WINDOW, message, Sampling(max_tokens=1800), lambda _: begun.set())
        )
        await begun.wait()
        second = await complete(provider, "hello", max_tokens=2)
        assert second.text
        with pytest.raises((CompletionCut, HostFailed)):
            await first


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_the_pool_keeps_to_the_slots_and_loses_nothing(tmp_path: Path) -> None:
    async with llama_server(slots=3) as first, llama_server(slots=2) as second:
        models = {"m": ModelSettings(window=WINDOW)}
        hosts = {
            "first": HostSettings(url=first, provider="openai", slots=3, models=models),
            "second": HostSettings(url=second, provider="openai", slots=2, models=models),
        }
        pool = Pool(Settings(hosts=hosts), cache_folder=tmp_path, environment={}, default_url=None)
        await pool.start()
        try:
            requests = [
                CompletionRequest("sub", (Message("user", f"number {n}"),), Sampling(max_tokens=8), "run", batch=True)
                for n in range(200)
            ]
            got = await asyncio.gather(*(pool.complete(request) for request in requests))
        finally:
            await pool.close()
        assert {one.record.host for one in got} == {"first", "second"}
        assert all(one.completion.usage.completion_tokens == 8 for one in got)
        for url in (first, second):
            async with aiohttp.ClientSession() as session, session.get(url + "/metrics") as answer:
                told = await answer.text()
            assert "llamacpp:requests_deferred 0" in told


@contextlib.asynccontextmanager
async def asked_by_others(proxy: str, count: int) -> AsyncIterator[None]:
    """So many streams of somebody else's, each begun."""
    body = {"model": "local", "messages": [{"role": "user", "content": "on and on"}], "stream": True}
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}))
        for _ in range(count):
            answer = await stack.enter_async_context(session.post(proxy + "/v1/chat/completions", json=body))
            assert answer.status == 200
            await answer.content.readany()
        yield


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_what_others_ask_of_a_live_litellm_proxy_is_foreign_load() -> None:
    """The model behind the proxy is a fake, whose streams last as long as they are to."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FakeOpenAI(["tiny"], dialect="vllm", slots=8))
        upstream.answer = lambda said: Scripted("on and on", fault="hang", after=6) if said == "on and on" else "done"
        proxy = await stack.enter_async_context(litellm_proxy(upstream.url))
        models = {"local": ModelSettings(window=WINDOW)}
        settings = HostSettings(url=proxy, provider="openai", slots=4, api_key_env="PROXY", models=models)
        provider = await stack.enter_async_context(speaking(OpenAI, proxy, KEY))
        await provider.probe()
        assert await provider.busy() == 0, "the question itself is not load"
        pool = Pool(Settings(hosts={"proxy": settings}), environment={"PROXY": KEY}, default_url=None)
        await pool.start()
        stack.push_async_callback(pool.close)

        async def foreign(load: int) -> None:
            async with asyncio.timeout(120):
                while pool.hosts()[0].foreign != load:  # looking at the hosts keeps them asked
                    await asyncio.sleep(0.05)

        async with asked_by_others(proxy, 3):
            assert await provider.busy() == 3
            await foreign(3)
            request = CompletionRequest("sub", (Message("user", "ours"),), Sampling(max_tokens=4), "run")
            assert (await pool.complete(request)).completion.text == "done", "one slot is left, and used"
        await foreign(0)
