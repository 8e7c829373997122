"""Uploads in chunks: resumed wherever they stopped, idempotent, bounded, and no context before their commit."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import sys
from asyncio.subprocess import PIPE

import pytest

from rlmd.client import connect, upload
from tests.conftest import StartDaemon
from tests.harness import Client, Daemon, Folders, Json, RpcFailure, load_text

TEXT = "".join(f"{number} żółw 🐢\r\n" for number in range(60_000)).encode() + b"\xff raw \xfe"


def announcement(data: bytes, **more: object) -> Json:
    return {"digest": hashlib.sha256(data).hexdigest(), "bytes": len(data), "name": "up", **more}


def chunk(upload_id: str, data: bytes, start: int, end: int) -> Json:
    return {"upload_id": upload_id, "offset": start, "data": base64.b64encode(data[start:end]).decode()}


async def names(client: Client) -> list[str]:
    return [one["name"] for one in (await client.call("context/list"))["contexts"]]


async def digest_of(client: Client, name: str) -> str:
    (document,) = (await client.call("context/info", {"name": name}))["documents"]
    digest: str = document["digest"]
    return digest


@pytest.mark.parametrize("seed", range(3))
async def test_an_upload_goes_on_where_it_stopped(seed: int, folders: Folders, start_daemon: StartDaemon) -> None:
    """Chunks of any size, some sent twice, connections lost and the daemon killed in between."""
    chance = random.Random(seed)
    daemon = await start_daemon()
    sent = 0
    while sent < len(TEXT):
        async with daemon.connect() as client:
            begun = await client.call("context/begin", announcement(TEXT))
            assert begun["received"] == sent
            for _ in range(chance.randrange(1, 4)):
                start = max(0, sent - chance.choice([0, 0, 1000]))
                end = min(len(TEXT), start + chance.randrange(1, begun["chunk_bytes"]))
                told = await client.call("context/append", chunk(begun["upload_id"], TEXT, start, end))
                sent = told["received"]
                assert sent == max(end, sent)
            assert await names(client) == []
        if chance.random() < 0.5:
            await daemon.kill()
            daemon = await start_daemon()
    async with daemon.connect() as client:
        begun = await client.call("context/begin", announcement(TEXT))
        report = await client.call("context/commit", {"upload_id": begun["upload_id"]})
        assert (report["change"], report["context"]["name"], report["bytes"]) == ("created", "up", len(TEXT))
        assert await digest_of(client, "up") == announcement(TEXT)["digest"]
        again = await client.call("context/begin", announcement(TEXT))
        assert again["received"] == 0, "a committed upload is left on the disk"


async def test_what_does_not_fit_is_refused(client: Client) -> None:
    begun = await client.call("context/begin", announcement(b"0123456789"))
    good = chunk(begun["upload_id"], b"0123456789", 0, 4)
    await client.call("context/append", good)
    for method, params, kind in (
        ("context/append", {**good, "offset": 5}, "conflict"),
        ("context/append", {**good, "offset": 4, "data": base64.b64encode(b"x" * 7).decode()}, "too_large"),
        ("context/append", {**good, "data": "no base64!"}, "invalid_params"),
        ("context/append", {**good, "text": "both"}, "invalid_params"),
        ("context/append", {**good, "upload_id": "../../../etc/passwd"}, "not_found"),
        ("context/append", {**good, "upload_id": "0" * 64}, "not_found"),
        ("context/append", {**good, "data": base64.b64encode(bytes(2 << 20)).decode()}, "too_large"),
        ("context/commit", {"upload_id": begun["upload_id"]}, "conflict"),
        ("context/begin", announcement(b"") | {"bytes": 1 << 50}, "too_large"),
    ):
        with pytest.raises(RpcFailure) as caught:
            await client.call(method, params)
        assert caught.value.data["kind"] == kind, (method, params)
        assert caught.value.data["hint"]
    await client.call("context/append", {"upload_id": begun["upload_id"], "offset": 4, "text": "wrong!"})
    with pytest.raises(RpcFailure) as caught:
        await client.call("context/commit", {"upload_id": begun["upload_id"]})
    assert caught.value.data["kind"] == "invalid_params"
    assert (await client.call("context/begin", announcement(b"0123456789")))["received"] == 0
    assert await names(client) == []


async def test_an_upload_that_nobody_goes_on_with_expires(folders: Folders, start_daemon: StartDaemon) -> None:
    daemon = await start_daemon()
    async with daemon.connect() as client:
        begun = await client.call("context/begin", announcement(TEXT))
        await client.call("context/append", chunk(begun["upload_id"], TEXT, 0, 1000))
        (file,) = (folders.state / "rlmd" / "contexts" / "uploads").iterdir()
        os.utime(file, (0, 0))
        assert (await client.call("context/begin", announcement(TEXT)))["received"] == 0


async def test_an_upload_is_an_update_and_no_way_to_what_is_private(daemon: Daemon, client: Client) -> None:
    await load_text(client, "up", "before")
    async with connect(daemon.folders.socket, start=False) as mine:
        path = daemon.folders.home / "text"
        path.write_bytes(b"after")
        with path.open("rb") as file:
            report = await upload(mine, file, name="up", raw=True)
    assert (report.change, report.context and report.context.revision) == ("updated", 2)
    async with daemon.connect() as cloud:
        await cloud.call("initialize", {"egress": True})
        with pytest.raises(RpcFailure) as caught:
            await cloud.call("context/begin", announcement(b"x", private=True))
        assert caught.value.data["kind"] == "not_allowed"


async def test_rlmctl_uploads_what_the_daemon_cannot_see(daemon: Daemon) -> None:
    """In a mount namespace where the file and the spool folder are others, as behind a forwarded socket."""
    far = daemon.folders.home / "far"
    far.mkdir()
    (daemon.folders.home / "text").write_bytes(TEXT)
    script = (
        f"mount -t tmpfs none {daemon.folders.spool} && mount -t tmpfs none {far} && cp {far}/../text {far}/notes.txt"
        f" && exec {sys.executable} -m rlmd.ctl.main context load {far}/notes.txt --name up"
    )
    process = await asyncio.create_subprocess_exec(
        "unshare", "-rm", "sh", "-c", script, env=daemon.folders.environment(), stdout=PIPE, stderr=PIPE
    )
    _, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    async with daemon.connect() as client:
        assert await digest_of(client, "up") == announcement(TEXT)["digest"]
