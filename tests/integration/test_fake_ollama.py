"""The fake Ollama against the official client: what it speaks is what the client understands."""

from __future__ import annotations

import asyncio

import ollama
import pytest

from tests.fakes.ollama import FakeModel, FakeOllama, Scripted, echo

ASK = [{"role": "user", "content": "How many?"}]


async def test_official_client_lists_shows_and_chats() -> None:
    models = [FakeModel("root", window=8192, num_ctx=2048), FakeModel("embedder", capabilities=("embedding",))]
    async with FakeOllama(models) as fake:
        client = ollama.AsyncClient(host=fake.url)
        listed = await client.list()
        assert [model.model for model in listed.models] == ["root:latest", "embedder:latest"]
        shown = await client.show("root")
        assert shown.capabilities == ["completion"]
        assert shown.modelinfo == {"general.architecture": "qwen2", "qwen2.context_length": 8192}
        whole = await client.chat("root", ASK)
        assert whole.message.content == echo("How many?")
        assert whole.done
        assert whole.done_reason == "stop"
        assert whole.prompt_eval_count == 2 + 4
        pieces = [piece async for piece in await client.chat("root", ASK, stream=True)]
        assert "".join(piece.message.content or "" for piece in pieces) == echo("How many?")
        assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        resident = await client.ps()
        assert resident.models[0].context_length == 4096
        with pytest.raises(ollama.ResponseError, match="model 'gone' not found"):
            await client.chat("gone", ASK)
        await client._client.aclose()


async def test_scripts_rules_and_faults() -> None:
    async with FakeOllama(["root", "sub"]) as fake:
        client = ollama.AsyncClient(host=fake.url)
        fake.read_script(
            {"scripts": {"root": ["one", {"text": "two"}]}, "rules": [{"match": "How (m.*)y", "reply": r"so \1"}]}
        )
        assert [(await client.chat("root", ASK)).message.content for _ in range(2)] == ["one", "two"]
        with pytest.raises(ollama.ResponseError, match="used up"):
            await client.chat("root", ASK)
        assert (await client.chat("sub", ASK)).message.content == "so man"
        fake.answer = lambda _: Scripted("partial answer", fault="cut", after=7)
        pieces = [piece async for piece in await client.chat("sub", ASK, stream=True)]
        assert "".join(piece.message.content or "" for piece in pieces) == "partial"
        assert not any(piece.done for piece in pieces)
        fake.answer = lambda _: Scripted("partial answer", fault="error_line", after=7)
        with pytest.raises(ollama.ResponseError, match="CUDA"):
            [piece async for piece in await client.chat("sub", ASK, stream=True)]
        await client._client.aclose()


async def test_over_long_prompt_is_cut_to_half_the_window_with_a_200_as_the_real_one_does() -> None:
    async with FakeOllama(["sub"]) as fake:
        client = ollama.AsyncClient(host=fake.url)
        long = [{"role": "user", "content": "x" * 100_000}]
        cut = await client.chat("sub", long, options={"num_ctx": 2048})
        assert cut.prompt_eval_count == 2048 // 2 + 2
        assert fake.loads == [("sub:latest", 2048)]
        await client._client.aclose()


async def test_a_client_that_hangs_up_frees_its_slot_and_requests_queue_for_slots() -> None:
    async with FakeOllama(["sub"], slots=1) as fake:
        client = ollama.AsyncClient(host=fake.url)
        fake.answer = lambda prompt: Scripted("x", fault="hang") if prompt == "hang" else "done"
        first = asyncio.create_task(client.chat("sub", [{"role": "user", "content": "hang"}]))
        await fake.until(lambda: fake.serving == 1)
        second = asyncio.create_task(client.chat("sub", ASK))
        await fake.until(lambda: fake.held == 2)
        assert fake.max_serving == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).message.content == "done"
        assert fake.aborted == 1
        await client._client.aclose()
