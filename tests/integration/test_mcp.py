"""``rlmctl mcp`` as its clients meet it: the official Python client over stdio, a real daemon, a fake Ollama."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama
from tests.fakes.serving import Scripted
from tests.harness import PATIENCE, Client, Daemon, Folders, Host, config_of, descendants, load_text

NAMES = {
    "load_context": {"name", "content"},
    "peek_context": {"name", "start", "end"},
    "context_info": {"name"},
    "llm_subquery": {"prompt", "provider", "model"},
    "execute_code": {"code"},
    "list_contexts": set(),
    "search_context": {"name", "query"},
    "rlm_ask": {"question", "context"},
    "rlm_result": {"id"},
}
CANARY = "CANARY-7f3a the recipe of the private soup"


class Tools:
    """An MCP client with the server that it started."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session

    async def call(self, tool: str, /, *, progress: Any = None, **arguments: Any) -> str:
        """The text of a result that is no error."""
        result = await self.session.call_tool(tool, arguments, progress_callback=progress)
        text = "".join(block.text for block in result.content if isinstance(block, types.TextContent))
        assert not result.is_error, text
        return text

    async def refused(self, tool: str, /, **arguments: Any) -> str:
        """The text of a result that is an error."""
        result = await self.session.call_tool(tool, arguments)
        assert result.is_error, result
        return "".join(block.text for block in result.content if isinstance(block, types.TextContent))


@contextlib.asynccontextmanager
async def tools_of(folders: Folders, *arguments: str, roots: tuple[Path, ...] | None = None) -> AsyncIterator[Tools]:
    """``roots``: those that the client tells; None: it has none."""

    async def listed(_: object) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=root.as_uri()) for root in roots or ()])  # type: ignore[arg-type]

    command = StdioServerParameters(
        command=sys.executable,
        args=["-W", "error", "-m", "rlmd.ctl.main", "mcp", *arguments],
        env=folders.environment(PYTHONPATH=str(Path(__file__).resolve().parents[2])),
        cwd=folders.home,
    )
    with open(folders.root / "mcp-stderr", "a") as log:
        async with (
            stdio_client(command, errlog=log) as (read, write),
            ClientSession(read, write, list_roots_callback=listed if roots is not None else None) as session,
        ):
            await session.initialize()
            yield Tools(session)


@pytest.fixture
async def model(folders: Folders) -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["root", "sub"], slots=4) as fake:
        host = Host("m40", fake.url, slots=4, models={"root": 8192, "sub": 8192})
        folders.write_config(config_of([host], root=("m40/root",), sub=("m40/sub",)))
        yield fake


async def test_the_tools_have_the_names_and_parameters_that_others_know(folders: Folders, daemon: Daemon) -> None:
    async with tools_of(folders) as tools:
        listed = {tool.name: tool for tool in (await tools.session.list_tools()).tools}
        assert set(listed) == set(NAMES)
        for name, parameters in NAMES.items():
            schema = listed[name].input_schema
            assert parameters <= set(schema["properties"]), name
            assert listed[name].description
        needed = listed["peek_context"].input_schema["required"]
        assert needed == ["name"]


async def test_programs_of_the_person_are_offered_and_asked(
    model: FakeOllama, folders: Folders, daemon: Daemon
) -> None:
    programs = folders.config / "rlmd" / "programs"
    programs.mkdir(parents=True, exist_ok=True)
    (programs / "count.py").write_text('"""Counts the characters."""\n\nFINAL(str(len(context)))\n')
    (programs / "broken.py").write_text("FINAL(\n")
    async with tools_of(folders) as tools:
        listed = {tool.name: tool for tool in (await tools.session.list_tools()).tools}
        told = listed["rlm_ask"].input_schema["properties"]["strategy"]["description"]
        assert "count: Counts the characters." in told
        assert "broken" not in told
        await tools.call("load_context", name="fox", content="The quick brown fox jumps.")
        answer = await tools.call("rlm_ask", question="How long?", context="fox", strategy="count")
        assert answer.startswith("26")
        wrong = await tools.session.call_tool("rlm_ask", {"question": "?", "context": "fox", "strategy": "nothing"})
        assert wrong.is_error
        assert "nothing" in wrong.content[0].text


