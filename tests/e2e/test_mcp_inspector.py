"""The MCP inspector's command line against ``rlmctl mcp``: a client that others wrote calls every tool."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.harness import Folders, Host, config_of
from tests.npm import program

#: In this order: what the one loads the next reads.
CALLS: tuple[tuple[str, dict[str, str], str], ...] = (
    ("load_context", {"name": "fox", "content": "The quick brown fox jumps over the lazy dog."}, "created"),
    ("load_context", {"name": "tree", "path": ".", "exclude": '["*.log"]'}, "1 document"),
    ("list_contexts", {}, "fox"),
    ("context_info", {"name": "fox"}, "44 characters"),
    ("peek_context", {"name": "fox", "start": "4", "end": "9"}, "quick"),
    ("search_context", {"name": "fox", "query": "lazy dog"}, "lazy dog"),
    ("llm_subquery", {"prompt": "hello"}, "digest"),
    ("execute_code", {"code": "print(llm_query(context))", "context": "fox"}, "digest"),
    ("rlm_ask", {"question": "lazy dog", "context": "fox", "strategy": "quote"}, "lazy dog"),
    ("rlm_result", {"id": "12f40eb0-025f-4f22-a77d-521c1e13a7c7"}, "There is no run"),
)


async def inspected(folders: Folders, server: Path, *arguments: str) -> Any:
    inspector = program("@modelcontextprotocol/inspector", "mcp-inspector")
    # As other clients do, it starts servers with hardly any environment.
    passed = [word for name, value in folders.environment().items() for word in ("-e", f"{name}={value}")]
    process = await asyncio.create_subprocess_exec(
        inspector, "--cli", *passed, str(server), *arguments,
        env=folders.environment(), cwd=folders.home,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert out, err.decode()
    return json.loads(out)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_the_inspector_calls_every_tool(folders: Folders, start_daemon: StartDaemon) -> None:
    program("@modelcontextprotocol/inspector", "mcp-inspector")
    async with FakeOllama() as model:
        folders.write_config(config_of([Host("m40", model.url)], sub=("m40/sub",)))
        await start_daemon()
        project = folders.home / "project"
        project.mkdir()
        for name in ("a.txt", "b.log"):
            (project / name).write_text("text")
        server = folders.home / "server"  # it takes no options for the server on its own command line
        server.write_text(f"#!/bin/sh\nexec rlmctl mcp --root {project}\n")
        server.chmod(0o700)
        listed = {tool["name"] for tool in (await inspected(folders, server, "--method", "tools/list"))["tools"]}
        assert listed == {name for name, _, _ in CALLS}
        for name, arguments, expected in CALLS:
            given = [f"{key}={value}" for key, value in arguments.items()]
            call = ["--method", "tools/call", "--tool-name", name, *(["--tool-arg", *given] if given else [])]
            told = await inspected(folders, server, *call)
            assert expected in told["content"][0]["text"], told
