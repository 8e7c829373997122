"""Which provider speaks to a URL: asks the server, and makes the provider for a configured one.

What speaks HTTP is imported here when it is first needed.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from rlmd.config import ProviderKind
from rlmd.errors import HostFailed, HostRefused, RlmdError
from rlmd.providers.addresses import checked_url
from rlmd.providers.base import Provider, ServerFacts

if TYPE_CHECKING:
    from rlmd.providers.anthropic import Anthropic
    from rlmd.providers.ollama import Ollama
    from rlmd.providers.openai import OpenAI

#: In the order of asking: Ollama also answers ``/v1/models``, so its own API is asked first.
KINDS: tuple[ProviderKind, ...] = ("ollama", "openai", "anthropic")


async def make_provider(
    kind: ProviderKind,
    url: str,
    *,
    api_key: SecretStr | None = None,
    connections: int = 66,
    keep_loaded: float | None = None,
) -> Provider:
    """Imports aiohttp and httpx the first time, in a thread: 0.15 s, half of it for stores of TLS certificates."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="import")
    try:
        provider = await asyncio.get_running_loop().run_in_executor(thread, _class_of, kind)
    finally:
        thread.shutdown(wait=False)
    made = provider(url, api_key=api_key, connections=connections)
    if keep_loaded is not None:
        made.keep_loaded(keep_loaded)
    return made


def _class_of(kind: ProviderKind) -> type[Ollama] | type[OpenAI] | type[Anthropic]:
    from rlmd.providers.anthropic import Anthropic
    from rlmd.providers.ollama import Ollama
    from rlmd.providers.openai import OpenAI

    classes: dict[ProviderKind, type[Ollama] | type[OpenAI] | type[Anthropic]] = {
        "ollama": Ollama,
        "openai": OpenAI,
        "anthropic": Anthropic,
    }
    return classes[kind]


def _is_anthropic(url: str) -> bool:
    """Both kinds answer ``/v1/models``, and without a valid key alike."""
    host = urlsplit(checked_url(url)).hostname or ""
    return host == "anthropic.com" or host.endswith(".anthropic.com")


async def detect(url: str, *, api_key: SecretStr | None = None) -> ServerFacts:
    """Asks the server at ``url`` what it is.

    Raises:
        HostFailed: nothing answers there, or nothing that rlmd speaks.
        HostRefused: an OpenAI-compatible server wants a (different) key.
        ConfigInvalid: no such URL can exist.
    """
    failures: list[RlmdError] = []
    for kind in ("anthropic",) if _is_anthropic(url) else KINDS:
        provider = await make_provider(kind, url, api_key=api_key)
        try:
            return await provider.probe()
        except RlmdError as failure:
            if failure.details.get("refused"):
                raise
            failures.append(failure)
        finally:
            await provider.close()
    if refused := [failure for failure in failures if isinstance(failure, HostRefused)]:
        raise refused[-1]
    raise HostFailed(
        f"Nothing at {checked_url(url)} answers as Ollama (/api/version), OpenAI-compatible or Anthropic (/v1/models).",
        hint="Give the URL of the server itself, such as http://192.168.1.5:11434.",
    ) from failures[-1]
