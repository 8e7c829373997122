"""Both providers against their fakes: one suite for what they share, then what is each one's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from rlmd.errors import (
    CompletionCut,
    HostFailed,
    HostOverloaded,
    HostRefused,
    MalformedReply,
    ModelMissing,
    PromptTooLong,
    PromptTruncated,
)
from rlmd.providers.anthropic import Anthropic
from rlmd.providers.base import Completion, Message, Provider, Sampling
from rlmd.providers.detect import detect
from rlmd.providers.dialects import dialect_of
from rlmd.providers.failures import is_final_for_host
from rlmd.providers.ollama import Ollama
from rlmd.providers.openai import OpenAI
from tests.fakes.anthropic import GENERATIONS, FakeAnthropic
from tests.fakes.httpd import HttpServer, Reply, Request
from tests.fakes.ollama import FakeModel, FakeOllama, Scripted, echo
from tests.fakes.openai import DIALECTS, FakeOpenAI

PROSE = "some words of prose, as people write them. "


@asynccontextmanager
async def speaking(which: str, **more: Any) -> AsyncIterator[tuple[Any, Provider]]:
    """A fake and the provider that speaks to it; ``which`` is ollama, anthropic or a dialect of OpenAI's."""
    fake: FakeOllama | FakeOpenAI | FakeAnthropic
    match which:
        case "ollama":
            fake = FakeOllama(["sub"], **more)
        case "anthropic":
            fake = FakeAnthropic(["sub"], **more)
        case _:
            fake = FakeOpenAI(dialect=which, **more)
    async with fake:
        makers: dict[str, type[Ollama] | type[Anthropic]] = {"ollama": Ollama, "anthropic": Anthropic}
        provider: Provider = makers.get(which, OpenAI)(fake.url)
        try:
            yield fake, provider
        finally:
            await provider.close()


async def complete(provider: Provider, prompt: str = "hello", window: int = 8192, **sampling: Any) -> Completion:
    heard: list[str] = []
    done = await provider.complete("sub", window, (Message("user", prompt),), Sampling(**sampling), heard.append)
    assert "".join(heard) == done.text
    return done


EVERY = ["anthropic", "ollama", *sorted(DIALECTS)]
STREAMING = [which for which in EVERY if which not in DIALECTS or not DIALECTS[which].json_only]


@pytest.mark.parametrize("which", EVERY)
async def test_a_whole_answer(which: str) -> None:
    async with speaking(which) as (fake, provider):
        fake.answer = lambda prompt: Scripted(f"grüße 🙂 {prompt}", chunk=3)
        await provider.probe()  # as the pool does before it sends anything
        done = await complete(provider)
        assert (done.text, done.thinking, done.finish) == ("grüße 🙂 hello", "", "stop")
        assert done.usage.prompt_tokens > 0
        assert done.usage.estimated == (which in DIALECTS and DIALECTS[which].usage == "never")
        assert [(await complete(provider, str(n))).text for n in range(12)] == [f"grüße 🙂 {n}" for n in range(12)]


@pytest.mark.parametrize("which", EVERY)
async def test_a_reply_that_ran_into_its_limit_says_so(which: str) -> None:
    async with speaking(which) as (fake, provider):
        fake.answer = lambda _: Scripted("word" * 8, finish="length")
        assert (await complete(provider, max_tokens=8)).finish == "length"


@pytest.mark.parametrize("which", STREAMING)
async def test_thinking_is_kept_apart(which: str) -> None:
    async with speaking(which) as (fake, provider):
        fake.answer = lambda _: Scripted("42", thinking="let me see")
        done = await complete(provider)
        assert (done.text, done.thinking) == ("42", "let me see")


@pytest.mark.parametrize("which", STREAMING)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [("cut", CompletionCut), ("reset", HostFailed), ("error_line", HostFailed), ("garbage", MalformedReply)],
)
async def test_half_an_answer_is_an_error(which: str, fault: Any, kind: type[Exception]) -> None:
    async with speaking(which) as (fake, provider):
        fake.answer = lambda _: Scripted("half of an answer", fault=fault, after=6)
        with pytest.raises(kind):
            await complete(provider)
        fake.answer = echo
        assert (await complete(provider)).text == echo("hello"), "and the connection is not spoilt"


