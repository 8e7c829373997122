"""What the providers share: the connections to one server, and its refusals read in the light of the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from pydantic import SecretStr

from rlmd.errors import RlmdError
from rlmd.providers.base import Message
from rlmd.providers.failures import classify, refusal_of
from rlmd.providers.http import Http, Response


class Server:
    """Base of the providers. Owns the connections and ends them."""

    def __init__(
        self,
        url: str,
        *,
        api_key: SecretStr | None,
        connections: int,
        key_header: str = "Authorization",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._http = Http(url, api_key=api_key, connections=connections, key_header=key_header, headers=headers)
        self._name = self._http.server

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name})"

    async def busy(self) -> int | None:
        """Requests that the server works on or holds, whoever sent them; None where it does not tell."""
        return None

    def keep_loaded(self, seconds: float) -> None:
        """How long a model that nobody uses stays in memory, where the server lets us say so."""

    async def close(self) -> None:
        await self._http.close()

    def _refusal(self, status: int, body: bytes, messages: tuple[Message, ...], response: Response) -> RlmdError:
        """What a refusal of a completion means; 200 for one in the middle of a stream."""
        prompt = tuple(message.content for message in messages)
        secrets, headers = self._http.secrets, response.headers
        return classify(refusal_of(self._name, status, body, headers, secrets=secrets, prompt=prompt))

    def _refused(self, status: int, body: bytes) -> RlmdError:
        """What a refusal to say what it is means."""
        return classify(refusal_of(self._name, status, body, {}, secrets=self._http.secrets))


def versioned(url: str) -> str:
    """The URL with ``/v1``, where it has no path of its own."""
    base = url.rstrip("/")
    return base if urlsplit(base if "//" in base else "//" + base).path else base + "/v1"