async def test_every_tool_does_its_work(model: FakeOllama, folders: Folders, daemon: Daemon) -> None:
    model.script("root", ["```repl\nprint(context[:20])\n```", 'FINAL("The fox jumps, as in: «quick brown fox»")'])
    async with tools_of(folders) as tools:
        assert "created" in await tools.call("load_context", name="fox", content="The quick brown fox jumps. " * 2000)
        assert "fox: 54,000 characters" in await tools.call("list_contexts")
        assert "54,000" in await tools.call("context_info", name="fox")
        assert await tools.call("peek_context", name="fox", start=4, end=19) == "quick brown fox"
        assert "brown fox" in await tools.call("search_context", name="fox", query="brown fox", limit=2)
        assert (await tools.call("llm_subquery", prompt="hello")).startswith("digest ")
        assert (await tools.call("llm_subquery", prompt="hi", provider="ollama", model="sub")).startswith("digest ")
        out = await tools.call("execute_code", code="n = len(context)\nprint(n, llm_query('deep'))", context="fox")
        assert out.startswith("54000 digest ")
        assert await tools.call("execute_code", code="n + 1") == "54001"
        steps: list[str] = []

        async def progress(_: float, __: float | None, message: str | None) -> None:
            steps.append(message or "")

        answer = await tools.call("rlm_ask", question="What?", context="fox", strategy="rlm", progress=progress)
        assert "The fox jumps" in answer
        assert any("turn 1" in step for step in steps)


async def test_all_of_a_client_is_one_run_with_one_purse(model: FakeOllama, folders: Folders, client: Client) -> None:
    async with tools_of(folders, "--limit", "sub_queries=2") as tools:
        await tools.call("llm_subquery", prompt="one")
        await tools.call("execute_code", code="print(llm_query('two'))")
        assert "limit of 2 sub-queries" in await tools.refused("llm_subquery", prompt="three")
    runs = (await client.call("run/list"))["runs"]
    (opened,) = [run for run in runs if run["strategy"] == "open"]
    assert (opened["state"], opened["outcome"]) == ("ended", "answered")
    receipt = (await client.call("run/show", {"run_id": opened["run_id"]}))["receipt"]
    assert sum(use["calls"] for use in receipt["models"]) == 2
    assert (await client.call("session/list"))["sessions"] == []
    assert len(model.seen) == 2


async def test_a_question_that_takes_long_is_fetched_later(model: FakeOllama, folders: Folders, daemon: Daemon) -> None:
    gate = asyncio.Event()
    model.script("root", [Scripted("```repl\nprint(context[:20])\n```", until=gate), "FINAL(at last)"])
    async with tools_of(folders) as tools:
        await tools.call("load_context", name="a", content="text " * 20_000)
        told = await tools.call("rlm_ask", question="When?", context="a", strategy="rlm", wait_seconds=0)
        run_id = told.split('id="')[1].split('"')[0]
        await model.until(lambda: model.held == 1)
        gate.set()
        assert "at last" in await tools.call("rlm_result", id=run_id)


async def test_a_killed_client_leaves_nothing_running(
    model: FakeOllama, folders: Folders, start_daemon: StartDaemon
) -> None:
    """Mid-call: the daemon hangs up upstream, whatever was being asked. One model has both roles: a host is not asked
    for two at once."""
    host = Host("m40", model.url, slots=4, models={"sub": 8192})
    folders.write_config(config_of([host], root=("m40/sub",), sub=("m40/sub",)))
    await start_daemon()
    model.answer = lambda _: Scripted("never", fault="hang")
    async with tools_of(folders) as tools:
        await tools.call("load_context", name="a", content="text " * 20_000)
        asked = [
            asyncio.ensure_future(tools.session.call_tool("llm_subquery", {"prompt": "hello"})),
            asyncio.ensure_future(tools.session.call_tool("execute_code", {"code": "llm_query('x')"})),
            asyncio.ensure_future(
                tools.session.call_tool("rlm_ask", {"question": "?", "context": "a", "strategy": "rlm"})
            ),
        ]
        await model.until(lambda: model.held == 3)
        (server,) = [one for one in descendants(os.getpid()) if one.command.endswith("main mcp")]
        os.kill(server.pid, signal.SIGKILL)
        await model.until(lambda: model.held == 0)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    assert model.aborted == 3


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("llm_subquery", {"prompt": "hello"}),
        ("execute_code", {"code": "llm_query('x')"}),
        ("rlm_ask", {"question": "?", "context": "a", "strategy": "rlm"}),
    ],
)
async def test_a_cancelled_call_is_cancelled_upstream(
    model: FakeOllama, folders: Folders, daemon: Daemon, tool: str, arguments: dict[str, Any]
) -> None:
    model.answer = lambda _: Scripted("never", fault="hang")
    model.script("root", [Scripted("never", fault="hang")])
    async with tools_of(folders) as tools:
        await tools.call("load_context", name="a", content="text " * 20_000)
        call = asyncio.ensure_future(tools.session.call_tool(tool, arguments))
        await model.until(lambda: model.held == 1)
        call.cancel()
        await model.until(lambda: model.held == 0)
        await asyncio.gather(call, return_exceptions=True)
        assert "a: 100,000" in await tools.call("list_contexts")
    assert model.aborted == 1


