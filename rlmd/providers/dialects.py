"""What OpenAI-compatible servers do differently, as a table: how each is known, what it is told besides, what it means.

Whatever is not here is found out as it happens (``openai``): a refused parameter is left out from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rlmd.errors import CompletionCut, HostFailed, HostOverloaded, HostRefused, RlmdError


def _withheld(server: str) -> RlmdError:
    return HostRefused(f"{server} withheld the reply (content filter).")


def _out_of_resources(server: str) -> RlmdError:
    return HostOverloaded(f"{server} ran out of resources in the middle of the reply.")


def _broke_off(server: str) -> RlmdError:
    return HostFailed(f"{server} broke the reply off by an error of its own.")


#: Finish reasons that end a reply, and those by which it is none.
STOP = {"stop", "eos", "eos_token", "end_turn", "stop_sequence"}
LENGTH = {"length", "max_tokens"}
NO_REPLY: dict[str, Callable[[str], RlmdError]] = {
    "content_filter": _withheld,
    "sensitive": _withheld,  # https://docs.z.ai/api-reference/llm/chat-completion
    "insufficient_system_resource": _out_of_resources,  # https://api-docs.deepseek.com/api/create-chat-completion
    "network_error": _broke_off,
    "error": _broke_off,
}


def no_reply(server: str, reason: str) -> RlmdError:
    """What a finish reason means that is neither of ``STOP`` nor of ``LENGTH``."""
    if (meaning := NO_REPLY.get(reason)) is not None:
        return meaning(server)
    return CompletionCut(f"{server} ended the reply for a reason that is neither stop nor length.")


@dataclass(frozen=True, slots=True)
class Dialect:
    """A server's program or service.

    Attributes:
        software: Its name.
        ends: Ends of the server's name by which it is known.
        owners: What it says in ``owned_by`` of its models, by which it is known elsewhere.
        also: What is sent besides: thinking off, which is on by default there and would be paid for each sub-query.
        never: Parameters that it refuses or misreads.
        slots: Requests at a time that it takes without being told otherwise.
    """

    software: str | None = None
    ends: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    also: Mapping[str, Any] = field(default_factory=dict)
    never: Collection[str] = ()
    slots: int | None = None


#: Chat templates that know no such switch ignore it.
_TEMPLATE = {"chat_template_kwargs": {"enable_thinking": False}}
_THINKING = {"thinking": {"type": "disabled"}}
ANY = Dialect()
DIALECTS = (
    Dialect("llama.cpp", owners=("llamacpp",), also=_TEMPLATE),
    Dialect("vllm", owners=("vllm",), also=_TEMPLATE),
    Dialect("lm-studio", owners=("organization_owner", "organization-owner")),
    Dialect("openrouter", ends=("openrouter.ai",), owners=("openrouter",), also={"reasoning": {"enabled": False}}),
    Dialect("deepseek", ends=("deepseek.com",), owners=("deepseek",), also=_THINKING, slots=64),
    Dialect(
        "glm",
        ends=("z.ai", "bigmodel.cn"),
        owners=("z-ai", "zhipuai"),
        also=_THINKING,
        never=("stream_options", "seed"),
        slots=2,
    ),
)


def dialect_of(url: str, owners: Collection[str] = (), software: str | None = None) -> Dialect:
    """By the server's name, else by what it says: of itself, or of its models."""
    host = urlsplit(url).hostname or ""
    for dialect in DIALECTS:
        if any(host == end or host.endswith("." + end) for end in dialect.ends):
            return dialect
    for dialect in DIALECTS:
        if (software is not None and dialect.software == software) or not set(dialect.owners).isdisjoint(owners):
            return dialect
    return ANY