@pytest.mark.parametrize("which", EVERY)
async def test_refusals_have_their_kind(which: str) -> None:
    async with speaking(which) as (fake, provider):
        fake.script("sub", [Scripted("slow down", status=429, headers=(("Retry-After", "3"),))])
        with pytest.raises(HostOverloaded) as caught:
            await complete(provider)
        assert caught.value.retry_after == 3.0
        fake.script("sub", [Scripted("oops", status=500), Scripted("no", status=403)])
        with pytest.raises(HostFailed, match="500"):
            await complete(provider)
        with pytest.raises(HostRefused, match="403"):
            await complete(provider)


@pytest.mark.parametrize("which", [which for which in EVERY if which != "llama.cpp"])
async def test_a_model_that_is_not_there(which: str) -> None:
    async with speaking(which) as (_, provider):
        with pytest.raises(ModelMissing):
            await provider.complete("gone", 8192, (Message("user", "x"),), Sampling(), lambda _: None)


@pytest.mark.parametrize("which", ["anthropic", "ollama", "llama.cpp", "vllm"])
async def test_a_prompt_that_is_too_long_tells_both_numbers(which: str) -> None:
    async with speaking(which, **({"window": 8192} if which == "anthropic" else {})) as (fake, provider):
        with pytest.raises(PromptTooLong) as caught:
            await complete(provider, PROSE * 2000)
        assert caught.value.details["window"] == 8192
        assert caught.value.details["tokens"] == fake.tokens(fake.seen[0])
        assert "words of prose" not in caught.value.message


@pytest.mark.parametrize("which", STREAMING)
async def test_cancelling_hangs_up(which: str) -> None:
    async with speaking(which) as (fake, provider):
        fake.answer = lambda _: Scripted("some text", fault="hang", after=4)
        begun = asyncio.Event()
        message = (Message("user", "x"),)
        task = asyncio.create_task(provider.complete("sub", 8192, message, Sampling(), lambda _: begun.set()))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await fake.until(lambda: fake.aborted == 1)


@pytest.mark.parametrize("which", EVERY)
async def test_nobody_listens(which: str) -> None:
    async with speaking(which) as (fake, provider):
        await fake.http.stop()
        for call in (complete(provider), provider.probe()):
            with pytest.raises(HostFailed, match="refused the connection") as caught:
                await call
            assert caught.value.details["refused"]


@pytest.mark.parametrize("which", EVERY)
async def test_raw_bytes_of_a_text_do_not_break_a_request(which: str) -> None:
    async with speaking(which) as (fake, provider):
        await complete(provider, b"caf\xe9 \xff".decode("utf-8", "surrogateescape"))
        assert fake.seen[0].prompt == "caf\ufffd \ufffd"


