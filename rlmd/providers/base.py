"""What every provider speaks: messages in, deltas out, one whole completion at the end, typed errors.

A provider knows one server's wire protocol and nothing of queues, roles, caches or runs. It raises only errors
of ``rlmd.errors``; the libraries' own are translated here, at the border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

#: The window asked for when neither the config, nor the model's parameters, nor a loaded instance names one: what a
#: 24 GB card holds beside a 32B model.
DEFAULT_WINDOW = 8192

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """``max_tokens`` is always sent: a looping model otherwise holds a slot for minutes (ollama: 10 × num_ctx)."""

    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """``estimated``: the server did not tell, so the counts are from the number of bytes."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False
    #: Of the prompt's: read from the server's cache, put into it.
    cached_tokens: int = 0
    written_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer: terminal record seen, prompt not truncated, finish classified."""

    text: str
    thinking: str
    finish: Finish
    usage: Usage


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as its server describes it. ``window`` is the window that will really be served, in tokens.

    ``digest`` identifies the weights where the server tells; ``remote`` marks one that the server forwards elsewhere.
    """

    name: str
    window: int | None = None
    digest: str | None = None
    parameters: str | None = None
    bytes: int | None = None
    chat: bool = True
    remote: bool = False
    #: Reads pictures, as far as the server tells.
    vision: bool = False
    #: In memory now, as far as the server tells.
    resident: bool = False
    #: Dollars a million tokens of prompt and reply, where the server tells.
    price: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself; ``slots`` only where it tells. ``software`` is the program behind the protocol
    where it can be told (ollama, llama.cpp, vllm): a proxy to servers elsewhere has none."""

    provider: str
    version: str | None
    models: tuple[ServedModel, ...] = ()
    slots: int | None = None
    notes: tuple[str, ...] = field(default=())
    software: str | None = None


class Provider(Protocol):
    """One server. ``complete`` always streams upstream; cancelling it closes the stream, which frees the slot.

    ``on_delta`` gets the answer's text as it comes, and "" when the model thinks: a sign of life without text.

    Raises (``complete``):
        HostFailed, HostOverloaded: retry, elsewhere first.
        PromptTooLong, PromptTruncated, CompletionCut, MalformedReply, ModelMissing, HostRefused.
    """

    kind: str

    async def probe(self) -> ServerFacts:
        """Asks the server what it is. Raises ``HostFailed`` if it does not answer as this kind."""
        ...

    async def complete(
        self,
        model: str,
        window: int,
        messages: tuple[Message, ...],
        sampling: Sampling,
        on_delta: Callable[[str], None],
    ) -> Completion: ...

    async def busy(self) -> int | None:
        """Requests that the server works on or holds, whoever sent them; None where it does not tell."""
        ...

    async def close(self) -> None: ...