async def test_two_clients_share_contexts_and_not_variables(
    model: FakeOllama, folders: Folders, daemon: Daemon
) -> None:
    async with tools_of(folders) as one, tools_of(folders) as other:
        await one.call("load_context", name="shared", content="seen by both")
        assert await other.call("peek_context", name="shared") == "seen by both"
        await one.call("execute_code", code="mine = 1", context="shared")
        assert "NameError" in await other.refused("execute_code", code="mine")


async def test_it_goes_on_when_the_daemon_was_started_anew(
    model: FakeOllama, folders: Folders, start_daemon: StartDaemon
) -> None:
    daemon = await start_daemon()
    async with tools_of(folders) as tools:
        await tools.call("llm_subquery", prompt="before")
        await daemon.kill()
        await start_daemon()
        with contextlib.suppress(AssertionError):  # the first may meet the lost connection
            await tools.call("llm_subquery", prompt="between")
        assert (await tools.call("llm_subquery", prompt="after")).startswith("digest ")
        assert await tools.call("execute_code", code="1 + 1") == "2"


# ── what goes wrong is said ─────────────────────────────────────────────────────────────────────────────────────


async def test_wrong_calls_are_results_that_say_what_to_do(model: FakeOllama, folders: Folders, daemon: Daemon) -> None:
    async with tools_of(folders) as tools:
        assert "list_contexts" in await tools.refused("peek_context", name="nowhere")
        assert "content or path" in await tools.refused("load_context", name="a")
        assert "nam is not known" in await tools.refused("peek_context", nam="a")
        assert "m40 (ollama)" in await tools.refused("llm_subquery", prompt="x", provider="deepseek")
        assert "end (3)" in await tools.refused("peek_context", name="a", start=5, end=3)
        assert "ZeroDivisionError" in await tools.refused("execute_code", code="1 / 0")
        assert "no run" in await tools.refused("rlm_result", id="12f40eb0-025f-4f22-a77d-521c1e13a7c7")


async def test_a_hung_cell_is_a_clean_error(folders: Folders, start_daemon: StartDaemon) -> None:
    folders.write_config("[repl]\ncell_seconds = 0.5\n")
    await start_daemon()
    async with tools_of(folders) as tools:
        assert "CellTimeout" in await tools.refused("execute_code", code="while True: pass")
        assert await tools.call("execute_code", code="1") == "1"


async def test_results_are_bounded(folders: Folders, daemon: Daemon) -> None:
    async with tools_of(folders) as tools:
        await tools.call("load_context", name="big", content="wörter " * 100_000)
        whole = await tools.call("peek_context", name="big", start=0, end=700_000)
        assert len(whole) < 33_000
        assert "start=32000" in whole
        assert len(await tools.call("search_context", name="big", query="wörter", mode="regex", limit=50)) < 33_000
        assert len(await tools.call("execute_code", code="print('x' * 10**6)")) < 33_000


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_files_beneath_the_clients_roots_are_loaded(folders: Folders, daemon: Daemon) -> None:
    project = folders.root / "project"
    (project / "sub").mkdir(parents=True)
    (project / "sub" / "notes.txt").write_text("a note")
    async with tools_of(folders, roots=(project,)) as tools:
        assert "created" in await tools.call("load_context", name="notes", path="sub/notes.txt")
        assert await tools.call("peek_context", name="notes") == "a note"
        assert str(project / "sub" / "notes.txt") in await tools.call("context_info", name="notes")
        assert "unchanged" in await tools.call("load_context", name="notes", path=str(project / "sub" / "notes.txt"))


