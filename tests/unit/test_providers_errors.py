"""The providers' border: every error of the libraries is translated, every refusal classified, nothing leaks."""

from __future__ import annotations

import html
import inspect
import json
import re
import ssl
from collections.abc import Iterator
from typing import Any

import aiohttp
import aiohttp.http_exceptions
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from rlmd.errors import (
    ConfigInvalid,
    HostFailed,
    HostOverloaded,
    HostRefused,
    ModelMissing,
    PromptTooLong,
    RlmdError,
)
from rlmd.providers.addresses import checked_url, is_local_address, looks_up_local
from rlmd.providers.failures import COMPARED_CHARS, classify, is_final_for_host, refusal_of, retry_after, showable
from rlmd.providers.http import Http, encoded, translated


def _errors_of(module: Any) -> Iterator[type[Exception]]:
    for _, found in inspect.getmembers(module, inspect.isclass):
        if (
            issubclass(found, Exception)
            and not issubclass(found, Warning)
            and found.__module__.split(".")[0] in ("httpx", "aiohttp")
        ):
            yield found


LIBRARY_ERRORS = sorted(
    {*_errors_of(httpx), *_errors_of(aiohttp), *_errors_of(aiohttp.http_exceptions)}
    # of the libraries' server sides, streams of WebSockets and cookies, none of which is in use
    - {aiohttp.WebSocketError, aiohttp.WSMessageTypeError, aiohttp.EofStream},
    key=lambda found: found.__qualname__,
)