# ── Ollama ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ollama_a_prompt_cut_to_half_of_the_window_is_noticed_every_time() -> None:
    async with speaking("ollama", honours_truncate=False) as (_, provider):
        for words in (2000, 3000, 20_000):
            with pytest.raises(PromptTruncated):
                await complete(provider, PROSE * (words // 8), window=2048)
        # digits are a token each for some tokenizers: nothing but the exact half gives the cut away
    async with speaking("ollama", honours_truncate=False, bytes_per_token=1.0) as (fake, provider):
        with pytest.raises(PromptTruncated):
            await complete(provider, "7" * 3700, window=2048)
        assert len(fake.seen) == 2, "asked once more to be sure"


async def test_ollama_a_prompt_of_which_far_too_little_was_read_is_noticed_whatever_was_cut() -> None:
    """Versions differ in what they leave: not only half of the window gives the cut away."""
    async with speaking("ollama", honours_truncate=False) as (fake, provider):
        fake.answer = lambda _: Scripted("x", prompt_eval_count=700)
        with pytest.raises(PromptTruncated, match="read 700 tokens"):
            await complete(provider, PROSE * 400, window=2048)
        assert len(fake.seen) == 1
        assert (await complete(provider, PROSE * 20, window=8192)).text == "x", "it cannot have been cut"


async def test_ollama_a_whole_prompt_of_exactly_the_suspicious_size_is_accepted() -> None:
    async with speaking("ollama") as (fake, provider):
        prompt = "word" * (2048 // 2 + 2 - 4)
        assert (await complete(provider, prompt, window=2048)).text == echo(prompt)
        assert len(fake.seen) == 2
        assert [load for _, load in fake.loads] == [2048], "the second question did not reload the model"


async def test_ollama_a_server_that_does_not_say_what_it_read() -> None:
    async with speaking("ollama") as (fake, provider):
        fake.answer = lambda _: Scripted("x", prompt_eval_count=0)
        assert (await complete(provider, "short")).text == "x"
        with pytest.raises(PromptTruncated, match="does not say"):
            await complete(provider, PROSE * 600)


async def test_ollama_running_out_of_the_window_is_no_answer() -> None:
    async with speaking("ollama") as (fake, provider):
        fake.answer = lambda _: Scripted("word" * 20, finish="length")
        with pytest.raises(CompletionCut, match="ran out of its window") as caught:
            await complete(provider, max_tokens=500)
        assert caught.value.details["window"] == 8192


async def test_ollama_says_what_it_serves() -> None:
    models = [
        FakeModel("plain"),
        FakeModel("declared", num_ctx=2048),
        FakeModel("tiny", window=512),
        FakeModel("embedder", capabilities=("embedding",)),
        FakeModel("gpt:120b-cloud"),
        FakeModel("elsewhere", remote_host="https://ollama.com:443"),
    ]
    async with FakeOllama(models) as fake:
        provider = Ollama(fake.url)
        await provider.complete("plain", 16_384, (Message("user", "x"),), Sampling(), lambda _: None)
        facts = await provider.probe()
        await provider.close()
    by_name = {model.name.removesuffix(":latest"): model for model in facts.models}
    windows = {name: model.window for name, model in by_name.items()}
    assert windows["plain"] == 16_384, "as it is loaded now"
    assert windows["declared"] == 2048
    assert windows["tiny"] == 512
    assert windows["elsewhere"] == 8192
    assert [name for name, model in by_name.items() if not model.chat] == ["embedder"]
    assert [name for name, model in by_name.items() if model.remote] == ["gpt:120b-cloud", "elsewhere"]
    assert all(model.digest for model in facts.models)
    assert (facts.provider, facts.software, facts.version) == ("ollama", "ollama", "0.12.6")


# ── OpenAI-compatible ───────────────────────────────────────────────────────────────────────────────────────────


async def test_openai_parameters_that_a_server_refuses_are_left_out_from_then_on() -> None:
    for which, body_has in (("openai", "max_completion_tokens"), ("glm", "max_tokens")):
        async with speaking(which) as (fake, provider):
            await complete(provider, "one")
            await complete(provider, "two")
            assert len(fake.refused) == 1
            assert all(seen.body[body_has] == 1024 for seen in fake.seen)


THINKING = [which for which in DIALECTS if DIALECTS[which].thinks_unless]


@pytest.mark.parametrize("which", THINKING)
async def test_openai_models_that_think_by_default_are_told_not_to(which: str) -> None:
    async with speaking(which) as (fake, provider):
        unaware = await complete(provider, "before it said what it is")
        assert unaware.thinking, "the fake thinks"
        await provider.probe()
        done = await complete(provider, "now", seed=3)
        assert (done.thinking, done.text) == ("", echo("now"))
        assert len(fake.refused) <= 1, "what it refuses is not sent once it is known"


@pytest.mark.parametrize(
    ("url", "software"),
    [
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.z.ai/api/paas/v4", "glm"),
        ("https://open.bigmodel.cn/api/paas/v4", "glm"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://notopenrouter.ai/v1", None),
        ("http://127.0.0.1:8080/v1", None),
    ],
)
def test_openai_services_are_known_by_their_name(url: str, software: str | None) -> None:
    assert dialect_of(url).software == software


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1, null, {}]", b"[" * 100_000, b"vllm:num_requests_running nan", b"\xff"]
)
@pytest.mark.parametrize("which", ["llama.cpp", "vllm", "litellm"])
async def test_openai_a_page_of_load_that_says_nothing_is_no_load(which: str, body: bytes) -> None:
    async with FakeOpenAI(dialect=which) as fake:
        provider = OpenAI(fake.url)
        await provider.probe()
        routed = fake.http.handler

        async def odd(request: Request, reply: Reply) -> None:
            await (reply.send(200, body, "text/plain") if request.method == "GET" else routed(request, reply))

        fake.http.handler = odd
        assert not await provider.busy()
        await provider.close()


async def test_openrouter_says_what_its_models_cost() -> None:
    async with FakeOpenAI(["sub"], dialect="openrouter") as fake:
        (model,) = (await detect(fake.url)).models
    assert model.price == pytest.approx((0.2, 0.8))


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("content_filter", HostRefused),
        ("sensitive", HostRefused),
        ("insufficient_system_resource", HostOverloaded),
        ("network_error", HostFailed),
        ("tool_calls", CompletionCut),
    ],
)
async def test_openai_reasons_that_end_no_reply(reason: Any, kind: type[Exception]) -> None:
    async with speaking("deepseek") as (fake, provider):
        fake.answer = lambda _: Scripted("half of", finish=reason)
        with pytest.raises(kind):
            await complete(provider)


async def test_glm_a_balance_that_is_used_up_is_final_and_a_crowd_is_not() -> None:
    async with speaking("glm") as (fake, provider):
        await provider.probe()
        crowd = {"error": {"code": "1302", "message": "High concurrency usage of this API"}}
        for said, final in (
            ({"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, True),
            ({"error": {"code": "1112", "message": "Your account has been locked"}}, True),
            (crowd, False),
        ):
            fake.dialect = replace(fake.dialect, error=lambda status, text, said=said: said)
            fake.script("sub", [Scripted("", status=429)])
            with pytest.raises(HostRefused if final else HostOverloaded) as caught:
                await complete(provider)
            assert is_final_for_host(caught.value) == final


async def test_deepseek_no_balance_is_final() -> None:
    async with speaking("deepseek") as (fake, provider):
        fake.script("sub", [Scripted("Insufficient Balance", status=402)])
        with pytest.raises(HostRefused, match="no balance") as caught:
            await complete(provider)
        assert is_final_for_host(caught.value)


@pytest.mark.parametrize(
    ("which", "window", "slots", "software"),
    [
        ("llama.cpp", 4096, 3, "llama.cpp"),
        ("vllm", 4096, None, "vllm"),
        ("lm-studio", 4096, None, "lm-studio"),
        ("deepseek", None, 64, "deepseek"),
        ("glm", None, 2, "glm"),
        ("openrouter", 4096, None, "openrouter"),
        ("litellm", None, None, None),
        ("openai", None, None, None),
    ],
)
async def test_openai_says_what_it_serves(which: str, window: int | None, slots: int | None, software: Any) -> None:
    async with FakeOpenAI(["sub", "text-embedding-3"], dialect=which, window=4096, slots=3) as fake:
        facts = await detect(fake.url)
    assert (facts.provider, facts.slots, facts.software) == ("openai", slots, software)
    assert [(model.name, model.window, model.chat) for model in facts.models] == [
        ("sub", window, True),
        ("text-embedding-3", window, False),
    ]


async def test_openai_a_kept_connection_that_was_closed_is_not_a_failure() -> None:
    async with speaking("llama.cpp", split=10_000) as (fake, provider):
        for number in range(30):
            await complete(provider, str(number))
        assert len(fake.seen) == 30


async def test_vllm_a_prompt_that_fits_is_not_refused_for_the_length_of_its_reply() -> None:
    """It wants prompt and max_tokens to fit together; the others end where the window does."""
    async with speaking("vllm", window=1000) as (fake, provider):
        done = await complete(provider, "x" * 3000, window=1000, max_tokens=800)
        assert (done.text, len(fake.refused)) == (echo("x" * 3000), 1)
        assert fake.seen[-1].body["max_tokens"] == 1000 - fake.tokens(fake.seen[-1])
        with pytest.raises(PromptTooLong) as caught:
            await complete(provider, "x" * 5000, window=1000, max_tokens=800)
        assert caught.value.details["window"] == 1000


async def test_openai_a_silently_cut_prompt_is_noticed() -> None:
    async with speaking("transformers", window=1_000_000) as (fake, provider):
        fake.answer = lambda _: Scripted("x", prompt_eval_count=1000)
        with pytest.raises(PromptTruncated):
            await complete(provider, PROSE * 1000, window=2048)


# ── Anthropic ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_anthropic_gets_what_its_api_asks_for_and_the_beginning_is_marked_for_its_cache() -> None:
    turns = (
        Message("system", "rules " * 50),
        Message("user", "one"),
        Message("assistant", "1"),
        Message("user", "two"),
    )
    async with speaking("anthropic", api_key=None) as (fake, provider):
        first = await provider.complete("sub", 8192, turns, Sampling(temperature=1.5), lambda _: None)
        again = await provider.complete("sub", 8192, turns, Sampling(stop=("END",)), lambda _: None)
        await complete(provider, "alone")
    body = fake.seen[0].body
    assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert body["messages"][-1]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert (body["temperature"], body["max_tokens"]) == (1.0, 1024)
    assert fake.seen[1].body["stop_sequences"] == ["END"]
    assert fake.seen[2].body["messages"] == [{"role": "user", "content": "alone"}], "a lone prompt is read once"
    assert first.usage.prompt_tokens == again.usage.prompt_tokens == fake.tokens(fake.seen[0])
    assert (first.usage.written_tokens, first.usage.cached_tokens) == (75, 0)
    assert (again.usage.written_tokens, again.usage.cached_tokens) == (0, 75)


@pytest.mark.parametrize(
    ("generation", "sent", "refusals"),
    [
        ("4.5", {"thinking": {"type": "disabled"}, "temperature": 0.0}, 0),
        ("sonnet-5.5", {"thinking": {"type": "between_tools"}}, 2),
        ("opus-5.5", {"output_config": {"effort": "low"}}, 3),
    ],
)
async def test_anthropic_models_are_asked_to_think_as_little_as_they_can(
    generation: str, sent: dict[str, Any], refusals: int
) -> None:
    """What a model refuses is not sent to it again; how others are asked stays as it was."""
    async with speaking("anthropic") as (fake, provider):
        fake.generation = GENERATIONS[generation]
        for number in range(3):
            assert (await complete(provider, str(number))).text == echo(str(number))
        assert len(fake.refused) == refusals
        known = {name: fake.seen[-1].body.get(name) for name in ("thinking", "output_config", "temperature")}
        assert {name: value for name, value in known.items() if value is not None} == sent
        fake.models.append("other")
        fake.generation = GENERATIONS["4.5"]
        await provider.complete("other", 8192, (Message("user", "x"),), Sampling(), lambda _: None)
        assert fake.seen[-1].body["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize("path", ["", "/", "/v1", "/anthropic", "/anthropic/v1/"])
async def test_anthropic_urls_are_those_of_the_official_clients(path: str) -> None:
    """Services that speak its protocol beside their own name the part before /v1."""
    async with FakeAnthropic(["sub"]) as fake:
        routed, asked = fake.http.handler, []

        async def handle(request: Request, reply: Reply) -> None:
            asked.append(request.path)
            await routed(replace(request, path=request.path.removeprefix("/anthropic")), reply)

        fake.http.handler = handle
        provider = Anthropic(fake.url + path)
        assert (await complete(provider)).text == echo("hello")
        await provider.close()
        assert asked == [("/anthropic" if "anthropic" in path else "") + "/v1/messages"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("model_context_window_exceeded", CompletionCut), ("refusal", HostRefused), ("pause_turn", CompletionCut)],
)
async def test_anthropic_reasons_that_end_no_reply(reason: str, kind: type[Exception]) -> None:
    async with speaking("anthropic") as (fake, provider):
        fake.stop_reason = reason
        with pytest.raises(kind):
            await complete(provider)


async def test_anthropic_a_stream_without_its_last_event_is_no_answer() -> None:
    """Though all of the text came, and why it ended."""
    async with speaking("anthropic") as (fake, provider):
        fake.stops = False
        with pytest.raises(CompletionCut, match="without its last event"):
            await complete(provider)


async def test_anthropic_a_spent_cap_is_final_and_an_overload_is_not() -> None:
    async with speaking("anthropic") as (fake, provider):
        fake.script(
            "sub", [Scripted("Overloaded", status=529), Scripted("slow", status=429), Scripted("no", status=429)]
        )
        for _ in range(2):
            with pytest.raises(HostOverloaded):
                await complete(provider)
        fake.details = {"error_code": "enforced_spend_limit_reached"}
        with pytest.raises(HostRefused, match="no balance") as caught:
            await complete(provider)
        assert is_final_for_host(caught.value)
        fake.script("sub", [Scripted("Your credit balance is too low to access the Anthropic API.", status=400)])
        with pytest.raises(HostRefused, match="no balance"):
            await complete(provider)


async def test_anthropic_says_what_it_serves() -> None:
    async with FakeAnthropic(["claude-haiku-5-5"], api_key="right") as fake:
        provider = Anthropic(fake.url, api_key=SecretStr("right"))
        facts = await provider.probe()
        await provider.close()
        assert [(model.name, model.window) for model in facts.models] == [("claude-haiku-5-5", 200_000)]
        assert (facts.provider, facts.software) == ("anthropic", None), "which makes it cloud"
        wrong = Anthropic(fake.url, api_key=SecretStr("sk-wrong-1234"))
        with pytest.raises(HostRefused, match="refused the key"):
            await wrong.probe()
        await wrong.close()


# ── asking what it is ───────────────────────────────────────────────────────────────────────────────────────────


async def test_detect_tells_ollama_and_openai_apart_and_asks_for_a_key() -> None:
    async with FakeOllama(["sub"]) as fake:
        assert (await detect(fake.url.removeprefix("http://"))).provider == "ollama"
    async with FakeOpenAI(api_key="right") as fake:
        with pytest.raises(HostRefused, match="refused the key") as caught:
            await detect(fake.url, api_key=SecretStr("sk-wrong-key-123"))
        assert "sk-wrong" not in caught.value.message + str(caught.value.details)
        assert (await detect(fake.url, api_key=SecretStr("right"))).models[0].name == "sub"


async def test_ollama_behind_v1_is_told_from_others() -> None:
    for which, told in (("ollama-v1", True), ("litellm", False)):
        async with FakeOpenAI(dialect=which) as fake:
            assert any("Ollama" in note for note in (await detect(fake.url)).notes) is told


async def test_detect_of_something_else() -> None:
    async def something_else(request: Request, reply: Reply) -> None:
        await reply.send(200, b"<html>It works!</html>", "text/html")

    server = HttpServer(something_else)
    await server.start()
    try:
        with pytest.raises(HostFailed, match=r"Nothing at .* answers as Ollama"):
            await detect(server.url)
    finally:
        await server.stop()


@pytest.mark.parametrize("body", [b"x" * 3_000_000, b"\x00\xff" * 100, b"[]\n", b'{"message": 5, "done": true}\n'])
async def test_a_hostile_stream_is_an_error_of_ours(body: bytes) -> None:
    async def hostile(request: Request, reply: Reply) -> None:
        await reply.start("application/x-ndjson" if "api" in request.path else "text/event-stream")
        await reply.write(body)
        await reply.end()

    server = HttpServer(hostile)
    await server.start()
    try:
        for provider in (Ollama(server.url), OpenAI(server.url), Anthropic(server.url)):
            try:
                done = await complete(provider)
                assert provider.kind == "ollama"
                assert done.text == ""
            except (MalformedReply, CompletionCut):
                pass
            await provider.close()
    finally:
        await server.stop()


async def test_proxies_of_the_environment_are_ignored_for_local_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with speaking("ollama") as (_, provider):
        assert (await complete(provider)).text == echo("hello")
