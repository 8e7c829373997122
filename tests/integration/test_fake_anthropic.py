"""The fake Anthropic server against the official client: what it speaks is what the client understands."""

from __future__ import annotations

import anthropic
import pytest

from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.serving import Scripted, echo

MODEL = "claude-haiku-5-5"
ASK = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "How many?"}]}


async def test_official_client_lists_and_chats() -> None:
    async with FakeAnthropic([MODEL], api_key="key") as fake:
        client = anthropic.AsyncAnthropic(base_url=fake.url, api_key="key", max_retries=0)  # it needs the URL
        async with client:
            assert [model.id async for model in client.models.list()] == [MODEL]
            whole = await client.messages.create(**ASK)  # type: ignore[call-overload]
            assert (whole.content[0].text, whole.stop_reason) == (echo("How many?"), "end_turn")
            fake.answer = lambda _: Scripted("grüße 🙂", thinking="let me see", chunk=2)
            async with client.messages.stream(**ASK) as stream:  # type: ignore[arg-type]
                text = "".join([piece async for piece in stream.text_stream])
                final = await stream.get_final_message()
            assert text == "grüße 🙂"
            assert [block.type for block in final.content] == ["thinking", "text"]
            assert final.stop_reason == "end_turn"
            assert final.usage.input_tokens > 0


async def test_official_client_meets_typed_errors() -> None:
    async with FakeAnthropic([MODEL], api_key="key") as fake:
        async with anthropic.AsyncAnthropic(base_url=fake.url, api_key="wrong", max_retries=0) as client:
            with pytest.raises(anthropic.AuthenticationError):
                await client.messages.create(**ASK)  # type: ignore[call-overload]
        async with anthropic.AsyncAnthropic(base_url=fake.url, api_key="key", max_retries=0) as client:
            fake.script(MODEL, [Scripted("slow", status=429), Scripted("busy", status=529)])
            with pytest.raises(anthropic.RateLimitError):
                await client.messages.create(**ASK)  # type: ignore[call-overload]
            with pytest.raises(anthropic.APIStatusError) as caught:
                await client.messages.create(**ASK)  # type: ignore[call-overload]
            assert caught.value.status_code == 529