async def test_no_other_file_is(folders: Folders, daemon: Daemon) -> None:
    project, secret = folders.root / "project", folders.root / "secret.txt"
    (project / "real").mkdir(parents=True)
    secret.write_text("outside")
    (project / "link.txt").symlink_to(secret)
    (project / "linked").symlink_to(folders.root)
    os.mkfifo(project / "pipe")
    async with tools_of(folders, roots=(project,)) as tools:
        for path in (str(secret), "../secret.txt", "/etc/passwd", "real/../../secret.txt", str(folders.root), ".."):
            assert "beneath a root" in await tools.refused("load_context", name="s", path=path), path
        for path in ("link.txt", "linked/secret.txt"):
            assert "symbolic link" in await tools.refused("load_context", name="s", path=path)
        assert "no regular file" in await tools.refused("load_context", name="s", path="pipe")
        assert "symbolic link" in await tools.refused("load_context", name="s", path="linked")
        assert "no file" in await tools.refused("load_context", name="s", path="missing.txt")
        assert await tools.call("list_contexts") == "There are no contexts yet. load_context makes one."


SOURCE_TREE = {
    "README": "a program", "src/main.c": "int main(void) { return 42; }", "src/notes.txt": "a note",
    "build/main.o.txt": "left out", ".gitignore": "build/\n", "node_modules/x/index.js": "theirs",
}  # fmt: skip


def tree(root: Path, files: dict[str, str] = SOURCE_TREE) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


async def test_a_folder_beneath_the_roots_is_loaded(model: FakeOllama, folders: Folders, daemon: Daemon) -> None:
    """As rlmctl does: by .gitignore and without what others wrote; its size is told first."""
    project = tree(folders.root / "project")
    steps: list[str] = []

    async def progress(_: float, __: float | None, message: str | None) -> None:
        steps.append(message or "")

    async with tools_of(folders, roots=(project,)) as tools:
        told = await tools.call("load_context", name="tree", path=".", dry_run=True)
        assert "Nothing was loaded" in told
        assert "4 documents" in told
        assert await tools.call("list_contexts") == "There are no contexts yet. load_context makes one."
        told = await tools.call("load_context", name="tree", path=str(project), progress=progress)
        assert "4 documents" in told
        assert "1 file skipped, ignored: build" in told
        assert steps == ["reading 4 documents, 51 B"]
        assert "return 42" in await tools.call("peek_context", name="tree", document="src/main.c")
        assert "1 document," in await tools.call("load_context", name="c", path="src", include=["*.c"])
        assert "of folders" in await tools.refused("load_context", name="r", path="README", exclude=["x"])
        found = await tools.call("rlm_ask", question="return 42", path="src", strategy="quote")
        assert "main.c" in found
        assert "context, or a path" in await tools.refused("rlm_ask", question="?", path="src", context="tree")
        assert "context, or a path" in await tools.refused("rlm_ask", question="?")
        (project / "src" / "main.c").write_text("int main(void) { return 43; }")
        again = await tools.call("rlm_ask", question="return 43", context="tree", strategy="quote")
        assert "43" in again, "the folder is looked through again before a question"


async def test_a_folder_of_the_roots_has_nothing_private_and_no_way_out(
    folders: Folders, start_daemon: StartDaemon
) -> None:
    """Neither by rule, nor by a context that is private, nor rlmd's own; and no link leads out, now or at a later
    question."""
    home = tree(folders.home, {f"project/{name}": text for name, text in SOURCE_TREE.items()})
    project = tree(home / "project", {"mail/a.txt": CANARY, "soup.txt": CANARY})
    outside = tree(folders.root / "outside", {"a.txt": CANARY})
    (project / "link.txt").symlink_to(outside / "a.txt")
    (project / "linked").symlink_to(outside)
    folders.write_config(f'[privacy]\nprivate = ["{project}/mail/"]\n')
    daemon = await start_daemon()
    said = []
    async with daemon.connect() as person, tools_of(folders, roots=(home, folders.config)) as tools:
        source = {"kind": "path", "paths": [str(project / "soup.txt")]}
        await person.call("context/load", {"name": "soup", "source": source, "private": True})
        said.append(await tools.call("load_context", name="tree", path="project"))
        private = ("project/mail", "project/soup.txt", str(folders.config / "rlmd"))
        said += [await tools.refused("load_context", name="private", path=path) for path in private]
        said.append(await tools.call("context_info", name="tree"))
        said.append(await tools.call("search_context", name="tree", query="CANARY", mode="regex"))
        (project / "src").rename(folders.root / "src")
        (project / "src").symlink_to(outside)
        said.append(await tools.refused("rlm_ask", question="recipe of the soup", context="tree", strategy="quote"))
        said.append(await tools.call("context_info", name="tree"))
        (kept,) = [one for one in (await person.call("context/list"))["contexts"] if not one["private"]]
    assert kept["name"] == "egress/tree"
    assert "main.c" in said[4]
    assert "main.c" not in said[-1], "what is no more there is gone at the next question"
    assert "CANARY" not in json.dumps(said)
    assert "mail" not in json.dumps(said[0])


