"""A disk that is full: what does not fit is an error to whoever brought it, and the store is whole."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

from tests.harness import Client, Folders, Json, RpcFailure, load_path, load_text
from tests.shell import COMMAND


def takes_connections(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


async def test_a_full_disk_is_an_error_and_no_harm(folders: Folders) -> None:
    """On a file system of 4 MB: what does not fit is refused, what was there stays, and room helps at once."""
    script = f"mount -t tmpfs -o size=4m none {folders.state} && exec {sys.executable} -m rlmd"
    process = await asyncio.create_subprocess_exec(
        "setpriv", "--pdeathsig", "KILL", "--", "unshare", "-rm", "sh", "-c", script, env=folders.environment()
    )
    try:
        while not takes_connections(folders.socket):
            assert process.returncode is None
            await asyncio.sleep(0.01)
        async with Client.connected(folders.socket) as client:
            await load_text(client, "small", "It was there before.\n")
            big = folders.home / "big"
            refused = None
            for number in range(40):
                big.write_text(f"{number} {'x' * 79}\n" * 5000)
                try:
                    await load_path(client, f"big{number}", big)
                except RpcFailure as failure:
                    refused = refused or failure
            assert refused is not None
            assert refused.data["kind"] == "disk_full"
            assert refused.data["hint"]
            contexts: list[Json] = (await client.call("context/list"))["contexts"]
            assert "small" in {one["name"] for one in contexts}
            for one in contexts:
                assert (await client.call("context/peek", {"name": one["name"]}))["text"]
            for one in contexts:
                if one["name"] != "small":
                    await client.call("context/drop", {"name": one["name"]})
            assert (await load_path(client, "big", big))["change"] == "created"
            assert (await client.call("context/peek", {"name": "small"}))["text"] == "It was there before.\n"
    finally:
        process.terminate()
        await process.wait()


async def test_a_daemon_without_room_to_start_says_so(folders: Folders) -> None:
    """To whoever started it and to the doctor, though no line fits into its log any more."""
    command = " ".join(COMMAND)
    script = (
        f"mount -t tmpfs -o size=64k none {folders.state}; head -c 100k /dev/zero >{folders.state}/fill;"
        f"{command} daemon start; echo $?; {command} doctor 2>&1 | grep FAIL"
    )
    process = await asyncio.create_subprocess_exec(
        "unshare", "-rm", "sh", "-c", script, env=folders.environment(), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    state = folders.state / "rlmd"
    assert f"cannot start: the disk of {state} is full.\n  Free some space" in err.decode()
    status, *failures = out.decode().splitlines()
    assert status == "5"
    assert any(f"{state}: the disk is full" in failure for failure in failures), failures
