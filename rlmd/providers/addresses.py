"""What a host's URL and key say by themselves: whether they can be such, and whether the URL names a machine nearby.

Imports nothing that speaks HTTP, so that a daemon without hosts need not load it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from pydantic import SecretStr

from rlmd.errors import ConfigInvalid

Lookup = Callable[[str], Awaitable[Sequence[str]]]


def is_local_address(url: str) -> bool:
    """Whether the URL names this machine or a private range by address. A name that must be looked up does not:
    whoever answers for it decides where the text goes."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host.endswith(".localhost") or _in_local_range(host)


async def looks_up_local(url: str, lookup: Lookup | None = None) -> str | None:
    """The address behind the URL's name, if each one that the name has now is this machine's or private; else None.

    Asked once, when a person adds a host: the answer is shown to that person and written down, never asked again.
    """
    host = urlsplit(url).hostname or ""
    try:
        addresses = await (lookup or _system_lookup)(host)
    except OSError:
        return None
    return addresses[0] if addresses and all(map(_in_local_range, addresses)) else None


async def _system_lookup(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _in_local_range(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address.version == range_.version and address in range_ for range_ in _LOCAL_RANGES)


_LOCAL_RANGES = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


def checked_url(url: str) -> str:
    """The URL without a trailing slash. Raises ``ConfigInvalid`` for one that no server can have."""
    if "//" not in url:
        url = "http://" + url
    try:
        parts = urlsplit(url)
        # idna: looking up a name such as ".." raises UnicodeError, a ValueError too
        name = (parts.hostname or "").encode("idna")
        valid = parts.scheme in ("http", "https") and bool(name) and parts.port != 0
    except ValueError:
        parts, valid = urlsplit(""), False
    if not valid or any(sign.isspace() or not sign.isprintable() for sign in url):
        raise ConfigInvalid(
            "The URL of a host must look like http://name:port.", hint="Example: http://192.168.1.5:11434"
        )
    if parts.username or parts.password:
        raise ConfigInvalid(
            "The URL of a host holds a user name or password.", hint="Use api_key_file or api_key_command."
        )
    if parts.query or parts.fragment:
        raise ConfigInvalid("The URL of a host may not hold ? or #.", hint="Example: http://192.168.1.5:11434")
    return url.rstrip("/")


def checked_key(key: SecretStr | None) -> SecretStr | None:
    """A key that can stand in a header, or ``ConfigInvalid``, which does not show it."""
    if key is None:
        return None
    text = key.get_secret_value().strip()
    if not text or not all("!" <= sign <= "~" for sign in text):
        raise ConfigInvalid("The API key is empty or holds spaces, line ends or signs beyond ASCII.")
    return SecretStr(text)


async def listens(url: str, seconds: float) -> bool:
    """Whether anything takes connections there, within so many seconds."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