@pytest.mark.parametrize("kind", LIBRARY_ERRORS, ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_every_error_of_the_libraries_becomes_ours(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    with pytest.raises(HostFailed) as caught, translated("http://gpu:1"):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.message.startswith("http://gpu:1 ")


@pytest.mark.parametrize(
    ("error", "says", "refused"),
    [
        (ConnectionRefusedError(111, "refused"), "refused the connection", True),
        (ConnectionResetError(104, "reset"), "closed the connection", False),
        (TimeoutError(), "did not answer in time", False),
        (ssl.SSLCertVerificationError(1, "self-signed"), "could not be trusted", True),
        (OSError(113, "No route to host"), "broke the connection", False),
    ],
)
def test_what_the_system_says_is_kept(error: OSError, says: str, refused: bool) -> None:
    with pytest.raises(HostFailed, match=says) as caught, translated("http://gpu:1"):
        raise httpx.ConnectError("library words with a secret") from error
    assert bool(caught.value.details.get("refused")) is refused
    assert "secret" not in caught.value.message


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────

CASES: list[tuple[int, Any, type[RlmdError], dict[str, Any]]] = [
    (400, {"error": "request (100026 tokens) exceeds the available context size (2048 tokens), try increasing it"},
     PromptTooLong, {"tokens": 100026, "window": 2048}),
    (400, {"error": {"code": 400, "message": "too big", "type": "exceed_context_size_error",
                     "n_prompt_tokens": 9000, "n_ctx": 8192}}, PromptTooLong, {"tokens": 9000, "window": 8192}),
    (400, {"error": {"message": "This model's maximum context length is 2048 tokens. However, your request has 3000 "
                                "input tokens.", "type": "BadRequestError", "param": "input_tokens", "code": 400}},
     PromptTooLong, {"tokens": 3000, "window": 2048}),
    (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, PromptTooLong, {}),
    (413, "too large", PromptTooLong, {}),
    (404, {"error": "model 'x' not found"}, ModelMissing, {}),
    (400, {"error": "model is required"}, ModelMissing, {}),
    (404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, ModelMissing, {}),
    (401, {"error": {"message": "Incorrect API key"}}, HostRefused, {"status": 401}),
    (403, {"detail": "Forbidden"}, HostRefused, {"status": 403}),
    (402, {"error": {"message": "Insufficient Balance"}}, HostRefused, {"status": 402}),
    (429, {"error": {"code": "1113", "message": "Insufficient balance or no resource package. Please recharge."}},
     HostRefused, {"status": 402}),
    (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, HostRefused,
     {"status": 402}),
    (429, {"error": {"message": "Rate limit reached"}}, HostOverloaded, {}),
    (503, {"error": "server busy, please try again.  maximum pending requests exceeded"}, HostOverloaded, {}),
    (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, HostOverloaded, {}),
    (529, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, HostOverloaded, {}),
    (429, {"type": "error", "error": {"type": "rate_limit_error", "message": "Limit reached",
                                      "details": {"error_code": "enforced_spend_limit_reached"}}},
     HostRefused, {"status": 402}),
    (400, {"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}},
     HostRefused, {"status": 402}),
    (400, {"error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}},
     PromptTooLong, {"tokens": 210000, "window": 200000}),
    (404, {"error": {"type": "not_found_error", "message": "model: claude-nothing"}}, ModelMissing, {}),
    (500, "Internal Server Error", HostFailed, {"status": 500}),
    (502, "<html>bad gateway</html>", HostFailed, {"status": 502}),
    (408, {}, HostFailed, {}),
    (400, {"error": {"message": "bad request"}}, HostRefused, {"status": 400}),
    (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, HostRefused, {"status": 422}),
    (302, "", HostRefused, {"status": 302}),
    (200, {"error": "an error was encountered while running the model: CUDA error"}, HostFailed, {}),
    (200, {"error": {"message": "upstream overloaded", "code": 429}}, HostOverloaded, {}),
    (200, {"error": {"message": "no", "code": "401"}}, HostRefused, {"status": 401}),
    (400, {"error": {"type": "invalid_request_error",
                     "message": "You have reached your specified workspace API usage limits. You will regain access"}},
     HostRefused, {"status": 402}),
    (400, {"error": {"message": "input length and `max_tokens` exceed context limit: 188059 + 20000 > 200000"}},
     PromptTooLong, {}),
    (409, {"error": {"type": "conflict_error", "message": "Conflict"}}, HostFailed, {"status": 409}),
    (402, {"error": {"code": 402, "message": "Insufficient credits",
                     "metadata": {"limit_source": "openrouter_in_flight_budget"}}}, HostOverloaded, {}),
    (402, {"error": {"code": 402, "message": "Insufficient credits",
                     "metadata": {"limit_source": "openrouter_key_limit"}}}, HostRefused, {"status": 402}),
    (403, {"error": {"code": 403, "message": "Your input was flagged", "metadata": {"reasons": ["violence"]}}},
     HostRefused, {"status": 403, "text_alone": True}),
    (429, {"error": {"code": "1308", "message": "Usage limit reached for 5 hour. Your limit will reset at 12:00"}},
     HostRefused, {"status": 402}),
    (429, {"error": {"code": "1310", "message": "Weekly/Monthly Limit Exhausted"}}, HostRefused, {"status": 402}),
    (429, {"error": {"code": "1302", "message": "High concurrency usage of this API"}}, HostOverloaded, {}),
    (400, {"error": "The number of tokens to keep from the initial prompt is greater than the context length."},
     PromptTooLong, {}),
    (404, {"error": {"message": "No models loaded. Please load a model in the developer page"}}, ModelMissing, {}),
]  # fmt: skip


def test_a_text_that_a_model_will_not_answer_says_nothing_of_the_host() -> None:
    """The key is right, and other texts are answered."""
    flagged = {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}}
    for body, final in ((flagged, False), ({"error": {"code": 403, "message": "Forbidden"}}, True)):
        error = classify(refusal_of("http://gpu:1", 403, encoded(body), {}))
        assert isinstance(error, HostRefused)
        assert is_final_for_host(error) is final


@pytest.mark.parametrize(("status", "body", "kind", "details"), CASES)
def test_refusals_are_classified(status: int, body: Any, kind: type[RlmdError], details: dict[str, Any]) -> None:
    data = body.encode() if isinstance(body, str) else encoded(body)
    error = classify(refusal_of("http://gpu:1", status, data, {}))
    assert type(error) is kind
    assert {name: error.details.get(name) for name in details} == details
    assert error.message.startswith(("http://gpu:1 ", "The prompt has"))


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"error": null}', b'{"error": [1]}', b"\xff\xfe", b"1" * 5000])
def test_any_body_is_an_error_of_ours(body: bytes) -> None:
    for status in (200, 400, 404, 429, 500):
        assert isinstance(classify(refusal_of("http://gpu:1", status, body, {})), RlmdError)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "99999999"}, 3600.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1.2.3"}, None),
    ],
)
def test_retry_after_in_seconds_milliseconds_or_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=lambda: 40.0) == seconds


def test_a_servers_words_are_shown_only_without_key_and_prompt() -> None:
    key, prompt = "sk-very-secret-key", "The patient's name is Ada Lovelace and she lives in London."
    assert (
        showable("CUDA error:\x1b[31m out of memory\n", secrets=(key,), prompt=(prompt,))
        == "CUDA error: [31m out of memory"
    )
    assert showable(f"Incorrect API key provided: {key}", secrets=(key,)) == ""
    assert showable("cannot parse: name is Ada Lovelace and", prompt=(prompt,)) == ""
    assert showable("could not tokenise PIN 4711-22", prompt=("4711-22",)) == ""
    assert len(showable("x" * 10_000)) <= 200
    harmless = "the model is not loaded; its name is wrong"
    assert showable(harmless, secrets=(key,), prompt=(prompt,)) == harmless


