"""What a service manager and its service say to each other: sockets handed over, readiness, the watchdog.

The protocols of sd_listen_fds(3) and sd_notify(3), which need no library. Without a manager all of it is silent.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

_FIRST_DESCRIPTOR = 3


def inherited_listener(environment: MutableMapping[str, str] = os.environ) -> socket.socket | None:
    """The listening socket that the manager made for us, or None. Takes the variables out of the environment,
    so that no child mistakes itself for the one meant. Raises ``ValueError`` for what is no such socket."""
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise ValueError(f"{count} sockets were handed over where 1 is expected")
    listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    listener.set_inheritable(False)
    listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM or not listening:
        raise ValueError("the socket handed over is not a listening Unix stream socket")
    listener.setblocking(False)
    return listener


class ServiceManager:
    """Says how we are to ``NOTIFY_SOCKET``; also takes that variable out of the environment."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        #: Seconds after which the manager thinks us dead, or None.
        self.watchdog: float | None = int(usec) / 1e6 if usec.isdigit() and meant and self._address else None

    @property
    def present(self) -> bool:
        return bool(self._address)

    def tell(self, **what: str | int) -> None:
        """Sends assignments such as ``READY=1``. A manager that went away is no reason to fail."""
        if not self._address:
            return
        message = "\n".join(f"{name}={value}" for name, value in what.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(message.encode(), self._address)
            except OSError:
                return

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tells that settings are being taken, and that they are; the time is what ``Type=notify-reload`` asks for."""
        self.tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        try:
            yield
        finally:
            self.tell(READY=1)

    async def feed_watchdog(self) -> None:
        """Pings at a third of the manager's patience, from the event loop: a loop that is blocked must not ping."""
        while self.watchdog is not None:
            self.tell(WATCHDOG=1)
            await asyncio.sleep(self.watchdog / 3)