async def test_a_folder_load_that_is_cancelled_is_given_up(folders: Folders, start_daemon: StartDaemon) -> None:
    """In the midst of a converter that never ends."""
    folders.write_config('[converters.slow]\nsuffixes = [".slow"]\ncommand = ["sleep", "1000"]\n')
    daemon = await start_daemon()
    project = tree(folders.root / "project", {"a.slow": "text"})

    async def until(going: bool) -> None:
        async with asyncio.timeout(PATIENCE):
            while going != any("sleep 1000" in one.command for one in descendants(daemon.pid)):
                await asyncio.sleep(0.05)

    async with tools_of(folders, roots=(project,)) as tools:
        call = asyncio.ensure_future(tools.session.call_tool("load_context", {"name": "slow", "path": "."}))
        await until(True)
        call.cancel()
        await until(False)
        await asyncio.gather(call, return_exceptions=True)
        assert await tools.call("list_contexts") == "There are no contexts yet. load_context makes one."


async def test_without_roots_it_is_the_option_or_the_working_folder(folders: Folders, daemon: Daemon) -> None:
    project = folders.root / "project"
    project.mkdir()
    (project / "a.txt").write_text("text")
    (folders.home / "mine.txt").write_text("text")
    async with tools_of(folders, "--root", str(project)) as tools:
        assert "created" in await tools.call("load_context", name="a", path="a.txt")
        assert "beneath a root" in await tools.refused("load_context", name="h", path=str(folders.home / "mine.txt"))
    async with tools_of(folders, "--root", str(project), roots=()) as tools:  # it could name some, and names none
        assert "unchanged" in await tools.call("load_context", name="a", path="a.txt")
    async with tools_of(folders, roots=()) as tools:
        assert "no roots" in await tools.refused("load_context", name="a", path=str(project / "a.txt"))
    async with tools_of(folders) as tools:  # it was started in the home folder, which is no project
        assert "no roots" in await tools.refused("load_context", name="h", path="mine.txt")


async def test_a_file_of_a_gigabyte_is_refused_unread(folders: Folders, daemon: Daemon) -> None:
    project = folders.root / "project"
    project.mkdir()
    with (project / "big.log").open("wb") as file:
        file.truncate(1 << 30)
    async with tools_of(folders, roots=(project,)) as tools:
        assert "1,073,741,824 bytes" in await tools.refused("load_context", name="big", path="big.log")
    assert list(folders.spool.iterdir()) == []


# ── what is private ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_private_does_not_exist(model: FakeOllama, folders: Folders, client: Client) -> None:
    source = {"kind": "inline", "text": CANARY}
    await client.call("context/load", {"name": "soup", "source": source, "private": True})
    await load_text(client, "open", "nothing special")
    private = {"run_id": "12f40eb0-025f-4f22-a77d-521c1e13a7c7", "question": "soup?", "contexts": ["soup"]}
    await client.call("run/ask", {**private, "strategy": "quote"})
    said = []
    async with tools_of(folders) as tools:
        said.append(await tools.call("list_contexts"))
        for name, arguments in (
            ("peek_context", {"name": "soup"}),
            ("context_info", {"name": "soup"}),
            ("search_context", {"name": "soup", "query": "recipe"}),
            ("execute_code", {"code": "print(context)", "context": "soup"}),
            ("rlm_ask", {"question": "what soup?", "context": "soup"}),
            ("rlm_result", {"id": private["run_id"]}),
        ):
            said.append(await tools.refused(name, **arguments))
        said.append(await tools.call("search_context", name="open", query="recipe of the private soup"))
    assert "open" in said[0]
    assert "soup:" not in said[0]
    assert "CANARY" not in json.dumps(said)


async def test_a_file_that_is_private_by_its_path_is_not_loaded(folders: Folders, start_daemon: StartDaemon) -> None:
    project = folders.root / "project"
    (project / "mail").mkdir(parents=True)
    (project / "mail" / "a.txt").write_text(CANARY)
    folders.write_config(f'[privacy]\nprivate = ["{project}/mail/"]\n')
    await start_daemon()
    async with tools_of(folders, roots=(project,)) as tools:
        assert "CANARY" not in await tools.refused("load_context", name="mail", path="mail/a.txt")
        assert "mail" not in await tools.call("list_contexts")
