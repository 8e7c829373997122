"""A desktop on a real bus: owns the names of logind and of the notifications' service, and writes down what they are
asked, a line of JSON each. Run as a program: it says READY once it has both names.

A lock is held until the descriptor that was handed out is closed everywhere, as logind has it.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import threading
from pathlib import Path
from typing import Any

from jeepney import Message, MessageType, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

NAMES = ("org.freedesktop.login1", "org.freedesktop.Notifications")


class Book:
    """What was asked, one line each, whole before the next."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(self, **entry: Any) -> None:
        with self._lock, self._file.open("a") as out:
            out.write(json.dumps(entry) + "\n")


def held(lock: int, what: str, book: Book) -> None:
    """Waits until nobody has the other end any more."""
    waiting = select.poll()
    waiting.register(lock, select.POLLHUP)
    waiting.poll()
    os.close(lock)
    book.write(released=what)


def serve(address: str, file: Path) -> None:
    book = Book(file)
    with open_dbus_connection(address, enable_fds=True) as bus:
        for name in NAMES:
            bus.send_and_get_reply(message_bus.RequestName(name))
        print("READY", flush=True)
        while True:
            asked: Message = bus.receive()
            if asked.header.message_type is not MessageType.method_call:
                continue
            fields = {field.name: value for field, value in asked.header.fields.items()}
            match fields.get("member"):
                case "Inhibit":
                    what, who, why, mode = asked.body
                    theirs, ours = os.pipe()
                    book.write(inhibited=what, who=who, why=why, mode=mode)
                    bus.send(new_method_return(asked, "h", (ours,)))
                    os.close(ours)
                    threading.Thread(target=held, args=(theirs, what, book), daemon=True).start()
                case "Notify":
                    book.write(notified=asked.body[3], body=asked.body[4])
                    bus.send(new_method_return(asked, "u", (1,)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    serve(given.address, given.file)
