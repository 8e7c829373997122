"""OpenCode and Claude Code as npm has them, offline, with what ``rlmctl install`` wrote for them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.fakes.toolcaller import ToolCaller
from tests.harness import Folders, Host, config_of
from tests.npm import program
from tests.shell import rlmctl

#: A proxy that nobody serves: what tries to leave this machine fails.
NOWHERE = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1,localhost"}
CALLS = [
    ("load_context", {"name": "log", "path": "big.log"}),
    ("load_context", {"name": "project", "path": "."}),
    ("execute_code", {"context": "log", "code": "print(len(context), llm_query(context[-60:]))"}),
]


async def run(folders: Folders, project: Path, *command: str, **more: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, env=folders.environment(**NOWHERE, **more), cwd=project, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return out.decode(errors="replace")


def project_of(folders: Folders) -> Path:
    """With a text of 5 MB, whose last line matters."""
    project = folders.home / "project"
    project.mkdir()
    (project / "big.log").write_text("nothing happened here, as on every other day\n" * 112_000 + "the boiler failed\n")
    return project


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first_is_down", [False, True])
async def test_opencode_explores_a_large_file_by_our_tools(
    folders: Folders, start_daemon: StartDaemon, first_is_down: bool
) -> None:
    """Its sub-queries go to the pool: with the first host down, to the other one."""
    opencode = program("opencode-ai", "opencode")
    project = project_of(folders)
    async with ToolCaller(CALLS, "The boiler failed.") as root, FakeOllama() as first, FakeOllama() as local:
        first.answer = local.answer = lambda _: "it says that the boiler failed"
        hosts = [Host("first", first.url), Host("local", local.url)]
        folders.write_config(config_of(hosts, sub=("first/sub", "local/sub")))
        if first_is_down:
            await first.die()
        await start_daemon()
        assert (await rlmctl(folders.environment(), "install", "opencode", "--write")).status == 0
        config = folders.config / "opencode" / "opencode.json"
        models = {"fake": {"name": "fake", "tool_call": True, "limit": {"context": 32_000, "output": 4000}}}
        provider = {"npm": "@ai-sdk/openai-compatible", "options": {"baseURL": f"{root.url}/v1", "apiKey": "x"}}
        settings = json.loads(config.read_text()) | {"provider": {"fakes": {**provider, "models": models}}}
        settings |= {"autoupdate": False, "share": "disabled", "model": "fakes/fake", "small_model": "fakes/fake"}
        config.write_text(json.dumps(settings))
        out = await run(
            folders, project, opencode, "run", "--agent", "rlm", "--print-logs", "what failed?",
            OPENCODE_DISABLE_MODELS_FETCH="1", OPENCODE_DISABLE_AUTOUPDATE="1",
        )  # fmt: skip
        assert "The boiler failed." in out, out[-3000:]
        loaded, tree, executed = root.results
        assert "1 document" in tree
        assert "created" in loaded
        assert "5,040,018 characters" in loaded
        assert "5040018 it says that the boiler failed" in executed
        assert len(local.seen) == (1 if first_is_down else 0)


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_claude_code_lists_the_server_as_connected(folders: Folders, start_daemon: StartDaemon) -> None:
    claude = program("@anthropic-ai/claude-code", "claude")
    project = project_of(folders)
    await start_daemon()
    assert (await rlmctl(folders.environment(), "install", "claude", "--write")).status == 0
    out = await run(folders, project, claude, "mcp", "list", DISABLE_AUTOUPDATER="1", ANTHROPIC_API_KEY="x")
    assert "rlmd" in out
    assert "Connected" in out, out
