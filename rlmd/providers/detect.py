"""Which provider speaks to a URL: asks the server, and makes the provider for a configured one."""

from __future__ import annotations

from pydantic import SecretStr

from rlmd.config import ProviderKind
from rlmd.errors import HostFailed, HostRefused, RlmdError
from rlmd.providers.base import Provider, ServerFacts
from rlmd.providers.http import checked_url
from rlmd.providers.ollama import Ollama
from rlmd.providers.openai import OpenAI

#: In the order of asking: Ollama also answers ``/v1/models``, so its own API is asked first.
PROVIDERS: dict[ProviderKind, type[Ollama] | type[OpenAI]] = {"ollama": Ollama, "openai": OpenAI}


def make_provider(kind: ProviderKind, url: str, *, api_key: SecretStr | None = None, connections: int = 66) -> Provider:
    return PROVIDERS[kind](url, api_key=api_key, connections=connections)


async def detect(url: str, *, api_key: SecretStr | None = None) -> ServerFacts:
    """Asks the server at ``url`` what it is.

    Raises:
        HostFailed: nothing answers there, or nothing that rlmd speaks.
        HostRefused: an OpenAI-compatible server wants a (different) key.
        ConfigInvalid: no such URL can exist.
    """
    failures: list[RlmdError] = []
    for kind in PROVIDERS:
        provider = make_provider(kind, url, api_key=api_key)
        try:
            return await provider.probe()
        except RlmdError as failure:
            if failure.details.get("refused"):
                raise
            failures.append(failure)
        finally:
            await provider.close()
    if isinstance(failures[-1], HostRefused):
        raise failures[-1]
    raise HostFailed(
        f"Nothing at {checked_url(url)} answers as Ollama (/api/version) or OpenAI-compatible (/v1/models).",
        hint="Give the URL of the server itself, such as http://192.168.1.5:11434.",
    ) from failures[-1]
