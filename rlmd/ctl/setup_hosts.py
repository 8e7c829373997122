"""The hosts of ``rlmctl setup``: from what a person types to a server that was asked, and to its section of the config.

Asks the servers through the daemon, which will be the one to speak to them; a key that is typed is for it a file.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from rlmd.config import Trust
from rlmd.ctl.proposing import Offer, offers_of
from rlmd.ctl.setup_keys import Key
from rlmd.errors import HostFailed, NotFound, RlmdError
from rlmd.wire.methods import HostProbeParams, HostProbeResult

if TYPE_CHECKING:
    from rlmd.client import Client

Table = dict[str, Any]
Answer = TypeVar("Answer")

#: Where servers listen unless told otherwise: Ollama, llama.cpp, vLLM, LM Studio; the first that answers is taken.
PORTS = (11434, 8080, 8000, 1234)
#: What is looked at when no address is given.
HERE = "http://127.0.0.1:11434"
#: Providers by the name that people have for them.
CLOUDS = {
    "deepseek": "https://api.deepseek.com",
    "anthropic": "https://api.anthropic.com",
    "glm": "https://api.z.ai/api/paas/v4",
    "openrouter": "https://openrouter.ai/api/v1",
}
_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class NewHost:
    """A host that was asked, under the name that it will have."""

    name: str
    probe: HostProbeResult
    trust: Trust
    key: Key
    offers: tuple[Offer, ...]
    prices: tuple[tuple[str, tuple[float, float]], ...] = ()

    def section(self, before: Table) -> Table:
        """Its section of the config; what a person has set in an earlier one stays."""
        models = {offer.model: self._model(offer) for offer in self.offers}
        for name, values in before.get("models", {}).items():
            models[name] = {**models.get(name, {}), **values}
        new: Table = {"url": self.probe.url, "provider": self.probe.provider}
        if self.probe.slots:
            new["slots"] = self.probe.slots
        if self.probe.trust != self.trust or self.probe.address:
            new["trust"] = self.trust
        keys = self.key.settings
        kept = {name: value for name, value in before.items() if not (keys and name.startswith("api_key"))}
        return {**new, **kept, **keys, "url": self.probe.url, "models": models}

    def _model(self, offer: Offer) -> Table:
        price = dict(self.prices).get(offer.model)
        told = {"price": {"prompt": price[0], "completion": price[1]}} if price else {}
        return {"window": offer.window, **told}


def usable(name: str, probe: HostProbeResult, trust: Trust, models: Iterable[str] = ()) -> tuple[Offer, ...]:
    """The models that complete prompts there; one that the server sends elsewhere needs more consent than a setup has.

    Raises ``NotFound`` when there is none.
    """
    remote = {model.name for model in probe.models if model.remote}
    found = [
        one
        for one in offers_of(name, probe, trust, tuple(models))
        if one.kind != "embedding" and one.model not in remote
    ]
    if not found:
        raise NotFound(
            f"{probe.url} serves no model that chats.", hint="Pull one there first, such as: ollama pull qwen2.5-coder"
        )
    return tuple(found)


def urls_of(text: str) -> tuple[str, ...]:
    """Where to look for what a person calls ``m40``, ``m40:8080`` or a URL."""
    if "//" in text:
        return (text,)
    bare = text.strip("/")
    try:
        port = urlsplit(f"//{bare}").port
    except ValueError:
        port = None
    if port is not None or "/" in bare:
        return (f"http://{bare}",)
    return tuple(f"http://{bare}:{port}" for port in PORTS)


def name_of(url: str, taken: Iterable[str]) -> str:
    """``m40`` for ``http://m40.lan:11434``; numbered when another is called so."""
    host = urlsplit(url).hostname or "host"
    if host == "localhost" or host.startswith("127.") or host == "::1":
        first = "local"
    elif host.replace(".", "").isdigit() or ":" in host:
        first = "host-" + _NO_NAME.sub("-", host.replace(".", "-"))
    else:
        labels = [label for label in host.split(".") if label not in ("api", "www")]
        first = _NO_NAME.sub("-", labels[0] if labels else host)
    first = first.strip("-_.")[:48] or "host"
    names = [first, *(f"{first}-{number}" for number in range(2, 1000))]
    used = set(taken)
    return next(name for name in names if name not in used)


async def probe(client: Client, text: str, key: Key) -> HostProbeResult:
    """The first of the usual ports that answers there. Raises what the first one that is no refusal says."""
    urls = urls_of(text)
    asked = await asyncio.gather(*(_probe_one(client, url, key) for url in urls))
    if found := next((one for one in asked if isinstance(one, HostProbeResult)), None):
        return found
    failures = [one for one in asked if isinstance(one, RlmdError)]
    if len(urls) > 1 and all(failure.details.get("refused") for failure in failures):
        ports = ", ".join(map(str, PORTS))
        if "no known address" in failures[0].message:
            raise HostFailed(f"No machine is known by the name {text}.", hint="See /etc/hosts, or give its address.")
        raise HostFailed(
            f"{text} refused the connection at the ports {ports}.",
            hint="Is the server running, and may other machines reach it? (for Ollama: OLLAMA_HOST=0.0.0.0)",
        )
    raise next((one for one in failures if not one.details.get("refused")), failures[0])


async def _probe_one(client: Client, url: str, key: Key) -> HostProbeResult | RlmdError:
    try:
        return await client.call("host/probe", HostProbeParams(url=url, **key.settings))
    except RlmdError as error:
        return error


class Caller:
    """Calls the daemon from a program that waits for people in between; starts it when none runs."""

    def __call__(self, work: Callable[[Client], Awaitable[Answer]]) -> Answer:
        from rlmd.client import connect

        async def connected() -> Answer:
            async with connect(name="rlmctl") as client:
                return await work(client)

        return asyncio.run(connected())
