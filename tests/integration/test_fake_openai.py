"""The fake OpenAI-compatible server against the official client: what it speaks is what the client understands."""

from __future__ import annotations

import openai
import pytest

from tests.fakes.ollama import Scripted, echo
from tests.fakes.openai import DIALECTS, FakeOpenAI

ASK = [{"role": "user", "content": "How many?"}]


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
async def test_official_client_lists_and_chats(dialect: str) -> None:
    async with FakeOpenAI(dialect=dialect) as fake:  # the client needs its URL
        client = openai.AsyncOpenAI(base_url=fake.url + "/v1", api_key="key", max_retries=0)
        async with client:
            assert [model.id async for model in client.models.list()] == ["sub"]
            whole = await client.chat.completions.create(model="sub", messages=ASK)  # type: ignore[arg-type]
            assert whole.choices[0].message.content == echo("How many?")
            assert whole.choices[0].finish_reason == "stop"
            if DIALECTS[dialect].json_only:
                return
            stream = await client.chat.completions.create(model="sub", messages=ASK, stream=True)  # type: ignore[arg-type]
            pieces = [piece async for piece in stream]
            text = "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)
            assert text == echo("How many?")


async def test_official_client_meets_typed_errors() -> None:
    async with FakeOpenAI(api_key="right") as fake:
        async with openai.AsyncOpenAI(base_url=fake.url + "/v1", api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="sub", messages=ASK)  # type: ignore[arg-type]
        async with openai.AsyncOpenAI(base_url=fake.url + "/v1", api_key="right", max_retries=0) as client:
            fake.script("sub", [Scripted("slow down", status=429, headers=(("Retry-After", "3"),))])
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="sub", messages=ASK)  # type: ignore[arg-type]
