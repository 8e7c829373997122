"""The day of a user without a network, in a network namespace where only loopback is up; run by test_offline.py.

    unshare --net python -m tests.offline [leak]

A model is found at localhost:11434 by itself; then rlmctl, a cell, a batch and an MCP client do their work. Printed is
a JSON object: what each gave, and how many packets found no way out (``OutNoRoutes`` of /proc/net/snmp and snmp6).
``leak`` tries to go out, to show that it would be seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import socket
import struct
import sys
from pathlib import Path

from tests.fakes.ollama import FakeModel, FakeOllama
from tests.harness import Daemon, Folders
from tests.shell import rlmctl

#: ioctl SIOCSIFFLAGS and IFF_UP | IFF_RUNNING, netdevice(7).
_SET_FLAGS, _UP = 0x8914, 0x41


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))


def no_routes() -> int:
    """Packets of this namespace that had nowhere to go."""
    names, values = (
        line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:")
    )
    six = [line.split() for line in Path("/proc/net/snmp6").read_text().splitlines()]
    return int(dict(zip(names, values, strict=True))["OutNoRoutes"]) + sum(
        int(value) for name, value in six if name == "Ip6OutNoRoutes"
    )


async def day(folders: Folders) -> dict[str, str]:
    import mcp_types as types
    from mcp import ClientSession
    from mcp.client.stdio import StdioServerParameters, stdio_client

    text = folders.home / "a.txt"
    text.write_text("The boiler stands in the cellar.\n" * 3)
    (folders.home / "q.jsonl").write_text('{"question": "where?"}\n')
    gave: dict[str, str] = {}

    async def ctl(name: str, *arguments: str) -> None:
        ended = await rlmctl(folders.environment(), *arguments, cwd=str(folders.home))
        gave[name] = ended.out if ended.status == 0 else f"status {ended.status}: {ended.err}"

    async with FakeOllama([FakeModel("llama", window=32_768)], port=11434) as model:
        model.answer = lambda _: "In the cellar."
        daemon = await Daemon(folders).ready()
        try:
            await ctl("load", "context", "load", str(text), "--name", "boiler")
            await ctl("ask", "ask", "-f", str(text), "where?")
            await ctl("quote", "ask", "-f", str(text), "--strategy", "quote", "boiler")
            await ctl("exec", "exec", "-c", "boiler", "print(llm_query(context))")
            await ctl("batch", "batch", str(folders.home / "q.jsonl"), "-c", "boiler")
            await ctl("status", "status")
            server = StdioServerParameters(
                command=sys.executable, args=["-m", "rlmd.ctl.main", "mcp"], env=folders.environment()
            )
            with open(folders.root / "mcp.log", "w") as log:
                async with stdio_client(server, errlog=log) as (read, write), ClientSession(read, write) as session:
                    await session.initialize()
                    told = await session.call_tool("llm_subquery", {"prompt": "where is it?"})
                    gave["mcp"] = "".join(one.text for one in told.content if isinstance(one, types.TextContent))
        finally:
            await daemon.stop()
    return gave


async def main() -> None:
    loopback_up()
    folders = Folders()
    try:
        gave = await day(folders)
    finally:
        folders.remove()
    if "leak" in sys.argv:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
            out.sendto(b"x", ("192.0.2.1", 53))
    print(json.dumps({"gave": gave, "no_routes": no_routes()}))


if __name__ == "__main__":
    asyncio.run(main())