#: A prompt of short lines in two scripts, with an astral sign: servers repeat such things in many forms.
ECHOED = "Имя тайного агента — Ксантиппа 🦓\nsafe: 4711\nkey: 9\nZebra one & <two>"


@pytest.mark.parametrize(
    "echo",
    [
        ECHOED,
        ECHOED.replace("\n", " "),
        ECHOED.upper(),
        repr(ECHOED),
        json.dumps(ECHOED),
        json.dumps(json.dumps({"input": ECHOED})),
        json.dumps([{"loc": ["body"], "input": ECHOED}]),
        ascii(ECHOED),
        html.escape(ECHOED),
        json.dumps(html.escape(ECHOED)),
        "safe:\t4711   key: 9  ZEBRA one",
    ],
)
@pytest.mark.parametrize("before", ["", "x" * 40 + ": "])
def test_a_prompt_is_not_shown_in_whatever_form_a_server_repeats_it(echo: str, before: str) -> None:
    assert showable(before + echo, prompt=("Read this.", f"Some words before.\n{ECHOED}\nAnd after.")) == ""


def test_beside_a_very_long_prompt_no_words_of_a_server_are_shown() -> None:
    assert showable("out of memory", prompt=("a" * (COMPARED_CHARS + 1),)) == ""


@pytest.mark.parametrize("filler", range(120, 220, 7))
def test_a_key_that_is_cut_at_the_end_of_the_line_is_not_shown(filler: int) -> None:
    key = "sk-ant-" + "0123456789abcdefghij" * 3
    shown = showable(f"{'x' * filler} {key} is not valid", secrets=(key,))
    assert not any(key[start : start + 12] in shown for start in range(len(key) - 11)), shown


@given(st.text(max_size=300))
def test_any_words_of_a_server_are_shown_or_not(words: str) -> None:
    letters = re.sub(r"[\W_]", "", words.casefold())
    assert showable(words, secrets=("key",), prompt=(words,)) == "" or len(letters) < 4
    assert isinstance(showable(words + "\\ud800 \\U0010FFFF \\Uffffffff \\x &#x110000;", prompt=("prompt",)), str)


# ── URLs, keys, bodies ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:11434", True),
        ("http://localhost:11434", True),
        ("http://[::1]:8080", True),
        ("http://192.168.1.5:11434", True),
        ("http://10.0.0.7", True),
        ("http://172.31.255.1", True),
        ("http://[fd00::1]:1", True),
        ("http://[::ffff:192.168.0.1]:1", True),
        ("http://172.32.0.1", False),
        ("http://100.64.0.1", False),
        ("http://8.8.8.8", False),
        ("http://0.0.0.0", False),
        ("http://m40.lan:11434", False),
        ("http://localhost.example.com", False),
        ("http://192.168.1.5.example.com", False),
        ("http://127.0.0.1@example.com", False),
        ("https://api.deepseek.com", False),
    ],
)
def test_only_addresses_of_this_machine_and_private_ranges_are_local(url: str, local: bool) -> None:
    assert is_local_address(url) is local


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://u:p@x",
        "http://x/?k=1",
        "http://x y",
        "..",
        "http://x..y",
        "http://x\n",
        "//",
    ],
)
def test_impossible_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        checked_url(url)
    assert "u:p" not in caught.value.message


@pytest.mark.parametrize("key", ["", " ", "two words", "line\nend", "schlüssel", "\x00"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Http("http://x", api_key=SecretStr(key))
    assert not key.strip() or key not in str(caught.value)


def test_a_key_never_shows() -> None:
    http = Http("http://x", api_key=SecretStr("sk-secret"))
    assert "sk-secret" not in repr(http) + str(vars(http))


def test_lone_surrogates_become_replacement_characters() -> None:
    assert encoded(["a\udce9b", "ok"]) == '["a\ufffdb","ok"]'.encode()


@pytest.mark.parametrize(
    ("addresses", "shown"),
    [
        (["192.168.1.5"], "192.168.1.5"),
        (["10.0.0.7", "fd00::7"], "10.0.0.7"),
        (["192.168.1.5", "203.0.113.9"], None),
        (["203.0.113.9"], None),
        ([], None),
        (OSError("no such name"), None),
    ],
)
async def test_a_named_host_is_local_only_if_all_its_addresses_are(
    addresses: list[str] | OSError, shown: str | None
) -> None:
    async def lookup(name: str) -> list[str]:
        assert name == "m40"
        if isinstance(addresses, OSError):
            raise addresses
        return addresses

    assert await looks_up_local("http://m40:11434", lookup) == shown
