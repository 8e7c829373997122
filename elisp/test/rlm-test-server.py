"""A server that does on the wire what a test says: chunks cut anywhere, silence, garbage, a sudden end.

For what a real daemon cannot be brought to do. It speaks Content-Length framing on the socket given as the only
argument, answers ``initialize``, and obeys:

    test/answer {method, result | error}   from now on, that answer to METHOD; queued, the last one stays
    test/say {writes: [[message, …], …]}   each inner list goes out in one write; "reply" is the answer to this
                                           request, another string goes as it is, an object is a message
    test/big {chars}                       a reply of so many characters
    test/deltas {run_id, text, times, chars}   TEXT so many TIMES as deltas of so many characters each, at full speed,
                                           between the facts that open and end the run
    test/seen {}                           all requests so far, as they came
    test/hang {}                           no answer, ever
    test/late {seconds}                    an answer after so long
    test/die {}                            closes the connection
"""

import asyncio
import json
import sys
from typing import Any

Message = dict[str, Any]


class Server:
    """State shared by all connections: what was seen, what to answer."""

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.answers: dict[str, list[Message]] = {"initialize": [{"result": {"protocol": 1, "spool_folder": "/tmp"}}]}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                message = await read_message(reader)
                await self.handle(message, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def handle(self, message: Message, writer: asyncio.StreamWriter) -> None:
        method, params = message["method"], message.get("params") or {}
        reply: Message = {"jsonrpc": "2.0", "id": message.get("id")}
        if not method.startswith("test/"):
            self.seen.append(message)
        if method == "test/answer":
            self.answers.setdefault(params.pop("method"), []).append(params)
            await send(writer, [reply | {"result": {}}])
        elif method == "test/say":
            for write in params["writes"]:
                await send(writer, [reply | {"result": {"said": True}} if part == "reply" else part for part in write])
                await asyncio.sleep(0.02)
        elif method == "test/big":
            await send(writer, [reply | {"result": {"text": "x" * params["chars"]}}])
        elif method == "test/deltas":
            await send(writer, [reply | {"result": {}}])
            await send(writer, run_in_deltas(**params))
        elif method == "test/seen":
            await send(writer, [reply | {"result": {"seen": self.seen}}])
        elif method == "test/late":
            await asyncio.sleep(params["seconds"])
            await send(writer, [reply | {"result": {}}])
        elif method == "test/die":
            writer.close()
        elif answers := self.answers.get(method):
            await send(writer, [reply | (answers.pop(0) if len(answers) > 1 else answers[0])])


def run_in_deltas(run_id: str, text: str, times: int, chars: int) -> list[Message | str]:
    """All that a daemon tells of a run of one completion, its text cut small."""

    def notification(method: str, **params: Any) -> Message:
        return {"jsonrpc": "2.0", "method": method, "params": {"run_id": run_id, **params}}

    text *= times
    whole = {"chars": len(text), "text": text}
    return [
        notification("run/fact", seq=1, time=0, type="turn_started", turn=1, stream="root"),
        *(
            notification("run/delta", stream="root", offset=start, text=text[start : start + chars])
            for start in range(0, len(text), chars)
        ),
        notification("run/fact", seq=2, time=0, type="root_replied", turn=1, stream="root", reply=whole),
        notification("run/fact", seq=3, time=0, type="run_ended", outcome="answered", answer=whole, stream="root"),
    ]


async def read_message(reader: asyncio.StreamReader) -> Message:
    length = 0
    while (line := await reader.readuntil(b"\n")).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(await reader.readexactly(length))


async def send(writer: asyncio.StreamWriter, parts: list[Message | str]) -> None:
    """All parts in one write, so that the client meets them in one chunk."""
    data = bytearray()
    for part in parts:
        if isinstance(part, str):
            data += part.encode()
        else:
            body = json.dumps(part, ensure_ascii=False).encode()
            data += b"Content-Length: %d\r\n\r\n" % len(body) + body
    writer.write(data)
    await writer.drain()


async def main(path: str) -> None:
    server = await asyncio.start_unix_server(Server().serve, path)
    async with server:
        await server.serve_forever()


asyncio.run(main(sys.argv[1]))
